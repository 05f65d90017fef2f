//! One change at a time for one owner: so that the topics that are listened to follow the rows that are stored.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use poste_wire::status::HashedPublicKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who is being changed. Holds nothing of those who are not.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<HashedPublicKey, Arc<Semaphore>>>);

/// Until it is dropped nobody else changes this owner.
#[derive(Debug)]
pub(crate) struct Turn<'t> {
    turns: &'t Turns,
    key: HashedPublicKey,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits until those who came before are done.
    pub(crate) async fn take(&self, key: HashedPublicKey) -> Turn<'_> {
        let queue = Arc::clone(self.0.lock().entry(key).or_insert_with(|| Arc::new(Semaphore::new(1))));
        // From here on the entry is cleared away again, also if the wait is given up.
        let mut turn = Turn { turns: self, key, permit: None };
        turn.permit = queue.acquire_owned().await.ok();
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut queues = self.turns.0.lock();
        if queues.get(&self.key).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_stays() {
        let turns = Turns::default();
        let (a, b) = (HashedPublicKey([1; 64]), HashedPublicKey([2; 64]));
        let first = turns.take(a).await;
        assert!(turns.take(b).now_or_never().is_some(), "another owner does not wait");
        let mut second = Box::pin(turns.take(a));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        drop(second.await);
        let held = turns.take(a).await;
        assert!(turns.take(a).now_or_never().is_none(), "a wait that is given up");
        drop(held);
        assert!(turns.0.lock().is_empty());
    }
}
