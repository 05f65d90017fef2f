//! Dealing with messages: side by side, and each for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use poste_rpc::archive::v1::Record;
use poste_wire::{Envelope, Topic};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Shared, back_off};
use crate::server::{Handled, Incoming, PushServer, Unanswered, compute};

/// Between two attempts at one message: from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The messages that are being dealt with.
#[derive(Debug)]
pub(super) struct Work {
    shared: Arc<Shared>,
    server: Arc<PushServer>,
    stop: CancellationToken,
    /// Whoever waited for another attempt has to wait for a place too.
    places: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Work {
    /// From `stop` on nothing is tried again.
    pub(super) fn new(shared: Arc<Shared>, server: Arc<PushServer>, stop: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(shared.settings.max_in_progress));
        Self { shared, server, stop, places, tasks: JoinSet::new() }
    }

    /// Begins with a record that is noted as in progress.
    pub(super) fn begin(&mut self, topic: Topic, record: Record) {
        let in_progress = InProgress { shared: Arc::clone(&self.shared), seq: record.seq, is_done: false };
        let attempts = Attempts {
            server: Arc::clone(&self.server),
            stop: self.stop.clone(),
            places: Arc::clone(&self.places),
        };
        self.tasks.spawn(deal_with(attempts, topic, record.body, in_progress));
        while self.tasks.try_join_next().is_some() {}
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until one has ended. Cancel safe.
    pub(super) async fn reap(&mut self) {
        // A panic is told by the hook, and its message is given up.
        drop(self.tasks.join_next().await);
    }

    /// Waits until all have ended. Cancel safe.
    pub(super) async fn all(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends those that have not, in the middle of what they do.
    pub(super) async fn end(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// A message that is not dealt with. Whatever does not end it leaves its place unfinished; except a panic, which would
/// come again each time.
#[derive(Debug)]
struct InProgress {
    shared: Arc<Shared>,
    seq: u64,
    is_done: bool,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if self.is_done || std::thread::panicking() {
            self.shared.state.lock().in_progress.remove(&self.seq);
            self.shared.changed.notify_one();
            self.shared.ended.notify_waiters();
        }
    }
}

async fn deal_with(attempts: Attempts, topic: Topic, body: Bytes, mut in_progress: InProgress) {
    let shared = Arc::clone(&in_progress.shared);
    let envelope = compute(body.len(), move || Envelope::decode(body)).await;
    match envelope {
        Some(Ok(envelope)) => {
            let data = envelope.data();
            if shared.tell(topic, data) {
                let made_at = Duration::from_secs(envelope.sent().into());
                let position = in_progress.seq;
                let incoming = Incoming { topic, data: data.clone(), made_at, position };
                if attempts.handle(&shared, incoming).await.is_none() {
                    return;
                }
            }
        }
        Some(Err(error)) => {
            shared.metrics.unreadable.inc();
            debug!(%error, "a record of the archive is no envelope");
        }
        // The runtime ends.
        None => return,
    }
    in_progress.is_done = true;
}

/// What it takes to deal with one message.
struct Attempts {
    server: Arc<PushServer>,
    stop: CancellationToken,
    places: Arc<Semaphore>,
}

impl Attempts {
    /// Tries until there is an outcome: a gateway that is away comes back, and the sender is owed an answer. None if
    /// there is none at the stop.
    async fn handle(&self, shared: &Shared, incoming: Incoming) -> Option<Handled> {
        let mut pause = FIRST_PAUSE;
        let mut said = false;
        loop {
            let place = self.places.acquire().await.ok()?;
            let now = shared.settings.clock.now();
            let cause = match self.server.handle(incoming.clone(), now).await {
                Ok(Handled::Unanswered(Unanswered::StoreFailed)) => "the store failed".to_owned(),
                Ok(handled) => return Some(handled),
                Err(error) => error.to_string(),
            };
            drop(place);
            if !std::mem::replace(&mut said, true) {
                warn!(cause, "a message could not be dealt with, trying again until it is");
            }
            shared.metrics.retries.inc();
            let _waiting = shared.wait_with(incoming.data.len());
            let until = back_off(&mut pause, LAST_PAUSE);
            if timeout_at(until, self.stop.cancelled()).await.is_ok() {
                return None;
            }
        }
    }
}

/// A message that waits for another attempt.
struct WaitingFor<'s> {
    shared: &'s Shared,
    bytes: usize,
}

impl Drop for WaitingFor<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.waiting.count -= 1;
        state.waiting.bytes -= self.bytes;
    }
}

impl Shared {
    fn wait_with(&self, bytes: usize) -> WaitingFor<'_> {
        let mut state = self.state.lock();
        state.waiting.count += 1;
        state.waiting.bytes += bytes;
        self.changed.notify_one();
        WaitingFor { shared: self, bytes }
    }

    /// Gives data to whoever listens in on its topic. Whether the server wants it too.
    fn tell(&self, topic: Topic, data: &Bytes) -> bool {
        let state = self.state.lock();
        for (_, listener) in state.listeners.by_topic.get(&topic).into_iter().flatten() {
            // One that does not keep up has more than it looks for.
            drop(listener.try_send(data.clone()));
        }
        !state.listeners.alone.contains(&topic)
    }
}
