//! `Tail`: records in order of arrival, from a token on. The stream pulls from the store by seq whenever its
//! caller has room, so a slow caller holds nothing back and buffers nothing here but one small page.
//!
//! A topic that is added catches up on its own until it is where the live topics are; then it joins them and
//! the caller is told. The live position is the token up to which everything was sent for every live topic.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream};
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::tail_request::Kind as Request;
use poste_rpc::archive::v1::tail_response::Kind as Response;
use poste_wire::Topic;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{ArchiveGrpc, convert, first_message, stopping};
use crate::metrics::{Guard, hold};
use crate::record::Space;
use crate::store::{ArchiveStore, StoreId, TailPage, TailQuery};

/// What is read from the store at once and waits for the caller.
const PAGE_RECORDS: usize = 256;
const PAGE_BYTES: usize = 1024 * 1024;
/// Topics of one stream, live and catching up.
const MAX_TOPICS: usize = 10_000;
/// Tokens from which topics of one stream catch up at a time.
const MAX_GROUPS: usize = 64;
/// Requests that are taken before records are sent again.
const REQUESTS_A_TURN: usize = 64;
/// A checkpoint is sent after so many records, or when this time has passed and something moved.
const PROGRESS_RECORDS: usize = 1000;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// One reader's stream.
pub(super) struct Tail {
    store: Arc<dyn ArchiveStore>,
    head: watch::Receiver<u64>,
    requests: Streaming<v1::TailRequest>,
    /// The caller has closed its side: it adds and drops nothing any more, and goes on listening.
    requests_ended: bool,
    stop: CancellationToken,
    space: Space,
    wanted: Wanted,
    /// Everything up to this seq was sent for what is live.
    live_seq: u64,
    ready: VecDeque<v1::TailResponse>,
    progress: Progress,
    failed: bool,
    sent: Counter,
    _connected: Guard,
}

enum Wanted {
    Everything,
    Topics {
        /// Each live topic with the seq behind which its records are wanted.
        live: HashMap<Topic, u64>,
        /// The live topics, as the store is asked for them.
        live_set: Arc<HashSet<Topic>>,
        catching_up: VecDeque<CatchingUp>,
    },
}

impl Wanted {
    fn no_topics() -> Self {
        Self::Topics { live: HashMap::new(), live_set: Arc::default(), catching_up: VecDeque::new() }
    }

    /// Whether a checkpoint says anything.
    fn has_live(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics { live, .. } => !live.is_empty(),
        }
    }
}

/// Topics that were added together and are behind the live ones.
struct CatchingUp {
    topics: Arc<HashSet<Topic>>,
    /// Everything up to this seq was sent for them.
    seq: u64,
}

struct Progress {
    /// The last checkpoint that was sent.
    seq: u64,
    at: Instant,
    records: usize,
    /// The caller gets its first checkpoint as soon as it has caught up.
    caught_up: bool,
}

impl Tail {
    /// Reads the `open` of a stream.
    pub(super) async fn open(
        service: &ArchiveGrpc,
        mut requests: Streaming<v1::TailRequest>,
    ) -> Result<Self, Status> {
        let first = first_message(&mut requests, &service.stop).await?.and_then(|request| request.kind);
        let Some(Request::Open(open)) = first else {
            return Err(Status::invalid_argument("the first message of a tail stream is `open`"));
        };
        let store = Arc::clone(&service.store);
        let after = seq_of(open.after.as_ref(), &*store).await?;
        let head = store.head();
        let head_seq = *head.borrow();
        let (wanted, live_seq) = if open.everything {
            (Wanted::Everything, after)
        } else if open.after.is_some() {
            return Err(Status::invalid_argument(
                "`after` of `open` goes with `everything`: give it with `add`",
            ));
        } else {
            (Wanted::no_topics(), head_seq)
        };
        let opened = v1::TailOpened {
            head: Some(token(store.store_id(), head_seq)),
            retired: Some(token(store.store_id(), store.retired_seq())),
        };
        Ok(Self {
            space: convert::space(&open.space)?,
            store,
            head,
            requests,
            requests_ended: false,
            stop: service.stop.clone(),
            wanted,
            live_seq,
            ready: VecDeque::from([v1::TailResponse { kind: Some(Response::Opened(opened)) }]),
            progress: Progress { seq: live_seq, at: Instant::now(), records: 0, caught_up: false },
            failed: false,
            sent: service.metrics.tail_records.clone(),
            _connected: hold(&service.metrics.tail_streams),
        })
    }

