//! `poste notify query`: finds out through which servers contacts can be notified.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_client::notify::contact::Shown;
use poste_client::notify::known::{KnownFile, KnownInfo};
use poste_client::notify::{Channel, Queried, Sender};
use poste_codec::PublicKey;
use poste_service::config::HumanDuration;
use poste_wire::status::chat_key;
use serde::Serialize;

use super::{KeyText, keys, report, server_name, silence};
use crate::mail;

/// The command.
pub(super) fn command() -> Command {
    Command::new("query")
        .about(
            "Finds out how contacts can be notified, from what they have advertised and by asking push servers; exit \
             code 0 when a server confirms a device of every contact, 4 when no server does for one of whom devices are \
             known, 1 when one has no known device",
        )
        .args(super::common_args())
        .args([
            Arg::new("contact")
                .long("contact")
                .value_name("KEY")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(KeyText))
                .help("a contact's public key, 66 or 130 hex digits; may be given several times"),
            history_arg(),
        ])
}

/// `--history`, for a sender.
pub(super) fn history_arg() -> Arg {
    mail::duration_arg("history", "30d")
        .help("look for advertisements in history of this length before servers are asked (0s: do not)")
}

/// The exit code where devices are known, and no server has said anything of them.
const UNCONFIRMED: u8 = 4;

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut sender = sender(matches).await?;
    let (mut all_known, mut all_confirmed) = (true, true);
    for contact in keys(matches, "contact") {
        let found = discover(&mut sender, &contact, matches).await?;
        let queried = Box::pin(sender.query(&contact)).await?;
        let known = sender.known().infos(&contact);
        let answer = Answer::new(&contact, found, &queried, &known);
        all_known &= !answer.devices.is_empty();
        all_confirmed &= answer.is_confirmed();
        report::print(matches.get_flag("json"), &answer, || answer.text())?;
        if !answer.is_confirmed() {
            silence::explain(answer.silent_servers())?;
        }
    }
    Ok(match (all_known, all_confirmed) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(UNCONFIRMED),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// A sender with the key of `--key`, and what is in the directory of `--state`.
pub(super) async fn sender(matches: &ArgMatches) -> anyhow::Result<Sender<Channel>> {
    let own = super::identity(matches)?;
    let file = KnownFile::new(super::state_directory(matches), own.public());
    Ok(Sender::open(super::channel(matches).await?, own, file).await?)
}

/// What stored history has brought.
#[derive(Debug, Default, Serialize)]
pub(super) struct History {
    advertisements: usize,
    /// Why that may not be all.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<String>,
}

/// Looks for the contact's advertisements as far back as `--history` says. That a node keeps no history is no failure.
pub(super) async fn discover(
    sender: &mut Sender<Channel>,
    contact: &PublicKey,
    matches: &ArgMatches,
) -> anyhow::Result<History> {
    let HumanDuration(back) = *matches.get_one("history").expect("it has a default");
    if back.is_zero() {
        return Ok(History::default());
    }
    let back = u32::try_from(back.as_secs()).unwrap_or(u32::MAX);
    let since = mail::unix_now().saturating_sub(back);
    Ok(match Box::pin(sender.discover(contact, since)).await {
        Ok(found) => History { advertisements: found.advertisements, incomplete: found.incomplete },
        Err(error) => {
            let error = crate::explain(&error.into());
            History { advertisements: 0, incomplete: Some(error) }
        }
    })
}

/// What was found out about a contact. No token is in it.
#[derive(Debug, Serialize)]
struct Answer {
    contact: String,
    history: History,
    answers: Vec<ServerAnswer>,
    devices: Vec<Device>,
}

/// What the signer of an answer says.
#[derive(Debug, Serialize)]
struct ServerAnswer {
    server: String,
    devices: usize,
    not_allowed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct Device {
    installation: String,
    servers: Vec<DeviceServer>,
}

#[derive(Debug, Serialize)]
struct DeviceServer {
    server: String,
    version: u64,
    /// Unix seconds.
    known_since: u64,
    /// What the server itself says now.
    server_says: Says,
    /// Whether the contact has named this server, and not only the server itself.
    advertised: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Says {
    /// It has the device.
    Confirmed,
    /// It has answered without the device.
    NotShown,
    /// It has not answered.
    Nothing,
}

impl Answer {
    fn new(contact: &PublicKey, history: History, queried: &Queried, known: &[KnownInfo]) -> Self {
        let answer = |(server, shown): &(PublicKey, Shown)| ServerAnswer {
            server: server_name(server),
            devices: shown.infos.len(),
            not_allowed: shown.not_allowed.len(),
            refused: shown.stopped.map(|error| error.to_string()),
        };
        let mut devices: Vec<Device> = Vec::new();
        for row in known {
            let installation = row.info.installation.to_string();
            let (version, known_since) = (row.info.version, row.since);
            let server = DeviceServer {
                server: server_name(&row.info.server),
                version,
                known_since,
                server_says: says(queried, row),
                advertised: row.is_advertised,
            };
            match devices.last_mut().filter(|device| device.installation == installation) {
                Some(device) => device.servers.push(server),
                None => devices.push(Device { installation, servers: vec![server] }),
            }
        }
        let answers = queried.answers.iter().map(answer).collect();
        Self { contact: chat_key(contact), history, answers, devices }
    }

    /// Whether a server says now that it can notify a device.
    fn is_confirmed(&self) -> bool {
        let mut servers = self.devices.iter().flat_map(|device| &device.servers);
        servers.any(|server| server.server_says == Says::Confirmed)
    }

    /// Those that are known to serve a device, and have not answered.
    fn silent_servers(&self) -> impl Iterator<Item = String> {
        let servers = self.devices.iter().flat_map(|device| &device.servers);
        servers.filter(|server| server.server_says == Says::Nothing).map(|server| server.server.clone())
    }

    fn text(&self) -> Vec<String> {
        let mut lines = vec![format!("contact {}", self.contact)];
        let count = |number, one| report::count(number, one);
        match &self.history.incomplete {
            None => lines.push(format!("  history: {}", count(self.history.advertisements, "advertisement"))),
            Some(why) => lines.push(format!(
                "  history: {}, but it may lack some: {why}",
                count(self.history.advertisements, "advertisement")
            )),
        }
        if self.answers.is_empty() {
            lines.push("  no server has answered".to_owned());
        }
        for answer in &self.answers {
            let mut line = format!("  {} answers: {}", answer.server, count(answer.devices, "device"));
            if answer.not_allowed > 0 {
                line += &format!(", {} that we may not notify", answer.not_allowed);
            }
            if let Some(why) = &answer.refused {
                line += &format!(", then something not to be believed: {why}");
            }
            lines.push(line);
        }
        if self.devices.is_empty() {
            lines.push("  no device is known that we may notify".to_owned());
        }
        for device in &self.devices {
            lines.push(format!("  device {}", device.installation));
            for DeviceServer { server, version, server_says, advertised, .. } in &device.servers {
                let source = if *advertised { "as the contact has advertised" } else { "as it said before" };
                lines.push(match server_says {
                    Says::Confirmed => format!("    by {server}, version {version}"),
                    Says::NotShown => {
                        format!("    by {server}, version {version}, {source}: its answer does not show the device")
                    }
                    Says::Nothing => {
                        format!("    by {server}, version {version}, {source}: it has not answered")
                    }
                });
            }
        }
        if !self.devices.is_empty() && !self.is_confirmed() {
            lines.push("  no server confirms that it can notify any of them".to_owned());
        }
        lines
    }
}

/// What the server of a row has answered about its device.
fn says(queried: &Queried, row: &KnownInfo) -> Says {
    match queried.answers.iter().find(|(server, _)| *server == row.info.server) {
        None => Says::Nothing,
        Some((_, shown)) if shown.infos.iter().any(|info| info.installation == row.info.installation) => {
            Says::Confirmed
        }
        Some(_) => Says::NotShown,
    }
}

#[cfg(test)]
mod tests {
    use poste_client::notify::contact::{InfoError, PushInfo};
    use poste_codec::SecretKey;
    use poste_wire::status::{AccessToken, InstallationId};

    use super::*;

    fn key(byte: u8) -> PublicKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap().public()
    }

    fn row(device: u8, server: u8) -> KnownInfo {
        let token = AccessToken::from_random([5; 16]);
        let installation = InstallationId::from_random([device; 16]);
        let info = PushInfo { installation, server: key(server), token, version: 7 };
        KnownInfo { info, since: 100, as_of: 7, is_advertised: true }
    }

    #[test]
    fn the_answer_names_devices_and_servers_but_no_token() {
        let known = [row(1, 10), row(1, 11), row(2, 10)];
        let not_allowed = vec![InstallationId::from_random([3; 16]), InstallationId::from_random([4; 16])];
        let shown = Shown { not_allowed, stopped: Some(InfoError::Owner), ..Shown::default() };
        let queried = Queried { answers: vec![(key(10), shown)] };
        let answer = Answer::new(&key(1), History::default(), &queried, &known);
        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!(json["contact"], chat_key(&key(1)));
        assert_eq!(json["devices"].as_array().unwrap().len(), 2);
        assert_eq!(json["devices"][0]["servers"][1]["server"], server_name(&key(11)));
        assert_eq!(json["devices"][0]["servers"][1]["version"], 7);
        let says = [0, 1].map(|at| json["devices"][0]["servers"][at]["server_says"].clone());
        assert!(says.contains(&"not_shown".into()) && says.contains(&"nothing".into()), "{says:?}");
        assert_eq!(json["answers"][0]["not_allowed"], 2);
        assert_eq!(json["answers"][0]["refused"], "the device is not the contact's");
        let text = answer.text().join("\n");
        assert!(text.contains("2 that we may not notify") && text.contains("version 7"), "{text}");
        let token = AccessToken::from_random([5; 16]);
        assert!(!text.contains(token.as_str()) && !json.to_string().contains(token.as_str()));
    }

    #[test]
    fn what_no_server_says_is_not_taken_for_confirmed() {
        let known = [row(1, 10), KnownInfo { is_advertised: false, ..row(2, 10) }];
        let answer = |queried: &Queried| Answer::new(&key(1), History::default(), queried, &known);
        let silent = answer(&Queried::default());
        let text = silent.text().join("\n");
        assert!(!silent.is_confirmed());
        assert_eq!(
            silent.silent_servers().collect::<Vec<_>>(),
            [10, 10].map(|server| server_name(&key(server)))
        );
        for part in
            ["as the contact has advertised: it has not answered", "as it said before", "no server confirms"]
        {
            assert!(text.contains(part), "{text}");
        }
        let by = |server: u8, infos| (key(server), Shown { infos, ..Shown::default() });
        let elsewhere = Queried { answers: vec![by(11, vec![row(1, 11).info]), by(10, Vec::new())] };
        assert!(!answer(&elsewhere).is_confirmed());
        let confirmed = answer(&Queried { answers: vec![by(10, vec![known[0].info.clone()])] });
        assert!(confirmed.is_confirmed() && !confirmed.text().join("\n").contains("no server confirms"));
    }

    #[test]
    fn a_contact_of_whom_nothing_is_known_is_told_so() {
        let history = History { advertisements: 0, incomplete: Some("the node keeps none".into()) };
        let text = Answer::new(&key(1), history, &Queried::default(), &[]).text().join("\n");
        for part in ["the node keeps none", "no server has answered", "no device is known"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
