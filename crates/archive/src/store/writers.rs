//! Who writes into a store, and what may still come from whom: the ground of "history is complete up to here".
//!
//! A writer that is connected says what it holds back. One that went away without a goodbye holds back everything
//! that it took since its last report (or since its connection began, if it made none), and what it had reported then;
//! it is waited for until it is back and says otherwise, or is forgotten.
//!
//! What a writer takes may have been made long before, and history is complete up to a creation time: so the longest
//! age at which a writer takes records counts as well as the time of its report.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::StoreError;

/// Who writes: stable over restarts of the writer. 1 to 128 bytes of text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(String);

impl WriterId {
    const MAX_BYTES: usize = 128;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WriterId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if (1..=Self::MAX_BYTES).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(StoreError::Invalid(format!("a writer_id has 1 to {} bytes", Self::MAX_BYTES)))
    }
}

/// One connection of a writer, of several in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    number: u64,
    /// No record is older when the writer takes it.
    max_intake_age_ns: i64,
}

/// What is known of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterStatus {
    /// Who.
    pub writer: WriterId,
    /// Whether it is connected now.
    pub connected: bool,
    /// Creation time of the oldest record that it may hold back, nanoseconds since 1970; absent when it is
    /// connected and holds back none.
    pub held_back_ns: Option<i64>,
}

/// The writers of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writers {
    writers: BTreeMap<WriterId, Writer>,
    connections: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Writer {
    /// What it would hold back if it went away now: the part of a writer that is durable.
    since_ns: i64,
    /// The connection that is heard, if it is connected.
    connection: Option<Connection>,
    /// What it holds back while it is connected.
    held_back_ns: Option<i64>,
}

impl Writers {
    /// Writers beyond this many are not let in: each is remembered until it says goodbye.
    pub const MAX: usize = 4096;
    /// No record is older than this when a writer takes it that does not say otherwise: a gateway's longest ttl, unless it
    /// is set to more, and what it allows clocks to differ by.
    pub const DEFAULT_INTAKE_AGE: Duration = Duration::from_secs(24 * 3600 + 600);

    /// Writers of an earlier life of the store, with the time from which each may hold back: all of them are away.
    pub fn restored(writers: impl IntoIterator<Item = (WriterId, i64)>) -> Self {
        let away = |since_ns| Writer { since_ns, connection: None, held_back_ns: None };
        let writers = writers.into_iter().map(|(id, since_ns)| (id, away(since_ns))).collect();
        Self { writers, connections: 0 }
    }

    /// What must be durable: every writer with the time from which it may hold back when it goes away.
    pub fn durable(&self) -> impl Iterator<Item = (&WriterId, i64)> {
        self.writers.iter().map(|(id, writer)| (id, writer.since_ns))
    }

    /// No writer holds back a record that is older than this; absent when nothing is held back.
    #[must_use]
    pub fn complete_until_ns(&self) -> Option<i64> {
        self.writers.values().filter_map(Writer::held_back).min()
    }

    /// A writer connects that takes no record older than `max_intake_age`. What it would hold back if it were away
    /// counts until its first report, even when nobody has noticed yet that its connection before broke.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when there are too many.
    pub fn connected(
        &mut self,
        id: &WriterId,
        at_ns: i64,
        max_intake_age: Duration,
    ) -> Result<Connection, StoreError> {
        self.connections += 1;
        let max_intake_age_ns = i64::try_from(max_intake_age.as_nanos()).unwrap_or(i64::MAX);
        let connection = Connection { number: self.connections, max_intake_age_ns };
        let since_ns = connection.oldest_taken_ns(at_ns);
        let known = self.writers.len();
        match self.writers.get_mut(id) {
            Some(writer) => {
                writer.held_back_ns = Some(writer.since_ns);
                writer.connection = Some(connection);
                writer.since_ns = writer.since_ns.min(since_ns);
            }
            None if known >= Self::MAX => {
                return Err(StoreError::Invalid(format!(
                    "the archive waits for {} writers already: forget those that will not come back",
                    Self::MAX
                )));
            }
            None => {
                let writer = Writer { since_ns, connection: Some(connection), held_back_ns: None };
                self.writers.insert(id.clone(), writer);
            }
        }
        Ok(connection)
    }

