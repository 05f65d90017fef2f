//! How far damage goes. A damaged row, or page, is nobody's affair but of those whose rows are there. More of it means that
//! the store cannot be believed: then nobody is told anything that rests on it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::store::{ErrorKind, StoreError};

/// So many owners, or requests, may meet damage within this time, whatever the others meet.
const FEW: usize = 8;
/// Also how long nobody meets any until the store is believed again: what waits asks every few seconds.
const WHILE: Duration = Duration::from_secs(60);
/// So many may where the others are well: the keys of 128 rows are in one sector of a disk.
const MANY: usize = 256;
/// The others are well when there are so many of them for each that is not.
const OTHERS: usize = 9;

/// The damage that was met in one database since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Damage {
    met: Mutex<Met>,
}

/// By hashes of what was asked for.
#[derive(Debug, Default)]
struct Met {
    since: Option<Instant>,
    last_damage: Option<Instant>,
    damaged: HashSet<u64>,
    /// What was read, and nothing of it is damaged.
    well: HashSet<u64>,
    /// How many were well in the time before.
    well_before: usize,
    is_widespread: bool,
}

impl Damage {
    /// What the caller is told of an answer about something: an error of one owner's, or one of the whole store.
    pub(super) fn judge<T>(&self, about: &impl Hash, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match answer {
            Err(error) if error.kind() == ErrorKind::Corrupt && self.note(about) => Err(StoreError::Damaged),
            answer => answer,
        }
    }

    /// Notes that what was asked for is there, and was read to its end.
    pub(super) fn well(&self, about: &impl Hash) {
        let about = hash(about);
        let mut met = self.met.lock();
        if met.well.len() < MANY * OTHERS && !met.damaged.contains(&about) {
            met.well.insert(about);
        }
    }

    /// That the store cannot be believed, if so.
    pub(super) fn health(&self) -> Option<StoreError> {
        let mut met = self.met.lock();
        met.may_end();
        met.is_widespread.then_some(StoreError::Damaged)
    }

    /// Whether there is more than a few.
    fn note(&self, about: &impl Hash) -> bool {
        let about = hash(about);
        let mut met = self.met.lock();
        met.may_end();
        let now = Instant::now();
        let is_over = met.since.is_none_or(|since| since.elapsed() >= WHILE);
        if !met.is_widespread && is_over {
            // Others that came before this damage are others too.
            let well_before = met.well.len();
            *met = Met { since: Some(now), well_before, ..Met::default() };
        }
        met.well.remove(&about);
        // What asks again and again while it is told to wait is no news.
        if met.damaged.len() > MANY || met.damaged.insert(about) {
            met.last_damage = Some(now);
        }
        let others = met.well.len().max(met.well_before);
        if !met.is_widespread && met.damaged.len() > FEW && !met.is_of_few(others) {
            tracing::error!(
                "much of what is asked of the store is damaged: nothing is answered that rests on it"
            );
            // From here on it is looked anew at who is well, until that is enough.
            (met.is_widespread, met.since) = (true, Some(now));
            (met.well, met.well_before) = (HashSet::new(), 0);
        }
        met.is_widespread
    }
}

impl Met {
    /// Whether so many others are well that the damaged ones are a part of all.
    fn is_of_few(&self, others: usize) -> bool {
        self.damaged.len() <= MANY && others >= self.damaged.len() * OTHERS
    }

    /// Ends it when nobody else met damage for a while, which was a disk that did not read, and when so many others are well
    /// meanwhile that it is of a few all the same.
    fn may_end(&mut self) {
        let has_passed = |since: Option<Instant>| since.is_none_or(|since| since.elapsed() >= WHILE);
        let is_of_few = self.is_of_few(self.well.len()) && has_passed(self.since);
        if self.is_widespread && (is_of_few || has_passed(self.last_damage)) {
            tracing::info!("what is asked of the store can be read again, but for a few at most");
            (self.is_widespread, self.since) = (false, None);
        }
    }
}

fn hash(about: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    about.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damaged() -> Result<(), StoreError> {
        Err(StoreError::corrupt("a row", "it cannot be read"))
    }

    /// Whether what somebody is told is final.
    fn is_own(damage: &Damage, owner: usize) -> bool {
        damage.judge(&owner, damaged()).unwrap_err().is_of_one_owner()
    }

    /// Some of whom nothing is damaged.
    fn others(damage: &Damage, count: usize) {
        (0..count).for_each(|owner| damage.well(&("well", owner)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_a_few_however_often_they_ask() {
        let damage = Damage::default();
        for _ in 0..3 {
            assert!((0..FEW).all(|owner| is_own(&damage, owner)));
        }
        tokio::time::advance(WHILE).await;
        assert!((FEW..2 * FEW).all(|owner| is_own(&damage, owner)), "others, and later");
        assert!(damage.judge(&99, Err::<(), _>(StoreError::Closed)).is_err());
        assert!(damage.health().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_the_whole_store_as_long_as_they_meet_it() {
        let damage = Damage::default();
        for owner in 0..=FEW {
            assert_eq!(is_own(&damage, owner), owner < FEW);
        }
        for round in 1..6 {
            tokio::time::advance(WHILE / 2).await;
            assert!(!is_own(&damage, FEW + round), "others meet it");
            assert!(!is_own(&damage, 0), "whoever waits asks again");
            // What else of a damaged owner can be read tells nothing of others.
            damage.well(&0);
            assert_eq!(damage.health().unwrap().kind(), ErrorKind::Corrupt);
        }
        tokio::time::advance(WHILE / 2).await;
        assert!(!is_own(&damage, 0));
        tokio::time::advance(WHILE / 2).await;
        assert!(damage.health().is_none(), "nobody new meets it: those who wait are answered");
        assert!(is_own(&damage, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_no_more_than_that_where_the_others_are_well() {
        let damage = Damage::default();
        for owner in 0..=MANY {
            others(&damage, 2 * OTHERS * (owner + 1));
            assert_eq!(is_own(&damage, owner), owner < MANY, "{owner}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_no_more_than_that_where_the_others_were_well() {
        let damage = Damage::default();
        others(&damage, (FEW + 1) * OTHERS);
        tokio::time::advance(2 * WHILE).await;
        assert!((0..=FEW).all(|owner| is_own(&damage, owner)));
        assert!(damage.health().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_no_more_than_that_once_the_others_are_well() {
        let damage = Damage::default();
        assert!(!(0..=FEW).all(|owner| is_own(&damage, owner)), "before anybody else asked");
        for round in 1..3 {
            // One that asks often is one.
            (0..1000).for_each(|_| damage.well(&"another"));
            tokio::time::advance(WHILE / 2).await;
            assert!(!is_own(&damage, FEW + round));
        }
        others(&damage, (FEW + 3) * OTHERS);
        assert!(damage.health().is_none());
        assert!((0..=FEW).all(|owner| is_own(&damage, owner)));
    }
}