    pub(super) fn responses(self) -> impl Stream<Item = Result<v1::TailResponse, Status>> + Send {
        futures::stream::unfold(self, |mut tail| async move {
            if tail.failed {
                return None;
            }
            let response = tail.next().await;
            tail.failed = response.is_err();
            Some((response, tail))
        })
    }

    async fn next(&mut self) -> Result<v1::TailResponse, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            if self.stop.is_cancelled() {
                return Err(stopping());
            }
            for _ in 0..REQUESTS_A_TURN {
                if self.requests_ended {
                    break;
                }
                let Some(request) = self.requests.message().now_or_never() else { break };
                self.take(request).await?;
            }
            let moved = self.catch_up().await? | self.follow().await?;
            self.checkpoint();
            if !moved && self.ready.is_empty() {
                self.wait().await?;
            }
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) -> Result<(), Status> {
        let checkpoint_due = self.progress.at + PROGRESS_INTERVAL;
        tokio::select! {
            request = self.requests.message(), if !self.requests_ended => self.take(request).await,
            changed = self.head.changed() => changed.map_err(|_| stopping()),
            () = tokio::time::sleep_until(checkpoint_due), if self.has_moved() => Ok(()),
            () = self.stop.cancelled() => Err(stopping()),
        }
    }

    /// A request of the caller, after `open`.
    async fn take(&mut self, request: Result<Option<v1::TailRequest>, Status>) -> Result<(), Status> {
        let Some(request) = request? else {
            self.requests_ended = true;
            return Ok(());
        };
        let Wanted::Topics { live, live_set, catching_up } = &mut self.wanted else {
            return Err(Status::invalid_argument("a stream of everything has no topics to add or drop"));
        };
        match request.kind {
            Some(Request::Add(add)) => {
                let seq = seq_of(add.after.as_ref(), &*self.store).await?;
                let mut topics: HashSet<Topic> = convert::topics(&add.topics)?.into_iter().collect();
                // A topic that is wanted already stays as it is.
                topics.retain(|topic| {
                    !live.contains_key(topic) && !catching_up.iter().any(|group| group.topics.contains(topic))
                });
                let held: usize = catching_up.iter().map(|group| group.topics.len()).sum();
                if live.len() + held + topics.len() > MAX_TOPICS {
                    return Err(Status::resource_exhausted(format!(
                        "a stream has at most {MAX_TOPICS} topics"
                    )));
                }
                if topics.is_empty() {
                    return Ok(());
                }
                if let Some(group) = catching_up.iter_mut().find(|group| group.seq == seq) {
                    Arc::make_mut(&mut group.topics).extend(topics);
                } else if catching_up.len() < MAX_GROUPS {
                    catching_up.push_back(CatchingUp { topics: Arc::new(topics), seq });
                } else {
                    return Err(Status::resource_exhausted(format!(
                        "a stream catches up from at most {MAX_GROUPS} tokens at a time: wait until some are live"
                    )));
                }
            }
            Some(Request::Drop(drop)) => {
                for topic in convert::topics(&drop.topics)? {
                    live.remove(&topic);
                    Arc::make_mut(live_set).remove(&topic);
                    for group in catching_up.iter_mut() {
                        Arc::make_mut(&mut group.topics).remove(&topic);
                    }
                }
                catching_up.retain(|group| !group.topics.is_empty());
            }
            Some(Request::Open(_)) => return Err(Status::invalid_argument("`open` came twice")),
            None => return Err(Status::invalid_argument("a message without a kind")),
        }
        Ok(())
    }

    /// One page for the topics that have waited longest. True if there was something to do.
    async fn catch_up(&mut self) -> Result<bool, Status> {
        let Wanted::Topics { live, catching_up, .. } = &self.wanted else { return Ok(false) };
        if live.is_empty() {
            // Nothing is live, so nothing is missed by starting at the newest.
            self.live_seq = self.live_seq.max(*self.head.borrow());
        }
        let Some(group) = catching_up.front() else { return Ok(false) };
        let (seq, topics) = (group.seq, Arc::clone(&group.topics));
        let page = if seq < self.live_seq {
            self.page(seq, Some(self.live_seq), Some(topics)).await?
        } else {
            TailPage { records: Vec::new(), scanned: seq }
        };
        let (scanned, live_seq) = (page.scanned, self.live_seq);
        self.send(page);
        let Wanted::Topics { live, live_set, catching_up } = &mut self.wanted else { return Ok(false) };
        if scanned < live_seq {
            if let Some(group) = catching_up.front_mut() {
                group.seq = scanned;
            }
        } else if let Some(group) = catching_up.pop_front() {
            let topics = group.topics.iter().copied().map(convert::topic_bytes).collect();
            live.extend(group.topics.iter().map(|&topic| (topic, scanned)));
            Arc::make_mut(live_set).extend(group.topics.iter());
            self.progress.caught_up = false;
            let kind = Some(Response::Live(v1::TailLive { topics }));
            self.ready.push_back(v1::TailResponse { kind });
        }
        Ok(true)
    }

    /// One page for what is live. True if there was something to do.
    async fn follow(&mut self) -> Result<bool, Status> {
        let head = *self.head.borrow_and_update();
        let topics = match &self.wanted {
            Wanted::Everything => None,
            Wanted::Topics { live, .. } if live.is_empty() => return Ok(false),
            Wanted::Topics { live_set, .. } => Some(Arc::clone(live_set)),
        };
        if self.live_seq >= head {
            return Ok(false);
        }
        let mut page = self.page(self.live_seq, None, topics).await?;
        self.live_seq = page.scanned;
        if let Wanted::Topics { live, .. } = &self.wanted {
            page.records.retain(|record| live.get(&record.topic).is_some_and(|&after| record.seq > after));
        }
        self.send(page);
        Ok(true)
    }

    async fn page(
        &self,
        after: u64,
        until: Option<u64>,
        topics: Option<Arc<HashSet<Topic>>>,
    ) -> Result<TailPage, Status> {
        let query = TailQuery {
            space: self.space,
            after,
            until,
            topics,
            max_records: PAGE_RECORDS,
            max_bytes: PAGE_BYTES,
        };
        self.store.tail(query).await.map_err(|error| convert::status(&error))
    }

    fn send(&mut self, page: TailPage) {
        self.sent.inc_by(page.records.len() as u64);
        self.progress.records += page.records.len();
        let message =
            |record| v1::TailResponse { kind: Some(Response::Record(convert::record_message(record))) };
        self.ready.extend(page.records.into_iter().map(message));
    }

    /// Whether a checkpoint would tell more than the last one.
    fn has_moved(&self) -> bool {
        self.live_seq > self.progress.seq && self.wanted.has_live()
    }

    /// Sends a checkpoint if one is due: on having caught up, after many records, or after some time.
    fn checkpoint(&mut self) {
        let at_head = self.live_seq >= *self.head.borrow();
        let moved = self.has_moved();
        let progress = &mut self.progress;
        let first = at_head && !progress.caught_up && self.wanted.has_live();
        let due = progress.records >= PROGRESS_RECORDS || progress.at.elapsed() >= PROGRESS_INTERVAL;
        if first || (moved && due) {
            *progress = Progress {
                seq: self.live_seq,
                at: Instant::now(),
                records: 0,
                caught_up: progress.caught_up || at_head,
            };
            let kind = Some(Response::Progress(token(self.store.store_id(), self.live_seq)));
            self.ready.push_back(v1::TailResponse { kind });
        }
    }
}