    /// A writer says what it holds back, at a time. Returns whether the durable part has changed.
    ///
    /// What it holds back is durable too, or an archive that restarts would not wait for it; when it holds nothing
    /// back, only what it takes from now on can be missing after it goes away.
    ///
    /// # Errors
    /// [`StoreError::Displaced`]: it is not heard on this connection.
    pub fn reports(
        &mut self,
        id: &WriterId,
        connection: Connection,
        held_back_ns: Option<i64>,
        now_ns: i64,
    ) -> Result<bool, StoreError> {
        /// So much later than before, and a later time is worth a write.
        const WORTH_A_WRITE_NS: i64 = 60_000_000_000;
        /// A report speaks of what was held back for 30 s; the other half is for clocks that differ.
        const UNREPORTED_NS: i64 = 60_000_000_000;
        let writer = self.heard(id, connection).ok_or(StoreError::Displaced)?;
        writer.held_back_ns = held_back_ns;
        let unreported = connection.oldest_taken_ns(now_ns.saturating_sub(UNREPORTED_NS));
        let since_ns = held_back_ns.map_or(unreported, |held_back| held_back.min(unreported));
        let changed =
            since_ns < writer.since_ns || since_ns > writer.since_ns.saturating_add(WORTH_A_WRITE_NS);
        if changed {
            writer.since_ns = since_ns;
        }
        Ok(changed)
    }

    /// A connection ends. Returns whether the durable part has changed.
    ///
    /// # Errors
    /// [`StoreError::Displaced`] for a goodbye that is not heard on this connection.
    pub fn left(&mut self, id: &WriterId, connection: Connection, goodbye: bool) -> Result<bool, StoreError> {
        let Some(writer) = self.heard(id, connection) else {
            return if goodbye { Err(StoreError::Displaced) } else { Ok(false) };
        };
        if goodbye {
            self.writers.remove(id);
        } else {
            writer.connection = None;
        }
        Ok(goodbye)
    }

    /// Forgets a writer that is away. False when it is not known, or connected.
    pub fn forget(&mut self, id: &WriterId) -> bool {
        let away = self.writers.get(id).is_some_and(|writer| writer.connection.is_none());
        if away {
            self.writers.remove(id);
        }
        away
    }

    /// Every writer, sorted by id.
    #[must_use]
    pub fn all(&self) -> Vec<WriterStatus> {
        let status = |(id, writer): (&WriterId, &Writer)| WriterStatus {
            writer: id.clone(),
            connected: writer.connection.is_some(),
            held_back_ns: writer.held_back(),
        };
        self.writers.iter().map(status).collect()
    }

    fn heard(&mut self, id: &WriterId, connection: Connection) -> Option<&mut Writer> {
        self.writers.get_mut(id).filter(|writer| writer.connection == Some(connection))
    }
}

impl Connection {
    /// The earliest creation time of what the writer took at this time or later.
    fn oldest_taken_ns(&self, at_ns: i64) -> i64 {
        at_ns.saturating_sub(self.max_intake_age_ns)
    }
}

