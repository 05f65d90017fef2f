//! What a receiver's commands print: one JSON object a line for programs, a line of text for people.

use std::io::{self, Write};

use poste_client::notify::ReceiverEvent;
use poste_client::notify::register::RegistrationAnswer;
use poste_codec::PublicKey;
use serde::Serialize;

use super::server_name;
use crate::tame::tame;

/// One line of JSON. Members that say nothing are left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line {
    pub(super) event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) servers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chat_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) installation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirmed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<usize>,
}

/// Prints what happens.
#[derive(Debug)]
pub(super) struct Events {
    json: bool,
}

impl Events {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn happened(&self, event: &ReceiverEvent) -> io::Result<()> {
        let (line, text) = describe(event);
        self.say(&line, &text)
    }

    pub(super) fn say(&self, line: &Line, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, line)?;
            out.write_all(b"\n")?;
        } else {
            writeln!(out, "{text}")?;
        }
        out.flush()
    }
}

/// For programs, and for people. A node's words may be part of it.
fn describe(event: &ReceiverEvent) -> (Line, String) {
    let (line, text) = words(event);
    (line, tame(&text))
}

fn words(event: &ReceiverEvent) -> (Line, String) {
    let at = |event, server: &PublicKey| Line { event, server: Some(server_name(server)), ..Line::default() };
    let because = |event, reason: &String| Line { event, reason: Some(reason.clone()), ..Line::default() };
    match event {
        ReceiverEvent::Sent { server, version, attempt } => (
            Line { version: Some(*version), attempt: Some(*attempt), ..at("sent", server) },
            format!("{}  asked, version {version}, attempt {attempt}", short(server)),
        ),
        ReceiverEvent::NotSent { server, reason } => (
            Line { reason: Some(reason.clone()), ..at("not_sent", server) },
            format!("{}  not asked: {reason}", short(server)),
        ),
        ReceiverEvent::Answered(RegistrationAnswer::Registered { server, version }) => (
            Line { version: Some(*version), ..at("registered", server) },
            format!("{}  registered, version {version}", short(server)),
        ),
        ReceiverEvent::Answered(RegistrationAnswer::Left { server }) => {
            (at("unregistered", server), format!("{}  has forgotten the device", short(server)))
        }
        ReceiverEvent::Answered(RegistrationAnswer::Refused { server, error }) => (
            Line { reason: Some(error.to_string()), ..at("refused", server) },
            format!("{}  refuses: {error}", short(server)),
        ),
        ReceiverEvent::Advertised { servers } => (
            Line { event: "advertised", servers: Some(*servers), ..Line::default() },
            format!("contacts were told; servers: {servers}"),
        ),
        ReceiverEvent::NotAdvertised { reason } => {
            (because("not_advertised", reason), format!("contacts could not be told: {reason}"))
        }
        ReceiverEvent::Disconnected { reason } => {
            (because("disconnected", reason), format!("the connection has ended: {reason}"))
        }
    }
}

/// Enough of a server's key for people to tell it from others.
fn short(server: &PublicKey) -> String {
    let mut name = server_name(server);
    name.truncate(16);
    name
}

#[cfg(test)]
mod tests {
    use poste_client::notify::register::Refusal;
    use poste_codec::SecretKey;

    use super::*;

    #[test]
    fn the_lines_have_the_members_that_programs_rely_on() {
        let server = SecretKey::from_bytes(&[1; 32]).unwrap().public();
        let name = server_name(&server);
        let json = |event: &ReceiverEvent| serde_json::to_string(&describe(event).0).unwrap();
        let registered = RegistrationAnswer::Registered { server, version: 2 };
        let refused = RegistrationAnswer::Refused { server, error: Refusal::VersionMismatch };
        for (event, expected) in [
            (
                ReceiverEvent::Sent { server, version: 2, attempt: 1 },
                format!(r#"{{"event":"sent","server":"{name}","version":2,"attempt":1}}"#),
            ),
            (
                ReceiverEvent::Answered(registered),
                format!(r#"{{"event":"registered","server":"{name}","version":2}}"#),
            ),
            (
                ReceiverEvent::Answered(refused),
                format!(r#"{{"event":"refused","server":"{name}","reason":"it has a later version"}}"#),
            ),
            (ReceiverEvent::Advertised { servers: 3 }, r#"{"event":"advertised","servers":3}"#.to_owned()),
        ] {
            assert_eq!(json(&event), expected);
        }
        assert!(describe(&ReceiverEvent::Answered(registered)).1.starts_with(&name[..16]));
        let steered = ReceiverEvent::NotSent { server, reason: "no\r1 of 1 servers confirmed".into() };
        assert!(describe(&steered).1.ends_with("no\\r1 of 1 servers confirmed"));
    }
}
