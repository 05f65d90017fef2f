//! Whether the store still does what it is asked for.

use std::time::Duration;

use poste_service::readiness::Check;
use tokio::time::sleep;

use crate::store::StoreError;

const INTERVAL: Duration = Duration::from_secs(1);

/// Waits until a store does nothing any more until it is opened again, and says why. That much of it is damaged is shown
/// as long as it is so: a restart does not help, and whoever is told nothing now is told what is true later.
pub(super) async fn failed(health: impl Fn() -> Result<(), StoreError>, check: &Check) -> StoreError {
    let mut is_damaged = false;
    loop {
        match health() {
            // What else may be wrong is told again by the next write.
            Ok(()) if std::mem::take(&mut is_damaged) => check.ready(),
            Ok(()) => {}
            Err(damaged @ StoreError::Damaged) => {
                is_damaged = true;
                check.not_ready(damaged.to_string());
            }
            Err(error) => return error,
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use poste_service::readiness::Readiness;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_later_is_seen() {
        let readiness = Readiness::new();
        let check = readiness.add("store");
        check.ready();
        let reason = || readiness.report().checks[0].reason.clone();
        let asked = Cell::new(0);
        let health = || {
            asked.set(asked.get() + 1);
            match asked.get() {
                1..4 => Ok(()),
                4 => Err(StoreError::Damaged),
                5 => {
                    assert!(
                        reason().unwrap().contains("much of it is damaged"),
                        "it stays, and is not ready"
                    );
                    Ok(())
                }
                6 => {
                    assert_eq!(reason(), None, "it is ready again");
                    Ok(())
                }
                _ => Err(StoreError::Closed),
            }
        };
        assert!(matches!(failed(health, &check).await, StoreError::Closed));
        assert_eq!(asked.get(), 7);
    }
}
