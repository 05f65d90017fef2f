//! When a long job ends before its end: at its caller's deadline (`grpc-timeout`), which the server of tonic applies
//! to the beginning of an answer only, or when the archive stops.

use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::grpc::{Responses, stopping};

/// When a caller ceases to wait, if ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    pub(super) fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        let Some(value) = metadata.get("grpc-timeout") else { return Ok(Self(None)) };
        let timeout = value.to_str().ok().and_then(timeout);
        let timeout = timeout.ok_or_else(|| Status::invalid_argument("grpc-timeout is not a timeout"))?;
        Ok(Self(Instant::now().checked_add(timeout)))
    }

    /// The answers of a job until then.
    pub(super) fn or_stop<T: Send + 'static>(
        self,
        stop: &CancellationToken,
        responses: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Responses<T> {
        let stop = stop.clone();
        let end = async move {
            tokio::select! {
                () = self.passed() => Status::deadline_exceeded("the job did not end within its caller's timeout"),
                () = stop.cancelled() => stopping(),
            }
        };
        let state = Some((Box::pin(responses), Box::pin(end)));
        Box::pin(stream::unfold(state, |state| async {
            let (mut responses, mut end) = state?;
            tokio::select! {
                biased;
                status = &mut end => Some((Err(status), None)),
                response = responses.next() => Some((response?, Some((responses, end)))),
            }
        }))
    }

    async fn passed(self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// At most eight digits and a unit, by the specification of gRPC over HTTP/2.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("5u", Some(Duration::from_micros(5))),
            ("5n", Some(Duration::from_nanos(5))),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
        for wrong in ["", "S", "1", "123456789S", "-1S", "+1S", "1s", "1 S", "é"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }
}
