//! What one writer may store in a day, by the size of its records: so that nobody can fill the archive with large
//! envelopes, which cost their sender hardly more than small ones.
//!
//! A rolling day is the running hour and the 23 before it. Only what was stored counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use poste_service::Clock;
use poste_service::config::ByteSize;

use crate::store::WriterId;

const HOURS: u64 = 24;
/// Beyond so many writers, the one that has been silent for longest is forgotten.
const MAX_WRITERS: usize = 4096;
const SMALL_BELOW_BYTES: usize = 4 * 1024;
const MEDIUM_BELOW_BYTES: usize = 64 * 1024;

/// How many bytes of bodies one writer may store in a rolling day; 0: as many as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QuotaLimits {
    /// Of records below 4 KiB.
    pub(crate) small_bytes: u64,
    /// Of records from 4 KiB to below 64 KiB.
    pub(crate) medium_bytes: u64,
    /// Of records from 64 KiB on.
    pub(crate) large_bytes: u64,
}

/// What each writer has stored of late.
#[derive(Debug, Clone)]
pub(crate) struct Quotas {
    limits: QuotaLimits,
    clock: Clock,
    writers: Arc<Mutex<HashMap<WriterId, Usage>>>,
}

/// A record that was let in, and counts until it turns out not to be stored. Where that never turns out, because the
/// writer has gone, it goes on counting: it was most likely stored.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation(Option<Held>);

#[derive(Debug)]
struct Held {
    writers: Arc<Mutex<HashMap<WriterId, Usage>>>,
    writer: WriterId,
    class: Class,
    hour: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Small,
    Medium,
    Large,
}

/// One writer's.
#[derive(Debug, Default)]
struct Usage {
    /// The newest hour that something was counted in, hours since 1970.
    hour: u64,
    /// For each class the bytes of each hour; an hour stands at its remainder by the hours of a day.
    bytes: [[u64; HOURS as usize]; 3],
}

impl Quotas {
    pub(crate) fn new(limits: QuotaLimits, clock: Clock) -> Self {
        Self { limits, clock, writers: Arc::default() }
    }

    /// Lets a record in, or says in words why not.
    pub(crate) fn admit(&self, writer: &WriterId, body_bytes: usize) -> Result<Reservation, String> {
        let class = Class::of(body_bytes);
        let limit = self.limits.of(class);
        if limit == 0 {
            return Ok(Reservation(None));
        }
        let bytes = body_bytes as u64;
        let hour = self.clock.unix_seconds() / 3600;
        let mut writers = self.writers.lock();
        if !writers.contains_key(writer) {
            make_room(&mut writers);
        }
        let usage = writers.entry(writer.clone()).or_default();
        usage.advance(hour);
        let used: u64 = usage.bytes[class as usize].iter().sum();
        if used.saturating_add(bytes) > limit {
            return Err(format!(
                "this writer has stored {used} bytes of {class} within a day, of {} that it may: it can go on when the \
                 hours roll by",
                ByteSize(limit)
            ));
        }
        let hour = usage.hour;
        usage.bytes[class as usize][(hour % HOURS) as usize] += bytes;
        drop(writers);
        let held = Held { writers: Arc::clone(&self.writers), writer: writer.clone(), class, hour, bytes };
        Ok(Reservation(Some(held)))
    }
}

impl Reservation {
    /// The record was not stored, or had been before: it does not count.
    pub(crate) fn give_back(self) {
        let Some(Held { writers, writer, class, hour, bytes }) = self.0 else { return };
        let mut writers = writers.lock();
        if let Some(usage) = writers.get_mut(&writer)
            && hour + HOURS > usage.hour
        {
            let counted = &mut usage.bytes[class as usize][(hour % HOURS) as usize];
            *counted = counted.saturating_sub(bytes);
        }
    }
}

impl Usage {
    /// Hours that have rolled by count no longer. A clock that was set back stands still.
    fn advance(&mut self, hour: u64) {
        if hour <= self.hour {
            return;
        }
        for passed in (self.hour + 1..=hour).rev().take(HOURS as usize) {
            self.bytes.iter_mut().for_each(|hours| hours[(passed % HOURS) as usize] = 0);
        }
        self.hour = hour;
    }
}

