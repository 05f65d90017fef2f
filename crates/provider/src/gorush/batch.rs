//! How many notifications go into one call: as many as the settings say, or as gorush has said that it takes.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The most that goes into one call.
#[derive(Debug)]
pub(super) struct Batch {
    max: usize,
    retry: Duration,
    /// Below `max`.
    limit: Mutex<Option<Limit>>,
}

/// What gorush named.
#[derive(Debug, Clone, Copy)]
struct Limit {
    most: usize,
    named: Instant,
}

impl Batch {
    pub(super) fn new(max: usize, retry: Duration) -> Self {
        Self { max: max.max(1), retry, limit: Mutex::new(None) }
    }

    /// The most that the next call may hold. A limit that was named long ago is tried with one notification more than it
    /// allows: if it still holds, that one waits for a second call, and no more do.
    pub(super) fn size(&self) -> usize {
        match *self.limit.lock() {
            None => self.max,
            Some(Limit { most, named }) if named.elapsed() >= self.retry => most + 1,
            Some(Limit { most, .. }) => most,
        }
    }

    /// A larger call was refused, and gorush named this limit. It is logged when it is another one than before.
    pub(super) fn limited(&self, most: usize) {
        let before = self.limit.lock().replace(Limit { most, named: Instant::now() });
        if before.is_none_or(|before| before.most != most) {
            tracing::warn!(
                limit = most,
                wanted = self.max,
                "gorush takes few notifications in a call, and notifications may wait for it: raise core.max_notification"
            );
        }
    }

    /// A call with so many was taken: a limit below that is none any more. But not one that was named just now, perhaps by
    /// another gorush behind the same address.
    pub(super) fn taken(&self, count: usize) {
        let is_old = |limit: &mut Limit| limit.most < count && limit.named.elapsed() >= self.retry;
        let is_over = self.limit.lock().take_if(is_old).is_some();
        if is_over {
            tracing::info!("gorush takes more notifications in a call again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_tried_again_by_one_more() {
        let retry = Duration::from_secs(300);
        let batch = Batch::new(100, retry);
        assert_eq!(batch.size(), 100);
        batch.limited(3);
        for _ in 0..2 {
            assert_eq!(batch.size(), 3);
            batch.taken(3);
            tokio::time::advance(retry - Duration::from_secs(1)).await;
            assert_eq!(batch.size(), 3);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(batch.size(), 4);
            batch.limited(3);
        }
        tokio::time::advance(retry).await;
        batch.taken(3);
        assert_eq!(batch.size(), 4, "what waited was too little to tell");
        batch.taken(4);
        assert_eq!(batch.size(), 100);
        batch.limited(50);
        batch.taken(100);
        assert_eq!(batch.size(), 50, "another gorush took it");
    }

    #[test]
    fn a_call_holds_something() {
        assert_eq!(Batch::new(0, Duration::ZERO).size(), 1);
    }
}
