//! Deriving the keys of query topics: tens of milliseconds of CPU each, so never where messages are handled, never more
//! than a few at a time, and only for an owner who registers for the first time.

use std::sync::Arc;

use poste_wire::status::{HashedPublicKey, TopicName};
use tokio::sync::Semaphore;

use crate::store::TopicKeys;

/// How many derivations run, and how many may wait for that.
#[derive(Debug)]
pub(crate) struct Derivations {
    running: Arc<Semaphore>,
    all: Semaphore,
}

impl Derivations {
    pub(crate) fn new(at_once: usize, waiting: usize) -> Self {
        let at_once = at_once.max(1);
        Self { running: Arc::new(Semaphore::new(at_once)), all: Semaphore::new(at_once + waiting) }
    }

    /// Derives both keys of an owner, or nothing if too many others wait.
    pub(crate) async fn derive(&self, key: HashedPublicKey) -> Option<TopicKeys> {
        let _place = self.all.try_acquire().ok()?;
        let running = Arc::clone(&self.running).acquire_owned().await.ok()?;
        let derived = tokio::task::spawn_blocking(move || {
            // Not given back before the work is done, even if nobody waits for it any more.
            let _running = running;
            keys_of(&key)
        });
        derived.await.ok()
    }
}

fn derive(key: &HashedPublicKey) -> TopicKeys {
    let bare = TopicName::query(key).derive_key();
    let prefixed = TopicName::query_as_specified(key).derive_key();
    TopicKeys::new(bare.as_bytes(), prefixed.as_bytes())
}

#[cfg(not(test))]
use derive as keys_of;

/// The tests have few owners, and many of each.
#[cfg(test)]
fn keys_of(key: &HashedPublicKey) -> TopicKeys {
    use std::collections::HashMap;
    use std::sync::LazyLock;

    use parking_lot::Mutex;

    static DERIVED: LazyLock<Mutex<HashMap<HashedPublicKey, TopicKeys>>> = LazyLock::new(Mutex::default);
    let known = DERIVED.lock().get(key).cloned();
    known.unwrap_or_else(|| {
        let keys = derive(key);
        DERIVED.lock().insert(*key, keys.clone());
        keys
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn those_who_come_too_late_are_turned_away() {
        let derivations = Derivations::new(1, 1);
        let (mut first, mut second) = (
            Box::pin(derivations.derive(HashedPublicKey([1; 64]))),
            Box::pin(derivations.derive(HashedPublicKey([2; 64]))),
        );
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(derivations.derive(HashedPublicKey([3; 64])).await, None);
        let expected = TopicName::query(&HashedPublicKey([1; 64])).derive_key();
        assert_eq!(first.await.unwrap().bare(), expected.as_bytes());
        assert!(second.await.is_some());
    }
}