fn make_room(writers: &mut HashMap<WriterId, Usage>) {
    if writers.len() < MAX_WRITERS {
        return;
    }
    let silent = writers.iter().min_by_key(|(_, usage)| usage.hour).map(|(writer, _)| writer.clone());
    if let Some(writer) = silent {
        writers.remove(&writer);
    }
}

impl QuotaLimits {
    fn of(&self, class: Class) -> u64 {
        match class {
            Class::Small => self.small_bytes,
            Class::Medium => self.medium_bytes,
            Class::Large => self.large_bytes,
        }
    }
}

impl Class {
    fn of(body_bytes: usize) -> Self {
        match body_bytes {
            ..SMALL_BELOW_BYTES => Self::Small,
            SMALL_BELOW_BYTES..MEDIUM_BELOW_BYTES => Self::Medium,
            _ => Self::Large,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "small records (below 4 KiB)",
            Self::Medium => "medium records (4 KiB to below 64 KiB)",
            Self::Large => "large records (64 KiB and more)",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use poste_service::clock::ManualClock;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn quotas() -> (Quotas, ManualClock) {
        let limits = QuotaLimits { small_bytes: 0, medium_bytes: 100_000, large_bytes: 1_000_000 };
        let (clock, hand) = Clock::manual(500_000 * HOUR);
        (Quotas::new(limits, clock), hand)
    }

    fn writer(name: &str) -> WriterId {
        name.parse().unwrap()
    }

    fn admits(quotas: &Quotas, name: &str, body_bytes: usize) -> bool {
        quotas.admit(&writer(name), body_bytes).is_ok()
    }

    #[test]
    fn each_class_and_each_writer_counts_for_itself() {
        let (quotas, _) = quotas();
        assert!(admits(&quotas, "a", 50_000) && admits(&quotas, "a", 50_000));
        let told = quotas.admit(&writer("a"), 4096).unwrap_err();
        assert!(told.contains("100000 bytes of medium records"), "{told}");
        assert!(admits(&quotas, "b", 100_000), "that is a large one, and of another writer");
        assert!(admits(&quotas, "a", 1_000_000) && !admits(&quotas, "a", 65_536));
        assert!((0..10_000).all(|_| admits(&quotas, "a", 4095)), "small ones have no limit");
    }

    #[test]
    fn a_day_rolls_by_in_hours() {
        let (quotas, hand) = quotas();
        assert!(admits(&quotas, "a", 400_000));
        hand.advance(HOUR);
        assert!(admits(&quotas, "a", 400_000));
        hand.advance(22 * HOUR);
        assert!(!admits(&quotas, "a", 400_000), "the first hour still counts");
        hand.advance(HOUR);
        assert!(admits(&quotas, "a", 400_000), "and now no longer");
        assert!(!admits(&quotas, "a", 400_000));
        hand.advance(100 * HOUR);
        assert!(admits(&quotas, "a", 1_000_000));
        hand.set(499_000 * HOUR);
        assert!(!admits(&quotas, "a", 65_536), "a clock that goes back gives nothing back");
    }

    #[test]
    fn what_was_not_stored_is_given_back_to_the_hour_it_was_taken_from() {
        let (quotas, hand) = quotas();
        let admit = || quotas.admit(&writer("a"), 1_000_000);
        admit().unwrap().give_back();
        let late = admit().unwrap();
        hand.advance(HOUR);
        late.give_back();
        let too_late = admit().unwrap();
        hand.advance(30 * HOUR);
        let counted = admit().unwrap();
        too_late.give_back();
        assert!(admit().is_err(), "what has rolled by is not given back twice");
        drop(counted);
        assert!(admit().is_err(), "nobody knows what became of it: it counts");
    }

    #[test]
    fn writers_are_bounded_and_the_silent_ones_go_first() {
        let (quotas, hand) = quotas();
        assert!(admits(&quotas, "silent", 1_000_000));
        hand.advance(HOUR);
        for number in 0..MAX_WRITERS - 1 {
            assert!(admits(&quotas, &number.to_string(), 1_000_000));
        }
        assert_eq!(quotas.writers.lock().len(), MAX_WRITERS);
        assert!(admits(&quotas, "one more", 65_536));
        assert_eq!(quotas.writers.lock().len(), MAX_WRITERS);
        assert!(admits(&quotas, "silent", 1_000_000), "it was forgotten");
        assert_eq!(quotas.writers.lock().len(), MAX_WRITERS);
    }
}
