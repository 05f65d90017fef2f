//! The outbox: envelopes on their way into the archive, over one `Append` stream. They wait here until they are
//! acknowledged, so an archive that is away loses nothing; the outbox is bounded in bytes, and full means refused.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_rpc::archive::v1::{
    AppendBatch, AppendOpen, AppendOutcome, AppendRequest, AppendResponse, NewRecord, append_request,
    append_response,
};
use poste_rpc::client::Target;
use poste_service::readiness::Check;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{debug, info, warn};

use super::{QueueFull, Receipt, Stored};
use crate::metrics::Metrics;

/// The space that envelopes are filed in.
pub(super) const SPACE: &str = "waku1";

/// What an envelope takes besides its bytes while it waits, about. It counts, or small envelopes would fill many times
/// the memory that the outbox may have.
const PENDING_BYTES: usize = 256;
/// Records and bytes that go out as one batch.
const BATCH_RECORDS: usize = 1024;
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches that may be on their way at a time.
const WINDOW: usize = 8;
/// Between two attempts to reach the archive: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A stream that lasted this long was a good one, even if nothing went over it.
const LASTED: Duration = Duration::from_secs(10);
/// How long the archive may take to open a stream, and to acknowledge a batch; then the stream is opened anew.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Envelopes that the archive has not acknowledged.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    arrived: Notify,
    max_bytes: usize,
    ready: Check,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Pending>,
    /// How many there are, and the bytes of their encodings; those that are on their way included.
    count: usize,
    bytes: usize,
    /// How many the archive has answered for, ever.
    settled: u64,
    connected: bool,
    full: bool,
    /// Which store the archive has, once it has said so.
    store: Option<Bytes>,
}

#[derive(Debug)]
struct Pending {
    body: Bytes,
    done: oneshot::Sender<Stored>,
}

impl State {
    fn memory(&self) -> usize {
        self.bytes + self.count * PENDING_BYTES
    }
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxSize {
    /// Envelopes.
    pub count: usize,
    /// Bytes of their encodings.
    pub bytes: usize,
    /// Whether a stream to the archive is open.
    pub connected: bool,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("{0}")]
    Call(#[from] poste_rpc::client::CallError),
    #[error("the archive ended the stream")]
    Ended,
    #[error("the archive did not answer in time")]
    Silent,
    #[error("the archive acknowledged what was not sent")]
    Confused,
    #[error("the archive cannot take records now: {0}")]
    Unavailable(String),
    #[error("{OTHER_STORE}")]
    OtherStore,
}

/// Two stores behind one address would split the history in silence.
const OTHER_STORE: &str = "the archive has another store than before: bring back the former one, or restart the gateway if that is meant";

impl Outbox {
    /// An empty outbox for at most `max_bytes` of envelopes, with what keeping them takes. `ready` says whether it takes
    /// envelopes.
    pub(crate) fn new(max_bytes: usize, ready: Check, metrics: Metrics) -> Arc<Self> {
        ready.ready();
        Arc::new(Self { state: Mutex::default(), arrived: Notify::new(), max_bytes, ready, metrics })
    }

    /// Takes an envelope's encoding; the receipt resolves when the archive has it.
    pub(crate) fn push(&self, body: Bytes) -> Result<Receipt, QueueFull> {
        let (done, receipt) = oneshot::channel();
        let mut state = self.state.lock();
        if state.memory() + body.len() + PENDING_BYTES > self.max_bytes {
            if !state.full {
                state.full = true;
                self.ready.not_ready("the queue of envelopes for the archive is full: is the archive up?");
                warn!(bytes = state.bytes, "the queue for the archive is full, envelopes are refused");
            }
            return Err(QueueFull);
        }
        state.count += 1;
        state.bytes += body.len();
        state.waiting.push_back(Pending { body, done });
        self.measure(&state);
        drop(state);
        self.arrived.notify_one();
        Ok(Receipt::pending(receipt))
    }

