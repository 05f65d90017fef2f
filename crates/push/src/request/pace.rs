//! How the provider does at present for Apple and for Google: how long it takes, and whether it takes anything. What is held
//! back is reported as if it had been handed over, so that no answer tells by its time or its words who is blocked.

use std::time::Duration;

use parking_lot::Mutex;
use poste_provider::{Outcome, Refused, Unknown};
use rand::RngExt;
use tokio::time::Instant;

use crate::store::TokenType;

/// How many are remembered.
const SAMPLES: usize = 16;
/// How long trouble is taken to last of which nothing else is heard.
const TROUBLE: Duration = Duration::from_secs(30);

/// The times that the provider took for the last notifications of each service, and what the last one met.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    apple: Mutex<Samples>,
    google: Mutex<Samples>,
}

#[derive(Debug, Default)]
struct Samples {
    took: Vec<Duration>,
    next: usize,
    /// And when.
    trouble: Option<(Trouble, Instant)>,
}

/// What every notification meets at present, whomever it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is surely not sent.
    Refused,
    /// Nobody knows whether it is sent.
    Unknown,
}

impl Pace {
    /// The provider took so long for a notification of this service, and this came of it.
    pub(super) fn note(&self, service: TokenType, took: Duration, outcome: Outcome) {
        let mut samples = self.of(service).lock();
        match outcome {
            Outcome::Sent => samples.trouble = None,
            Outcome::Refused(Refused::Unreachable | Refused::Busy) => {
                samples.trouble = Some((Trouble::Refused, Instant::now()));
            }
            Outcome::Unknown(Unknown::Timeout | Unknown::ConnectionLost | Unknown::Status(_)) => {
                samples.trouble = Some((Trouble::Unknown, Instant::now()));
            }
            // Of this notification, or of this service: whoever registers a device could bring it about.
            Outcome::Refused(_) | Outcome::Unknown(_) => {}
        }
        let at = samples.next;
        samples.next = (at + 1) % SAMPLES;
        match samples.took.get_mut(at) {
            Some(sample) => *sample = took,
            None => samples.took.push(took),
        }
    }

    /// How many are remembered now.
    #[cfg(test)]
    pub(crate) fn samples(&self, service: TokenType) -> usize {
        self.of(service).lock().took.len()
    }

    /// Waits as long as the provider took for one of the last of this service, and says what it would have met. Where none
    /// was for this service yet, as long as for one of the other: at once would tell.
    pub(super) async fn wait(&self, service: TokenType) -> Option<Trouble> {
        let other = match service {
            TokenType::Apn => TokenType::Firebase,
            TokenType::Firebase => TokenType::Apn,
        };
        let own = self.of(service).lock().sample();
        let sample = own.or_else(|| self.of(other).lock().sample());
        let trouble = self.of(service).lock().trouble;
        if let Some(took) = sample {
            tokio::time::sleep(took).await;
        }
        trouble.filter(|(_, since)| since.elapsed() < TROUBLE).map(|(trouble, _)| trouble)
    }

    fn of(&self, service: TokenType) -> &Mutex<Samples> {
        match service {
            TokenType::Apn => &self.apple,
            TokenType::Firebase => &self.google,
        }
    }
}

impl Samples {
    fn sample(&self) -> Option<Duration> {
        let at = rand::rng().random_range(0..self.took.len().max(1));
        self.took.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLE: TokenType = TokenType::Apn;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_as_long_as_the_provider_takes() {
        let pace = Pace::default();
        let started = Instant::now();
        pace.wait(APPLE).await;
        assert_eq!(started.elapsed(), Duration::ZERO, "nothing to compare with");
        for _ in 0..2 * SAMPLES {
            pace.note(APPLE, Duration::from_millis(80), Outcome::Sent);
        }
        assert_eq!(pace.samples(APPLE), SAMPLES);
        let started = Instant::now();
        pace.wait(APPLE).await;
        assert!((80..85).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_meet_is_told_of_what_is_held_back_too() {
        let pace = Pace::default();
        let met = async |outcome| {
            pace.note(APPLE, Duration::ZERO, outcome);
            pace.wait(APPLE).await
        };
        assert_eq!(met(Outcome::Refused(Refused::Unreachable)).await, Some(Trouble::Refused));
        assert_eq!(met(Outcome::Sent).await, None);
        assert_eq!(met(Outcome::Refused(Refused::BadRequest)).await, None, "that is of one device");
        assert_eq!(met(Outcome::Unknown(Unknown::Timeout)).await, Some(Trouble::Unknown));
        assert_eq!(met(Outcome::Refused(Refused::TooLarge)).await, Some(Trouble::Unknown));
        tokio::time::advance(TROUBLE).await;
        assert_eq!(pace.wait(APPLE).await, None, "nobody has heard of it for long");
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_service_does_is_told_of_its_devices_only() {
        let pace = Pace::default();
        let took = async |service| {
            let started = Instant::now();
            let trouble = pace.wait(service).await;
            (trouble, started.elapsed().as_secs())
        };
        pace.note(TokenType::Firebase, Duration::from_secs(7), Outcome::Unknown(Unknown::Timeout));
        assert_eq!(took(APPLE).await, (None, 7), "nothing else to compare with");
        pace.note(APPLE, Duration::from_secs(1), Outcome::Sent);
        assert_eq!(took(APPLE).await, (None, 1));
        assert_eq!(took(TokenType::Firebase).await, (Some(Trouble::Unknown), 7));
    }
}
