//! One call: what is sent again, and what an answer means for each notification of the call.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use super::answer::{Taken, batch_limit};
use super::connection::{CallFailure, Reply};
use super::{Job, Shared, body};
use crate::notification::Service;
use crate::outcome::{Outcome, Refused, Unknown};

/// Sends notifications of one service and gives each its outcome. What gorush calls a bad request was surely not
/// sent; it is sent again in parts, so that one notification does not spoil those that travel with it.
pub(super) async fn deliver(shared: &Shared, service: Service, jobs: Vec<Job>) {
    let mut parts = vec![jobs];
    while let Some(jobs) = parts.pop() {
        let (jobs, late) = jobs.into_iter().partition(|job| job.deadline > Instant::now());
        end_all(shared, late, |_| Outcome::Refused(Refused::Busy));
        let jobs: Vec<Job> = jobs;
        if jobs.is_empty() {
            continue;
        }
        let body = body::join(jobs.iter().map(|job| job.json.as_str()));
        let count = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        shared.dead_tokens.pushed(service, count);
        let ended = post(shared, body.into()).await;
        if matches!(ended, Err(CallFailure::NotWritten) | Ok(Reply { status: 400, .. })) {
            shared.dead_tokens.not_pushed(service, count);
        }
        match ended {
            Ok(Reply { status: 400, body }) if jobs.len() > 1 => {
                let said = body.as_deref().and_then(batch_limit).filter(|limit| *limit < jobs.len());
                if let Some(limit) = said {
                    shared.batch.limited(limit);
                }
                parts.extend(split(jobs, said));
            }
            Ok(reply) => settle(shared, service, jobs, &reply),
            Err(failure) => {
                let outcome = match failure {
                    CallFailure::NotWritten => Outcome::Refused(Refused::Unreachable),
                    CallFailure::Lost => Outcome::Unknown(Unknown::ConnectionLost),
                    CallFailure::Timeout => Outcome::Unknown(Unknown::Timeout),
                };
                end_all(shared, jobs, |_| outcome);
            }
        }
    }
}

/// One call, tried again while no byte of it is written.
async fn post(shared: &Shared, body: Bytes) -> Result<Reply, CallFailure> {
    let settings = &shared.settings;
    let mut retries_left = settings.retries;
    loop {
        let started = Instant::now();
        shared.metrics.calls_open.inc();
        let ended = shared.connections.push(body.clone()).await;
        shared.metrics.calls_open.dec();
        shared.metrics.call_seconds.observe(started.elapsed().as_secs_f64());
        shared.metrics.count_call(word(&ended));
        note_reachable(shared, ended.is_ok());
        match ended {
            Err(CallFailure::NotWritten) if retries_left > 0 => {
                retries_left -= 1;
                shared.metrics.retries.inc();
                tokio::time::sleep(settings.retry_pause).await;
            }
            ended => return ended,
        }
    }
}

/// What a status and its body mean for the notifications of the call.
fn settle(shared: &Shared, service: Service, jobs: Vec<Job>, reply: &Reply) {
    match reply.status {
        200 => shared.batch.taken(jobs.len()),
        400 => return end_all(shared, jobs, |_| Outcome::Refused(Refused::BadRequest)),
        status => return end_all(shared, jobs, |_| Outcome::Unknown(Unknown::Status(status))),
    }
    let Some(taken) = reply.body.as_deref().and_then(Taken::read) else {
        let unknown = if reply.body.is_some() { Unknown::BadAnswer } else { Unknown::ConnectionLost };
        return end_all(shared, jobs, |_| Outcome::Unknown(unknown));
    };
    let expected: u64 = jobs.iter().map(|job| job.counts).sum();
    if taken.counts != expected {
        shared.metrics.count_wrong_counts(taken.counts < expected);
        tracing::debug!(counted = taken.counts, expected, "gorush counts otherwise");
    }
    if taken.counts < expected {
        // It does not say which it passed over.
        shared.dead_tokens.not_pushed(service, passed_over(jobs.len(), expected, taken.counts));
        return end_all(shared, jobs, |_| Outcome::Unknown(Unknown::CountedTooFew));
    }
    if !taken.names_failures() {
        return end_all(shared, jobs, |_| Outcome::Sent);
    }
    end_all(shared, jobs, |job| match taken.failure(&job.notif_id, service) {
        Some(reason) => {
            shared.metrics.count_hint(service, reason);
            Outcome::Unknown(Unknown::ReportedFailed(reason))
        }
        None => Outcome::Sent,
    });
}

fn end_all(shared: &Shared, jobs: Vec<Job>, outcome: impl Fn(&Job) -> Outcome) {
    for job in jobs {
        let outcome = outcome(&job);
        job.end(outcome, &shared.metrics);
    }
}

/// How many of a call's notifications gorush passed over: their part of the count that is missing, rounded up, because
/// with fewer pushes tokens are judged more carefully.
fn passed_over(notifications: usize, expected: u64, counted: u64) -> u32 {
    let missing = expected.saturating_sub(counted);
    let passed_over = (notifications as u64).saturating_mul(missing).div_ceil(expected.max(1));
    u32::try_from(passed_over).unwrap_or(u32::MAX)
}

/// Parts of at most `limit` notifications, or halves.
fn split(mut jobs: Vec<Job>, limit: Option<usize>) -> Vec<Vec<Job>> {
    let len = limit.unwrap_or_else(|| jobs.len().div_ceil(2)).max(1);
    let mut parts = Vec::new();
    while !jobs.is_empty() {
        let rest = jobs.split_off(len.min(jobs.len()));
        parts.push(std::mem::replace(&mut jobs, rest));
    }
    // The caller takes from the end.
    parts.reverse();
    parts
}

/// Says once when gorush goes away, and once when it is back.
fn note_reachable(shared: &Shared, is_reachable: bool) {
    if shared.is_reachable.swap(is_reachable, Ordering::Relaxed) == is_reachable {
        return;
    }
    if is_reachable {
        tracing::info!("gorush answers again");
    } else {
        tracing::warn!("gorush does not answer: notifications are refused until it does");
    }
}

fn word(ended: &Result<Reply, CallFailure>) -> &'static str {
    match ended {
        Ok(Reply { status: 200, body: Some(_) }) => "ok",
        Ok(Reply { status: 200, body: None }) => "unreadable",
        Ok(Reply { status: 400, .. }) => "bad_request",
        Ok(Reply { status: 500..=599, .. }) => "server_error",
        Ok(_) => "other_status",
        Err(CallFailure::NotWritten) => "not_written",
        Err(CallFailure::Lost) => "lost",
        Err(CallFailure::Timeout) => "timeout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gorush_passed_over_is_in_proportion_to_what_it_did_not_count() {
        assert_eq!(passed_over(100, 200, 0), 100, "a service that is switched off");
        assert_eq!(passed_over(100, 200, 198), 1);
        assert_eq!(passed_over(100, 200, 199), 1, "a half one is one");
        assert_eq!(passed_over(1, 2, 1), 1);
        assert_eq!(passed_over(100, 100, 97), 3);
        assert_eq!(passed_over(0, 0, 0), 0);
    }
}
