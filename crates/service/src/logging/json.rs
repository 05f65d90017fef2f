//! One JSON object a line: `timestamp` (UTC), `level`, `target`, `service`, `instance`, `message`, and the
//! event's fields.

use std::fmt;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format, with what every line repeats.
#[derive(Clone, Debug)]
pub(super) struct JsonLines {
    service: &'static str,
    instance: String,
}

impl JsonLines {
    pub(super) fn new(service: &'static str, instance: String) -> Self {
        Self { service, instance }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let Fields(mut line) = fields;
        let metadata = event.metadata();
        let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        for (name, value) in [
            ("timestamp", timestamp.as_str()),
            ("level", metadata.level().as_str()),
            ("target", metadata.target()),
            ("service", self.service),
            ("instance", self.instance.as_str()),
        ] {
            line.insert(name.to_owned(), value.into());
        }
        writeln!(out, "{}", Value::Object(line))
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_object_with_typed_fields() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines::new("archive", "host-7".to_owned()))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(count = 3, ok = true, took = ?std::time::Duration::from_millis(5), "records\nstored");
        });
        let text = String::from_utf8(captured.0.lock().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "records\nstored");
        assert_eq!((&line["count"], &line["ok"], &line["took"]), (&3.into(), &true.into(), &"5ms".into()));
        assert_eq!((&line["level"], &line["service"]), (&"INFO".into(), &"archive".into()));
        assert_eq!(line["instance"], "host-7");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
