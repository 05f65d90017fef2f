//! How long notifying takes at present, so that an answer about a notification that was held back comes no sooner.

use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use tokio::time::Instant;

/// How many are remembered.
const SAMPLES: usize = 16;

/// The times that the last deliveries took.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    took: Vec<Duration>,
    next: usize,
}

/// When work on a request began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started(Instant);

impl Started {
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }
}

impl Pace {
    /// A delivery ends now.
    pub(super) fn note(&self, started: Started) {
        let took = started.0.elapsed();
        let mut samples = self.0.lock();
        let at = samples.next;
        samples.next = (at + 1) % SAMPLES;
        match samples.took.get_mut(at) {
            Some(sample) => *sample = took,
            None => samples.took.push(took),
        }
    }

    /// Waits until one of the last deliveries would have ended.
    pub(super) async fn wait(&self, started: Started) {
        let sample = {
            let samples = self.0.lock();
            let at = rand::rng().random_range(0..samples.took.len().max(1));
            samples.took.get(at).copied()
        };
        if let Some(took) = sample {
            tokio::time::sleep_until(started.0 + took).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_as_long_as_deliveries_take() {
        let pace = Pace::default();
        let started = Started::now();
        pace.wait(started).await;
        assert_eq!(started.0.elapsed(), Duration::ZERO, "nothing to compare with");
        for _ in 0..2 * SAMPLES {
            let started = Started::now();
            tokio::time::sleep(Duration::from_millis(80)).await;
            pace.note(started);
        }
        assert_eq!(pace.0.lock().took.len(), SAMPLES);
        let started = Started::now();
        tokio::time::sleep(Duration::from_millis(30)).await;
        pace.wait(started).await;
        let waited = started.0.elapsed();
        assert!((80..85).contains(&waited.as_millis()), "{waited:?}");
    }
}
