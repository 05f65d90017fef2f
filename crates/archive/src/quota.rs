//! What may be stored in a day, by the size of the records: so that nobody can fill the archive with large envelopes,
//! which cost their sender hardly more than small ones. Two limits count: of each writer, and of all together. A
//! writer chooses its own id, so only the second one holds against whoever invents ids.
//!
//! A rolling day is the running hour and the 23 before it. Only what was stored counts. What a writer has confirmed to
//! others already counts as well, and is never above a quota: it waits on a bounded disk of the writer's, and as long as
//! it waits no history of that time is complete.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use poste_service::Clock;
use poste_service::config::ByteSize;

use crate::record::MAX_BODY_BYTES;
use crate::store::WriterId;

const HOURS: u64 = 24;
/// Beyond so many writers, the one that has been silent for longest is forgotten.
const MAX_WRITERS: usize = 4096;
const SMALL_BELOW_BYTES: usize = 4 * 1024;
const MEDIUM_BELOW_BYTES: usize = 64 * 1024;
/// Medium and large records may each take this part of the largest size of the store in a day, where nothing else is
/// said: both together need four days to push out what is stored.
const SHARE_OF_MAX_SIZE: u64 = 8;

/// How many bytes of bodies may be stored in a rolling day; 0 where nothing was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DayBytes {
    /// Of records below 4 KiB.
    pub(crate) small: u64,
    /// Of records from 4 KiB to below 64 KiB.
    pub(crate) medium: u64,
    /// Of records from 64 KiB on.
    pub(crate) large: u64,
}

/// What the settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QuotaLimits {
    /// Of one writer; 0: as much as it likes.
    pub(crate) writer: DayBytes,
    /// Of all writers together; 0: of medium and large records a share of the largest size of the store, if it has one,
    /// and of small ones as much as they like.
    pub(crate) total: DayBytes,
}

/// What was stored of late.
#[derive(Debug, Clone)]
pub(crate) struct Quotas {
    limits: QuotaLimits,
    clock: Clock,
    counts: Arc<Mutex<Counts>>,
}

/// A record that was let in. It counts from now on, until this is dropped; for good once it is stored.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation(Option<Held>);

#[derive(Debug)]
struct Held {
    counts: Arc<Mutex<Counts>>,
    class: Class,
    bytes: u64,
    /// In which hour it was counted.
    of_all: u64,
    /// And for which writer, where that has a limit of its own.
    of_writer: Option<(WriterId, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Small,
    Medium,
    Large,
}

#[derive(Debug, Default)]
struct Counts {
    all: Usage,
    writers: HashMap<WriterId, Usage>,
}

/// One writer's, or that of all.
#[derive(Debug, Default)]
struct Usage {
    /// The newest hour that something was counted in, hours since 1970.
    hour: u64,
    /// For each class the bytes of each hour; an hour stands at its remainder by the hours of a day.
    bytes: [[u64; HOURS as usize]; 3],
}

impl Quotas {
    pub(crate) fn new(limits: QuotaLimits, clock: Clock) -> Self {
        Self { limits, clock, counts: Arc::default() }
    }

    /// Lets a record into a store that may grow to `max_size` bytes, or says in words why not. A `confirmed` one is
    /// always let in.
    pub(crate) fn admit(
        &self,
        writer: &WriterId,
        body_bytes: usize,
        max_size: Option<u64>,
        confirmed: bool,
    ) -> Result<Reservation, String> {
        let class = Class::of(body_bytes);
        let (limit, total_limit) = (self.limits.writer.of(class), self.limits.total(class, max_size));
        if limit == 0 && total_limit == 0 {
            return Ok(Reservation(None));
        }
        let bytes = body_bytes as u64;
        let hour = self.clock.unix_seconds() / 3600;
        let mut counts = self.counts.lock();
        let Counts { all, writers } = &mut *counts;
        all.advance(hour);
        let used = all.sum(class);
        if !confirmed && total_limit > 0 && used.saturating_add(bytes) > total_limit {
            return Err(format!(
                "all writers together have stored {used} bytes of {class} within a day, of {} that they may: they can \
                 go on when the hours roll by, or when archive.max_size or their quota is raised",
                ByteSize(total_limit)
            ));
        }
        let mut of_writer = None;
        if limit > 0 {
            if !writers.contains_key(writer) {
                make_room(writers);
            }
            let usage = writers.entry(writer.clone()).or_default();
            usage.advance(hour);
            let used = usage.sum(class);
            if !confirmed && used.saturating_add(bytes) > limit {
                return Err(format!(
                    "this writer has stored {used} bytes of {class} within a day, of {} that it may: it can go on when \
                     the hours roll by",
                    ByteSize(limit)
                ));
            }
            of_writer = Some((writer.clone(), usage.add(class, bytes)));
        }
        let of_all = all.add(class, bytes);
        drop(counts);
        Ok(Reservation(Some(Held { counts: Arc::clone(&self.counts), class, bytes, of_all, of_writer })))
    }
}

impl Reservation {
    /// The record is stored, and was not before.
    pub(crate) fn stored(mut self) {
        self.0 = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(Held { counts, class, bytes, of_all, of_writer }) = self.0.take() else { return };
        let mut counts = counts.lock();
        counts.all.take_back(class, bytes, of_all);
        if let Some((writer, hour)) = of_writer
            && let Some(usage) = counts.writers.get_mut(&writer)
        {
            usage.take_back(class, bytes, hour);
        }
    }
}

impl Usage {
    /// Hours that have rolled by count no longer. Where the clock was set back the newest hour stands still until the
    /// clock is there again; from more than a day ahead it takes what it has counted along to the clock's hour.
    fn advance(&mut self, hour: u64) {
        if hour + HOURS < self.hour {
            for hours in &mut self.bytes {
                let sum = hours.iter().sum();
                *hours = [0; HOURS as usize];
                hours[(hour % HOURS) as usize] = sum;
            }
            self.hour = hour;
        }
        for passed in (self.hour + 1..=hour).rev().take(HOURS as usize) {
            self.bytes.iter_mut().for_each(|hours| hours[(passed % HOURS) as usize] = 0);
        }
        self.hour = self.hour.max(hour);
    }

