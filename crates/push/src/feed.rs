//! Where messages come from: `Archive.Tail`, from the last checkpoint on, for ever.
//!
//! ```text
//! archive ── stream ──► listening (wanted? new?) ──► at most N in progress ──► PushServer::handle ──► dealt with
//!                                                                                                       │
//!                                                              notes: checkpoint, at most every second ◄─┘
//! ```
//!
//! [`stream`] reads one stream after the other, [`listening`] knows the topics and their places, [`work`] deals with each
//! message for as long as it takes, [`notes`] writes down how far everything was dealt with, [`source`] knows which
//! archive it is.

mod caught_up;
mod listening;
mod metrics;
mod notes;
mod places;
mod source;
mod stream;
mod work;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_rpc::client::Target;
use poste_service::Clock;
use poste_service::metrics::Scope;
use poste_service::readiness::Check;
use poste_wire::Topic;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::running::{FeedStatus, LoopbackMail, Running};
use crate::server::PushServer;
use crate::store::{RegistrationStore, StoreError};
use crate::topics::{FeedError, TopicFeed};
use listening::Listening;
use metrics::FeedMetrics;
use notes::Notes;
use source::Source;
use stream::Reader;

/// Messages that may wait until they are tried again, and as many that may wait for the provider. They hold up nobody
/// else until there are so many, and then everybody: each of them is owed an answer.
const MAX_WAITING: usize = 1024;
/// Queries that may wait for others: as many as are answered within some seconds. What comes behind more of them waits in
/// the archive, so that a server that was away answers all that it finds there.
const MAX_QUERIES: usize = 4096;
/// The same of those about owners with much to read, who are read one by one. More are dropped: those who ask for so much
/// would hold up everybody.
const MAX_LONG_QUERIES: usize = 256;
/// Bytes of those that wait, of each kind.
const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// A message that is at work for longer is worth a look: it waits for something that may never come.
const WORRYING_AGE: Duration = Duration::from_secs(5 * 60);
/// Why no message is taken.
const PAUSED: &str = "paused by an operator: `poste ctl push resume` goes on";
/// Envelopes that may wait for whoever listens in; what comes beyond is left out.
const LOOPBACK_MAIL: usize = 64;

/// How a feed is run.
#[derive(Debug, Clone)]
pub(crate) struct FeedSettings {
    pub(crate) archive: Target,
    /// The store that the operator consents to.
    pub(crate) archive_store: Option<[u8; 16]>,
    /// Where it is noted when the archive was last read to its end.
    pub(crate) data: PathBuf,
    /// More topics than these are not asked for by name.
    pub(crate) max_topics: usize,
    pub(crate) max_in_progress: usize,
    pub(crate) clock: Clock,
}

/// The checks that a feed answers for.
#[derive(Debug, Clone)]
pub(crate) struct FeedChecks {
    pub(crate) archive: Check,
    pub(crate) store: Check,
    /// That messages are taken: an operator may not want it.
    pub(crate) intake: Check,
    /// That what is taken is dealt with.
    pub(crate) feed: Check,
}

/// The feed. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: FeedSettings,
    checks: FeedChecks,
    metrics: FeedMetrics,
    state: Mutex<State>,
    /// There is something for the reader to do.
    changed: Notify,
    /// A message has been dealt with.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    listening: Listening,
    source: Source,
    /// Messages that were taken and are not dealt with, and since when.
    in_progress: BTreeMap<u64, Instant>,
    /// Those of them that could not be dealt with and are tried again later.
    for_another_attempt: Waiting,
    /// Those of them that wait for the provider. Apart: one that hangs fills this, and answers that nobody takes do not.
    for_the_provider: Waiting,
    /// Queries that wait for others, and those about owners with much to read.
    for_queries: Waiting,
    for_long_queries: Waiting,
    /// The newest record of the archive, as far as is known.
    head: u64,
    /// When the archive was heard last, or could not be because nothing was taken.
    heard: Instant,
    connected: bool,
    paused: bool,
    last_error: Option<String>,
    listeners: Listeners,
}

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    bytes: usize,
}

/// Who listens in, besides the server.
#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    by_topic: HashMap<Topic, Vec<(u64, mpsc::Sender<Bytes>)>>,
    /// Topics that nobody else wants.
    alone: HashSet<Topic>,
}

