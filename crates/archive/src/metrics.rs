//! What the archive counts. Names are `poste_archive_<what>_<unit>`; label sets are closed.

use poste_service::metrics::Scope;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::store::Outcome;

const SECONDS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const RECORDS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0];

/// What became of a record that a writer sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What a store counts. The default counts for nobody.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    appended: Family<OutcomeLabel, Counter>,
    pub(crate) group_records: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) head_seq: Gauge,
    pub(crate) file_bytes: Gauge,
    pub(crate) quarantined_places: Gauge,
    pub(crate) quarantined_bytes: Gauge,
    pub(crate) writable: Gauge,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            appended: Family::default(),
            group_records: Histogram::new(RECORDS),
            commit_seconds: Histogram::new(SECONDS),
            head_seq: Gauge::default(),
            file_bytes: Gauge::default(),
            quarantined_places: Gauge::default(),
            quarantined_bytes: Gauge::default(),
            writable: Gauge::default(),
        }
    }
}

impl StoreMetrics {
    /// Metrics that are shown as part of `scope`.
    #[must_use]
    pub fn register(scope: &Scope) -> Self {
        let metrics = Self::default();
        scope.register(
            "append_records",
            "Records that writers sent, by what became of them",
            metrics.appended.clone(),
        );
        scope.register("group_records", "Records made durable by one fsync", metrics.group_records.clone());
        scope.register("commit_seconds", "Time to write and fsync a group", metrics.commit_seconds.clone());
        scope.register("head_seq", "Order of arrival of the newest record", metrics.head_seq.clone());
        scope.register("file_bytes", "Bytes of the store's files", metrics.file_bytes.clone());
        scope.register(
            "quarantined_places",
            "Damaged places of the journal, each perhaps a gap",
            metrics.quarantined_places.clone(),
        );
        scope.register("quarantined_bytes", "Bytes in damaged places", metrics.quarantined_bytes.clone());
        scope.register("writable_state", "1 while the store takes records, else 0", metrics.writable.clone());
        metrics
    }

    pub(crate) fn count_outcomes(&self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let outcome = match outcome {
                Outcome::Stored => "stored",
                Outcome::Duplicate => "duplicate",
                Outcome::Refused(_) => "refused",
                Outcome::Unavailable(_) => "unavailable",
                Outcome::NotKept => "not_kept",
                Outcome::OverQuota(_) => "over_quota",
            };
            self.appended.get_or_create(&OutcomeLabel { outcome }).inc();
        }
    }
}

/// What the gRPC service counts.
#[derive(Debug, Clone)]
pub(crate) struct RpcMetrics {
    pub(crate) query_seconds: Histogram,
    pub(crate) query_records: Counter,
    pub(crate) tail_records: Counter,
    pub(crate) lookups: Counter,
    pub(crate) append_streams: Gauge,
    pub(crate) tail_streams: Gauge,
}

impl RpcMetrics {
    pub(crate) fn register(scope: &Scope) -> Self {
        Self {
            query_seconds: scope.histogram("query_seconds", "Time to answer one page of history", &SECONDS),
            query_records: scope.counter("query_records", "Records sent on pages of history"),
            tail_records: scope.counter("tail_records", "Records sent in order of arrival"),
            lookups: scope.counter("lookup_requests", "Look-ups by id"),
            append_streams: scope.gauge("append_streams", "Writers connected"),
            tail_streams: scope.gauge("tail_streams", "Readers in order of arrival connected"),
        }
    }
}

/// Counts one in a gauge for as long as it is held.
#[derive(Debug)]
pub(crate) struct Guard(Gauge);

/// Counts one more in `gauge` until the guard is dropped.
pub(crate) fn hold(gauge: &Gauge) -> Guard {
    gauge.inc();
    Guard(gauge.clone())
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