    fn sum(&self, class: Class) -> u64 {
        self.bytes[class as usize].iter().sum()
    }

    /// Counts in the newest hour, and tells which that is.
    fn add(&mut self, class: Class, bytes: u64) -> u64 {
        self.bytes[class as usize][(self.hour % HOURS) as usize] += bytes;
        self.hour
    }

    fn take_back(&mut self, class: Class, bytes: u64, hour: u64) {
        // An hour ahead is from before the clock was set back: it counts elsewhere now.
        if hour <= self.hour && hour + HOURS > self.hour {
            let counted = &mut self.bytes[class as usize][(hour % HOURS) as usize];
            *counted = counted.saturating_sub(bytes);
        }
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
    fn total(&self, class: Class, max_size: Option<u64>) -> u64 {
        match (self.total.of(class), class, max_size) {
            (0, Class::Small, _) | (0, _, None) => 0,
            // The smallest stores let in at least one record, too.
            (0, _, Some(max_size)) => (max_size / SHARE_OF_MAX_SIZE).max(MAX_BODY_BYTES as u64),
            (bytes, ..) => bytes,
        }
    }
}

impl DayBytes {
    fn of(&self, class: Class) -> u64 {
        match class {
            Class::Small => self.small,
            Class::Medium => self.medium,
            Class::Large => self.large,
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
        let writer = DayBytes { small: 0, medium: 100_000, large: 1_000_000 };
        with(QuotaLimits { writer, ..QuotaLimits::default() })
    }

    fn with(limits: QuotaLimits) -> (Quotas, ManualClock) {
        let (clock, hand) = Clock::manual(500_000 * HOUR);
        (Quotas::new(limits, clock), hand)
    }

    fn writer(name: &str) -> WriterId {
        name.parse().unwrap()
    }

    fn admits(quotas: &Quotas, name: &str, body_bytes: usize) -> bool {
        admits_into(quotas, name, body_bytes, None)
    }

    fn admits_into(quotas: &Quotas, name: &str, body_bytes: usize, max_size: Option<u64>) -> bool {
        quotas.admit(&writer(name), body_bytes, max_size, false).map(Reservation::stored).is_ok()
    }

    #[test]
    fn each_class_and_each_writer_counts_for_itself() {
        let (quotas, _) = quotas();
        assert!(admits(&quotas, "a", 50_000) && admits(&quotas, "a", 50_000));
        let told = quotas.admit(&writer("a"), 4096, None, false).unwrap_err();
        assert!(told.contains("100000 bytes of medium records"), "{told}");
        assert!(admits(&quotas, "b", 100_000), "that is a large one, and of another writer");
        assert!(admits(&quotas, "a", 1_000_000) && !admits(&quotas, "a", 65_536));
        assert!((0..10_000).all(|_| admits(&quotas, "a", 4095)), "small ones have no limit");
    }

    #[test]
    fn writers_together_have_a_share_of_the_largest_size_in_force() {
        const MAX_SIZE: u64 = 80_000_000;
        let (quotas, hand) = with(QuotaLimits::default());
        for class_bytes in [50_000, 1_000_000] {
            // Nobody gains by a new name for each record, also not beyond the writers that are remembered.
            let let_in =
                (0..10_000).filter(|n| admits_into(&quotas, &n.to_string(), class_bytes, Some(MAX_SIZE)));
            assert_eq!(let_in.count() * class_bytes, 10_000_000, "an eighth");
        }
        let told = quotas.admit(&writer("late"), 4096, Some(MAX_SIZE), false).unwrap_err();
        assert!(
            told.starts_with("all writers together have stored 10000000 bytes of medium records"),
            "{told}"
        );
        assert!(admits_into(&quotas, "late", 4095, Some(MAX_SIZE)), "small ones have no limit");
        assert!(admits_into(&quotas, "late", 4096, Some(2 * MAX_SIZE)), "an operator has raised it");
        assert!(admits(&quotas, "late", 1_000_000), "without a size there is nothing to push out");
        hand.advance(24 * HOUR);
        assert!(admits_into(&quotas, "late", 65_536, Some(MAX_SIZE)));

        let (quotas, _) = with(QuotaLimits::default());
        assert!(admits_into(&quotas, "a", MAX_BODY_BYTES, Some(1 << 22)), "the smallest store takes one");
        let total = DayBytes { small: 4_000, medium: 0, large: 200_000 };
        let (quotas, _) = with(QuotaLimits { total, ..QuotaLimits::default() });
        assert!(admits(&quotas, "a", 4_000) && !admits(&quotas, "b", 1), "what is set counts without a size");
        assert!(admits_into(&quotas, "a", 200_000, Some(1 << 40)));
        assert!(!admits_into(&quotas, "b", 65_536, Some(1 << 40)), "and in place of the share");
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
    }

    #[test]
    fn what_is_confirmed_is_let_in_and_counts() {
        let total = DayBytes { large: 1_000_000, ..DayBytes::default() };
        for limits in [
            QuotaLimits { writer: total, ..QuotaLimits::default() },
            QuotaLimits { total, ..QuotaLimits::default() },
        ] {
            let (quotas, hand) = with(limits);
            for _ in 0..3 {
                quotas.admit(&writer("a"), 900_000, None, true).unwrap().stored();
            }
            drop(quotas.admit(&writer("a"), 900_000, None, true).unwrap());
            assert!(!admits(&quotas, "a", 65_536));
            hand.advance(24 * HOUR);
            assert!(admits(&quotas, "a", 1_000_000), "what was not stored does not count");
        }
    }

    #[test]
    fn a_clock_that_was_ahead_gives_nothing_back_and_stops_nothing() {
        let (quotas, hand) = quotas();
        assert!(admits(&quotas, "a", 600_000));
        hand.advance(10 * HOUR);
        let ahead = quotas.admit(&writer("a"), 400_000, None, false).unwrap();
        for hours in [499_990, 499_000] {
            hand.set(hours * HOUR);
            assert!(!admits(&quotas, "a", 65_536), "set back to hour {hours}");
        }
        drop(ahead);
        assert!(!admits(&quotas, "a", 65_536), "nobody knows any more where that is counted");
        hand.advance(23 * HOUR);
        assert!(!admits(&quotas, "a", 65_536));
        hand.advance(HOUR);
        assert!(admits(&quotas, "a", 1_000_000), "the hours roll by again");
    }

    #[test]
    fn what_was_not_stored_is_given_back_to_the_hour_it_was_taken_from() {
        let total = DayBytes { large: 1_000_000, ..DayBytes::default() };
        for limits in [
            QuotaLimits { writer: total, ..QuotaLimits::default() },
            QuotaLimits { total, ..QuotaLimits::default() },
        ] {
            let (quotas, hand) = with(limits);
            let admit = || quotas.admit(&writer("a"), 1_000_000, None, false);
            drop(admit().unwrap());
            let late = admit().unwrap();
            hand.advance(HOUR);
            drop(late);
            let too_late = admit().unwrap();
            hand.advance(30 * HOUR);
            let counted = admit().unwrap();
            drop(too_late);
            assert!(admit().is_err(), "what has rolled by is not given back twice");
            counted.stored();
            assert!(admit().is_err());
        }
    }

    #[test]
    fn writers_are_bounded_and_the_silent_ones_go_first() {
        let (quotas, hand) = quotas();
        assert!(admits(&quotas, "silent", 1_000_000));
        hand.advance(HOUR);
        for number in 0..MAX_WRITERS - 1 {
            assert!(admits(&quotas, &number.to_string(), 1_000_000));
        }
        let remembered = || quotas.counts.lock().writers.len();
        assert_eq!(remembered(), MAX_WRITERS);
        assert!(admits(&quotas, "one more", 65_536));
        assert_eq!(remembered(), MAX_WRITERS);
        assert!(admits(&quotas, "silent", 1_000_000), "it was forgotten");
        assert_eq!(remembered(), MAX_WRITERS);
    }
}
