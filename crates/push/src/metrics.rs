//! What the push server counts. Names are `poste_push_<what>_<unit>`; every label has a closed set of values: never a
//! key, a token or a topic.

use std::time::Duration;

use poste_service::metrics::Scope;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::answer::AnswerKind;

const AGE_SECONDS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    answer: &'static str,
    outcome: &'static str,
}

/// What a push server counts. The default counts for nobody.
#[derive(Debug, Clone)]
pub struct Metrics {
    messages: Family<Outcome, Counter>,
    registrations: Family<Outcome, Counter>,
    reports: Family<Outcome, Counter>,
    answers: Family<Answered, Counter>,
    feedback: Family<Outcome, Counter>,
    refusals: Family<Reason, Counter>,
    pub(crate) answers_repeated: Counter,
    pub(crate) query_devices: Counter,
    pub(crate) query_devices_left_out: Counter,
    pub(crate) store_failures: Counter,
    pub(crate) devices_forgotten: Counter,
    pub(crate) versions_forgotten: Counter,
    pub(crate) owners: Gauge,
    pub(crate) segmented_messages: Gauge,
    push_age_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            messages: Family::default(),
            registrations: Family::default(),
            reports: Family::default(),
            answers: Family::default(),
            feedback: Family::default(),
            refusals: Family::default(),
            answers_repeated: Counter::default(),
            query_devices: Counter::default(),
            query_devices_left_out: Counter::default(),
            store_failures: Counter::default(),
            devices_forgotten: Counter::default(),
            versions_forgotten: Counter::default(),
            owners: Gauge::default(),
            segmented_messages: Gauge::default(),
            push_age_seconds: Histogram::new(AGE_SECONDS),
        }
    }
}

impl Metrics {
    /// Metrics that are shown as part of `scope`.
    #[must_use]
    pub fn register(scope: &Scope) -> Self {
        let all = Self::default();
        let counters = [
            ("answers_repeated", "Remembered answers that were given again", &all.answers_repeated),
            ("query_devices", "Devices named in answers to queries", &all.query_devices),
            (
                "query_devices_left_out",
                "Devices left out of answers to queries, which would have been too long",
                &all.query_devices_left_out,
            ),
            ("store_failures", "Calls of the store that failed", &all.store_failures),
            (
                "devices_forgotten",
                "Registrations forgotten for their token or their age",
                &all.devices_forgotten,
            ),
            (
                "versions_forgotten",
                "Versions of forgotten registrations that were forgotten for their age too",
                &all.versions_forgotten,
            ),
        ];
        for (name, help, counter) in counters {
            scope.register(name, help, counter.clone());
        }
        scope.register(
            "messages",
            "Messages on the server's topics, by what became of them",
            all.messages.clone(),
        );
        scope.register("registrations", "Answers to registrations, by their code", all.registrations.clone());
        scope.register(
            "reports",
            "Entries of requests, by what became of them: filtered ones are reported as sent",
            all.reports.clone(),
        );
        scope.register("answers", "Answers, by kind and whether they were published", all.answers.clone());
        scope.register(
            "feedback",
            "Failures that the provider told of, by what was done",
            all.feedback.clone(),
        );
        scope.register(
            "refusals",
            "What was not done for want of room or for its rate, by reason",
            all.refusals.clone(),
        );
        scope.register("owners_count", "Owners whose query topics are listened to", all.owners.clone());
        scope.register(
            "segmented_messages_count",
            "Messages of which segments are missing",
            all.segmented_messages.clone(),
        );
        scope.register(
            "push_age_seconds",
            "Age of a request when its notifications go to the provider",
            all.push_age_seconds.clone(),
        );
        all
    }

    pub(crate) fn message(&self, outcome: &'static str) {
        self.messages.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn registration(&self, outcome: &'static str) {
        self.registrations.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn report(&self, outcome: &'static str) {
        self.reports.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn answer(&self, kind: AnswerKind, is_published: bool) {
        let outcome = if is_published { "published" } else { "failed" };
        self.answers.get_or_create(&Answered { answer: kind.label(), outcome }).inc();
    }

    pub(crate) fn feedback(&self, outcome: &'static str) {
        self.feedback.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn refusal(&self, reason: &'static str) {
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn push_age(&self, age: Duration) {
        self.push_age_seconds.observe(age.as_secs_f64());
    }
}
