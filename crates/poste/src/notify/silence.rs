//! What to look at when a push server does not answer: from here a wrong key, a server that is down and one on another
//! network look the same.

use std::collections::BTreeSet;
use std::io::{self, Write};

use poste_client::notify::ReceiverEvent;
use poste_client::notify::register::RegistrationAnswer;
use poste_codec::PublicKey;

use super::server_name;

/// Servers that were sent something and have not answered.
#[derive(Debug, Default)]
pub(super) struct Silent(BTreeSet<PublicKey>);

impl Silent {
    /// Takes note of what has happened.
    pub(super) fn happened(&mut self, event: &ReceiverEvent) {
        match event {
            ReceiverEvent::Sent { server, .. } => {
                self.0.insert(*server);
            }
            ReceiverEvent::Answered(answer) => {
                let (RegistrationAnswer::Registered { server, .. }
                | RegistrationAnswer::Left { server }
                | RegistrationAnswer::Refused { server, .. }) = answer;
                self.0.remove(server);
            }
            _ => {}
        }
    }

    /// Says on stderr what to look at, if there are any.
    pub(super) fn explain(&self) -> io::Result<()> {
        explain(self.0.iter().map(server_name))
    }
}

/// Says on stderr what to look at when these servers do not answer.
pub(super) fn explain(servers: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut out = io::stderr().lock();
    lines(servers).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// Nothing, where there are no such servers.
fn lines(servers: impl IntoIterator<Item = String>) -> Vec<String> {
    let servers: BTreeSet<String> = servers.into_iter().collect();
    let mut lines: Vec<String> =
        servers.iter().map(|server| format!("poste: no answer from {server}")).collect();
    if !lines.is_empty() {
        lines.extend(CHECKS.iter().map(|check| format!("  {check}")));
    }
    lines
}

const CHECKS: [&str; 3] = [
    "is that its key? On its machine `poste key show --of push` prints it, and `poste ctl push info`",
    "is it up, and not drained? There `poste health` asks its /readyz, which names what it waits for",
    "is it on the same network? Its archive has to hear of what the node of --enode is given: there `poste ctl push \
     self-test`",
];

#[cfg(test)]
mod tests {
    use poste_client::notify::register::Refusal;
    use poste_codec::SecretKey;

    use super::*;

    #[test]
    fn who_was_asked_and_said_nothing_is_named_with_what_to_check() {
        let [silent, kind, gruff] =
            [1, 2, 3].map(|byte| SecretKey::from_bytes(&[byte; 32]).unwrap().public());
        let mut servers = Silent::default();
        let never = SecretKey::from_bytes(&[4; 32]).unwrap().public();
        servers.happened(&ReceiverEvent::NotSent { server: never, reason: "away".into() });
        for server in [silent, kind, gruff] {
            servers.happened(&ReceiverEvent::Sent { server, version: 1, attempt: 1 });
        }
        let refused = RegistrationAnswer::Refused { server: gruff, error: Refusal::Internal };
        for answer in [RegistrationAnswer::Registered { server: kind, version: 1 }, refused] {
            servers.happened(&ReceiverEvent::Answered(answer));
        }
        let lines = lines(servers.0.iter().map(server_name));
        assert_eq!(lines[0], format!("poste: no answer from {}", server_name(&silent)));
        assert_eq!(lines.len(), 1 + CHECKS.len(), "{lines:?}");
        for part in ["poste key show --of push", "/readyz", "same network"] {
            assert!(lines.iter().any(|line| line.contains(part)), "{part}");
        }
        assert!(super::lines([]).is_empty());
    }
}
