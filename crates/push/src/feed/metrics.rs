//! What the feed counts.

use poste_service::metrics::Scope;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Metrics of the way from the archive.
#[derive(Debug, Clone, Default)]
pub(super) struct FeedMetrics {
    pub(super) connected: Gauge,
    pub(super) everything: Gauge,
    pub(super) topics: Gauge,
    pub(super) lag: Gauge,
    pub(super) in_progress: Gauge,
    pub(super) connections: Counter,
    pub(super) disconnections: Counter,
    pub(super) gaps: Counter,
    pub(super) gap_records: Counter,
    pub(super) skipped: Counter,
    pub(super) unreadable: Counter,
    pub(super) retries: Counter,
    pub(super) given_up: Counter,
}

impl FeedMetrics {
    pub(super) fn register(scope: &Scope) -> Self {
        let all = Self::default();
        for (name, help, gauge) in [
            ("archive_connected", "Whether a stream from the archive is open", &all.connected),
            (
                "archive_everything",
                "Whether that stream brings everything instead of the wanted topics",
                &all.everything,
            ),
            ("topics_count", "Topics that are listened to", &all.topics),
            ("lag_records", "Records of the archive that were not dealt with, of whatever topic", &all.lag),
            ("in_progress_messages", "Messages that are being dealt with", &all.in_progress),
        ] {
            scope.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            ("archive_connections", "Streams from the archive that were opened", &all.connections),
            ("archive_disconnections", "Streams from the archive that were lost", &all.disconnections),
            (
                "gaps",
                "Times that the archive had retired what was not read yet: registrations may be missed for good",
                &all.gaps,
            ),
            ("gap_records", "Records in these gaps, of whatever topic", &all.gap_records),
            (
                "messages_skipped",
                "Messages of another archive that are older than what was read of the former one",
                &all.skipped,
            ),
            ("messages_unreadable", "Records of the archive that are no envelopes", &all.unreadable),
            (
                "messages_retried",
                "Times that a message had to be dealt with again, mostly because its answer was not published",
                &all.retries,
            ),
            (
                "answers_given_up",
                "Answers that all gateways have refused for six hours: they go out no more",
                &all.given_up,
            ),
        ] {
            scope.register(name, help, counter.clone());
        }
        all
    }
}
