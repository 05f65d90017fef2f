//! How many messages are at work at a time, and how long requests wait to be among them: a provider that hangs keeps
//! them, and they keep nobody else. Nor do queries; nor do those about owners with much to read keep the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::{info, warn};

/// The part of all places that requests may take. They wait for the provider, and all others must not wait for them.
const REQUESTS_OF_PLACES: (usize, usize) = (3, 4);
/// The part that queries may take: anybody can send many. They keep theirs until the answer is published, or those that
/// come faster than a gateway mines would take what others have.
const QUERIES_OF_PLACES: (usize, usize) = (1, 8);
/// The part, besides, of those about owners with much to read, who are read one by one.
const LONG_QUERIES_OF_PLACES: (usize, usize) = (1, 64);
/// How long a request waits for a place. Many that come at once are worth the wait; a provider that hangs is not.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The places. Who waits for one, having given one up, is not at work. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Semaphore,
    requests: Semaphore,
    queries: Semaphore,
    long_queries: Semaphore,
    /// When so many of these are free, the provider keeps up again.
    enough: usize,
    /// Requests have waited too long, and others do not begin to wait.
    is_stuck: AtomicBool,
}

/// A place, until it is dropped.
pub(super) type Place<'p> = SemaphorePermit<'p>;

impl Places {
    pub(super) fn new(all: usize) -> Self {
        let part_of = |(part, of): (usize, usize)| (all * part / of).max(1);
        let requests = part_of(REQUESTS_OF_PLACES);
        Self(Arc::new(Inner {
            all: Semaphore::new(all),
            requests: Semaphore::new(requests),
            queries: Semaphore::new(part_of(QUERIES_OF_PLACES)),
            long_queries: Semaphore::new(part_of(LONG_QUERIES_OF_PLACES)),
            enough: requests / 2,
            is_stuck: AtomicBool::new(false),
        }))
    }

    /// A place, as soon as there is one. None only if there never is.
    pub(super) async fn any(&self) -> Option<Place<'_>> {
        self.0.all.acquire().await.ok()
    }

    /// One of those of requests, which they need besides. None if it takes too long: then this request is not for the
    /// provider. `waiting` is called, and what it gives is kept, while there is none.
    pub(super) async fn of_requests<W>(&self, waiting: impl FnOnce() -> W) -> Option<Place<'_>> {
        let Inner { requests, enough, is_stuck, .. } = &*self.0;
        if let Ok(place) = requests.try_acquire() {
            if requests.available_permits() >= *enough && is_stuck.swap(false, Ordering::Relaxed) {
                info!("the provider keeps up with the requests again");
            }
            return Some(place);
        }
        if is_stuck.load(Ordering::Relaxed) {
            return None;
        }
        let _waiting = waiting();
        let place = timeout(PATIENCE, requests.acquire()).await;
        if place.is_err() && !is_stuck.swap(true, Ordering::Relaxed) {
            warn!("requests wait too long for the provider; until it keeps up, others are turned away");
        }
        place.ok()?.ok()
    }

    /// One of those of queries, which they need besides, as soon as there is one. `waiting` is as for requests; None if
    /// it gives nothing, because too many wait.
    pub(super) async fn of_queries<W>(
        &self,
        are_long: bool,
        waiting: impl FnOnce() -> Option<W>,
    ) -> Option<Place<'_>> {
        let places = if are_long { &self.0.long_queries } else { &self.0.queries };
        if let Ok(place) = places.try_acquire() {
            return Some(place);
        }
        let _waiting = waiting()?;
        places.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_a_while_and_not_at_all_while_the_provider_hangs() {
        let places = Places::new(8);
        let hold = async || places.of_requests(|| ()).await;
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(hold().await.unwrap());
        }
        let began = Instant::now();
        let (gets_one, ()) = tokio::join!(hold(), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(held.pop());
        });
        held.push(gets_one.unwrap());
        assert_eq!(began.elapsed().as_secs(), 5, "many at once are worth the wait");

        let began = Instant::now();
        assert!(hold().await.is_none());
        assert_eq!(began.elapsed().as_secs(), 10);
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(places.of_requests(|| panic!("nobody waits")).await.is_none());
        }
        // One that ends now and then is no sign that it keeps up.
        held.pop();
        held.push(hold().await.unwrap());
        assert!(hold().await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(places.any().await.is_some(), "others have theirs");

        held.clear();
        for _ in 0..6 {
            held.push(hold().await.unwrap());
        }
        let began = Instant::now();
        assert!(hold().await.is_none());
        assert_eq!(began.elapsed().as_secs(), 10, "it is waited for again");
    }
}
