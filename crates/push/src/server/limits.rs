//! How often each key may be served, so that one who asks all day costs no others anything. Nothing is limited by where
//! it came from: behind one gateway there are many people.
//!
//! A rate is a bucket of tokens that fills again with time. What is kept of a bucket is how empty it was at which time,
//! under a keyed hash of whom it is for: no key is kept at all, and what belongs to a full bucket is overwritten soon.
//! Each bucket has its own time: what a month of old messages brings to one moves no other. The table has a fixed size.
//! Where it is full, the bucket that will be full first makes room: a crowd of strangers does not set free who has used
//! up a bucket.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use poste_wire::status::HashedPublicKey;

/// How many may share the places that a hash names.
const WAYS: usize = 8;
/// Groups of places of a table: 32,768 buckets, a megabyte.
const GROUPS: usize = 4096;
/// Groups that are looked through by one [`Limits::forget`].
const FORGOTTEN_AT_ONCE: usize = 256;
/// Further back than this the clock was set.
const SLACK_US: u64 = 60_000_000;
/// What was made so long ago is of the past: read again, or brought in from elsewhere.
const PAST_US: u64 = 600_000_000;
const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;
/// For 512 days.
const GROUPS_OF_DAYS: usize = 64;

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

/// How often each is served. Registrations count for when they were made, so that a server that has to read a month again
/// refuses nobody for that; queries and notifications count for now, when they cost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Registrations that change something, of one signer: 120, and another each 5 s. Others get INTERNAL_ERROR, and
    /// nothing is derived or stored.
    pub registrations: Rate,
    /// First registrations of owners who have nothing here, all together, since each costs a derivation and a place on
    /// disk: 2,000, and another each 50 ms; as many again of each day of the past. Others get INTERNAL_ERROR.
    pub new_owners: Rate,
    /// Long answers to queries about one owner: 600, and another each 100 ms. Others name those devices only that fit
    /// into a short one, and are none if none does. Short answers have no limit: anybody could use it up. As many queries
    /// of one asker that are sealed to the server, whatever their answers; others get no answer.
    pub queries: Rate,
    /// Notifications to the devices of one owner: 300, and another each 500 ms. Others are reported as INTERNAL_ERROR
    /// and can be asked for again. What the provider refuses does not count.
    pub notifications: Rate,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            registrations: Rate::new(120, Duration::from_secs(5)),
            new_owners: Rate::new(2000, Duration::from_millis(50)),
            queries: Rate::new(600, Duration::from_millis(100)),
            notifications: Rate::new(300, Duration::from_millis(500)),
        }
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Limited {
    Registrations,
    NewOwners,
    Queries,
    /// By who asks.
    SealedQueries,
    /// Claims on notifications that are not sent for a reason that is in none of the receiver's lists.
    HeldBack,
}

/// What a notification takes of the limits: a token of its receiver's, and one of what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toll {
    pub(crate) receiver: HashedPublicKey,
    /// A hash: of its author, if it is wanted; of the entry of a list for which it is not.
    pub(crate) about: [u8; 32],
    /// The receiver does not want it. It only needs a token of the receiver's and takes none, so that whoever is
    /// filtered cannot use up what others may send, and finds the same limits as if it were sent.
    pub(crate) is_held_back: bool,
}

/// When something is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    /// The message was made, since 1970.
    pub(crate) made_at: Duration,
    /// It is dealt with, since 1970.
    pub(crate) now: Duration,
}

/// The buckets of all.
#[derive(Debug)]
pub(crate) struct Limits {
    registrations: Buckets,
    new_owners: Buckets,
    past_owners: Buckets,
    queries: Buckets,
    sealed_queries: Buckets,
    notifications: Buckets,
    abouts: Buckets,
    held_back: Buckets,
}

impl Limits {
    pub(crate) fn new(settings: &LimitSettings) -> Self {
        Self {
            registrations: Buckets::new(settings.registrations, GROUPS),
            new_owners: Buckets::new(settings.new_owners, 1),
            past_owners: Buckets::new(settings.new_owners, GROUPS_OF_DAYS),
            queries: Buckets::new(settings.queries, GROUPS),
            sealed_queries: Buckets::new(settings.queries, GROUPS),
            notifications: Buckets::new(settings.notifications, GROUPS),
            abouts: Buckets::new(settings.notifications, GROUPS),
            held_back: Buckets::new(settings.notifications, GROUPS),
        }
    }