impl Writer {
    fn held_back(&self) -> Option<i64> {
        if self.connection.is_some() { self.held_back_ns } else { Some(self.since_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> WriterId {
        name.parse().unwrap()
    }

    #[test]
    fn a_writer_that_vanishes_holds_back_everything_since_it_connected() {
        let mut writers = Writers::default();
        let first = writers.connected(&id("a"), 100, Duration::ZERO).unwrap();
        assert_eq!(writers.complete_until_ns(), None, "a writer that is there has said nothing yet");
        writers.left(&id("a"), first, false).unwrap();
        assert_eq!(writers.complete_until_ns(), Some(100));
        let second = writers.connected(&id("a"), 500, Duration::ZERO).unwrap();
        assert_eq!(writers.complete_until_ns(), Some(100), "it is back, but has not said what it holds");
        writers.reports(&id("a"), second, Some(130), 510).unwrap();
        assert_eq!(writers.complete_until_ns(), Some(130));
        writers.reports(&id("a"), second, None, 520).unwrap();
        assert_eq!(writers.complete_until_ns(), None);
        assert!(writers.left(&id("a"), second, true).unwrap());
        assert_eq!(writers, Writers { connections: 2, ..Writers::default() });
    }

    #[test]
    fn what_was_reported_outlives_the_archive() {
        const SECOND: i64 = 1_000_000_000;
        let mut writers = Writers::default();
        let connection = writers.connected(&id("a"), 1000 * SECOND, Duration::ZERO).unwrap();
        assert!(writers.reports(&id("a"), connection, Some(400 * SECOND), 1010 * SECOND).unwrap());
        let restored = |writers: &Writers| {
            Writers::restored(writers.durable().map(|(id, since)| (id.clone(), since)).collect::<Vec<_>>())
        };
        assert_eq!(restored(&writers).complete_until_ns(), Some(400 * SECOND));
        // Nothing held back for long: only what came shortly before, and comes from then on, can be missing.
        assert!(writers.reports(&id("a"), connection, None, 1200 * SECOND).unwrap());
        assert_eq!(restored(&writers).complete_until_ns(), Some(1140 * SECOND));
        assert!(!writers.reports(&id("a"), connection, None, 1201 * SECOND).unwrap(), "not worth a write");
    }

    #[test]
    fn what_is_taken_after_the_last_report_may_be_as_old_as_the_writer_takes_records() {
        const SECOND: i64 = 1_000_000_000;
        const DAY: i64 = 86_400;
        let (day, week) = (Duration::from_secs(DAY as u64), Duration::from_secs(7 * DAY as u64));
        let now = 1000 * DAY;
        let mut writers = Writers::default();
        let mut until = |age: Duration, report: Option<Option<i64>>| {
            let connection = writers.connected(&id("a"), now * SECOND, age).unwrap();
            if let Some(held_back) = report {
                writers.reports(&id("a"), connection, held_back.map(|at| at * SECOND), now * SECOND).unwrap();
            }
            assert_eq!(writers.complete_until_ns(), report.flatten().map(|at| at * SECOND), "it is there");
            writers.left(&id("a"), connection, false).unwrap();
            let until = writers.complete_until_ns();
            assert_eq!(until, writers.durable().map(|(_, since_ns)| since_ns).next());
            assert!(writers.forget(&id("a")));
            until.unwrap()
        };
        assert_eq!(until(day, None), (now - DAY) * SECOND, "it said nothing");
        assert_eq!(until(day, Some(None)), (now - 60 - DAY) * SECOND);
        assert_eq!(until(week, Some(None)), (now - 60 - 7 * DAY) * SECOND);
        assert_eq!(until(day, Some(Some(now - 5))), (now - 60 - DAY) * SECOND, "more may have come since");
        assert_eq!(until(day, Some(Some(now - 3 * DAY))), (now - 3 * DAY) * SECOND);
        assert_eq!(until(Duration::MAX, Some(None)), (now - 60) * SECOND - i64::MAX);
    }

    #[test]
    fn the_older_of_two_connections_is_not_heard() {
        let mut writers = Writers::default();
        let old = writers.connected(&id("a"), 100, Duration::ZERO).unwrap();
        let new = writers.connected(&id("a"), 200, Duration::ZERO).unwrap();
        let late = writers.left(&id("a"), old, true);
        assert!(matches!(late, Err(StoreError::Displaced)), "its goodbye comes late");
        assert_eq!(writers.complete_until_ns(), Some(100), "it may have lost the connection before");
        assert!(writers.reports(&id("a"), old, None, 210).is_err(), "and it learns that nobody hears it");
        assert_eq!(writers.complete_until_ns(), Some(100));
        assert!(!writers.left(&id("a"), old, false).unwrap(), "its end is nothing new");
        writers.left(&id("a"), new, false).unwrap();
        assert_eq!(writers.complete_until_ns(), Some(100));
    }

    #[test]
    fn only_who_is_away_can_be_forgotten() {
        let mut writers = Writers::default();
        let connection = writers.connected(&id("a"), 100, Duration::ZERO).unwrap();
        assert!(!writers.forget(&id("a")) && !writers.forget(&id("b")));
        writers.left(&id("a"), connection, false).unwrap();
        assert!(writers.forget(&id("a")));
        assert_eq!((writers.complete_until_ns(), writers.all()), (None, Vec::new()));
    }

    #[test]
    fn writers_are_bounded() {
        let mut writers = Writers::default();
        for n in 0..Writers::MAX {
            writers.connected(&id(&n.to_string()), 1, Duration::ZERO).unwrap();
        }
        assert!(writers.connected(&id("one more"), 1, Duration::ZERO).is_err());
        assert!(writers.connected(&id("7"), 2, Duration::ZERO).is_ok());
        assert!("".parse::<WriterId>().is_err() && "x".repeat(129).parse::<WriterId>().is_err());
    }
}