fn token(store_id: StoreId, seq: u64) -> v1::TailToken {
    v1::TailToken { store_id: convert::store_id_bytes(store_id), seq }
}

/// The seq of a token that this store gave; 0, before the first record, without a token.
async fn seq_of(token: Option<&v1::TailToken>, store: &dyn ArchiveStore) -> Result<u64, Status> {
    let Some(token) = token else { return Ok(0) };
    if token.store_id != store.store_id().0.as_slice() {
        return Err(Status::failed_precondition(
            "the token is of another store: its order of arrival means nothing here, begin again without a token",
        ));
    }
    let head = store.head();
    if token.seq <= *head.borrow() {
        return Ok(token.seq);
    }
    // The newest records may stand in a segment whose index is being made anew.
    let stats = store.stats().await.map_err(|error| convert::status(&error))?;
    let newest = *head.borrow();
    if token.seq <= newest {
        Ok(token.seq)
    } else if stats.indexing.is_some() {
        Err(Status::unavailable(
            "the token is beyond the newest record that is known while an index is being made anew: try again later",
        ))
    } else {
        Err(Status::failed_precondition(format!(
            "the token names record {}, and the newest record is {newest}: the store was put back to an earlier state \
             and gives the same numbers to other records, begin again without a token",
            token.seq
        )))
    }
}
