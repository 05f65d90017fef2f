//! Streams from the archive, one after the other.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use poste_rpc::archive::v1::tail_request::Kind as Request;
use poste_rpc::archive::v1::tail_response::Kind as Response;
use poste_rpc::archive::v1::{
    Record, StatsRequest, StatsResponse, TailAddTopics, TailDropTopics, TailOpen, TailOpened, TailRequest,
    TailResponse, TailToken,
};
use poste_wire::Topic;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, error, info, warn};

use super::listening::{Change, Opening};
use super::source::WrongStore;
use super::work::Work;
use super::{Shared, back_off};
use crate::server::PushServer;

/// The archive's name for envelopes.
const SPACE: &str = "waku1";
/// Requests on their way.
const REQUESTS: usize = 4;
/// Between two attempts to reach the archive: from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// A stream that lasted this long was a good one.
const LASTED: Duration = Duration::from_secs(10);
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the archive is asked for its newest record, and how long it may take. Failing twice ends the stream.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream that has caught up, and is silent for so long while there is more, is opened anew.
const SILENCE: Duration = Duration::from_secs(60);
/// When topics wait so long for a stream to catch up, it is opened anew with them.
const HELD_UP: Duration = Duration::from_secs(5);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("{0}")]
    Call(#[from] poste_rpc::client::CallError),
    #[error("the archive ended the stream")]
    Ended,
    #[error("the archive did not answer in time")]
    Silent,
    #[error("the archive sent what was not asked for")]
    Confused,
    #[error("the archive does not know its newest records yet")]
    Behind,
    #[error("it is being noted that the archive is read from its beginning")]
    NotNoted,
    #[error(transparent)]
    WrongStore(#[from] WrongStore),
    /// Another kind of stream is better.
    #[error("the stream is opened anew")]
    Anew,
    #[error("the push server is stopping")]
    Stopping,
}

/// Reads streams, and hands what is wanted to those who work.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    work: Work,
    /// Places that were received in this process mean something to what is in progress.
    has_received: bool,
}

