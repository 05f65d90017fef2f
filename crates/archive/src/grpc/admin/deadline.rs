//! When a long job ends before its end: at its caller's deadline (`grpc-timeout`), which the server of tonic applies
//! to the beginning of an answer only, when its caller goes or does not read, or when the archive stops. A connection
//! asks for answers only while its caller takes some, so the job runs in a task of its own.

use std::pin::pin;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::grpc::{Responses, stopping};

/// A job that its caller holds up for so long is ended: others wait for its place.
pub(super) const MAX_IDLE: Duration = Duration::from_secs(5 * 60);

/// When a caller ceases to wait, if ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    pub(super) fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        let Some(value) = metadata.get("grpc-timeout") else { return Ok(Self(None)) };
        let timeout = value.to_str().ok().and_then(parse_timeout);
        let timeout = timeout.ok_or_else(|| Status::invalid_argument("grpc-timeout is not a timeout"))?;
        Ok(Self(Instant::now().checked_add(timeout)))
    }

    /// The answers of a job until then. What the job holds is given back when it ends, whether or not its caller
    /// takes note of that.
    pub(super) fn or_stop<T: Send + 'static>(
        self,
        stop: &CancellationToken,
        responses: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Responses<T> {
        let stop = stop.clone();
        let (answers, taken) = mpsc::channel(1);
        let (tell_end, end) = oneshot::channel();
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = self.passed() => Status::deadline_exceeded("the job did not end within its caller's timeout"),
                () = stop.cancelled() => stopping(),
                () = answers.closed() => return,
                status = pass_on(responses, &answers) => match status {
                    Some(status) => status,
                    None => return,
                },
            };
            let _ = tell_end.send(ended);
        });
        // Behind what is still on its way.
        let end = stream::once(end).filter_map(async |status| status.ok().map(Err));
        let answers = stream::unfold(taken, async |mut taken| Some((taken.recv().await?, taken)));
        Box::pin(answers.chain(end))
    }

    async fn passed(self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Works as fast as the caller takes answers, one ahead. A status when it takes none.
async fn pass_on<T>(
    responses: impl Stream<Item = Result<T, Status>>,
    answers: &mpsc::Sender<Result<T, Status>>,
) -> Option<Status> {
    let mut responses = pin!(responses);
    while let Some(answer) = responses.next().await {
        match timeout(MAX_IDLE, answers.send(answer)).await {
            Ok(sent) => sent.ok()?,
            Err(_) => return Some(idle("took no answer")),
        }
    }
    None
}

/// The end of a job that waits for its caller in vain.
pub(super) fn idle(what: &str) -> Status {
    let minutes = MAX_IDLE.as_secs() / 60;
    Status::deadline_exceeded(format!("the job was ended: its caller {what} for {minutes} minutes"))
}

/// At most eight digits and a unit, by the specification of gRPC over HTTP/2.
fn parse_timeout(text: &str) -> Option<Duration> {
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
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tonic::Code;

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
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
        for wrong in ["", "S", "1", "123456789S", "-1S", "+1S", "1s", "1 S", "é"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
    }

    /// A job that holds a place and has always more to tell.
    fn job(place: &Arc<Semaphore>) -> impl Stream<Item = Result<u32, Status>> + use<> {
        let permit = Arc::clone(place).try_acquire_owned().unwrap();
        stream::unfold((0, permit), async |(n, permit)| Some((Ok(n), (n + 1, permit))))
    }

    /// The answers that were given before the end, and the end.
    async fn rest(mut answers: Responses<u32>) -> (Vec<u32>, Option<Code>) {
        let mut given = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => given.push(answer),
                Err(status) => {
                    assert!(answers.next().await.is_none(), "an error is told once");
                    return (given, Some(status.code()));
                }
            }
        }
        (given, None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_ends_although_nobody_takes_its_answers() {
        let place = Arc::new(Semaphore::new(1));
        for (deadline, stops, lasts, code) in [
            (None, false, MAX_IDLE, Code::DeadlineExceeded),
            (Some(Duration::from_secs(60)), false, Duration::from_secs(60), Code::DeadlineExceeded),
            (None, true, Duration::from_secs(1), Code::Unavailable),
        ] {
            let stop = CancellationToken::new();
            let begun = Instant::now();
            let deadline = Deadline(deadline.map(|after| begun + after));
            let answers = deadline.or_stop(&stop, job(&place));
            if stops {
                let stop = stop.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(lasts).await;
                    stop.cancel();
                });
            }
            drop(place.acquire().await.unwrap());
            assert_eq!(begun.elapsed().as_secs(), lasts.as_secs());
            assert_eq!(rest(answers).await, (vec![0], Some(code)), "what was told, then why it ended");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_goes_on_while_its_answers_are_taken_and_ends_with_its_caller() {
        let place = Arc::new(Semaphore::new(1));
        let stop = CancellationToken::new();
        let few = Deadline(None).or_stop(&stop, job(&place).take(3));
        assert_eq!(rest(few).await, (vec![0, 1, 2], None));
        let mut answers = Deadline(None).or_stop(&stop, job(&place));
        for n in 0..10 {
            tokio::time::sleep(MAX_IDLE - Duration::from_secs(1)).await;
            assert_eq!(answers.next().await.unwrap().unwrap(), n);
        }
        let begun = Instant::now();
        drop(answers);
        drop(place.acquire().await.unwrap());
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
