//! Reading what queries ask about. All who wait to hear of one owner are told by one look-up, so that many who ask about
//! the same person cost hardly more than one, and nobody is turned away for the others.
//!
//! Owners with long rows have a lane of their own, where one is read at a time: however many they are, and however often
//! they are asked about, all others are read beside them. What they wait with before they come here is apart, too: see
//! [`LookUps::was_long`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use poste_wire::status::HashedPublicKey;
use tokio::sync::{OnceCell, Semaphore};

use crate::store::StoreError;
use crate::turns::Turns;

/// Owners whose rows are in memory at once, besides one with long rows. Each has 16 MiB at most, and as much again while
/// it is read; but only the first time.
const OWNERS_AT_ONCE: usize = 3;
/// Rows of more bytes than this are long: they take milliseconds.
const LONG_BYTES: usize = 1024 * 1024;
/// Marks of owners with long rows. Two owners may share one: then a short look-up waits with the long ones, once.
const MARKS: usize = 1 << 16;

/// What a look-up found, as answers to queries say it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Each device as an encoded part of an answer.
    pub(crate) devices: Vec<Vec<u8>>,
    /// Devices that no answer has room for.
    pub(crate) left_out: u64,
    /// Bytes of the rows.
    pub(crate) bytes: usize,
}

impl Found {
    /// Rows that take a while to read.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes > LONG_BYTES
    }
}

type LookUp = OnceCell<Result<Arc<Found>, StoreError>>;

/// The look-ups that are under way.
#[derive(Debug)]
pub(crate) struct LookUps {
    /// Those that have not begun to read.
    waiting: Mutex<HashMap<HashedPublicKey, Arc<LookUp>>>,
    turns: Turns,
    short: Semaphore,
    long: Semaphore,
    /// By a keyed hash of an owner: whether its rows were long the last time.
    were_long: Box<[AtomicBool]>,
    hasher: RandomState,
}

impl Default for LookUps {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            turns: Turns::default(),
            short: Semaphore::new(OWNERS_AT_ONCE),
            long: Semaphore::new(1),
            were_long: (0..MARKS).map(|_| AtomicBool::new(false)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl LookUps {
    /// What `read` finds of an owner, or what it found for another who asked, if it began after this call.
    pub(crate) async fn of(
        &self,
        owner: HashedPublicKey,
        read: impl AsyncFnOnce() -> Result<Found, StoreError>,
    ) -> Result<Arc<Found>, StoreError> {
        let look_up = Arc::clone(self.waiting.lock().entry(owner).or_default());
        // Cleared away again also if the wait is given up.
        let waits = Waits { look_ups: self, owner, look_up: &look_up };
        let found = look_up.get_or_init(async || {
            let _turn = self.turns.take(owner).await;
            let was_long = self.mark(&owner);
            let lane = if was_long.load(Ordering::Relaxed) { &self.long } else { &self.short };
            let _rows_in_memory = lane.acquire().await;
            // Whoever comes from here on may know of a change that this one does not see.
            waits.begin();
            let found = read().await?;
            was_long.store(found.is_long(), Ordering::Relaxed);
            Ok(Arc::new(found))
        });
        found.await.clone()
    }

    /// Whether an owner's rows were long when they were last read. The first time nobody knows.
    pub(crate) fn was_long(&self, owner: &HashedPublicKey) -> bool {
        self.mark(owner).load(Ordering::Relaxed)
    }

    fn mark(&self, owner: &HashedPublicKey) -> &AtomicBool {
        &self.were_long[self.hasher.hash_one(owner) as usize % MARKS]
    }
}

/// One of those who wait for a look-up.
struct Waits<'l> {
    look_ups: &'l LookUps,
    owner: HashedPublicKey,
    look_up: &'l Arc<LookUp>,
}

impl Waits<'_> {
    fn begin(&self) {
        self.forget_if(|_| true);
    }

