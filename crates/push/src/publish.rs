//! Answers on their way out: envelopes for `GatewayService.Publish`. The gateway mines them and promises to keep them.
//!
//! The answer to a registration goes out through two gateways where there are two, and once more some seconds later: the
//! deployed clients never recover from its loss.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use poste_rpc::client::Target;
use poste_rpc::gateway::v1::PublishRequest;
use poste_service::Clock;
use poste_service::metrics::Scope;
use poste_wire::Envelope;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::answer::{Answer, AnswerKind, PublishError, Publisher};

/// The proof of work of the network's clients, and from which size of the data on less is enough.
const POW: f64 = 0.002;
const POW_OF_LARGE: f64 = 0.000_002;
const LARGE_BYTES: usize = 50_000;
/// A gateway mines for 5 s at most, and waits 10 s for its archive.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the other gateway is waited for when one has taken an answer.
const SECOND_PATIENCE: Duration = Duration::from_secs(2);
/// How long a refusal counts. Answers are tried again within a minute, and so it is renewed while it lasts.
const REFUSED_FOR: Duration = Duration::from_secs(90);
/// When the answer to a registration goes out again, and how many may wait for that.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
const AGAIN_QUEUE: usize = 1024;
/// How many go out again side by side.
const AGAIN_AT_ONCE: usize = 4;

/// Publishes through gateways. Clones are the same.
#[derive(Clone)]
pub(crate) struct GatewayPublisher(Arc<Inner>);

struct Inner {
    gateways: Vec<Target>,
    /// The one that took the last answer.
    preferred: AtomicUsize,
    /// When none took one, and why; nothing since one did.
    refused: Mutex<Option<(Instant, String)>>,
    ttl_s: u32,
    clock: Clock,
    again: mpsc::Sender<Again>,
    metrics: PublishMetrics,
}

/// What goes out again.
struct Again {
    due: Instant,
    answer: Answer,
}

/// Why a gateway did not take an envelope.
struct CallFailed {
    reason: String,
    /// It will not take this one another time either: too little proof of work for its network, too large, expired by
    /// its clock.
    is_refusal: bool,
}

#[derive(Debug, Default)]
struct PublishMetrics {
    envelopes: Counter,
    failures: Counter,
    refused: Counter,
    again: Counter,
    again_dropped: Counter,
}

/// What goes out again, at its time.
pub(crate) struct Repeating {
    publisher: GatewayPublisher,
    again: mpsc::Receiver<Again>,
}

impl GatewayPublisher {
    /// A publisher on some gateways, at least one; and what repeats its answers once it is run.
    pub(crate) fn new(
        gateways: Vec<Target>,
        ttl: Duration,
        clock: Clock,
        scope: &Scope,
    ) -> (Self, Repeating) {
        let (sender, again) = mpsc::channel(AGAIN_QUEUE);
        let metrics = PublishMetrics::register(scope);
        let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        let inner = Inner {
            gateways,
            preferred: AtomicUsize::new(0),
            refused: Mutex::new(None),
            ttl_s,
            clock,
            again: sender,
            metrics,
        };
        let publisher = Self(Arc::new(inner));
        (publisher.clone(), Repeating { publisher, again })
    }

    /// Why no gateway took the last answer, if that was just now.
    pub(crate) fn refused(&self) -> Option<String> {
        let refused = self.0.refused.lock();
        refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSED_FOR).map(|(_, reason)| reason.clone())
    }

    /// Brings each frame to as many gateways as `copies` says, if there are as many.
    async fn send(&self, answer: &Answer, copies: usize) -> Result<(), PublishError> {
        for frame in &answer.frames {
            let sent_s = u32::try_from(self.0.clock.unix_seconds()).unwrap_or(u32::MAX);
            let expiry = sent_s.saturating_add(self.0.ttl_s);
            let envelope = Envelope::new(expiry, self.0.ttl_s, answer.topic, frame, 0);
            let pow = if frame.len() > LARGE_BYTES { POW_OF_LARGE } else { POW };
            self.0.send(envelope.rlp(), pow, copies).await?;
        }
        Ok(())
    }

    /// Whatever finds no room is not sent again: it went out once.
    fn repeat(&self, answer: Answer) {
        let again = Again { due: Instant::now() + AGAIN_AFTER, answer };
        if self.0.again.try_send(again).is_err() {
            self.0.metrics.again_dropped.inc();
        }
    }
}