/// What the reader may do now.
struct Now {
    has_change: bool,
    may_take: bool,
    is_held_up: bool,
    is_wrong_kind: bool,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, server: Arc<PushServer>, stop: CancellationToken) -> Self {
        let work = Work::new(Arc::clone(&shared), server, stop);
        Self { shared, work, has_received: false }
    }

    /// Reads until `stop`, then gives those who work until `drain` has passed.
    pub(super) async fn run(mut self, stop: &CancellationToken, drain: Duration) {
        let mut pause = FIRST_PAUSE;
        let mut said = false;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let end = self.stream(stop).await;
            let was_open = self.close();
            match end {
                StreamEnd::Stopping => break,
                StreamEnd::Anew => continue,
                _ => {}
            }
            if was_open {
                self.shared.metrics.disconnections.inc();
                if began.elapsed() > LASTED {
                    (pause, said) = (FIRST_PAUSE, false);
                }
            }
            self.shared.note_error(&end.to_string());
            if said {
                debug!(cause = %end, "no stream from the archive, trying again");
            } else if let StreamEnd::WrongStore(wrong) = &end {
                error!(cause = %wrong, "nothing is read from the archive");
            } else {
                warn!(cause = %end, "no stream from the archive, trying again until there is one");
            }
            said = true;
            let until = back_off(&mut pause, LAST_PAUSE);
            // What is being dealt with goes on meanwhile.
            let _ = timeout_at(until, stop.cancelled()).await;
        }
        self.shared.checks.archive.not_ready("stopping");
        let timely = timeout(drain, self.work.all()).await.is_ok();
        if !timely {
            warn!("messages that were not dealt with in time are read again at the next start");
        }
        self.work.end().await;
    }

    /// Whether there was one.
    fn close(&self) -> bool {
        let mut state = self.shared.state.lock();
        state.listening.close();
        self.shared.metrics.connected.set(0);
        std::mem::replace(&mut state.connected, false)
    }

    /// One stream, from what was received to its end.
    async fn stream(&mut self, stop: &CancellationToken) -> StreamEnd {
        let end = tokio::select! {
            end = self.read() => end,
            () = stop.cancelled() => StreamEnd::Stopping,
        };
        match end {
            StreamEnd::Call(error) if error.code == Code::FailedPrecondition => {
                self.explain().await.unwrap_or(StreamEnd::Call(error))
            }
            StreamEnd::Behind => self.explain().await.unwrap_or(StreamEnd::Behind),
            end => end,
        }
    }

    /// Why the archive does not have what was received.
    async fn explain(&self) -> Option<StreamEnd> {
        let found = look(&self.shared).await.ok()?;
        let mut state = self.shared.state.lock();
        if let Err(wrong) = state.source.meet(&found.store_id) {
            return Some(wrong.into());
        }
        if found.indexing.is_some() || found.seq >= state.listening.received() {
            return None;
        }
        // Places of what is in progress would mean two things: the operator's consent holds from a start on.
        if self.has_received {
            let wrong = WrongStore::PutBack { store: hex::encode(&found.store_id) };
            return Some(wrong.into());
        }
        match state.source.put_back() {
            Ok(()) => {
                warn!("the archive was put back to an earlier state; it is read from its beginning");
                state.listening.begin_again();
                Some(StreamEnd::Anew)
            }
            Err(wrong) => Some(wrong.into()),
        }
    }

    async fn read(&mut self) -> StreamEnd {
        match self.try_read().await {
            Ok(end) => end,
            Err(end) => end,
        }
    }

    async fn try_read(&mut self) -> Result<StreamEnd, StreamEnd> {
        let shared = Arc::clone(&self.shared);
        let (requests, mut answers) = self.open().await?;
        let opened_at = Instant::now();
        let mut watching = pin!(watch(&shared));
        loop {
            let now = self.now();
            if now.is_wrong_kind {
                info!("as many topics as there are now ask for another stream");
                return Ok(StreamEnd::Anew);
            }
            tokio::select! {
                () = shared.changed.notified() => {}
                room = requests.reserve(), if now.has_change => {
                    let room = room.map_err(|_| StreamEnd::Ended)?;
                    if let Some(change) = self.change()? {
                        room.send(change);
                    }
                }
                answer = answers.message(), if now.may_take => {
                    let answer = answer.map_err(|status| error_of(&shared, &status))?;
                    self.has_received = true;
                    self.take(answer.ok_or(StreamEnd::Ended)?).await?;
                }
                () = self.work.reap(), if !self.work.is_empty() => {}
                () = sleep_until(opened_at + HELD_UP), if now.is_held_up => return Ok(StreamEnd::Anew),
                end = &mut watching => return Err(end),
            }
        }
    }

    fn now(&self) -> Now {
        let mut state = self.shared.state.lock();
        let settings = &self.shared.settings;
        let may_take = state.may_take(settings.max_in_progress);
        if !may_take {
            state.heard = Instant::now();
        }
        Now {
            has_change: state.listening.has_change(),
            may_take,
            is_held_up: state.listening.is_held_up(),
            is_wrong_kind: state.listening.is_wrong_kind(settings.max_topics),
        }
    }

    async fn open(&self) -> Result<(mpsc::Sender<TailRequest>, Streaming<TailResponse>), StreamEnd> {
        let (opening, known) = {
            let mut state = self.shared.state.lock();
            if state.source.is_reset_due() {
                return Err(StreamEnd::NotNoted);
            }
            (state.listening.open(self.shared.settings.max_topics), state.source.store_id())
        };
        let Opening { after, topics } = opening;
        let everything = topics.is_none();
        let token = |store_id: [u8; 16]| TailToken { store_id: store_id.to_vec().into(), seq: after };
        let (requests, stream) = mpsc::channel(REQUESTS);
        let open = TailOpen {
            space: SPACE.to_owned(),
            everything,
            after: known.filter(|_| everything && after > 0).map(token),
        };
        send(&requests, Request::Open(open)).await?;
        let archive = &self.shared.settings.archive;
        let opening = async {
            let mut client = poste_rpc::archive::client(archive.channel());
            let mut answers = client.tail(ReceiverStream::new(stream)).await?.into_inner();
            Ok((answers.message().await?, answers))
        };
        let opened = timeout(OPEN_TIMEOUT, opening).await.map_err(|_| StreamEnd::Silent)?;
        let (first, answers) = opened.map_err(|status: Status| error_of(&self.shared, &status))?;
        let Some(Response::Opened(opened)) = first.ok_or(StreamEnd::Ended)?.kind else {
            return Err(StreamEnd::Confused);
        };
        let store_id = self.opened(&opened)?;
        if let Some(topics) = topics {
            let add = TailAddTopics {
                topics: topics.into_iter().map(topic_bytes).collect(),
                after: (after > 0).then(|| token(store_id)),
            };
            send(&requests, Request::Add(add)).await?;
        }
        Ok((requests, answers))
    }

    /// A stream is open.
    fn opened(&self, opened: &TailOpened) -> Result<[u8; 16], StreamEnd> {
        let head = opened.head.as_ref().ok_or(StreamEnd::Confused)?;
        let retired = opened.retired.as_ref().map_or(0, |retired| retired.seq);
        let mut state = self.shared.state.lock();
        let store_id = state.source.meet(&head.store_id)?;
        let received = state.listening.received();
        if head.seq < received {
            return Err(StreamEnd::Behind);
        }
        if let Some(gap) = state.source.retired(retired, received) {
            self.shared.metrics.gaps.inc();
            self.shared.metrics.gap_records.inc_by(gap.records);
            error!(
                records = gap.records,
                "the archive has retired records before they were read: registrations among them are missed for good"
            );
        }
        state.head = head.seq;
        state.heard = Instant::now();
        state.connected = true;
        state.last_error = None;
        let everything = state.listening.is_everything();
        self.shared.metrics.connections.inc();
        self.shared.metrics.connected.set(1);
        self.shared.metrics.everything.set(everything.into());
        self.shared.checks.archive.ready();
        info!(
            everything,
            topics = state.listening.len(),
            behind = head.seq.saturating_sub(received),
            "reading"
        );
        Ok(store_id)
    }

    /// What the stream is to be told next.
    fn change(&self) -> Result<Option<TailRequest>, StreamEnd> {
        let mut state = self.shared.state.lock();
        let store_id = state.source.store_id().ok_or(StreamEnd::Confused)?;
        let bytes = |topics: Vec<Topic>| topics.into_iter().map(topic_bytes).collect();
        let kind = state.listening.change().map(|change| match change {
            Change::Add { topics, after } => {
                let token = TailToken { store_id: store_id.to_vec().into(), seq: after };
                Request::Add(TailAddTopics { topics: bytes(topics), after: (after > 0).then_some(token) })
            }
            Change::Drop { topics } => Request::Drop(TailDropTopics { topics: bytes(topics) }),
        });
        Ok(kind.map(|kind| TailRequest { kind: Some(kind) }))
    }

    async fn take(&mut self, answer: TailResponse) -> Result<(), StreamEnd> {
        self.shared.state.lock().heard = Instant::now();
        match answer.kind {
            Some(Response::Record(record)) => self.take_record(record).await,
            Some(Response::Progress(token)) => {
                let mut state = self.shared.state.lock();
                state.listening.progress(token.seq);
                state.head = state.head.max(token.seq);
                Ok(())
            }
            Some(Response::Live(live)) => {
                let topics = live.topics.iter().map(|topic| topic_of(topic));
                let topics = topics.collect::<Option<Vec<_>>>().ok_or(StreamEnd::Confused)?;
                self.shared.state.lock().listening.caught_up(topics);
                Ok(())
            }
            Some(Response::Opened(_)) | None => Err(StreamEnd::Confused),
        }
    }

    async fn take_record(&mut self, record: Record) -> Result<(), StreamEnd> {
        let topic = topic_of(&record.topic).ok_or(StreamEnd::Confused)?;
        let made_ns = record.position.as_ref().ok_or(StreamEnd::Confused)?.time_ns;
        let made_unix_s = u64::try_from(made_ns).unwrap_or(0) / 1_000_000_000;
        loop {
            {
                let mut state = self.shared.state.lock();
                // It may have been paused since the record was asked for.
                if !state.paused {
                    state.head = state.head.max(record.seq);
                    if !state.listening.take(topic, record.seq) {
                        return Ok(());
                    }
                    if state.source.is_old(made_unix_s) {
                        self.shared.metrics.skipped.inc();
                        return Ok(());
                    }
                    state.in_progress.insert(record.seq, Instant::now());
                    break;
                }
            }
            self.shared.changed.notified().await;
        }
        self.work.begin(topic, record);
        Ok(())
    }
}