    fn forget_if(&self, is_over: impl FnOnce(&Arc<LookUp>) -> bool) {
        let mut waiting = self.look_ups.waiting.lock();
        let is_it = waiting.get(&self.owner).is_some_and(|it| Arc::ptr_eq(it, self.look_up) && is_over(it));
        if is_it {
            waiting.remove(&self.owner);
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        // The list's and this one's: nobody else waits for it.
        self.forget_if(|look_up| Arc::strong_count(look_up) <= 2);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::sync::oneshot;
    use tokio::task::unconstrained;

    use super::*;

    const OWNER: HashedPublicKey = HashedPublicKey([1; 64]);

    fn found(number: usize) -> Found {
        Found { left_out: number as u64, ..Found::default() }
    }

    /// The first reads while the others come: they are told by the second, which begins after all of them came.
    #[tokio::test]
    async fn who_asks_while_one_is_read_is_told_by_the_next() {
        let look_ups = LookUps::default();
        let reads = AtomicUsize::new(0);
        let (end, ended) = oneshot::channel();
        let first = look_ups.of(OWNER, async || {
            ended.await.unwrap();
            Ok(found(reads.fetch_add(1, Ordering::Relaxed)))
        });
        let mut first = Box::pin(first);
        assert!((&mut first).now_or_never().is_none(), "it reads");
        let others =
            (0..500).map(|_| look_ups.of(OWNER, async || Ok(found(reads.fetch_add(1, Ordering::Relaxed)))));
        let mut others = Box::pin(join_all(others));
        assert!((&mut others).now_or_never().is_none());
        let other_owner = look_ups.of(HashedPublicKey([2; 64]), async || Ok(found(7)));
        assert_eq!(
            *other_owner.await.unwrap(),
            found(7),
            "who is asked about besides waits for none of them"
        );
        end.send(()).unwrap();
        assert_eq!(*first.await.unwrap(), found(0));
        assert!(others.await.into_iter().all(|told| *told.unwrap() == found(1)));
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        assert!(look_ups.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn owners_with_long_rows_keep_no_others_waiting() {
        let look_ups = LookUps::default();
        let long = (10..200).map(|number| HashedPublicKey([number; 64]));
        for owner in long.clone() {
            look_ups
                .of(owner, async || Ok(Found { bytes: LONG_BYTES + 1, ..Found::default() }))
                .await
                .unwrap();
        }
        let reading = AtomicUsize::new(0);
        let never = async || {
            reading.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        };
        let mut read_long = Box::pin(unconstrained(join_all(long.map(|owner| look_ups.of(owner, never)))));
        assert!((&mut read_long).now_or_never().is_none());
        assert!(reading.load(Ordering::Relaxed) == 1, "one at a time");
        // Not all of these share a mark with one of those.
        let others = (200..=255).map(|number| HashedPublicKey([number; 64]));
        let told = others.filter(|owner| {
            unconstrained(look_ups.of(*owner, async || Ok(found(1)))).now_or_never().is_some()
        });
        assert!(told.count() > 50);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_waited_and_not_kept() {
        let look_ups = LookUps::default();
        assert!(look_ups.of(OWNER, async || Err(StoreError::Closed)).await.is_err());
        assert_eq!(*look_ups.of(OWNER, async || Ok(found(1))).await.unwrap(), found(1));
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing_and_hinders_nobody() {
        let look_ups = LookUps::default();
        let never = async || std::future::pending().await;
        let mut reading = Box::pin(look_ups.of(OWNER, never));
        assert!((&mut reading).now_or_never().is_none());
        assert!(look_ups.of(OWNER, never).now_or_never().is_none(), "given up before it began");
        assert!(look_ups.waiting.lock().is_empty());
        let mut next = Box::pin(look_ups.of(OWNER, async || Ok(found(1))));
        assert!((&mut next).now_or_never().is_none());
        drop(reading);
        assert_eq!(*next.await.unwrap(), found(1));
        assert!(look_ups.waiting.lock().is_empty());
    }
}
