//! What was asked of servers, by message and device. Servers do not know of each other: only who remembers whom was asked
//! can keep a message that is sent again from ringing again through another server. Bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use poste_codec::PublicKey;
use poste_wire::status::{InstallationId, MessageId};

use super::MAX_SERVERS;

/// The most attempts, each of a message to a device; of those beyond, the oldest are forgotten.
pub const MAX_ATTEMPTS: usize = 2_000;
/// For how long they are kept: as long as the network keeps messages.
pub const ATTEMPTS_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// What is known of a message at a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// This server has reported success.
    Notified(PublicKey),
    /// These servers were asked, and each of them may have notified.
    Open(Vec<PublicKey>),
}

/// The contact, the message, and the device.
pub(super) type Key = (PublicKey, MessageId, InstallationId);

/// All that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    rows: BTreeMap<Key, Row>,
}

/// An attempt, and when it came to be so, unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) at: u64,
    pub(super) attempt: Attempt,
}

impl Attempts {
    /// Of a message to a contact.
    pub(super) fn of(&self, contact: &PublicKey, message: &MessageId) -> Vec<(InstallationId, Attempt)> {
        let is_of = |key: &Key| key.0 == *contact && key.1 == *message;
        let rows = self.rows.iter().filter(|(key, _)| is_of(key));
        rows.map(|(key, row)| (key.2.clone(), row.attempt.clone())).collect()
    }

    /// Replaces what is known of a message at a device, but for a success that another process may have had meanwhile. Where
    /// no server may have notified, nothing is left to know.
    pub(super) fn note(&mut self, key: Key, mut attempt: Attempt, now: u64) {
        self.rows.retain(|_, row| now.saturating_sub(row.at) <= ATTEMPTS_KEPT.as_secs());
        let is_notified = |row: &Row| matches!(row.attempt, Attempt::Notified(_));
        if matches!(attempt, Attempt::Open(_)) && self.rows.get(&key).is_some_and(is_notified) {
            return;
        }
        if let Attempt::Open(servers) = &mut attempt {
            servers.drain(..servers.len().saturating_sub(MAX_SERVERS));
            if servers.is_empty() {
                self.rows.remove(&key);
                return;
            }
        }
        if self.rows.get(&key).is_none_or(|row| row.attempt != attempt) {
            // Not the new one, whatever the clock says.
            self.make_room(MAX_ATTEMPTS - 1);
            self.rows.insert(key, Row { at: now, attempt });
        }
    }

    /// What was changed here since `base`, and otherwise what others know by now. Of one attempt that both have changed,
    /// success counts, and else every server that was asked.
    pub(super) fn merged(self, base: &Self, mut others: Self) -> Self {
        for (key, row) in base.rows.iter().filter(|(key, _)| !self.rows.contains_key(key)) {
            if others.rows.get(key) == Some(row) {
                others.rows.remove(key);
            }
        }
        for (key, row) in self.rows {
            let before = base.rows.get(&key);
            if before == Some(&row) {
                continue;
            }
            let theirs = others.rows.remove(&key).filter(|theirs| before != Some(theirs));
            let row = theirs.map_or(row.clone(), |theirs| row.joined(theirs));
            others.rows.insert(key, row);
        }
        others.make_room(MAX_ATTEMPTS);
        others
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.rows.iter()
    }

    fn make_room(&mut self, most: usize) {
        while self.rows.len() > most {
            let oldest = self.rows.iter().min_by_key(|(_, row)| row.at).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.rows.remove(&oldest);
        }
    }
}

impl FromIterator<(Key, Row)> for Attempts {
    fn from_iter<I: IntoIterator<Item = (Key, Row)>>(rows: I) -> Self {
        Self { rows: rows.into_iter().collect() }
    }
}

impl Row {
    fn joined(self, theirs: Self) -> Self {
        match (&self.attempt, theirs.attempt) {
            (Attempt::Notified(_), _) => self,
            (_, notified @ Attempt::Notified(_)) => Self { attempt: notified, ..theirs },
            (Attempt::Open(ours), Attempt::Open(mut servers)) => {
                servers.retain(|server| !ours.contains(server));
                servers.extend(ours);
                servers.drain(..servers.len().saturating_sub(MAX_SERVERS));
                Self { at: self.at, attempt: Attempt::Open(servers) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use poste_codec::SecretKey;

    use super::*;

    fn server(byte: u8) -> PublicKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap().public()
    }

    fn message(number: u16) -> MessageId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        MessageId(id)
    }

    fn at(number: u16) -> Key {
        (server(1), message(number), InstallationId::from_random([1; 16]))
    }

    fn open(servers: &[u8]) -> Attempt {
        Attempt::Open(servers.iter().map(|byte| server(*byte)).collect())
    }

    fn attempt(attempts: &Attempts, number: u16) -> Option<Attempt> {
        attempts.of(&server(1), &message(number)).pop().map(|(_, attempt)| attempt)
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_so_many_and_after_so_long() {
        let mut attempts = Attempts::default();
        for number in 0..=MAX_ATTEMPTS as u16 {
            attempts.note(at(number), open(&[10]), u64::from(number));
        }
        assert_eq!(attempts.rows.len(), MAX_ATTEMPTS);
        assert_eq!((attempt(&attempts, 0), attempt(&attempts, 1)), (None, Some(open(&[10]))));
        // What was there already is as old as it was.
        let end = ATTEMPTS_KEPT.as_secs() + 1;
        attempts.note(at(1), open(&[10]), end);
        assert_eq!(attempt(&attempts, 1), Some(open(&[10])));
        attempts.note(at(2), Attempt::Notified(server(10)), end + 2);
        assert_eq!(attempts.rows.len(), MAX_ATTEMPTS - 2 + 1, "1 and 2 were too old, and 2 is new");
        let many: Vec<u8> = (1..=20).collect();
        attempts.note(at(3), open(&many), end);
        assert_eq!(attempt(&attempts, 3), Some(open(&many[20 - MAX_SERVERS..])));
        attempts.note(at(3), open(&[]), end);
        assert_eq!(attempt(&attempts, 3), None);
    }

    #[test]
    fn what_two_processes_asked_is_joined() {
        let mut base = Attempts::default();
        for number in 0..5 {
            base.note(at(number), open(&[10]), 1);
        }
        let mut theirs = base.clone();
        theirs.note(at(0), open(&[10, 11]), 2);
        theirs.note(at(1), Attempt::Notified(server(11)), 2);
        theirs.note(at(2), open(&[10, 11]), 2);
        theirs.note(at(6), open(&[11]), 2);
        let mut ours = base.clone();
        ours.note(at(0), open(&[10, 12]), 3);
        ours.note(at(1), open(&[10, 12]), 3);
        ours.note(at(2), open(&[]), 3);
        ours.note(at(3), open(&[]), 3);
        ours.note(at(4), open(&[12]), 3);
        let merged = ours.merged(&base, theirs);
        let expected = [
            (0, Some(open(&[11, 10, 12]))),
            (1, Some(Attempt::Notified(server(11)))),
            (2, Some(open(&[10, 11]))),
            (3, None),
            (4, Some(open(&[12]))),
            (6, Some(open(&[11]))),
        ];
        for (number, expected) in expected {
            assert_eq!(attempt(&merged, number), expected, "{number}");
        }
        // The process that still asks does not know better.
        let mut later = merged;
        for servers in [&[10, 12, 13][..], &[]] {
            later.note(at(1), open(servers), 4);
            assert_eq!(attempt(&later, 1), Some(Attempt::Notified(server(11))));
        }
    }
}
