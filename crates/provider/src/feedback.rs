//! gorush's feedback hook: it calls us for every push that failed, and that, not its answer, is the truth.
//!
//! gorush has no means to prove who it is. What proves a report is the mark that we gave the notification
//! (`notif_id`); a report without it is counted and ignored. gorush calls once, so an event that nobody takes in time
//! is lost: the next push to the same token fails again.

mod serve;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dead_tokens::{DeadTokens, Verdict};
use crate::metrics::Metrics;
use crate::notif_id::{Mark, NotificationKey, TokenFingerprint};
use crate::notification::{DeviceToken, Reference, Service};
use crate::outcome::FailureReason;

/// Settings of a feedback hook.
#[derive(Debug, Clone)]
pub struct FeedbackSettings {
    /// Bytes of the longest report that is read. 64 KiB.
    pub max_body_bytes: usize,
    /// Events that may wait for the caller. 1,024.
    pub queue: usize,
    /// How long a report waits for room in that queue; gorush gives a call ten seconds. 5 s.
    pub queue_wait: Duration,
    /// Connections at once. 64.
    pub max_connections: usize,
    /// How long a request may take to arrive, head and body. 10 s.
    pub request_timeout: Duration,
}

impl Default for FeedbackSettings {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 * 1024,
            queue: 1024,
            queue_wait: Duration::from_secs(5),
            max_connections: 64,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// A push that failed after gorush had taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// What [`crate::Notification::reference`] was.
    pub reference: Reference,
    /// What [`crate::Notification::sent_at`] was, in whole milliseconds since 1970.
    pub sent_at: Duration,
    /// Who failed to reach the device.
    pub service: Service,
    /// Which token failed.
    pub token: TokenFingerprint,
    /// Why.
    pub reason: FailureReason,
    /// What the policy says about the token.
    pub verdict: Verdict,
}

impl Feedback {
    /// Whether the token that is stored now is to be forgotten: it is the one that failed, the policy calls it dead,
    /// and the device has not registered it (again) at `registered_at`, since 1970, after the push was sent.
    pub fn condemns(&self, key: &NotificationKey, stored: &DeviceToken, registered_at: Duration) -> bool {
        self.verdict == Verdict::Dead
            && registered_at.as_millis() <= self.sent_at.as_millis()
            && key.fingerprint(stored) == self.token
    }
}

/// The HTTP side of the feedback: `POST /` and `POST /feedback` (`core.feedback_hook_url` of gorush).
#[derive(Debug, Clone)]
pub struct FeedbackHook(Arc<Hook>);

#[derive(Debug)]
struct Hook {
    settings: FeedbackSettings,
    key: NotificationKey,
    dead_tokens: Arc<DeadTokens>,
    metrics: Metrics,
    events: mpsc::Sender<Feedback>,
}

impl FeedbackHook {
    /// A hook that believes notifications marked with `key`, and where its events arrive.
    pub fn new(
        settings: FeedbackSettings,
        key: NotificationKey,
        dead_tokens: Arc<DeadTokens>,
        metrics: Metrics,
    ) -> (Self, mpsc::Receiver<Feedback>) {
        let (events, receiver) = mpsc::channel(settings.queue.max(1));
        (Self(Arc::new(Hook { settings, key, dead_tokens, metrics, events })), receiver)
    }

    /// The routes, for a server of the caller's.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/", post(report))
            .route("/feedback", post(report))
            .layer(DefaultBodyLimit::max(self.0.settings.max_body_bytes))
            .with_state(self.clone())
    }

    /// Serves the routes on `listener` until `stop`, with bounded connections and deadlines.
    pub fn serve(
        &self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        serve::serve(listener, self.router(), self.0.settings.clone(), stop)
    }

    async fn take(&self, body: &[u8]) -> StatusCode {
        let hook = &*self.0;
        let Ok(report) = serde_json::from_slice::<Report>(body) else {
            hook.metrics.feedback_unreadable.inc();
            return StatusCode::BAD_REQUEST;
        };
        let Some(mark) = hook.key.open(&report.notif_id) else {
            hook.metrics.feedback_forged.inc();
            return StatusCode::FORBIDDEN;
        };
        if report.kind != "failed-push" {
            return StatusCode::OK;
        }
        let reason = FailureReason::read(mark.service, &report.error);
        hook.metrics.count_failure(mark.service, reason);
        let verdict = hook.dead_tokens.judge(&mark, reason);
        let Mark { service, sent_at, fingerprint, reference } = mark;
        let event = Feedback { reference, sent_at, service, token: fingerprint, reason, verdict };
        match hook.events.send_timeout(event, hook.settings.queue_wait).await {
            Ok(()) => StatusCode::OK,
            Err(_) => {
                hook.metrics.feedback_dropped.inc();
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

/// One log object of gorush. Its token may be masked and is not read.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    notif_id: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    error: String,
}

async fn report(State(hook): State<FeedbackHook>, body: Bytes) -> StatusCode {
    hook.take(&body).await
}

#[cfg(test)]
mod tests;
