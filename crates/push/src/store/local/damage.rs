//! How far damage goes. A damaged row, or page, is nobody's affair but of those whose rows are there. More of it means that
//! the store cannot be believed: then nobody is told anything that rests on it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::store::{ErrorKind, StoreError};

/// So many owners, or requests, may meet damage within this time, whatever the others meet.
const FEW: usize = 8;
const WHILE: Duration = Duration::from_secs(60);
/// So many may where the others are well: the keys of 128 rows are in one sector of a disk.
const MANY: usize = 256;
/// The others are well when there are so many of them for each that is not.
const OTHERS: usize = 9;

/// The damage that was met since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Damage {
    met: Mutex<Met>,
    /// Answers without damage, in the time that is looked at.
    well: AtomicUsize,
}

#[derive(Debug, Default)]
struct Met {
    since: Option<Instant>,
    /// What was asked for.
    by: HashSet<u64>,
    /// It stays so: what is damaged does not mend itself.
    is_widespread: bool,
}

impl Damage {
    /// What the caller is told of an answer about something: an error of one owner's, or one of the whole store.
    pub(super) fn judge<T>(&self, about: &impl Hash, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match answer {
            Err(error) if error.kind() == ErrorKind::Corrupt && self.note(about) => Err(StoreError::Damaged),
            Err(error) => Err(error),
            Ok(answer) => {
                self.well.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
        }
    }

    /// That the store cannot be believed, if so.
    pub(super) fn health(&self) -> Option<StoreError> {
        self.met.lock().is_widespread.then_some(StoreError::Damaged)
    }

    /// Whether there is more than a few.
    fn note(&self, about: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        about.hash(&mut hasher);
        let mut met = self.met.lock();
        if met.is_widespread {
            return true;
        }
        if met.since.is_none_or(|since| since.elapsed() >= WHILE) {
            (met.since, met.by) = (Some(Instant::now()), HashSet::new());
            self.well.store(0, Ordering::Relaxed);
        }
        met.by.insert(hasher.finish());
        let count = met.by.len();
        let are_others_well = self.well.load(Ordering::Relaxed) >= count * OTHERS;
        met.is_widespread = count > if are_others_well { MANY } else { FEW };
        if met.is_widespread {
            tracing::error!(
                "much of what is asked of the store is damaged: nothing is answered that rests on it"
            );
        }
        met.is_widespread
    }
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
    async fn more_are_the_whole_store_and_stay_so() {
        let damage = Damage::default();
        for owner in 0..=FEW {
            assert_eq!(is_own(&damage, owner), owner < FEW);
        }
        assert_eq!(damage.health().unwrap().kind(), ErrorKind::Corrupt);
        tokio::time::advance(2 * WHILE).await;
        assert!(!is_own(&damage, 0), "it does not mend itself");
    }

    #[tokio::test(start_paused = true)]
    async fn more_are_no_more_than_that_where_the_others_are_well() {
        let damage = Damage::default();
        for owner in 0..=MANY {
            (0..2 * OTHERS).for_each(|_| damage.judge(&"another", Ok(())).unwrap());
            assert_eq!(is_own(&damage, owner), owner < MANY, "{owner}");
        }
    }
}