    /// What waits.
    pub(crate) fn size(&self) -> OutboxSize {
        let state = self.state.lock();
        OutboxSize { count: state.count, bytes: state.bytes, connected: state.connected }
    }

    /// Sends until `stop`, then until the outbox is empty (the caller sets the deadline).
    pub(crate) async fn run(self: Arc<Self>, archive: Target, writer_id: String, stop: CancellationToken) {
        tokio::select! {
            () = self.send_all(&archive, &writer_id, &stop) => {}
            () = self.stopped_empty(&stop) => {}
        }
    }

    async fn send_all(&self, archive: &Target, writer_id: &str, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        let mut said = false;
        while !(stop.is_cancelled() && self.state.lock().count == 0) {
            let (began, settled) = (Instant::now(), self.state.lock().settled);
            let mut sent = HashMap::new();
            let end = self.stream(archive, writer_id, stop, &mut sent).await;
            self.take_back(sent);
            let Err(end) = end else { continue };
            // An archive that opens streams and takes nothing (its disk is full) must not be asked ever faster.
            if self.state.lock().settled > settled || began.elapsed() > LASTED {
                (pause, said) = (FIRST_PAUSE, false);
            }
            let waiting = self.size().count;
            if said {
                debug!(cause = %end, waiting, "no stream to the archive, trying again");
            } else {
                warn!(cause = %end, waiting, "no stream to the archive, trying again until there is one");
            }
            said = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Ends at the stop if nothing waits then: an archive that is away must not hold up an idle gateway.
    async fn stopped_empty(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        if self.state.lock().count > 0 {
            std::future::pending::<()>().await;
        }
    }

    /// One stream, until it fails, or until there is nothing left to do.
    async fn stream(
        &self,
        archive: &Target,
        writer_id: &str,
        stop: &CancellationToken,
        sent: &mut HashMap<u64, Vec<Pending>>,
    ) -> Result<(), StreamEnd> {
        let (requests, mut acks) = self.open(archive, writer_id).await?;
        debug!("the stream to the archive is open");
        let mut next_id = 0;
        let mut heard = Instant::now();
        loop {
            let batch = if sent.len() < WINDOW { self.next_batch() } else { Vec::new() };
            if !batch.is_empty() {
                next_id += 1;
                if sent.is_empty() {
                    heard = Instant::now();
                }
                let records = batch
                    .iter()
                    .map(|pending| NewRecord { space: SPACE.to_owned(), body: pending.body.clone() })
                    .collect();
                sent.insert(next_id, batch);
                let batch = append_request::Kind::Batch(AppendBatch { batch_id: next_id, records });
                requests.send(AppendRequest { kind: Some(batch) }).await.map_err(|_| StreamEnd::Ended)?;
                continue;
            }
            if stop.is_cancelled() && sent.is_empty() && self.state.lock().count == 0 {
                return Ok(());
            }
            let waits = !sent.is_empty();
            tokio::select! {
                ack = acks.message() => {
                    heard = Instant::now();
                    self.settle(ack.map_err(|status| archive.error(&status))?, sent)?;
                }
                () = self.arrived.notified(), if sent.len() < WINDOW => {}
                () = tokio::time::sleep_until(heard + ACK_TIMEOUT), if waits => return Err(StreamEnd::Silent),
                () = stop.cancelled(), if !waits => {}
            }
        }
    }

    async fn open(
        &self,
        archive: &Target,
        writer_id: &str,
    ) -> Result<(mpsc::Sender<AppendRequest>, Streaming<AppendResponse>), StreamEnd> {
        let (requests, stream) = mpsc::channel(WINDOW + 1);
        let open = append_request::Kind::Open(AppendOpen { writer_id: writer_id.to_owned() });
        requests.send(AppendRequest { kind: Some(open) }).await.map_err(|_| StreamEnd::Ended)?;
        let opening = async {
            let mut client = poste_rpc::archive::client(archive.channel());
            let mut acks = client.append(ReceiverStream::new(stream)).await?.into_inner();
            acks.message().await.map(|first| (first, acks))
        };
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await.map_err(|_| StreamEnd::Silent)?;
        match opened.map_err(|status| archive.error(&status))? {
            (Some(AppendResponse { kind: Some(append_response::Kind::Opened(opened)) }), acks) => {
                self.meet(opened.store_id)?;
                Ok((requests, acks))
            }
            (Some(_), _) => Err(StreamEnd::Confused),
            (None, _) => Err(StreamEnd::Ended),
        }
    }

    /// A stream to this store is open.
    fn meet(&self, store: Bytes) -> Result<(), StreamEnd> {
        let mut state = self.state.lock();
        if *state.store.get_or_insert(store.clone()) != store {
            self.ready.not_ready(OTHER_STORE);
            return Err(StreamEnd::OtherStore);
        }
        state.connected = true;
        if !state.full {
            self.ready.ready();
        }
        Ok(())
    }

    /// Whether an answer of this store may be believed.
    pub(crate) fn is_known(&self, store: &Bytes) -> bool {
        self.state.lock().store.as_ref().is_none_or(|known| known == store)
    }

    fn next_batch(&self) -> Vec<Pending> {
        let mut state = self.state.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_RECORDS
            && let Some(pending) = state.waiting.front()
            && (batch.is_empty() || bytes + pending.body.len() <= BATCH_BYTES)
        {
            bytes += pending.body.len();
            batch.extend(state.waiting.pop_front());
        }
        batch
    }

    /// Resolves the receipts of an acknowledged batch. What the archive could not take now goes back.
    fn settle(
        &self,
        ack: Option<AppendResponse>,
        sent: &mut HashMap<u64, Vec<Pending>>,
    ) -> Result<(), StreamEnd> {
        let Some(append_response::Kind::Ack(ack)) = ack.ok_or(StreamEnd::Ended)?.kind else {
            return Err(StreamEnd::Confused);
        };
        let batch = sent.remove(&ack.batch_id).ok_or(StreamEnd::Confused)?;
        if batch.len() != ack.results.len() {
            sent.insert(ack.batch_id, batch);
            return Err(StreamEnd::Confused);
        }
        let mut again = Vec::new();
        let mut reason = String::new();
        let mut state = self.state.lock();
        for (pending, result) in batch.into_iter().zip(ack.results) {
            let stored = match result.outcome() {
                AppendOutcome::Stored | AppendOutcome::Duplicate => Stored::Yes,
                // An archive of some topics only: the envelope is taken and relayed like any other.
                AppendOutcome::NotKept => Stored::Yes,
                AppendOutcome::Refused | AppendOutcome::OverQuota => Stored::Refused,
                AppendOutcome::Unavailable | AppendOutcome::Unspecified => {
                    reason = result.reason;
                    again.push(pending);
                    continue;
                }
            };
            state.settled += 1;
            state.count -= 1;
            state.bytes -= pending.body.len();
            self.metrics.archived(stored);
            // Nobody may be waiting for the receipt any more.
            let _ = pending.done.send(stored);
        }
        if state.full && state.memory() < self.max_bytes / 10 * 9 {
            state.full = false;
            self.ready.ready();
            info!("the queue for the archive has room again");
        }
        self.measure(&state);
        drop(state);
        if again.is_empty() {
            return Ok(());
        }
        sent.insert(ack.batch_id, again);
        Err(StreamEnd::Unavailable(reason))
    }

    /// Puts back, in order and in front, what was sent and not acknowledged. Sending it twice is harmless.
    fn take_back(&self, sent: HashMap<u64, Vec<Pending>>) {
        let mut batches: Vec<_> = sent.into_iter().collect();
        batches.sort_unstable_by_key(|(id, _)| *id);
        let mut state = self.state.lock();
        state.connected = false;
        for (_, batch) in batches.into_iter().rev() {
            for pending in batch.into_iter().rev() {
                state.waiting.push_front(pending);
            }
        }
    }

    fn measure(&self, state: &State) {
        self.metrics.outbox_envelopes.set(state.count as i64);
        self.metrics.outbox_bytes.set(state.bytes as i64);
    }
}
