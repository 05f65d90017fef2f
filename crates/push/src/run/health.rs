//! Whether the store still does what it is asked for.

use std::time::Duration;

use tokio::time::sleep;

use crate::store::StoreError;

const INTERVAL: Duration = Duration::from_secs(1);

/// Waits until a store does nothing any more until it is opened again, and says why.
pub(super) async fn failed(health: impl Fn() -> Result<(), StoreError>) -> StoreError {
    loop {
        if let Err(error) = health() {
            return error;
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_later_is_seen() {
        let asked = Cell::new(0);
        let health = || {
            asked.set(asked.get() + 1);
            if asked.get() < 4 { Ok(()) } else { Err(StoreError::Closed) }
        };
        assert!(matches!(failed(health).await, StoreError::Closed));
        assert_eq!(asked.get(), 4);
    }
}
