//! What a provider counts. Every label has a closed set of values: never a token, a key or a topic.

use std::fmt::Debug;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::notification::Service;
use crate::outcome::{FailureReason, Outcome};

/// The metrics of a provider and of its feedback hook. Cheap to clone: the clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    notifications: Family<ServiceOutcome, Counter>,
    calls: Family<Answer, Counter>,
    pub(crate) call_seconds: Histogram,
    pub(crate) retries: Counter,
    pub(crate) queued: Gauge,
    pub(crate) calls_open: Gauge,
    counts_wrong: Family<Direction, Counter>,
    failures_hinted: Family<Failure, Counter>,
    failures: Family<Failure, Counter>,
    pub(crate) feedback_forged: Counter,
    pub(crate) feedback_unreadable: Counter,
    pub(crate) feedback_dropped: Counter,
    tokens_dead: Family<OfService, Counter>,
    pruning_paused: Family<OfService, Gauge>,
}

/// Where metrics are registered under their short names: the prefix is the registrar's.
pub trait Registrar {
    /// Registers one metric. `help` is a sentence without full stop.
    fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M);
}

impl Registrar for Registry {
    fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) {
        Registry::register(self, name, help, metric);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceOutcome {
    service: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    service: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    service: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that nobody sees until they are registered.
    pub fn new() -> Self {
        Self {
            notifications: Family::default(),
            calls: Family::default(),
            call_seconds: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
            ]),
            retries: Counter::default(),
            queued: Gauge::default(),
            calls_open: Gauge::default(),
            counts_wrong: Family::default(),
            failures_hinted: Family::default(),
            failures: Family::default(),
            feedback_forged: Counter::default(),
            feedback_unreadable: Counter::default(),
            feedback_dropped: Counter::default(),
            tokens_dead: Family::default(),
            pruning_paused: Family::default(),
        }
    }

    /// Registers everything.
    pub fn register(&self, to: &mut impl Registrar) {
        let all = self.clone();
        to.register(
            "provider_notifications",
            "Notifications for the provider, by what came of them",
            all.notifications,
        );
        to.register("provider_calls", "Calls of the provider, by its answer", all.calls);
        to.register(
            "provider_call_seconds",
            "Time from a call of the provider to its whole answer",
            all.call_seconds,
        );
        to.register("provider_retries", "Calls tried again because no byte of them was written", all.retries);
        to.register("provider_queued_notifications", "Notifications that wait for a call", all.queued);
        to.register("provider_open_calls", "Calls that wait for their answer", all.calls_open);
        to.register(
            "provider_wrong_counts",
            "Answers that count fewer or more notifications than the call held",
            all.counts_wrong,
        );
        to.register(
            "provider_hinted_failures",
            "Failures that the provider's answers name",
            all.failures_hinted,
        );
        to.register("provider_failures", "Failures that the feedback hook was told", all.failures);
        to.register(
            "provider_forged_feedback",
            "Feedback that was ignored because it does not bear our mark",
            all.feedback_forged,
        );
        to.register("provider_unreadable_feedback", "Feedback that cannot be read", all.feedback_unreadable);
        to.register(
            "provider_dropped_feedback",
            "Feedback that was lost because nobody took it in time",
            all.feedback_dropped,
        );
        to.register("provider_dead_tokens", "Tokens found dead", all.tokens_dead);
        to.register(
            "provider_pruning_paused_state",
            "1 while so many pushes fail that no token is called dead, else 0",
            all.pruning_paused,
        );
    }

    pub(crate) fn count_notification(&self, service: Service, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Sent => "sent",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        self.notifications.get_or_create(&ServiceOutcome { service: service.label(), outcome }).inc();
    }

    /// `answer` is one of a few fixed words.
    pub(crate) fn count_call(&self, answer: &'static str) {
        self.calls.get_or_create(&Answer { answer }).inc();
    }

    pub(crate) fn count_wrong_counts(&self, too_few: bool) {
        let direction = if too_few { "fewer" } else { "more" };
        self.counts_wrong.get_or_create(&Direction { direction }).inc();
    }

    pub(crate) fn count_hint(&self, service: Service, reason: FailureReason) {
        let labels = Failure { service: service.label(), reason: reason.label() };
        self.failures_hinted.get_or_create(&labels).inc();
    }

    pub(crate) fn count_failure(&self, service: Service, reason: FailureReason) {
        let labels = Failure { service: service.label(), reason: reason.label() };
        self.failures.get_or_create(&labels).inc();
    }

    pub(crate) fn count_dead(&self, service: Service) {
        self.tokens_dead.get_or_create(&OfService { service: service.label() }).inc();
    }

    pub(crate) fn set_pruning_paused(&self, service: Service, is_paused: bool) {
        let labels = OfService { service: service.label() };
        self.pruning_paused.get_or_create(&labels).set(i64::from(is_paused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Refused, Unknown};

    #[test]
    fn what_is_counted_is_shown() {
        let (metrics, mut registry) = (Metrics::new(), Registry::with_prefix("poste_push"));
        metrics.register(&mut registry);
        metrics.count_notification(Service::Apns, Outcome::Refused(Refused::Busy));
        metrics.count_notification(Service::Fcm, Outcome::Unknown(Unknown::Status(500)));
        metrics.count_failure(Service::Fcm, FailureReason::Unregistered);
        metrics.set_pruning_paused(Service::Apns, true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "poste_push_provider_notifications_total{service=\"apns\",outcome=\"refused\"} 1",
            "poste_push_provider_notifications_total{service=\"fcm\",outcome=\"unknown\"} 1",
            "poste_push_provider_failures_total{service=\"fcm\",reason=\"unregistered\"} 1",
            "poste_push_provider_pruning_paused_state{service=\"apns\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
