//! When something that did not work is tried again.

use std::time::{Duration, Instant};

/// A pause before the next attempt, longer from one attempt to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    first: Duration,
    last: Duration,
    next: Duration,
    until: Option<Instant>,
}

impl Pause {
    pub(super) fn new([first, last]: [Duration; 2]) -> Self {
        Self { first, last, next: first, until: None }
    }

    /// An attempt has failed. Returns how long the pause is; none when there is one already, which this attempt shares.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Duration> {
        if !self.is_over(now) {
            return None;
        }
        let pause = self.next;
        self.until = now.checked_add(pause);
        self.next = (pause * 2).min(self.last);
        Some(pause)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// When it ends or has ended; none before the first one.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Something has worked: the next one is short again.
    pub(super) fn shorten(&mut self) {
        self.next = self.first;
    }

    #[cfg(test)]
    pub(super) fn end(&mut self) {
        self.until = self.until.map(|until| until.min(Instant::now()));
    }
}