/// Looks now and then whether the archive is still there, and how far it is, until something is wrong.
async fn watch(shared: &Shared) -> StreamEnd {
    let mut has_failed = false;
    loop {
        sleep(LOOK_INTERVAL).await;
        match look(shared).await {
            Ok(_) => has_failed = false,
            Err(error) if has_failed => return error,
            Err(_) => has_failed = true,
        }
        let state = shared.state.lock();
        let is_behind = state.listening.has_caught_up() && state.listening.received() < state.head;
        if is_behind && state.heard.elapsed() > SILENCE {
            return StreamEnd::Silent;
        }
    }
}

/// Asks what the archive has.
async fn look(shared: &Shared) -> Result<StatsResponse, StreamEnd> {
    let mut client = poste_rpc::archive::client(shared.settings.archive.channel());
    let asked = timeout(LOOK_TIMEOUT, client.stats(StatsRequest {})).await;
    let stats =
        asked.map_err(|_| StreamEnd::Silent)?.map_err(|status| error_of(shared, &status))?.into_inner();
    let mut state = shared.state.lock();
    if state.source.store_id().is_some_and(|known| known == stats.store_id[..]) {
        state.head = state.head.max(stats.seq);
    }
    Ok(stats)
}

fn error_of(shared: &Shared, status: &Status) -> StreamEnd {
    shared.settings.archive.error(status).into()
}

async fn send(requests: &mpsc::Sender<TailRequest>, kind: Request) -> Result<(), StreamEnd> {
    requests.send(TailRequest { kind: Some(kind) }).await.map_err(|_| StreamEnd::Ended)
}

fn topic_bytes(topic: Topic) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&topic.0)
}

fn topic_of(bytes: &[u8]) -> Option<Topic> {
    bytes.try_into().ok().map(Topic)
}