impl Feed {
    /// Reads from the store where to begin. Reads nothing of the archive before [`Feed::run`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn open(
        settings: FeedSettings,
        store: &dyn RegistrationStore,
        checks: FeedChecks,
        scope: &Scope,
    ) -> Result<Self, StoreError> {
        let checkpoint = store.checkpoint().await?;
        let data = settings.data.clone();
        let caught_up = tokio::task::spawn_blocking(move || caught_up::CaughtUp::read(&data)).await;
        let source = Source::new(checkpoint, settings.archive_store, caught_up.unwrap_or_default());
        let state = State {
            listening: Listening::from(source.begins_after()),
            source,
            in_progress: BTreeMap::new(),
            for_another_attempt: Waiting::default(),
            for_the_provider: Waiting::default(),
            for_queries: Waiting::default(),
            for_long_queries: Waiting::default(),
            head: 0,
            heard: Instant::now(),
            connected: false,
            paused: false,
            last_error: None,
            listeners: Listeners::default(),
        };
        checks.intake.ready();
        Ok(Self(Arc::new(Shared {
            settings,
            checks,
            metrics: FeedMetrics::register(scope),
            state: Mutex::new(state),
            changed: Notify::new(),
            ended: Notify::new(),
        })))
    }

    /// Brings messages to the server until `stop`; then gives those that were taken until `drain` has passed to end, and
    /// writes the last checkpoint.
    pub(crate) async fn run(
        self,
        server: Arc<PushServer>,
        store: Arc<dyn RegistrationStore>,
        stop: CancellationToken,
        drain: Duration,
    ) {
        let (shared, of_server) = (Arc::clone(&self.0), Arc::clone(&server));
        // There may be millions. It is only cancelled when the whole runtime ends.
        let joining =
            tokio::task::spawn_blocking(move || shared.state.lock().listening.join(of_server.topics()));
        drop(joining.await);
        let ended = CancellationToken::new();
        let reading = async {
            let reader = Reader::new(Arc::clone(&self.0), Arc::clone(&server), stop.clone());
            reader.run(&stop, drain).await;
            ended.cancel();
        };
        let notes = Notes::new(Arc::clone(&self.0), Arc::clone(&server), store);
        tokio::join!(reading, notes.run(&ended));
    }
}

