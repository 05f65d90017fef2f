//! How often each key may be served, so that one who asks all day costs no others anything. Nothing is limited by where
//! it came from: behind one gateway there are many people.
//!
//! A rate is a bucket of tokens that fills again with time. What is kept of a bucket is the time at which it will be
//! full again, under a keyed hash of whom it is for: no key is kept at all, and what belongs to a full bucket is
//! overwritten soon. The table has a fixed size. Where it is full, the bucket that will be full first makes room: a crowd
//! of strangers does not set free who has used up a bucket.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

/// How many may share the places that a hash names.
const WAYS: usize = 8;
/// Groups of places of a table: 32,768 buckets, half a megabyte.
const GROUPS: usize = 4096;
/// Groups that are looked through by one [`Limits::forget`].
const FORGOTTEN_AT_ONCE: usize = 256;
/// Messages are not in the order of their times. Further back than this the clock was set.
const SLACK_US: u64 = 60_000_000;

/// So many at once, and one more each time that so much time has passed. A burst of 0 limits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once.
    pub burst: u32,
    /// After what time there may be another one.
    pub every: Duration,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { burst: 0, every: Duration::ZERO };

    const fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every }
    }
}

/// How often each is served. What was made in the past counts for when it was made, so that a server that has to read a
/// month again refuses nobody for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Registrations that change something, of one signer: 120, and another each 5 s. Others get INTERNAL_ERROR, and
    /// nothing is derived or stored.
    pub registrations: Rate,
    /// First registrations of owners who have nothing here, all together, since each costs a derivation and a place on
    /// disk: 2,000, and another each 50 ms. Others get INTERNAL_ERROR.
    pub new_owners: Rate,
    /// Times that one owner's devices are named in answers to queries: 300, and another each 500 ms. A query that has
    /// nothing else to ask gets no answer, which would cost more than it is worth.
    pub queries: Rate,
    /// Notifications to the devices of one owner: 300, and another each 500 ms. Others are reported as INTERNAL_ERROR
    /// and can be asked for again.
    pub notifications: Rate,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            registrations: Rate::new(120, Duration::from_secs(5)),
            new_owners: Rate::new(2000, Duration::from_millis(50)),
            queries: Rate::new(300, Duration::from_millis(500)),
            notifications: Rate::new(300, Duration::from_millis(500)),
        }
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    Registrations,
    NewOwners,
    Queries,
    Notifications,
}

/// The buckets of all.
#[derive(Debug)]
pub(crate) struct Limits {
    registrations: Buckets,
    new_owners: Buckets,
    queries: Buckets,
    notifications: Buckets,
}

impl Limits {
    pub(crate) fn new(settings: &LimitSettings) -> Self {
        Self {
            registrations: Buckets::new(settings.registrations, GROUPS),
            new_owners: Buckets::new(settings.new_owners, 1),
            queries: Buckets::new(settings.queries, GROUPS),
            notifications: Buckets::new(settings.notifications, GROUPS),
        }
    }

    /// Takes a token of `key`'s for what was made at a time, since 1970; false if there is none. `now` is the time, since
    /// 1970.
    pub(crate) fn take(&self, what: Limited, key: &impl Hash, made_at: Duration, now: Duration) -> bool {
        self.buckets(what).take(key, micros(made_at.min(now)), micros(now))
    }

    /// Clears away a part of what belongs to buckets that are full by now, since 1970.
    pub(crate) fn forget(&self, now: Duration) {
        for buckets in [&self.registrations, &self.new_owners, &self.queries, &self.notifications] {
            buckets.forget(micros(now));
        }
    }

    fn buckets(&self, what: Limited) -> &Buckets {
        match what {
            Limited::Registrations => &self.registrations,
            Limited::NewOwners => &self.new_owners,
            Limited::Queries => &self.queries,
            Limited::Notifications => &self.notifications,
        }
    }
}

impl Limited {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Registrations => "registrations_too_fast",
            Self::NewOwners => "new_owners_too_fast",
            Self::Queries => "queries_too_fast",
            Self::Notifications => "notifications_too_fast",
        }
    }
}

/// The buckets of one rate.
#[derive(Debug)]
struct Buckets {
    /// For one token, and for all of them.
    token_us: u64,
    burst_us: u64,
    hasher: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    groups: Vec<[Bucket; WAYS]>,
    /// The latest time there was: it never goes back, or old messages would fill buckets.
    latest_us: u64,
    /// Which group is looked through next.
    hand: usize,
}

/// A bucket that is not full.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    whose: u64,
    /// In microseconds since 1970. It is full from then on, and nobody's.
    full_at_us: u64,
}

impl Buckets {
    fn new(rate: Rate, groups: usize) -> Self {
        let token_us = micros(rate.every);
        let burst_us = token_us.saturating_mul(rate.burst.into());
        // What limits nothing needs no table.
        let groups = if burst_us == 0 { 0 } else { groups };
        let table = Table { groups: vec![[Bucket::default(); WAYS]; groups], latest_us: 0, hand: 0 };
        Self { token_us, burst_us, hasher: RandomState::new(), table: Mutex::new(table) }
    }

