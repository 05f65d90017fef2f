//! Metrics: one registry for a process, passed down; names `poste_<service>_<what>_<unit>`, closed label sets.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

/// The content type of [`Metrics::encode`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers `poste_build_info`.
    pub fn register_build(&self, version: &'static str, service: &'static str) {
        let info = Info::new([("version", version), ("service", service)]);
        self.0.lock().register("poste_build", "What runs here", info);
    }

    /// Where a service registers its metrics: `service` becomes part of their names.
    pub fn scope(&self, service: &'static str) -> Scope {
        Scope { metrics: self.clone(), service }
    }

    /// Everything as OpenMetrics text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.0.lock())?;
        Ok(out)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// A service's part of the registry.
#[derive(Clone, Debug)]
pub struct Scope {
    metrics: Metrics,
    service: &'static str,
}

impl Scope {
    /// Registers any metric as `poste_<service>_<name>`. `name` ends in its unit, without `_total`, which the
    /// encoding adds to counters; `help` is a sentence without full stop.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let name = format!("poste_{}_{name}", self.service);
        self.metrics.0.lock().register(name, help, metric.clone());
        metric
    }

    /// A new counter.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A new gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A new histogram with these upper bounds.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.register(name, help, Histogram::new(bounds.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_project_and_service() {
        let metrics = Metrics::new();
        metrics.register_build("1.2.3", "archive");
        let archive = metrics.scope("archive");
        archive.counter("appended_records", "Records stored").inc_by(3);
        archive.gauge("file_bytes", "Bytes of the store's files").set(7);
        archive.histogram("append_seconds", "Time from a batch to its ack", &[0.01, 0.1]).observe(0.05);
        let text = metrics.encode().unwrap();
        for line in [
            "poste_build_info{version=\"1.2.3\",service=\"archive\"} 1",
            "poste_archive_appended_records_total 3",
            "poste_archive_file_bytes 7",
            "poste_archive_append_seconds_bucket{le=\"0.1\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
