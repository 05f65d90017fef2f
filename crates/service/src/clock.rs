//! Wall time as an argument: the system's, or one that a test moves by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a service reads the time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Nanoseconds since 1970.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` (since 1970) until its handle moves it. For callers of the library; no
    /// setting of the binary leads here.
    pub fn manual(start: Duration) -> (Self, ManualClock) {
        let nanos = Arc::new(AtomicU64::new(whole_nanos(start)));
        (Self(Source::Manual(nanos.clone())), ManualClock(nanos))
    }

    /// Time since 1970 (zero for a system whose clock stands before it).
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Source::Manual(nanos) => Duration::from_nanos(nanos.load(Ordering::Acquire)),
        }
    }

    /// Whole seconds since 1970.
    pub fn unix_seconds(&self) -> u64 {
        self.now().as_secs()
    }

    /// Nanoseconds since 1970 (enough until 2262).
    pub fn unix_nanos(&self) -> i64 {
        i64::try_from(self.now().as_nanos()).unwrap_or(i64::MAX)
    }
}

/// The handle that moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Sets the time, forwards or backwards, to `now` since 1970.
    pub fn set(&self, now: Duration) {
        self.0.store(whole_nanos(now), Ordering::Release);
    }

    /// Moves the time forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(whole_nanos(by), Ordering::AcqRel);
    }
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_its_handle() {
        let (clock, handle) = Clock::manual(Duration::from_secs(1_700_000_000));
        assert_eq!(clock.unix_seconds(), 1_700_000_000);
        handle.advance(Duration::from_millis(1500));
        assert_eq!(clock.clone().unix_nanos(), 1_700_000_001_500_000_000);
        handle.set(Duration::from_secs(5));
        assert_eq!(clock.now(), Duration::from_secs(5));
    }

    #[test]
    fn the_system_clock_is_past_2025() {
        assert!(Clock::system().unix_seconds() > 1_735_689_600);
    }
}
