//! `poste notify send`: has a contact notified of a message.

use std::process::ExitCode;

use anyhow::bail;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_client::notify::SendReport;
use poste_client::notify::send::{
    DeviceReport, Devices, Failure, Notification, NotificationKind, SendEvent, SendSettings,
};
use poste_codec::PublicKey;
use poste_service::config::HumanDuration;
use poste_wire::status::{InstallationId, MessageId, chat_key};
use rand::Rng;
use serde::Serialize;

use super::query::{History, discover, history_arg, sender};
use super::{KeyText, keys, report, server_name, silence};
use crate::mail;

/// The command.
pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("send")
        .about(
            "Has a contact's devices notified of a message; exit code 0 when a push server reported success for at \
             least one device. Servers also report it for chats that the contact has muted",
        )
        .args(super::common_args())
        .args([
            text("to", "KEY")
                .required(true)
                .value_parser(value_parser!(KeyText))
                .help("the contact's public key, 66 or 130 hex digits"),
            text("type", "TYPE")
                .default_value(MESSAGE)
                .value_parser(PossibleValuesParser::new([MESSAGE, MENTION, REQUEST_TO_JOIN]))
                .help("what happened"),
            text("chat", "ID")
                .required_if_eq("type", MENTION)
                .help("the id of a group, public or community chat [default: the chat of you two]"),
            text("message-id", "HEX|random")
                .required(true)
                .value_parser(message_id)
                .help("the message, 64 hex digits; a device that was notified of it from this state directory is left alone"),
            text("device", "UUID")
                .action(ArgAction::Append)
                .value_parser(InstallationId::any)
                .help("only this device; may be given several times [default: all that are known]"),
            history_arg(),
            mail::duration_arg("timeout", "5m")
                .help("how long to wait for reports, new tokens and other servers, after the query"),
        ])
}