    fn take(&self, key: &impl Hash, at_us: u64, now_us: u64) -> bool {
        let whose = self.hasher.hash_one(key);
        let mut table = self.table.lock();
        if table.groups.is_empty() {
            return true;
        }
        let at_us = table.time(at_us, now_us);
        let group = whose as usize % table.groups.len();
        let group = &mut table.groups[group];
        let known = group.iter().position(|bucket| bucket.whose == whose && bucket.full_at_us > at_us);
        let full_at_us = known.map_or(at_us, |place| group[place].full_at_us);
        let then_us = full_at_us.saturating_add(self.token_us);
        if then_us - at_us > self.burst_us {
            return false;
        }
        let place = known.unwrap_or_else(|| {
            let first_full = group.iter().enumerate().min_by_key(|(_, bucket)| bucket.full_at_us);
            first_full.map_or(0, |(place, _)| place)
        });
        group[place] = Bucket { whose, full_at_us: then_us };
        true
    }

    fn forget(&self, now_us: u64) {
        let mut table = self.table.lock();
        for _ in 0..FORGOTTEN_AT_ONCE.min(table.groups.len()) {
            let hand = table.hand;
            table.hand = (hand + 1) % table.groups.len();
            for bucket in table.groups[hand].iter_mut().filter(|bucket| bucket.full_at_us <= now_us) {
                *bucket = Bucket::default();
            }
        }
    }
}

impl Table {
    /// The time to go by.
    fn time(&mut self, at_us: u64, now_us: u64) -> u64 {
        if self.latest_us > now_us.saturating_add(SLACK_US) {
            // The clock was set back: what was counted under the other time would hold for as long.
            self.groups.fill([Bucket::default(); WAYS]);
            self.latest_us = 0;
        }
        self.latest_us = self.latest_us.max(at_us);
        self.latest_us
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_700_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn three() -> Buckets {
        Buckets::new(Rate::new(3, SECOND), 4)
    }

    fn taken(buckets: &Buckets, key: u32, at: Duration, times: usize) -> usize {
        (0..times).filter(|_| buckets.take(&key, micros(at), micros(at))).count()
    }

    #[test]
    fn a_bucket_fills_with_time_and_is_one_keys() {
        let buckets = three();
        assert_eq!(taken(&buckets, 1, START, 5), 3);
        assert_eq!(taken(&buckets, 2, START, 5), 3, "another key's");
        assert_eq!(taken(&buckets, 1, START + SECOND / 2, 5), 0);
        assert_eq!(taken(&buckets, 1, START + SECOND, 5), 1);
        assert_eq!(taken(&buckets, 1, START + 3 * SECOND, 5), 2);
        assert_eq!(taken(&buckets, 1, START + 60 * SECOND, 5), 3, "no more than it holds");
    }

    #[test]
    fn no_limit_is_none() {
        let buckets = Buckets::new(Rate::UNLIMITED, 4);
        assert_eq!(taken(&buckets, 1, START, 1000), 1000);
    }

    #[test]
    fn nothing_is_kept_of_full_buckets() {
        let buckets = three();
        for key in 0..40 {
            taken(&buckets, key, START, 3);
        }
        let used = || buckets.table.lock().groups.iter().flatten().filter(|b| b.full_at_us != 0).count();
        assert!(used() > 20);
        buckets.forget(micros(START + 2 * SECOND));
        assert!(used() > 20, "they are not full");
        buckets.forget(micros(START + 3 * SECOND));
        assert_eq!(used(), 0);
    }

    /// Whoever has used up a bucket cannot get another one by bringing in a crowd.
    #[test]
    fn a_crowd_sets_nobody_free() {
        let buckets = three();
        assert_eq!(taken(&buckets, 0, START, 3), 3);
        for stranger in 1..10_000 {
            buckets.take(&stranger, micros(START), micros(START));
        }
        assert_eq!(taken(&buckets, 0, START, 1), 0);
        assert_eq!(buckets.table.lock().groups.len(), 4, "and the table does not grow");
    }

    #[test]
    fn messages_of_the_past_count_for_when_they_were_made_and_fill_nothing() {
        let buckets = three();
        let now = micros(START);
        let day = Duration::from_secs(24 * 60 * 60);
        // A month is read again: one a day is no flood.
        for days in (0..30).rev() {
            assert!(buckets.take(&1, micros(START - days * day), now));
        }
        assert_eq!(taken(&buckets, 1, START, 5), 2);
        assert!(!buckets.take(&1, micros(START - day), now), "there is no way back");
        assert!(!buckets.take(&1, now, now));
    }

    #[test]
    fn a_clock_that_is_set_back_refuses_nobody_for_long() {
        let buckets = three();
        let wrong = START + Duration::from_secs(365 * 24 * 60 * 60);
        assert_eq!(taken(&buckets, 1, wrong, 5), 3);
        assert_eq!(taken(&buckets, 1, START, 5), 3);
    }
}
