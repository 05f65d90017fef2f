//! `poste notify register`: has a device registered, and waits until the servers have answered.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use poste_client::notify::register::{MAX_SERVERS, RegistrationAnswer};
use poste_client::notify::{Channel, Device, Profile, Receiver, ReceiverError, ReceiverEvent, Standing};
use poste_codec::PublicKey;
use poste_wire::status::{InstallationId, chat_key};
use tokio::time::{Instant, timeout_at};

use super::events::{Events, Line};
use super::silence::Silent;
use super::{KeyText, keys};

/// More than the longest token has.
const MAX_TOKEN_FILE_BYTES: u64 = 64 << 10;

/// The command.
pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let key =
        |name: &'static str| text(name, "KEY").action(ArgAction::Append).value_parser(value_parser!(KeyText));
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("register")
        .about(
            "Has a device notified through up to 3 push servers; exit code 0 when all of them confirmed. After 1 \
             those that confirmed (see the output) serve it all the same; the next run asks all again",
        )
        .args(super::common_args())
        .args([
            key("server").help("a server's public key, 66 hex digits; up to 3 times"),
            text("servers", "FILE")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("server")
                .help("a list of servers' keys, one a line, of which 3 are picked at random and then kept"),
            text("token", "TEXT").help("the device's token; others on this machine can see it, unlike with --token-file"),
            text("token-file", "FILE")
                .value_parser(value_parser!(PathBuf))
                .help("the file that has the device's token; - for the standard input"),
            text("apn-topic", "ID").help("the app's bundle id; the token is one of Apple's service"),
            flag("firebase").help("the token is one of Firebase"),
            text("installation", "UUID")
                .value_parser(InstallationId::uuid)
                .help("the device's name [default: that of the state directory, or a random one]"),
            flag("contacts-only").help("let nobody notify but the contacts"),
            key("contact").help("a contact's public key; may be given several times"),
            key("block").help("a contact from whom nothing is wanted; may be given several times"),
            text("mute", "CHAT")
                .action(ArgAction::Append)
                .help("a chat whose messages notify nobody: its id, of a one-to-one chat the other's chat key"),
            text("join", "CHAT")
                .action(ArgAction::Append)
                .help("a public or community chat, in which mentions notify unless it is muted"),
            flag("block-mentions").help("let mentions notify nobody"),
            super::anonymous_arg(),
            super::timeout_arg("1m").help("how long to wait for the servers; the second attempt is after 30 s"),
        ])
        .group(ArgGroup::new("device").args(["token", "token-file"]).required(true))
        .group(ArgGroup::new("type").args(["apn-topic", "firebase"]).required(true))
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let profile = profile(matches, token(matches)?);
    profile.check()?;
    let list = match matches.get_one::<PathBuf>("servers") {
        Some(path) => read_list(path)?,
        None => Vec::new(),
    };
    let servers = keys(matches, "server");
    anyhow::ensure!(
        servers.len() <= MAX_SERVERS,
        "a device is registered with at most {MAX_SERVERS} servers"
    );
    let (identity, directory) = super::receiver(matches)?;
    let chat_key = chat_key(&identity.public());
    let events = Events::new(matches.get_flag("json"));
    let channel = super::channel(matches).await?;
    let installation = matches.get_one::<InstallationId>("installation").cloned();
    let mut receiver = Receiver::open(channel, identity, &directory, installation, None).await?;
    receiver.register(profile, &servers, &list).await.map_err(|error| match error {
        ReceiverError::Servers(0) => anyhow!(
            "no push server is named, and none is kept in {}: name 1 to {MAX_SERVERS} by --server KEY, or a list of \
             their keys by --servers FILE",
            directory.display()
        ),
        error => error.into(),
    })?;
    let installation = receiver.state().installation().to_string();
    let text = format!("installation {installation} of {chat_key}");
    let (chat_key, installation) = (Some(chat_key), Some(installation));
    events.say(&Line { event: "registering", chat_key, installation, ..Line::default() }, &text)?;

    let deadline = super::deadline(matches);
    let silent = Box::pin(wait(&mut receiver, &events, deadline)).await?;
    let code = summary(&receiver, &events)?;
    silent.explain()?;
    Ok(code)
}

/// Until every server has answered for good and contacts are told of those that confirmed, or the time is over. Gives
/// those that have not answered.
async fn wait(
    receiver: &mut Receiver<Channel>,
    events: &Events,
    deadline: Instant,
) -> anyhow::Result<Silent> {
    let mut silent = Silent::default();
    let mut refused_for_good = BTreeSet::new();
    let mut to_tell = false;
    while to_tell || !is_over(receiver, &refused_for_good) {
        let Ok(event) = timeout_at(deadline, receiver.step()).await else { break };
        let event = event?;
        events.happened(&event)?;
        silent.happened(&event);
        match event {
            ReceiverEvent::Answered(RegistrationAnswer::Registered { .. }) => to_tell = true,
            ReceiverEvent::Answered(RegistrationAnswer::Refused { server, error }) if error.is_final() => {
                refused_for_good.insert(server);
            }
            ReceiverEvent::Advertised { .. } => to_tell = false,
            _ => {}
        }
    }
    Ok(silent)
}