const MESSAGE: &str = "message";
const MENTION: &str = "mention";
const REQUEST_TO_JOIN: &str = "request-to-join";

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let notification = notification(matches)?;
    let contact = keys(matches, "to")[0];
    let mut sender = sender(matches).await?;
    let history = discover(&mut sender, &contact, matches).await?;
    let devices = match matches.get_many::<InstallationId>("device") {
        Some(devices) => Devices::These(devices.cloned().collect()),
        None => Devices::All,
    };
    let settings = SendSettings { devices, ..SendSettings::default() };
    let patience = mail::duration(matches, "timeout");
    let message = notification.message;
    let tell = |event| report::progress(&describe(&event));
    let sent = Box::pin(sender.notify_and_tell(&contact, notification, settings, patience, tell)).await?;
    let answer = Answer::new(&contact, &message, history, &sent);
    report::print(matches.get_flag("json"), &answer, || answer.text())?;
    if !sent.is_notified() {
        let failed = sent.devices.iter().flat_map(|device| &device.failed);
        let silent = failed.filter(|(_, why)| *why == Failure::NoAnswer);
        silence::explain(silent.map(|(server, _)| server_name(server)))?;
    }
    Ok(if sent.is_notified() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn notification(matches: &ArgMatches) -> anyhow::Result<Notification> {
    let chat = matches.get_one::<String>("chat").cloned();
    let kind = match (matches.get_one::<String>("type").expect("it has a default").as_str(), chat) {
        (MENTION, Some(chat)) => NotificationKind::Mention(chat),
        (REQUEST_TO_JOIN, None) => NotificationKind::RequestToJoin,
        (REQUEST_TO_JOIN, Some(_)) => bail!("a request to join names no chat: leave --chat out"),
        (_, Some(chat)) => NotificationKind::Group(chat),
        (_, None) => NotificationKind::OneToOne,
    };
    let message = *matches.get_one::<MessageId>("message-id").expect("clap requires it");
    Ok(Notification { kind, message })
}

fn message_id(text: &str) -> Result<MessageId, String> {
    if text == "random" {
        let mut bytes = [0; MessageId::LENGTH];
        rand::rng().fill_bytes(&mut bytes);
        return Ok(MessageId(bytes));
    }
    text.parse().map_err(|_| "write 64 hex digits, or `random`".to_owned())
}

/// What happens, in a line for people.
fn describe(event: &SendEvent) -> String {
    match event {
        SendEvent::Queried => "asking servers how the contact can be notified".to_owned(),
        SendEvent::Asked { server, installations, is_repeated } => {
            let devices = report::count(installations.len(), "device");
            let again = if *is_repeated { " once more" } else { "" };
            format!("asking {}{again} to notify {devices}", server_name(server))
        }
        SendEvent::Failed { server, installation, why, query_in } => {
            let next = match query_in {
                Some(pause) if pause.is_zero() => "; asking for the new one".to_owned(),
                Some(pause) => format!("; asking for the new one in {}", HumanDuration(*pause)),
                None => String::new(),
            };
            format!("device {installation}  {}  {}{next}", server_name(server), reason(*why))
        }
    }
}

/// What became of a notification.
#[derive(Debug, Serialize)]
struct Answer {
    contact: String,
    message_id: String,
    notified: usize,
    history: History,
    devices: Vec<Device>,
    /// What the network said when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    /// Why what was learned could not be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_kept: Option<String>,
}

#[derive(Debug, Serialize)]
struct Device {
    installation: String,
    /// The server that reported success.
    #[serde(skip_serializing_if = "Option::is_none")]
    notified_by: Option<String>,
    /// Whether that was in an earlier run, and nobody was asked now.
    earlier: bool,
    /// Why no server did.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Servers that were asked in vain, in their order.
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    server: String,
    reason: &'static str,
}

impl Answer {
    fn new(contact: &PublicKey, message: &MessageId, history: History, sent: &SendReport) -> Self {
        let devices: Vec<Device> = sent.devices.iter().map(Device::new).collect();
        Self {
            contact: chat_key(contact),
            message_id: message.to_string(),
            notified: devices.iter().filter(|device| device.notified_by.is_some()).count(),
            history,
            devices,
            trouble: sent.trouble.clone(),
            not_kept: sent.not_kept.clone(),
        }
    }

    fn text(&self) -> Vec<String> {
        let mut lines = vec![format!("message {}", self.message_id)];
        for device in &self.devices {
            for failed in &device.failed {
                lines.push(format!("device {}  {}  {}", device.installation, failed.server, failed.reason));
            }
            lines.push(match (&device.notified_by, device.reason) {
                (Some(server), _) => {
                    let when = if device.earlier { " earlier; nobody was asked now" } else { "" };
                    format!("device {}  {server}  notified{when}", device.installation)
                }
                (None, reason) => {
                    format!("device {}  not notified: {}", device.installation, reason.unwrap_or_default())
                }
            });
        }
        if let Some(why) = &self.trouble {
            lines.push(format!("the network failed meanwhile: {why}"));
        }
        if let Some(why) = &self.not_kept {
            lines.push(format!("what was learned could not be kept: {why}"));
        }
        lines.push(match self.devices.len() {
            0 => "no device is known that you may notify; see `poste notify query`".to_owned(),
            all => format!("{} of {} notified", self.notified, report::count(all, "device")),
        });
        lines
    }
}

impl Device {
    fn new(report: &DeviceReport) -> Self {
        let failed = |(server, why): &(PublicKey, Failure)| Failed {
            server: server_name(server),
            reason: reason(*why),
        };
        Self {
            installation: report.installation.to_string(),
            notified_by: report.outcome.ok().map(|server| server_name(&server)),
            earlier: report.is_earlier,
            reason: report.outcome.err().map(reason),
            failed: report.failed.iter().map(failed).collect(),
        }
    }
}

/// A failure in the words that programs look for.
fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::NoAnswer => "no answer",
        Failure::WrongToken => "wrong token",
        Failure::NotRegistered => "not registered",
        Failure::InternalError => "internal error",
        Failure::Unknown(_) => "unknown outcome",
        Failure::LeftOut => "left out of the answer",
        Failure::NoServer => "no server known",
        Failure::GivenUp => "given up",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use poste_codec::SecretKey;

    use super::*;

    const ENODE: &str = "enode://79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8@127.0.0.1:30303";
    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    fn parse(arguments: &[&str]) -> anyhow::Result<Notification> {
        let required = ["send", "--enode", ENODE, "--key", "k", "--to", KEY];
        notification(&command().try_get_matches_from(required.iter().chain(arguments))?)
    }

    #[test]
    fn the_type_and_the_chat_say_what_happened() {
        let id = "07".repeat(32);
        for (arguments, kind) in [
            (&[][..], NotificationKind::OneToOne),
            (&["--chat", "c"], NotificationKind::Group("c".into())),
            (&["--type", "mention", "--chat", "c"], NotificationKind::Mention("c".into())),
            (&["--type", "request-to-join"], NotificationKind::RequestToJoin),
        ] {
            let parsed = parse(&[&["--message-id", &id], arguments].concat()).unwrap();
            assert_eq!(parsed, Notification { kind, message: MessageId([7; 32]) });
        }
        let random = || parse(&["--message-id", "random"]).unwrap().message;
        assert_ne!(random(), random());
        for arguments in [
            &[][..],
            &["--message-id", "07"],
            &["--message-id", &id, "--type", "mention"],
            &["--message-id", &id, "--type", "request-to-join", "--chat", "c"],
            &["--message-id", &id, "--type", "call"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn whoever_waits_reads_what_is_tried_and_what_came_of_it() {
        let server = SecretKey::from_bytes(&[1; 32]).unwrap().public();
        let (name, installation) = (server_name(&server), InstallationId::from_random([1; 16]));
        let failed = |why, query_in: Option<u64>| SendEvent::Failed {
            server,
            installation: installation.clone(),
            why,
            query_in: query_in.map(Duration::from_secs),
        };
        let asked =
            |is_repeated| SendEvent::Asked { server, installations: vec![installation.clone()], is_repeated };
        for (event, line) in [
            (SendEvent::Queried, "asking servers how the contact can be notified".to_owned()),
            (asked(false), format!("asking {name} to notify 1 device")),
            (asked(true), format!("asking {name} once more to notify 1 device")),
            (
                failed(Failure::WrongToken, Some(0)),
                format!("device {installation}  {name}  wrong token; asking for the new one"),
            ),
            (
                failed(Failure::WrongToken, Some(128)),
                format!("device {installation}  {name}  wrong token; asking for the new one in 2m 8s"),
            ),
            (failed(Failure::NotRegistered, None), format!("device {installation}  {name}  not registered")),
        ] {
            assert_eq!(describe(&event), line);
        }
    }

    #[test]
    fn every_device_has_its_line() {
        let server = |byte| SecretKey::from_bytes(&[byte; 32]).unwrap().public();
        let installation = |byte| InstallationId::from_random([byte; 16]);
        let devices = vec![
            DeviceReport {
                installation: installation(1),
                outcome: Ok(server(11)),
                is_earlier: false,
                failed: vec![(server(12), Failure::NoAnswer)],
            },
            DeviceReport {
                installation: installation(2),
                outcome: Err(Failure::NotRegistered),
                is_earlier: false,
                failed: vec![(server(12), Failure::NotRegistered)],
            },
        ];
        let mut sent = SendReport { devices, trouble: None, not_kept: None };
        let answer = Answer::new(&server(1), &MessageId([7; 32]), History::default(), &sent);
        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!((&json["notified"], &json["message_id"]), (&1.into(), &"07".repeat(32).into()));
        assert_eq!(json["devices"][0]["notified_by"], server_name(&server(11)));
        assert_eq!(json["devices"][0]["failed"][0]["reason"], "no answer");
        assert_eq!(json["devices"][1]["reason"], "not registered");
        assert!(json["devices"][1].get("notified_by").is_none());
        let text = answer.text();
        assert_eq!(text.len(), 6, "{text:?}");
        assert_eq!(text[5], "1 of 2 devices notified");
        assert!(text[2].ends_with("  notified"), "{text:?}");
        sent.devices[0].is_earlier = true;
        let again = Answer::new(&server(1), &MessageId([7; 32]), History::default(), &sent);
        assert!(again.text()[2].ends_with("  notified earlier; nobody was asked now"), "{:?}", again.text());
        let nobody = SendReport { devices: Vec::new(), trouble: Some("away".into()), not_kept: None };
        let text = Answer::new(&server(1), &MessageId([7; 32]), History::default(), &nobody).text();
        assert!(text[1].contains("away") && text[2].contains("no device is known"), "{text:?}");
    }
}