#[tonic::async_trait]
impl Publisher for GatewayPublisher {
    async fn publish(&self, answer: Answer) -> Result<(), PublishError> {
        let is_registration = answer.kind == AnswerKind::Registration;
        // Of an answer that went out once, and goes out again, nobody needs to know.
        let noted = |error: &PublishError| self.0.note_refused(error);
        self.send(&answer, if is_registration { 2 } else { 1 }).await.inspect_err(noted)?;
        if is_registration {
            self.repeat(answer);
        }
        Ok(())
    }
}

impl fmt::Debug for GatewayPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayPublisher").field("gateways", &self.0.gateways.len()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Ok as soon as one gateway has it, and the others had their time. The next ones are asked in place of those that fail.
    async fn send(&self, envelope: &Bytes, pow: f64, copies: usize) -> Result<(), PublishError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.gateways.len();
        let mut rest = (0..count).map(|offset| (first + offset) % count);
        let mut calls: FuturesUnordered<_> =
            rest.by_ref().take(copies).map(|gateway| self.call(gateway, envelope, pow)).collect();
        let mut errors = Vec::new();
        let mut is_sent = false;
        loop {
            let ended = if is_sent {
                timeout(SECOND_PATIENCE, calls.next()).await.unwrap_or(None)
            } else {
                calls.next().await
            };
            match ended {
                Some((gateway, Ok(()))) => {
                    if !std::mem::replace(&mut is_sent, true) {
                        self.preferred.store(gateway, Ordering::Relaxed);
                        *self.refused.lock() = None;
                    }
                }
                Some((_, Err(error))) => {
                    errors.push(error);
                    if !is_sent && let Some(gateway) = rest.next() {
                        calls.push(self.call(gateway, envelope, pow));
                    }
                }
                None if is_sent => return Ok(()),
                None => return Err(self.failed(&errors)),
            }
        }
    }

    fn note_refused(&self, error: &PublishError) {
        let (PublishError::Away(reason) | PublishError::Refused(reason)) = error;
        *self.refused.lock() = Some((Instant::now(), reason.clone()));
    }

    fn failed(&self, errors: &[CallFailed]) -> PublishError {
        let reasons: Vec<&str> = errors.iter().map(|error| error.reason.as_str()).collect();
        let reason = reasons.join("; ");
        if errors.iter().all(|error| error.is_refusal) {
            self.metrics.refused.inc();
            return PublishError::Refused(reason);
        }
        PublishError::Away(reason)
    }

    async fn call(&self, gateway: usize, envelope: &Bytes, pow: f64) -> (usize, Result<(), CallFailed>) {
        let target = &self.gateways[gateway];
        let request = PublishRequest { envelope: envelope.clone(), mine_to_pow: Some(pow) };
        let mut client = poste_rpc::gateway::client(target.channel());
        let result = match timeout(CALL_TIMEOUT, client.publish(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(CallFailed {
                reason: target.error(&status).to_string(),
                is_refusal: status.code() == Code::InvalidArgument,
            }),
            Err(_) => {
                let reason = format!("{} did not answer in time", target.address());
                Err(CallFailed { reason, is_refusal: false })
            }
        };
        match result {
            Ok(()) => self.metrics.envelopes.inc(),
            Err(_) => self.metrics.failures.inc(),
        };
        (gateway, result)
    }
}

impl Repeating {
    /// Sends again what is due, until `stop`. What waits then is dropped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut sending = JoinSet::new();
        let repeating = async {
            while let Some(Again { due, answer }) = self.again.recv().await {
                // All wait equally long, so that the first is due first.
                sleep_until(due).await;
                if sending.len() >= AGAIN_AT_ONCE {
                    sending.join_next().await;
                }
                let publisher = self.publisher.clone();
                sending.spawn(async move {
                    // A fresh envelope: the network has known the former one.
                    match publisher.send(&answer, 1).await {
                        Ok(()) => publisher.0.metrics.again.inc(),
                        Err(_) => publisher.0.metrics.again_dropped.inc(),
                    }
                });
                while sending.try_join_next().is_some() {}
            }
        };
        let _ = stop.run_until_cancelled(repeating).await;
        sending.shutdown().await;
    }
}

impl fmt::Debug for Repeating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Repeating")
    }
}

impl PublishMetrics {
    fn register(scope: &Scope) -> Self {
        Self {
            envelopes: scope.counter("published_envelopes", "Envelopes that a gateway took"),
            failures: scope.counter("publish_failures", "Calls of gateways that failed"),
            refused: scope.counter(
                "answers_refused",
                "Attempts at answers that all gateways refused for reasons that another attempt does not change",
            ),
            again: scope
                .counter("answers_sent_again", "Answers to registrations that went out a second time"),
            again_dropped: scope.counter(
                "answers_not_sent_again",
                "Answers to registrations that found no room, or no gateway, to go out a second time",
            ),
        }
    }
}
