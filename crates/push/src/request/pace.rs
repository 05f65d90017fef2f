//! How long the provider takes at present, so that an answer about a notification that was held back comes no sooner.

use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;

/// How many are remembered.
const SAMPLES: usize = 16;

/// The times that the provider took for the last notifications.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    took: Vec<Duration>,
    next: usize,
}

impl Pace {
    /// The provider took so long.
    pub(super) fn note(&self, took: Duration) {
        let mut samples = self.0.lock();
        let at = samples.next;
        samples.next = (at + 1) % SAMPLES;
        match samples.took.get_mut(at) {
            Some(sample) => *sample = took,
            None => samples.took.push(took),
        }
    }

    /// How many are remembered now.
    #[cfg(test)]
    pub(crate) fn samples(&self) -> usize {
        self.0.lock().took.len()
    }

    /// Waits as long as the provider took for one of the last.
    pub(super) async fn wait(&self) {
        let sample = {
            let samples = self.0.lock();
            let at = rand::rng().random_range(0..samples.took.len().max(1));
            samples.took.get(at).copied()
        };
        if let Some(took) = sample {
            tokio::time::sleep(took).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_as_long_as_the_provider_takes() {
        let pace = Pace::default();
        let started = Instant::now();
        pace.wait().await;
        assert_eq!(started.elapsed(), Duration::ZERO, "nothing to compare with");
        for _ in 0..2 * SAMPLES {
            pace.note(Duration::from_millis(80));
        }
        assert_eq!(pace.0.lock().took.len(), SAMPLES);
        let started = Instant::now();
        pace.wait().await;
        assert!((80..85).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    }
}