/// Whether no server's answer is worth waiting for.
fn is_over(receiver: &Receiver<Channel>, refused_for_good: &BTreeSet<PublicKey>) -> bool {
    receiver.state().servers().all(|(server, standing)| {
        matches!(standing, Standing::Registered { .. }) || refused_for_good.contains(&server)
    })
}

fn summary(receiver: &Receiver<Channel>, events: &Events) -> anyhow::Result<ExitCode> {
    let (mut asked, mut confirmed) = (0, 0);
    for (_, standing) in receiver.state().servers().filter(|(_, standing)| *standing != Standing::Leaving) {
        asked += 1;
        confirmed += usize::from(matches!(standing, Standing::Registered { .. }));
    }
    let line = Line { event: "summary", confirmed: Some(confirmed), asked: Some(asked), ..Line::default() };
    events.say(&line, &format!("{confirmed} of {asked} servers confirmed"))?;
    Ok(if confirmed == asked { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The device's token, without what surrounds it in a file.
fn token(matches: &ArgMatches) -> anyhow::Result<String> {
    if let Some(token) = matches.get_one::<String>("token") {
        return Ok(token.clone());
    }
    let path: &PathBuf = matches.get_one("token-file").expect("clap requires one of them");
    let mut text = String::new();
    let mut read = |from: &mut dyn Read| from.take(MAX_TOKEN_FILE_BYTES).read_to_string(&mut text);
    let read = if path.as_os_str() == "-" {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    read.with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

fn profile(matches: &ArgMatches, token: String) -> Profile {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let texts = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
    Profile {
        device: match text("apn-topic") {
            Some(topic) => Device::Apn { token, topic },
            None => Device::Firebase { token },
        },
        contacts_only: matches.get_flag("contacts-only"),
        contacts: keys(matches, "contact").into_iter().collect(),
        blocked: keys(matches, "block").into_iter().collect(),
        muted: texts("mute"),
        joined: texts("join"),
        block_mentions: matches.get_flag("block-mentions"),
    }
}

/// A key a line; empty lines, and what follows a `#`, say nothing.
fn read_list(path: &Path) -> anyhow::Result<Vec<PublicKey>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines =
        (1..).zip(text.lines()).map(|(number, line)| (number, line.split('#').next().unwrap_or("").trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty()).map(|(number, line)| {
        let KeyText(key) = line.parse().with_context(|| format!("{}: line {number}", path.display()))?;
        Ok(key)
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENODE: &str = "enode://79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8@127.0.0.1:30303";
    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn parse(arguments: &[&str]) -> Result<ArgMatches, String> {
        let all = ["register", "--enode", ENODE, "--key", "k"].iter().chain(arguments);
        command().try_get_matches_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_make_the_profile() {
        let arguments =
            ["--token", "t", "--apn-topic", "app", "--contacts-only", "--contact", KEY, "--block", KEY];
        let more = ["--mute", "a", "--mute", "b", "--join", "c", "--block-mentions"];
        let matches = parse(&[&arguments[..], &more].concat()).unwrap();
        let profile = profile(&matches, token(&matches).unwrap());
        assert_eq!(profile.device, Device::Apn { token: "t".into(), topic: "app".into() });
        assert!(profile.contacts_only && profile.block_mentions);
        let counts =
            (profile.contacts.len(), profile.blocked.len(), profile.muted.len(), profile.joined.len());
        assert_eq!(counts, (1, 1, 2, 1));
        let plain = parse(&["--token", "t", "--firebase"]).unwrap();
        assert_eq!(
            super::profile(&plain, token(&plain).unwrap()),
            Profile::open_to_all(Device::Firebase { token: "t".into() })
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for arguments in [
            &["--token", "t"][..],
            &["--firebase"],
            &["--firebase", "--token", "t", "--token-file", "file"],
            &["--token", "t", "--firebase", "--apn-topic", "app"],
            &["--token", "t", "--firebase", "--server", "02"],
            &["--token", "t", "--firebase", "--server", KEY, "--servers", "file"],
            &["--token", "t", "--firebase", "--installation", "phone"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_token_may_come_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "the token\n").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(token(&parse(&["--firebase", "--token-file", path]).unwrap()).unwrap(), "the token");
        file.close().unwrap();
        let gone = tempfile::tempdir().unwrap().path().join("token");
        let matches = parse(&["--firebase", "--token-file", gone.to_str().unwrap()]).unwrap();
        assert!(token(&matches).unwrap_err().to_string().contains("token"));
    }

    #[test]
    fn a_list_of_servers_has_a_key_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, format!("# ours\n{KEY} # the first\n\n0x{KEY}\n")).unwrap();
        assert_eq!(read_list(file.path()).unwrap().len(), 2);
        std::fs::write(&file, format!("{KEY}\nkey\n")).unwrap();
        let error = format!("{:#}", read_list(file.path()).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