    /// Takes a token for this owner; false if there is none.
    pub(crate) fn take(&self, what: Limited, owner: &HashedPublicKey, when: When) -> bool {
        let (made_us, now_us) = (micros(when.made_at.min(when.now)), micros(when.now));
        match what {
            Limited::Registrations => self.registrations.take(owner, made_us, now_us),
            // What is read again, or brought in, stands in nobody's way who comes now; and one history that is brought
            // in not in another's that is older.
            Limited::NewOwners if now_us - made_us > PAST_US => {
                self.past_owners.take(&(made_us / DAY_US), made_us, now_us)
            }
            Limited::NewOwners => self.new_owners.take(&(), made_us, now_us),
            Limited::Queries => self.queries.take(owner, now_us, now_us),
            Limited::SealedQueries => self.sealed_queries.take(owner, now_us, now_us),
            Limited::HeldBack => self.held_back.take(owner, now_us, now_us),
        }
    }

    /// Takes what a notification takes; false, and nothing is taken, if there is not as much.
    pub(crate) fn take_toll(&self, toll: &Toll, now: Duration) -> bool {
        let (Toll { receiver, about, is_held_back }, now_us) = (toll, micros(now));
        if !self.abouts.take(&(receiver, about), now_us, now_us) {
            return false;
        }
        let has_one = match is_held_back {
            true => self.notifications.has(receiver, now_us),
            false => self.notifications.take(receiver, now_us, now_us),
        };
        if !has_one {
            self.abouts.give_back(&(receiver, about));
        }
        has_one
    }

    /// Gives back what was taken for a notification that was not sent.
    pub(crate) fn give_toll_back(&self, toll: &Toll) {
        self.abouts.give_back(&(&toll.receiver, &toll.about));
        if !toll.is_held_back {
            self.notifications.give_back(&toll.receiver);
        }
    }

    /// Clears away a part of what belongs to buckets that are full by now, since 1970.
    pub(crate) fn forget(&self, now: Duration) {
        let Self {
            registrations,
            new_owners,
            past_owners,
            queries,
            sealed_queries,
            notifications,
            abouts,
            held_back,
        } = self;
        for buckets in [
            registrations,
            new_owners,
            past_owners,
            queries,
            sealed_queries,
            notifications,
            abouts,
            held_back,
        ] {
            buckets.forget(micros(now));
        }
    }
}

impl Limited {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Registrations => "registrations_too_fast",
            Self::NewOwners => "new_owners_too_fast",
            Self::Queries => "queries_too_fast",
            Self::SealedQueries => "sealed_queries_too_fast",
            Self::HeldBack => "held_back_too_fast",
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
    /// Which group is looked through next.
    hand: usize,
}

/// A bucket that is not full. All times are in microseconds since 1970.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    whose: u64,
    /// The latest time of what was taken: it never goes back, or old messages would fill the bucket.
    latest_us: u64,
    /// For so long it would have to fill then.
    lacks_us: u64,
    /// From this time of ours on it is nobody's. By our time and not by that of messages, or whoever sends old ones
    /// would have a new bucket each time.
    kept_until_us: u64,
}

impl Buckets {
    fn new(rate: Rate, groups: usize) -> Self {
        let token_us = micros(rate.every);
        let burst_us = token_us.saturating_mul(rate.burst.into());
        // What limits nothing needs no table.
        let groups = if burst_us == 0 { 0 } else { groups };
        let table = Table { groups: vec![[Bucket::default(); WAYS]; groups], hand: 0 };
        Self { token_us, burst_us, hasher: RandomState::new(), table: Mutex::new(table) }
    }

    /// Takes a token at a time that is not after now.
    fn take(&self, key: &impl Hash, at_us: u64, now_us: u64) -> bool {
        let whose = self.hasher.hash_one(key);
        let mut table = self.table.lock();
        let Some(group) = table.group(whose) else { return true };
        let place = group.iter().position(|bucket| bucket.whose == whose);
        let known = place.map(|place| group[place]).filter(|bucket| self.is_kept(bucket, now_us));
        let latest_us = known.map_or(at_us, |known| known.latest_us.max(at_us));
        let lacked_us = known.map_or(0, |known| known.lacks_us.saturating_sub(latest_us - known.latest_us));
        let lacks_us = lacked_us.saturating_add(self.token_us);
        if lacks_us > self.burst_us {
            return false;
        }
        let place = place.unwrap_or_else(|| {
            let first_full = group.iter().enumerate().min_by_key(|(_, bucket)| bucket.kept_until_us);
            first_full.map_or(0, |(place, _)| place)
        });
        let kept_until_us = now_us.saturating_add(lacks_us);
        group[place] = Bucket { whose, latest_us, lacks_us, kept_until_us };
        true
    }

