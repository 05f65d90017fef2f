//! gorush over HTTP: `POST /api/push`.
//!
//! Each push service has a bounded queue and a bounded number of calls of its own: a gorush in sync mode answers when
//! Apple or Google has, and the one must not wait for the other. As soon as a call is free, it takes what waits (so a
//! quiet queue means no delay, and a busy one means fuller calls).
//!
//! gorush's 200 means *queued*, at best. What it says beyond that is a hint, counted and reported as
//! [`Unknown`](crate::Unknown); tokens are judged by the feedback hook alone.
//!
//! There is one retry layer, here, and it repeats only what surely did not arrive: calls of which no byte was written,
//! and calls answered 400, in smaller parts.

mod answer;
mod batch;
mod body;
mod call;
mod connection;
mod counted;
mod dispatch;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dead_tokens::DeadTokens;
use crate::metrics::Metrics;
use crate::notif_id::{Mark, NotificationKey};
use crate::notification::{Notification, Service};
use crate::outcome::{Outcome, Refused, Unknown};
use crate::{PushProvider, Unavailable};
use batch::Batch;
use connection::{Address, Connections};

/// Settings of the way to a gorush.
#[derive(Debug, Clone)]
pub struct GorushSettings {
    /// Where it is, for example `http://127.0.0.1:8088`; `/api/push` is added. Plain HTTP: gorush has no
    /// authentication, so it stands on a network of its own, or behind a local proxy that speaks TLS.
    pub url: String,
    /// Notifications of one service that may wait for a call; others wait for room, and no longer. 2,048.
    pub queue: usize,
    /// Calls at once for each service, each on a connection of its own. 4.
    pub max_calls: usize,
    /// Notifications in one call; gorush's own limit is 100 unless it is set otherwise. 100.
    pub max_batch: usize,
    /// A limit that gorush named is tried again after so long: it may have been corrected. 5 min.
    pub limit_retry: Duration,
    /// How long a notification may wait for a call: no longer than senders wait before they ask another server. 3 s.
    pub queue_timeout: Duration,
    /// How long connecting may take, name resolution included. 2 s.
    pub connect_timeout: Duration,
    /// How long a call may take until its answer is read. A gorush in sync mode waits for Apple or Google, and tries
    /// Google for about 7 s. 10 s.
    pub call_timeout: Duration,
    /// How often a call is tried again of which no byte was written. 1.
    pub retries: u32,
    /// The pause before that. 100 ms.
    pub retry_pause: Duration,
    /// A connection that was not used for so long is not used again: it may be gone without a sign. 15 s.
    pub idle_timeout: Duration,
    /// Bytes of an answer that are read. 1 MiB.
    pub max_answer_bytes: usize,
}

impl Default for GorushSettings {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8088".into(),
            queue: 2048,
            max_calls: 4,
            max_batch: 100,
            limit_retry: Duration::from_secs(5 * 60),
            queue_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(10),
            retries: 1,
            retry_pause: Duration::from_millis(100),
            idle_timeout: Duration::from_secs(15),
            max_answer_bytes: 1024 * 1024,
        }
    }
}

/// A setting cannot be used.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// The address is not one.
    #[error("{url:?} is not an address of a gorush: write http://HOST:PORT")]
    Url {
        /// What was given, without a user and a password.
        url: String,
    },
    /// TLS is asked for.
    #[error("{url:?}: gorush is spoken to by plain http only: put a local proxy that speaks TLS between")]
    Tls {
        /// What was given, without a user and a password.
        url: String,
    },
}

/// A gorush. Dropping it ends its calls; [`stop`](Self::stop) lets them end.
#[derive(Debug)]
pub struct GorushProvider {
    shared: Arc<Shared>,
    apns: mpsc::Sender<Job>,
    fcm: mpsc::Sender<Job>,
    dispatchers: parking_lot::Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

/// What the provider, the dispatchers and their calls share.
#[derive(Debug)]
struct Shared {
    settings: GorushSettings,
    key: NotificationKey,
    dead_tokens: Arc<DeadTokens>,
    metrics: Metrics,
    connections: Connections,
    batch: Batch,
    /// For the log: whether the last call reached gorush.
    is_reachable: AtomicBool,
}

/// A notification on its way, and who waits for its outcome.
struct Job {
    service: Service,
    notif_id: String,
    json: String,
    /// What gorush will count for it.
    counts: u64,
    /// When it may no longer begin.
    deadline: Instant,
    /// Set by the first of two: the call that begins it, or the caller that waited too long for that.
    is_decided: Arc<AtomicBool>,
    answer: oneshot::Sender<Outcome>,
}

impl Job {
    fn end(self, outcome: Outcome, metrics: &Metrics) {
        metrics.count_notification(self.service, outcome);
        // A caller that went away does not want to know.
        let _ = self.answer.send(outcome);
    }
}

impl GorushProvider {
    /// Whether [`GorushSettings::url`] may be this.
    pub fn check_url(url: &str) -> Result<(), SettingsError> {
        Address::parse(url).map(drop)
    }

