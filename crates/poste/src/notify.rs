//! `poste notify register|unregister|advertise|query|send`: what a client of push notification servers does, through any
//! node.

mod advertise;
#[cfg(test)]
mod anonymity;
mod events;
mod query;
mod register;
mod report;
mod send;
mod silence;
mod unregister;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_client::notify::{Channel, ChannelOptions, StateFile};
use poste_codec::{PublicKey, SecretKey};
use poste_gateway::node_key::{self, NodeKeyError};
use tokio::time::Instant;

use crate::mail;

/// The file of the key that is for anonymous registrations.
const ANONYMOUS_KEY: &str = "identity.key";
/// No command runs for as long as that.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `poste notify`.
pub fn command() -> Command {
    Command::new("notify")
        .about("Registers a device with push servers, tells contacts, has contacts notified")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            register::command(),
            unregister::command(),
            advertise::command(),
            query::command(),
            send::command(),
        ])
}

/// Runs it.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    mail::log_warnings("notify")?;
    match matches.subcommand() {
        Some(("register", matches)) => Box::pin(register::run(matches)).await,
        Some(("unregister", matches)) => Box::pin(unregister::run(matches)).await,
        Some(("advertise", matches)) => Box::pin(advertise::run(matches)).await,
        Some(("query", matches)) => Box::pin(query::run(matches)).await,
        Some(("send", matches)) => Box::pin(send::run(matches)).await,
        _ => unreachable!("clap requires one of the commands above"),
    }
}

/// What all of them take: where the network is, whose key it is, where state is kept, and `--json`.
fn common_args() -> [Arg; 5] {
    [
        mail::enode_arg("enode"),
        mail::password_arg(),
        Arg::new("key")
            .long("key")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("the identity: a file of 64 hex digits, as `poste key new --file FILE` makes it"),
        Arg::new("state")
            .long("state")
            .value_name("DIR")
            .default_value("./poste-notify")
            .value_parser(value_parser!(PathBuf))
            .help("what must not be forgotten, for this key and device; made when it does not exist"),
        mail::json_arg(),
    ]
}

/// `--anonymous`, for what a receiver does.
fn anonymous_arg() -> Arg {
    Arg::new("anonymous")
        .long("anonymous")
        .action(ArgAction::SetTrue)
        .help("use a key of its own in place of --key, made in the state directory; you tell approved contacts its public part, \
             nobody else learns whose it is")
}

fn timeout_arg(default: &'static str) -> Arg {
    mail::duration_arg("timeout", default)
}

/// The time that `--timeout` gives from now.
fn deadline(matches: &ArgMatches) -> Instant {
    // Later than any clock can tell is as good as never.
    let timeout = mail::duration(matches, "timeout").min(NEVER);
    Instant::now() + timeout
}

/// Connects to the network.
async fn channel(matches: &ArgMatches) -> anyhow::Result<Channel> {
    let enode = mail::enode(matches);
    let password: &String = matches.get_one("password").expect("it has a default");
    let options = ChannelOptions { mail_password: password.clone(), ..ChannelOptions::new(enode.clone()) };
    Box::pin(Channel::connect(options)).await.with_context(|| match &enode.endpoint {
        Some(endpoint) => format!("connecting to {}:{}", endpoint.host, endpoint.tcp_port),
        None => "connecting".to_owned(),
    })
}

/// `--state`.
fn state_directory(matches: &ArgMatches) -> &Path {
    matches.get_one::<PathBuf>("state").expect("it has a default")
}

/// The key of `--key`.
fn identity(matches: &ArgMatches) -> anyhow::Result<SecretKey> {
    let path: &PathBuf = matches.get_one("key").context("name the identity by --key FILE")?;
    Ok(node_key::read(path)?)
}

/// Who registers, and where its state is: the identity, or the anonymous key, which has a directory of its own.
fn receiver(matches: &ArgMatches) -> anyhow::Result<(SecretKey, PathBuf)> {
    let directory = state_directory(matches);
    if !matches.get_flag("anonymous") {
        return Ok((identity(matches)?, directory.to_owned()));
    }
    let directory = directory.join("anonymous");
    let path = directory.join(ANONYMOUS_KEY);
    let key = match node_key::create(&path) {
        Err(NodeKeyError::Exists(_)) => node_key::read(&path)?,
        made => made?,
    };
    Ok((key, directory))
}