#[tonic::async_trait]
impl TopicFeed for Feed {
    /// Waits for nobody: see [`listening`].
    async fn join(&self, topics: &[Topic]) -> Result<(), FeedError> {
        let mut state = self.0.state.lock();
        for topic in topics {
            state.listeners.alone.remove(topic);
        }
        state.listening.join(topics.iter().copied());
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    async fn leave(&self, topics: &[Topic]) {
        let mut state = self.0.state.lock();
        for topic in topics {
            if state.listeners.by_topic.contains_key(topic) {
                state.listeners.alone.insert(*topic);
            } else {
                state.listening.leave([*topic]);
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

#[tonic::async_trait]
impl Running for Feed {
    fn status(&self) -> FeedStatus {
        let state = self.0.state.lock();
        FeedStatus {
            connected: state.connected,
            everything: state.listening.is_everything(),
            topics: state.listening.len() as u64,
            seq: state.dealt_with(),
            head: state.head,
            store_id: state.source.store_id(),
            in_progress: state.in_progress.len(),
            paused: state.paused,
            last_error: state.last_error.clone(),
        }
    }

    fn pause(&self, paused: bool) {
        let mut state = self.0.state.lock();
        state.paused = paused;
        if paused {
            self.0.checks.intake.not_ready(PAUSED);
        } else {
            self.0.checks.intake.ready();
        }
        drop(state);
        self.0.changed.notify_one();
    }

    async fn drained(&self) {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            // From here on an end is noticed, also one before the wait.
            ended.as_mut().enable();
            if self.0.state.lock().in_progress.is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn listen(&self, topic: Topic) -> LoopbackMail {
        let (sender, mail) = mpsc::channel(LOOPBACK_MAIL);
        let mut state = self.0.state.lock();
        state.listeners.next += 1;
        let number = state.listeners.next;
        if !state.listening.contains(topic) {
            state.listeners.alone.insert(topic);
            state.listening.join([topic]);
        }
        state.listeners.by_topic.entry(topic).or_default().push((number, sender));
        drop(state);
        self.0.changed.notify_one();
        let shared = Arc::clone(&self.0);
        LoopbackMail::new(mail, move || shared.listens_no_more(topic, number))
    }
}

impl Shared {
    fn listens_no_more(&self, topic: Topic, number: u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(listeners) = state.listeners.by_topic.get_mut(&topic) else { return };
        listeners.retain(|(other, _)| *other != number);
        if listeners.is_empty() {
            state.listeners.by_topic.remove(&topic);
            if state.listeners.alone.remove(&topic) {
                state.listening.leave([topic]);
            }
        }
        self.changed.notify_one();
    }

    /// Whether what was taken is dealt with in time.
    fn show_age(&self) {
        let oldest = self.state.lock().oldest();
        match oldest {
            Some(age) if age > WORRYING_AGE => {
                let minutes = age.as_secs() / 60;
                let reason = format!("a message could not be dealt with for {minutes} min: the log says why");
                self.checks.feed.not_ready(reason);
            }
            _ => self.checks.feed.ready(),
        }
    }

    fn note_error(&self, error: &str) {
        self.state.lock().last_error = Some(error.to_owned());
        self.checks.archive.not_ready(error);
    }
}

impl Waiting {
    fn has_room(&self, most: usize) -> bool {
        self.count < most && self.bytes < MAX_WAITING_BYTES
    }
}

impl State {
    /// Everything up to here was received and dealt with.
    fn dealt_with(&self) -> u64 {
        let unfinished =
            self.in_progress.first_key_value().map_or(u64::MAX, |(lowest, _)| lowest.saturating_sub(1));
        self.listening.received().min(unfinished)
    }

    /// Whether another message may be taken.
    fn may_take(&self, max_in_progress: usize) -> bool {
        let owed = [&self.for_another_attempt, &self.for_the_provider];
        let waiting: usize = owed.iter().map(|waiting| waiting.count).sum();
        let queries = self.for_queries.count + self.for_long_queries.count;
        let at_work = self.in_progress.len().saturating_sub(waiting + queries);
        let has_room = owed.iter().all(|waiting| waiting.has_room(MAX_WAITING))
            && self.for_queries.has_room(MAX_QUERIES);
        !self.paused && at_work < max_in_progress && has_room
    }

    /// How long the oldest message is at work.
    fn oldest(&self) -> Option<Duration> {
        self.in_progress.values().min().map(Instant::elapsed)
    }

    /// All that the archive has was dealt with.
    fn is_at_the_end(&self) -> bool {
        self.connected && self.listening.has_caught_up() && self.dealt_with() >= self.head
    }
}

/// Twice the pause, and the next one never longer than `longest`. Some less, so that many do not go in step.
fn back_off(pause: &mut Duration, longest: Duration) -> Instant {
    use rand::RngExt;
    let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
    *pause = (*pause * 2).min(longest);
    Instant::now() + wait
}

#[cfg(test)]
mod tests {
    use poste_service::metrics::Metrics;
    use poste_service::readiness::Readiness;

    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_not_dealt_with_is_shown() {
        let readiness = Readiness::new();
        let [archive, store, intake, feed] =
            ["archive", "store", "intake", "feed"].map(|name| readiness.add(name));
        let settings = FeedSettings {
            archive: Target::lazy("http://127.0.0.1:1").unwrap(),
            archive_store: None,
            data: PathBuf::new(),
            max_topics: 4,
            max_in_progress: 4,
            clock: Clock::system(),
        };
        let checks = FeedChecks { archive, store, intake, feed };
        let scope = Metrics::new().scope("push");
        let feed = Feed::open(settings, &MemoryStore::default(), checks, &scope).await.unwrap();
        let reason = || {
            feed.0.show_age();
            readiness.report().checks[3].reason.clone()
        };
        assert_eq!(reason(), None);
        // What came later for a topic that was joined later may be older in the archive.
        feed.0.state.lock().in_progress.insert(7, Instant::now());
        tokio::time::advance(WORRYING_AGE).await;
        feed.0.state.lock().in_progress.insert(6, Instant::now());
        assert_eq!(reason(), None);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(reason().unwrap().contains("for 6 min"), "{:?}", reason());
        feed.0.state.lock().in_progress.remove(&7);
        assert_eq!(reason(), None);
    }
}