    /// Whether there is a token.
    fn has(&self, key: &impl Hash, now_us: u64) -> bool {
        let whose = self.hasher.hash_one(key);
        let mut table = self.table.lock();
        let Some(group) = table.group(whose) else { return true };
        let known = group.iter().find(|bucket| bucket.whose == whose && self.is_kept(bucket, now_us));
        let lacks_us =
            known.map_or(0, |known| known.lacks_us.saturating_sub(now_us.saturating_sub(known.latest_us)));
        lacks_us.saturating_add(self.token_us) <= self.burst_us
    }

    /// One token that was taken was not used.
    fn give_back(&self, key: &impl Hash) {
        let whose = self.hasher.hash_one(key);
        let mut table = self.table.lock();
        let known =
            table.group(whose).and_then(|group| group.iter_mut().find(|bucket| bucket.whose == whose));
        if let Some(bucket) = known {
            bucket.lacks_us = bucket.lacks_us.saturating_sub(self.token_us);
        }
    }

    fn forget(&self, now_us: u64) {
        let mut table = self.table.lock();
        for _ in 0..FORGOTTEN_AT_ONCE.min(table.groups.len()) {
            let hand = table.hand;
            table.hand = (hand + 1) % table.groups.len();
            for bucket in table.groups[hand].iter_mut().filter(|bucket| !self.is_kept(bucket, now_us)) {
                *bucket = Bucket::default();
            }
        }
    }

    /// Not if it is full by now; nor if the clock was set back, or it would hold for as long.
    fn is_kept(&self, bucket: &Bucket, now_us: u64) -> bool {
        let longest_us = self.burst_us.saturating_add(SLACK_US);
        bucket.kept_until_us > now_us && bucket.kept_until_us - now_us <= longest_us
    }
}

impl Table {
    fn group(&mut self, whose: u64) -> Option<&mut [Bucket; WAYS]> {
        let place = (whose as usize).checked_rem(self.groups.len())?;
        self.groups.get_mut(place)
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
        let used = || buckets.table.lock().groups.iter().flatten().filter(|b| b.kept_until_us != 0).count();
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

    /// Somebody is served now, and then a month of others is brought in.
    #[test]
    fn each_key_has_its_own_time() {
        let buckets = three();
        let (now, day) = (micros(START), Duration::from_secs(24 * 60 * 60));
        assert_eq!(taken(&buckets, 0, START, 5), 3);
        for key in 1..4 {
            for days in (0..30).rev() {
                assert!(buckets.take(&key, micros(START - days * day), now), "{key}, {days} days ago");
            }
        }
    }

    /// Whoever says that all was made minutes ago has one bucket, as everybody has.
    #[test]
    fn who_lives_in_the_past_has_no_more_than_others() {
        let buckets = three();
        let past = micros(START - Duration::from_secs(240));
        let mut served = 0;
        for second in 0..30 {
            let now = micros(START + second * SECOND);
            buckets.forget(now);
            served += (0..5).filter(|_| buckets.take(&1, past, now)).count();
        }
        assert!(served <= 3 + 30, "{served}");
    }

    #[test]
    fn a_token_that_is_given_back_can_be_taken_again() {
        let buckets = three();
        assert_eq!(taken(&buckets, 1, START, 5), 3);
        buckets.give_back(&1);
        buckets.give_back(&2);
        assert_eq!((taken(&buckets, 1, START, 5), taken(&buckets, 2, START, 5)), (1, 3));
    }

    /// What is read again, or brought in, does not stand in the way of those who come now, nor they in its.
    #[test]
    fn owners_of_the_past_are_counted_apart() {
        let settings = LimitSettings { new_owners: Rate::new(3, SECOND), ..LimitSettings::default() };
        let limits = Limits::new(&settings);
        let owner = HashedPublicKey([1; 64]);
        let taken = |made_at: Duration| {
            (0..5).filter(|_| limits.take(Limited::NewOwners, &owner, When { made_at, now: START })).count()
        };
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        assert_eq!((taken(START), taken(START - month), taken(START)), (3, 3, 0));
        assert_eq!(taken(START - month + 60 * SECOND), 3, "at the pace at which they were made");
        assert_eq!(taken(START - 2 * month), 3, "another history, after the newer one");
    }

    #[test]
    fn a_clock_that_is_set_back_refuses_nobody_for_long() {
        let buckets = three();
        let wrong = START + Duration::from_secs(365 * 24 * 60 * 60);
        assert_eq!(taken(&buckets, 1, wrong, 5), 3);
        assert_eq!(taken(&buckets, 1, START, 5), 3);
    }
}