/// Like [`receiver`], of somebody who has registered before. Nothing is made.
fn known_receiver(matches: &ArgMatches) -> anyhow::Result<(SecretKey, PathBuf)> {
    let is_anonymous = matches.get_flag("anonymous");
    let directory = state_directory(matches);
    let directory = if is_anonymous { directory.join("anonymous") } else { directory.to_owned() };
    let state = directory.join(StateFile::NAME);
    if !state.try_exists().with_context(|| state.display().to_string())? {
        bail!(
            "{}: no registration is kept here; name the directory of `poste notify register` by --state, or, where that \
             is lost, register once more with the same --installation and --server",
            directory.display()
        );
    }
    let key = if is_anonymous { node_key::read(&directory.join(ANONYMOUS_KEY))? } else { identity(matches)? };
    Ok((key, directory))
}

/// A public key as people write it: 66 hex digits, or the 130 of a chat key; `0x` in front or not.
#[derive(Clone, Debug)]
struct KeyText(PublicKey);

impl FromStr for KeyText {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        const FORM: &str = "a public key has 66 hex digits, or 130 that begin with 04";
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).context(FORM)?;
        let key = match bytes.len() {
            33 => PublicKey::from_compressed(bytes[..].try_into().context(FORM)?),
            65 => PublicKey::from_bytes(&bytes),
            _ => bail!(FORM),
        };
        Ok(Self(key.context(FORM)?))
    }
}

/// All keys that were given by this name.
fn keys(matches: &ArgMatches, name: &str) -> Vec<PublicKey> {
    matches.get_many::<KeyText>(name).into_iter().flatten().map(|KeyText(key)| *key).collect()
}

/// How a server is named: its compressed key.
fn server_name(server: &PublicKey) -> String {
    hex::encode(server.to_compressed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_in_every_form_that_people_have() {
        let key = SecretKey::from_bytes(&[1; 32]).unwrap().public();
        let [short, long] = [server_name(&key), hex::encode(key.to_sec1())];
        for text in [&short, &long, &format!("0x{short}"), &format!("0x{long}")] {
            assert_eq!(text.parse::<KeyText>().unwrap().0, key);
        }
        for text in ["", "0x", "02", &short[2..], &long[2..], &short.replacen('0', "1", 1), "zz"] {
            let error = text.parse::<KeyText>().unwrap_err().to_string();
            assert!(error.contains("66 hex digits"), "{text}: {error}");
        }
    }

    fn parse(state: &std::path::Path, more: &[&str]) -> ArgMatches {
        let command = Command::new("test")
            .args(common_args())
            .arg(anonymous_arg())
            .mut_arg("enode", |arg| arg.required(false).value_parser(value_parser!(String)));
        let arguments = ["test", "--enode", "enode://x", "--state", state.to_str().unwrap()];
        command.try_get_matches_from(arguments.iter().chain(more)).unwrap()
    }

    #[tokio::test]
    async fn no_timeout_is_too_long() {
        let arguments = ["test", "--timeout", "200000000000d"];
        let matches = Command::new("test").arg(timeout_arg("1m")).try_get_matches_from(arguments).unwrap();
        assert!(deadline(&matches) > Instant::now() + NEVER / 2);
    }

    #[test]
    fn an_anonymous_key_is_made_once_and_has_its_own_state() {
        let dir = tempfile::tempdir().unwrap();
        let matches = parse(dir.path(), &["--anonymous"]);
        let (first, directory) = receiver(&matches).unwrap();
        let (second, _) = receiver(&matches).unwrap();
        assert_eq!(first.public(), second.public());
        assert_eq!(directory, dir.path().join("anonymous"));
        std::fs::write(directory.join(StateFile::NAME), "").unwrap();
        let (known, directory_again) = known_receiver(&matches).unwrap();
        assert_eq!((known.public(), directory_again), (first.public(), directory));
    }

    #[test]
    fn where_nothing_is_registered_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        for more in [&["--anonymous"][..], &["--key", "key"]] {
            let error = known_receiver(&parse(dir.path(), more)).unwrap_err().to_string();
            assert!(error.contains("no registration is kept here"), "{error}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
