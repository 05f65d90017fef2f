//! What a lost connection has taken with it: since when, and when to ask history for it.

use std::time::Duration;

use poste_wire::Topic;
use tokio::time::Instant;

use super::Network;
use super::newest::Newest;
use crate::unix_now;

/// After how long a network that has failed is tried again, and history that was not to be had as a whole.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// How far clocks may differ, where it is asked for what was published since some time.
const CLOCK_TOLERANCE_SECONDS: u32 = 60;
/// How often history is asked, where it is not to be had as a whole.
const MAX_LOOKS: u32 = 12;

/// Whether something was missed.
#[derive(Debug)]
pub(super) struct Missed {
    /// Unix seconds since which something may have been.
    since: Option<u32>,
    /// When to look for it again, and how often that was done.
    look_at: Instant,
    looks: u32,
}

impl Missed {
    pub(super) fn nothing() -> Self {
        Self { since: None, look_at: Instant::now(), looks: 0 }
    }

    /// The connection is lost, and with it what came in the last minute, and what comes until the network works.
    pub(super) fn note(&mut self) {
        let since = unix_now().saturating_sub(CLOCK_TOLERANCE_SECONDS);
        self.since = Some(self.since.map_or(since, |earlier| earlier.min(since)));
        self.look_at = Instant::now() + RETRY;
        self.looks = 0;
    }

    /// Since when history is to be asked now.
    pub(super) fn due(&self) -> Option<u32> {
        self.since.filter(|_| self.look_at <= Instant::now())
    }

    /// Asks history for what was missed on these topics, if it is time and the network is there, and says whether that is
    /// all. Once it is dealt with, [`looked`](Self::looked) is to be told.
    pub(super) async fn look<N: Network>(
        &mut self,
        network: &mut N,
        topics: &[Topic],
    ) -> Option<(Newest, bool)> {
        let since = self.due()?;
        // Connected first: nothing is then missed between history and the present.
        if network.subscribe(topics).await.is_err() {
            self.away();
            return None;
        }
        let mut missed = Newest::default();
        let history = network.history(topics, since, |mail| missed.put(mail)).await;
        Some((missed, history.is_ok_and(|incomplete| incomplete.is_none())))
    }

    /// It could not be asked: the network is away, and what it takes with it grows.
    fn away(&mut self) {
        self.look_at = Instant::now() + RETRY;
    }

    /// It was asked, and has brought everything or not.
    pub(super) fn looked(&mut self, all: bool) {
        self.looks += 1;
        if all || self.looks >= MAX_LOOKS {
            self.since = None;
        } else {
            self.look_at = Instant::now() + RETRY;
        }
    }

    /// Until when a network that has just failed is left alone.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        (self.look_at > Instant::now()).then_some(self.look_at)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_is_looked_for_until_all_is_there_or_it_is_hopeless() {
        let mut missed = Missed::nothing();
        assert_eq!((missed.due(), missed.rests_until()), (None, None));
        for all in [true, false] {
            missed.note();
            let mut looks = 0;
            while let Some(until) = missed.rests_until() {
                assert_eq!((missed.due(), until - Instant::now()), (None, RETRY));
                advance(RETRY).await;
                let since = missed.due().unwrap();
                assert!(unix_now() - since >= CLOCK_TOLERANCE_SECONDS);
                missed.looked(all);
                looks += 1;
            }
            assert_eq!((missed.due(), looks), (None, if all { 1 } else { MAX_LOOKS }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_that_is_away_for_long_is_asked_for_all_of_it() {
        let mut missed = Missed::nothing();
        missed.note();
        let since = missed.since;
        for _ in 0..2 * MAX_LOOKS {
            advance(RETRY).await;
            assert_eq!(missed.due(), since);
            missed.away();
        }
        assert!(missed.rests_until().is_some());
    }
}
