//! Dealing with messages: side by side, and each for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use poste_rpc::archive::v1::Record;
use poste_wire::{Envelope, Topic};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::places::Places;
use super::{MAX_LONG_QUERIES, Shared, State, Waiting, back_off};
use crate::answer::{AnswerKind, PublishError};
use crate::server::{Incoming, Opened, PushServer, compute};

/// Between two attempts at one message: from the first to the last, and to the last at one that is refused for reasons
/// that other attempts do not change.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE_OF_REFUSED: Duration = Duration::from_secs(60);
/// What all gateways refuse for so long is answered no more: nobody waits for it, and it keeps others from being taken.
const REFUSED_FOR: Duration = Duration::from_secs(6 * 60 * 60);

/// The messages that are being dealt with.
#[derive(Debug)]
pub(super) struct Work {
    shared: Arc<Shared>,
    server: Arc<PushServer>,
    stop: CancellationToken,
    places: Places,
    tasks: JoinSet<()>,
}

impl Work {
    /// From `stop` on nothing is tried again.
    pub(super) fn new(shared: Arc<Shared>, server: Arc<PushServer>, stop: CancellationToken) -> Self {
        let places = Places::new(shared.settings.max_in_progress);
        Self { shared, server, stop, places, tasks: JoinSet::new() }
    }

    /// Begins with a record that is noted as in progress.
    pub(super) fn begin(&mut self, topic: Topic, record: Record) {
        let in_progress = InProgress { shared: Arc::clone(&self.shared), seq: record.seq, is_done: false };
        let attempts = Attempts {
            server: Arc::clone(&self.server),
            stop: self.stop.clone(),
            places: self.places.clone(),
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
    match compute(body.len(), move || Envelope::decode(body)).await {
        Some(Ok(envelope)) => {
            let made_at = Duration::from_secs(envelope.sent().into());
            let incoming =
                Incoming { topic, data: envelope.data().clone(), made_at, position: in_progress.seq };
            drop(envelope);
            if shared.tell(topic, &incoming.data) && attempts.handle(&shared, incoming).await.is_none() {
                return;
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
    places: Places,
}

/// How often it was tried, and when it is tried again.
struct Trying {
    pause: Duration,
    has_failed: bool,
    /// When all gateways first refused the answer, of the times since nobody could be asked.
    refused_at: Option<Instant>,
}

impl Attempts {
    /// Tries until there is an outcome: a gateway that is away comes back, and the sender is owed an answer. None if
    /// there is none at the stop. What gateways refuse they may take when an operator has changed their settings, and
    /// that takes some hours at most.
    async fn handle(&self, shared: &Shared, incoming: Incoming) -> Option<()> {
        let mut trying = Trying { pause: FIRST_PAUSE, has_failed: false, refused_at: None };
        let mut opened = loop {
            let place = self.places.any().await?;
            match self.server.open(incoming.clone(), shared.settings.clock.now()).await {
                Ok(opened) => break opened,
                Err(why) if why.is_final() => return Some(()),
                Err(_) => drop(place),
            }
            self.wait(shared, &mut trying, incoming.data.len(), "the store failed", LAST_PAUSE).await?;
        };
        drop(incoming);
        loop {
            let (cause, longest) = match self.attempt(shared, &mut opened).await? {
                Ok(is_final) if is_final => return Some(()),
                Ok(_) => ("the store failed".to_owned(), LAST_PAUSE),
                Err(refused @ PublishError::Refused(_)) => {
                    if trying.refused_at.get_or_insert_with(Instant::now).elapsed() > REFUSED_FOR {
                        warn!(cause = %refused, "an answer is given up");
                        shared.metrics.given_up.inc();
                        self.server.give_up(opened);
                        return Some(());
                    }
                    (refused.to_string(), LAST_PAUSE_OF_REFUSED)
                }
                Err(error) => {
                    // Nobody refused it this time: the hours begin anew.
                    trying.refused_at = None;
                    (error.to_string(), LAST_PAUSE)
                }
            };
            self.wait(shared, &mut trying, opened.bytes(), &cause, longest).await?;
        }
    }

    /// One attempt to answer, and whether it was the last one. What waits for its turn at the stop has the time that all
    /// have then.
    async fn attempt(&self, shared: &Shared, opened: &mut Opened) -> Option<Result<bool, PublishError>> {
        let mut of_its_kind = None;
        if opened.kind() == Some(AnswerKind::Query) {
            let are_long = self.server.takes_long(opened);
            let waiting = || match are_long {
                true => {
                    shared.wait_if_room(opened.bytes(), |state| &mut state.for_long_queries, MAX_LONG_QUERIES)
                }
                false => Some(shared.wait_with(opened.bytes(), |state| &mut state.for_queries)),
            };
            of_its_kind = self.places.of_queries(are_long, waiting).await;
            if of_its_kind.is_none() {
                self.server.drop_query(opened);
                return Some(Ok(true));
            }
        } else if opened.asks_provider() {
            let waiting = || shared.wait_with(opened.bytes(), |state| &mut state.for_the_provider);
            of_its_kind = self.places.of_requests(waiting).await;
            self.server.turn_away(opened, of_its_kind.is_none());
        }
        let _place = self.places.any().await?;
        let answered = self.server.answer(opened, shared.settings.clock.now()).await;
        drop(of_its_kind);
        Some(answered.map(|handled| handled.is_final()))
    }

    /// Waits until it is time for another attempt. None if there is none before the stop.
    async fn wait(
        &self,
        shared: &Shared,
        trying: &mut Trying,
        bytes: usize,
        cause: &str,
        longest: Duration,
    ) -> Option<()> {
        if !std::mem::replace(&mut trying.has_failed, true) {
            warn!(cause, "a message could not be dealt with, trying again until it is");
        }
        shared.metrics.retries.inc();
        let _waiting = shared.wait_with(bytes, |state| &mut state.for_another_attempt);
        let until = back_off(&mut trying.pause, longest);
        timeout_at(until, self.stop.cancelled()).await.is_err().then_some(())
    }
}

/// Which of those that wait.
type Pool = fn(&mut State) -> &mut Waiting;

/// A message that waits.
struct WaitingIn<'s> {
    shared: &'s Shared,
    pool: Pool,
    bytes: usize,
}

impl Drop for WaitingIn<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let waiting = (self.pool)(&mut state);
        waiting.count -= 1;
        waiting.bytes -= self.bytes;
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn wait_with(&self, bytes: usize, pool: Pool) -> WaitingIn<'_> {
        self.wait_in(&mut self.state.lock(), bytes, pool)
    }

    /// None if too many wait.
    fn wait_if_room(&self, bytes: usize, pool: Pool, most: usize) -> Option<WaitingIn<'_>> {
        let mut state = self.state.lock();
        pool(&mut state).has_room(most).then(|| self.wait_in(&mut state, bytes, pool))
    }

    fn wait_in(&self, state: &mut State, bytes: usize, pool: Pool) -> WaitingIn<'_> {
        let waiting = pool(state);
        waiting.count += 1;
        waiting.bytes += bytes;
        self.changed.notify_one();
        WaitingIn { shared: self, pool, bytes }
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

#[cfg(test)]
mod tests;