    /// Starts the calls' tasks; must be called within a tokio runtime. Does not connect yet.
    pub fn start(
        settings: GorushSettings,
        key: NotificationKey,
        dead_tokens: Arc<DeadTokens>,
        metrics: Metrics,
    ) -> Result<Self, SettingsError> {
        let address = Address::parse(&settings.url)?;
        let shared = Arc::new(Shared {
            key,
            dead_tokens,
            connections: Connections::new(address, settings.clone()),
            batch: Batch::new(settings.max_batch, settings.limit_retry),
            is_reachable: AtomicBool::new(true),
            metrics,
            settings,
        });
        let stop = CancellationToken::new();
        let mut dispatchers = JoinSet::new();
        let mut start = |service| {
            let (queue, jobs) = mpsc::channel(shared.settings.queue.max(1));
            dispatchers.spawn(dispatch::run(shared.clone(), service, jobs, stop.clone()));
            queue
        };
        let (apns, fcm) = (start(Service::Apns), start(Service::Fcm));
        Ok(Self { shared, apns, fcm, dispatchers: parking_lot::Mutex::new(dispatchers), stop })
    }

    /// Takes nothing more, and waits until everything taken before has its outcome: at most as long as a notification
    /// may wait and a call with its retries may take. Who stops waiting ends the calls.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut dispatchers = mem::take(&mut *self.dispatchers.lock());
        // A panic in a task has been logged by the hook.
        while dispatchers.join_next().await.is_some() {}
    }

    async fn hand_over(&self, notification: Notification) -> Outcome {
        let service = notification.service.service();
        let mark = Mark {
            service,
            sent_at: notification.sent_at,
            fingerprint: self.shared.key.fingerprint(&notification.token),
            reference: notification.reference.clone(),
        };
        let notif_id = self.shared.key.seal(&mark);
        let refuse = |refused| {
            self.shared.metrics.count_notification(service, Outcome::Refused(refused));
            Outcome::Refused(refused)
        };
        let deadline = Instant::now() + self.shared.settings.queue_timeout;
        let queue = match service {
            Service::Apns => &self.apns,
            Service::Fcm => &self.fcm,
        };
        if self.stop.is_cancelled() {
            return refuse(Refused::Stopping);
        }
        // Whoever waits for room costs no more than who waits for the outcome: a request for hundreds of devices is not
        // refused for being one.
        let place = match tokio::time::timeout_at(deadline, queue.reserve()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return refuse(Refused::Stopping),
            Err(_) => return refuse(Refused::Busy),
        };
        let Some(body::Rendered { json, counts }) = body::render(&notification, &notif_id) else {
            return refuse(Refused::TooLarge);
        };
        drop(notification);
        let (answer, mut outcome) = oneshot::channel();
        let is_decided = Arc::new(AtomicBool::new(false));
        self.shared.metrics.queued.inc();
        place.send(Job { service, notif_id, json, counts, deadline, is_decided: is_decided.clone(), answer });
        let ended = match tokio::time::timeout_at(deadline, &mut outcome).await {
            Ok(ended) => ended,
            Err(_) if !is_decided.swap(true, Ordering::SeqCst) => return refuse(Refused::Busy),
            // The call has begun, and has deadlines of its own.
            Err(_) => outcome.await,
        };
        // The other end is dropped without a word only if the dispatcher is.
        ended.unwrap_or(Outcome::Unknown(Unknown::ConnectionLost))
    }
}

impl PushProvider for GorushProvider {
    fn send(&self, notification: Notification) -> BoxFuture<'_, Outcome> {
        self.hand_over(notification).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        async move {
            match self.shared.connections.healthz().await {
                Ok(200) => Ok(()),
                Ok(status) => Err(Unavailable(format!("gorush answers /healthz with status {status}"))),
                Err(failure) => Err(Unavailable(format!("gorush {failure}"))),
            }
        }
        .boxed()
    }
}
