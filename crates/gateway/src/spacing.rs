//! The least time between two accepted mail requests of one peer. It outlives connections: reconnecting does not help.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use poste_codec::PublicKey;

/// How many peers are remembered before those whose time is up are looked for.
const TIDY_AT: usize = 1024;

/// When each peer last asked.
#[derive(Debug)]
pub(crate) struct Spacing {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: HashMap<PublicKey, Duration>,
    tidy_at: usize,
}

impl Spacing {
    /// Spacing by `interval`; zero is none.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(State { last: HashMap::new(), tidy_at: TIDY_AT }) }
    }

    /// Whether a peer may ask at `now` (since 1970). If so, its next request has to wait.
    pub(crate) fn admit(&self, peer: &PublicKey, now: Duration) -> bool {
        if self.interval.is_zero() {
            return true;
        }
        let waits = |last: Duration| now < last.saturating_add(self.interval);
        let mut state = self.state.lock();
        if state.last.get(peer).is_some_and(|last| waits(*last)) {
            return false;
        }
        if state.last.len() >= state.tidy_at {
            state.last.retain(|_, last| waits(*last));
            state.tidy_at = TIDY_AT.max(state.last.len() * 2);
        }
        state.last.insert(*peer, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_codec::SecretKey;

    fn peer(number: u32) -> PublicKey {
        let mut bytes = [1; 32];
        bytes[28..].copy_from_slice(&number.to_be_bytes());
        SecretKey::from_bytes(&bytes).unwrap().public()
    }

    #[test]
    fn the_next_request_waits() {
        let spacing = Spacing::new(Duration::from_secs(10));
        let at = Duration::from_secs;
        assert!(spacing.admit(&peer(1), at(100)));
        assert!(!spacing.admit(&peer(1), at(109)));
        assert!(spacing.admit(&peer(2), at(109)));
        assert!(spacing.admit(&peer(1), at(110)));
        assert!(Spacing::new(Duration::ZERO).admit(&peer(1), at(0)));
    }

    #[test]
    fn peers_whose_time_is_up_are_forgotten() {
        let spacing = Spacing::new(Duration::from_secs(1));
        for number in 0..TIDY_AT as u32 {
            spacing.admit(&peer(number), Duration::from_secs(1));
        }
        assert!(spacing.admit(&peer(u32::MAX), Duration::from_secs(100)));
        assert_eq!(spacing.state.lock().last.len(), 1);
    }
}
