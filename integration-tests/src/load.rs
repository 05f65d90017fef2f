//! Writers that append to an archive over gRPC, and the ledger of what it acknowledged.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use poste_rpc::archive::v1::append_request::Kind as Request;
use poste_rpc::archive::v1::append_response::Kind as Response;
use poste_rpc::archive::v1::archive_service_client::ArchiveServiceClient;
use poste_rpc::archive::v1::{
    AppendBatch, AppendGoodbye, AppendHeldBack, AppendOpen, AppendOutcome, AppendRequest, NewRecord,
};
use poste_wire::Hash;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::set::Set;

/// How long an archive may take to acknowledge a batch.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before a batch that could not be taken is sent again.
const PAUSE: Duration = Duration::from_millis(20);
/// How many of the last acknowledged records may be sent once more.
const RECENT: usize = 1000;

/// What was sent to an archive, and what of it was acknowledged. It outlives the archive's processes.
#[derive(Debug)]
pub struct Ledger {
    /// The envelopes that are sent.
    pub set: Set,
    next: AtomicU64,
    acknowledged: watch::Sender<u64>,
    unavailable: watch::Sender<u64>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Every number that was ever sent, by the hash of its envelope.
    sent: HashMap<Hash, u64>,
    acknowledged: BTreeSet<u64>,
    recent: VecDeque<u64>,
    /// Sent, but neither acknowledged nor refused: to be sent again.
    again: Vec<u64>,
    /// Acknowledged as new although an acknowledgement had come before.
    stored_twice: u64,
    /// What an archive said when it could not take records.
    reason: String,
    /// Acknowledgements are not heard.
    closed: bool,
}

impl Ledger {
    /// Nothing was sent yet.
    pub fn new(set: Set) -> Arc<Self> {
        Arc::new(Self {
            set,
            next: AtomicU64::new(0),
            acknowledged: watch::Sender::new(0),
            unavailable: watch::Sender::new(0),
            book: Mutex::default(),
        })
    }

    /// How many were acknowledged, as it grows.
    pub fn acknowledged(&self) -> watch::Receiver<u64> {
        self.acknowledged.subscribe()
    }

    /// How many times a record could not be taken, as it grows.
    pub fn unavailable(&self) -> watch::Receiver<u64> {
        self.unavailable.subscribe()
    }

    /// What the archive said when it could not take a record.
    pub fn reason(&self) -> String {
        self.book().reason.clone()
    }

    /// Waits until that many more were acknowledged than at the call.
    pub async fn grow_by(&self, count: u64) -> Result<()> {
        let mut acknowledged = self.acknowledged();
        let wanted = *acknowledged.borrow_and_update() + count;
        let grown = acknowledged.wait_for(|acknowledged| *acknowledged >= wanted);
        timeout(PATIENCE, grown).await.context("the archive acknowledges nothing more")??;
        Ok(())
    }

    /// The numbers that were acknowledged, from one on.
    pub fn numbers(&self, from: u64) -> Vec<u64> {
        self.book().acknowledged.range(from..).copied().collect()
    }

    /// The number of the envelope of that hash, if it was sent.
    pub fn number_of(&self, id: &Hash) -> Option<u64> {
        self.book().sent.get(id).copied()
    }

    /// Hears no more acknowledgements, from before this returns until [`Ledger::open`]: what they are for counts as not
    /// acknowledged, and is sent again.
    pub fn close(&self) {
        self.book().closed = true;
    }

    /// Hears acknowledgements again.
    pub fn open(&self) {
        self.book().closed = false;
    }

    /// How many acknowledged records the archive stored once more.
    pub fn stored_twice(&self) -> u64 {
        self.book().stored_twice
    }

    /// How many numbers were ever given.
    pub fn given(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// The numbers of the next batch: first what has to be sent again.
    fn batch(&self, count: usize, again: Option<usize>) -> Vec<(u64, NewRecord)> {
        let mut numbers = {
            let mut book = self.book();
            let from = book.again.len().saturating_sub(count);
            let mut numbers = book.again.split_off(from);
            numbers.extend(again.and_then(|place| book.recent.get(place).copied()));
            numbers
        };
        while numbers.len() < count {
            numbers.push(self.next.fetch_add(1, Ordering::Relaxed));
        }
        let made: Vec<_> = numbers.into_iter().map(|number| (number, self.set.body(number))).collect();
        let hashes: Vec<_> = made.iter().map(|(number, body)| (Hash::of(body), *number)).collect();
        self.book().sent.extend(hashes);
        let record = |(number, body)| (number, NewRecord { space: "waku1".to_owned(), body });
        made.into_iter().map(record).collect()
    }

    fn settle(&self, numbers: &[u64], outcomes: &[Outcome]) -> Result<bool> {
        ensure!(numbers.len() == outcomes.len(), "{} results for {}", outcomes.len(), numbers.len());
        let mut book = self.book();
        if book.closed {
            book.again.extend(numbers);
            return Ok(false);
        }
        let mut refused = 0;
        for (number, (outcome, reason)) in numbers.iter().zip(outcomes) {
            match outcome {
                AppendOutcome::Stored | AppendOutcome::Duplicate => {
                    let new = book.acknowledged.insert(*number);
                    book.stored_twice += u64::from(!new && *outcome == AppendOutcome::Stored);
                    if new {
                        book.recent.push_back(*number);
                    }
                }
                AppendOutcome::Unavailable => {
                    refused += 1;
                    book.again.push(*number);
                    book.reason.clone_from(reason);
                }
                other => bail!("{other:?} for a proper envelope: {reason}"),
            }
        }
        let excess = book.recent.len().saturating_sub(RECENT);
        book.recent.drain(..excess);
        let total = book.acknowledged.len() as u64;
        drop(book);
        self.acknowledged.send_if_modified(|count| std::mem::replace(count, total) != total);
        if refused > 0 {
            self.unavailable.send_modify(|count| *count += refused);
        }
        Ok(refused > 0)
    }

    fn unsettled(&self, numbers: impl IntoIterator<Item = u64>) {
        self.book().again.extend(numbers);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no writer panics with the book open")
    }
}

/// How writers write.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many of them.
    pub writers: usize,
    /// Records of a batch.
    pub batch: RangeInclusive<usize>,
    /// Batches that may wait for their acknowledgement, of each writer.
    pub in_flight: usize,
    /// What each waits before a batch.
    pub pause: Duration,
    /// Sizes of batches, and what is sent twice, follow from it.
    pub seed: u64,
}

/// Writers at work.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    writers: JoinSet<Result<()>>,
}

impl Load {
    /// Begins to write to the archive behind `client`, each writer with a stream of its own.
    pub fn start(ledger: &Arc<Ledger>, client: &ArchiveServiceClient<Channel>, plan: &Plan) -> Self {
        let stop = CancellationToken::new();
        let mut writers = JoinSet::new();
        for writer in 0..plan.writers {
            let (ledger, client, stop) = (Arc::clone(ledger), client.clone(), stop.clone());
            let plan = Plan { seed: plan.seed.wrapping_add(writer as u64), ..plan.clone() };
            writers.spawn(async move {
                let stream = Stream::open(client, &format!("writer-{writer}")).await?;
                let mut waiting = HashMap::new();
                let outcome = write(&ledger, stream, &plan, &stop, &mut waiting).await;
                ledger.unsettled(waiting.into_values().flatten());
                outcome
            });
        }
        Self { stop, writers }
    }

    /// Lets every writer get the acknowledgements it waits for and say goodbye. Fails when one of them failed.
    pub async fn finish(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.context("a writer panicked")??;
        }
        Ok(())
    }

    /// Waits until every writer has lost its archive, and tells how the last of them ended.
    pub async fn lost(mut self) -> Result<Option<String>> {
        let mut last = None;
        while let Some(ended) = timeout(PATIENCE, self.writers.join_next()).await? {
            match ended.context("a writer panicked")? {
                Ok(()) => {}
                Err(error) if error.downcast_ref::<tonic::Status>().is_some() => {
                    last = Some(format!("{error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(last)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Writes until it is told to stop. `waiting` is what was not answered when it ends by an error.
async fn write(
    ledger: &Ledger,
    mut stream: Stream,
    plan: &Plan,
    stop: &CancellationToken,
    waiting: &mut HashMap<u64, Vec<u64>>,
) -> Result<()> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    for batch_id in 0.. {
        while waiting.len() >= plan.in_flight || (stop.is_cancelled() && !waiting.is_empty()) {
            let (batch_id, outcomes) = stream.ack().await?;
            let numbers = waiting.remove(&batch_id).context("an acknowledgement of no batch")?;
            if ledger.settle(&numbers, &outcomes)? {
                tokio::time::sleep(PAUSE).await;
            }
        }
        if stop.is_cancelled() {
            return stream.goodbye().await;
        }
        if !plan.pause.is_zero() {
            tokio::time::sleep(plan.pause).await;
        }
        let again = random.random_ratio(1, 20).then(|| random.random_range(0..RECENT));
        let batch = ledger.batch(random.random_range(plan.batch.clone()), again);
        let (numbers, records) = batch.into_iter().unzip();
        waiting.insert(batch_id, numbers);
        stream.send(Request::Batch(AppendBatch { batch_id, records, confirmed: false })).await?;
    }
    unreachable!("the numbers of batches do not end")
}

/// One stream of `Append`.
#[derive(Debug)]
pub struct Stream {
    requests: Requests,
    acks: Acks,
    /// The identity of the store behind it.
    pub store_id: Vec<u8>,
    batches: u64,
}

/// The half of a stream that sends.
#[derive(Debug)]
pub struct Requests(mpsc::Sender<AppendRequest>);

/// The half of a stream that hears acknowledgements.
#[derive(Debug)]
pub struct Acks(tonic::Streaming<poste_rpc::archive::v1::AppendResponse>);

/// What became of one record, and why, for people.
pub type Outcome = (AppendOutcome, String);

impl Stream {
    /// Opens a stream as that writer.
    pub async fn open(mut client: ArchiveServiceClient<Channel>, writer_id: &str) -> Result<Self> {
        let (requests, stream) = mpsc::channel(16);
        let open = Request::Open(AppendOpen { writer_id: writer_id.to_owned(), ..AppendOpen::default() });
        requests.send(AppendRequest { kind: Some(open) }).await?;
        let mut responses = client.append(ReceiverStream::new(stream)).await?.into_inner();
        let store_id = match responses.message().await?.and_then(|response| response.kind) {
            Some(Response::Opened(opened)) => opened.store_id.to_vec(),
            other => bail!("{other:?} instead of the answer to `open`"),
        };
        Ok(Self { requests: Requests(requests), acks: Acks(responses), store_id, batches: 0 })
    }

    /// Sends a message. When the stream is broken, the error says how it ended.
    pub async fn send(&mut self, kind: Request) -> Result<()> {
        if self.requests.send(kind).await.is_err() {
            while self.acks.next().await?.is_some() {}
            return Err(ended().into());
        }
        Ok(())
    }

    /// The next acknowledgement.
    pub async fn ack(&mut self) -> Result<(u64, Vec<Outcome>)> {
        let ack = timeout(PATIENCE, self.acks.next()).await.context("no acknowledgement")??;
        Ok(ack.ok_or_else(ended)?)
    }

    /// Appends the ledger's next envelopes as one batch and waits for the acknowledgement.
    pub async fn append(&mut self, ledger: &Ledger, count: usize) -> Result<()> {
        let (numbers, records): (Vec<_>, _) = ledger.batch(count, None).into_iter().unzip();
        self.batches += 1;
        self.send(Request::Batch(AppendBatch { batch_id: self.batches, records, confirmed: false })).await?;
        let (batch_id, outcomes) = self.ack().await?;
        ensure!(batch_id == self.batches, "an acknowledgement of another batch");
        let refused = ledger.settle(&numbers, &outcomes)?;
        ensure!(!refused, "the archive takes nothing: {}", ledger.reason());
        Ok(())
    }

    /// Tells what is held back.
    pub async fn hold_back(&mut self, oldest_ns: Option<i64>) -> Result<()> {
        self.send(Request::HeldBack(AppendHeldBack { oldest_ns })).await
    }

    /// Says goodbye and waits until the archive has made a note of it.
    pub async fn goodbye(mut self) -> Result<()> {
        self.requests.goodbye().await?;
        let end = timeout(PATIENCE, self.acks.next()).await.context("no end after the goodbye")??;
        ensure!(end.is_none(), "{end:?} after the goodbye");
        Ok(())
    }

    /// The two halves, for two tasks.
    pub fn split(self) -> (Requests, Acks) {
        (self.requests, self.acks)
    }
}

impl Requests {
    /// Sends a message. Fails when the archive has ended the stream.
    pub async fn send(&mut self, kind: Request) -> Result<()> {
        self.0.send(AppendRequest { kind: Some(kind) }).await.ok().context("the archive ended the stream")
    }

    /// Says goodbye.
    pub async fn goodbye(mut self) -> Result<()> {
        self.send(Request::Goodbye(AppendGoodbye {})).await
    }
}

impl Acks {
    /// The next acknowledgement: the number of the batch and an outcome for each of its records. `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(u64, Vec<Outcome>)>> {
        let Some(answer) = self.0.message().await? else { return Ok(None) };
        let Some(Response::Ack(ack)) = answer.kind else { bail!("{answer:?} instead of an acknowledgement") };
        let results = ack.results.into_iter().map(|result| (result.outcome(), result.reason));
        Ok(Some((ack.batch_id, results.collect())))
    }
}

fn ended() -> tonic::Status {
    tonic::Status::cancelled("the archive ended the stream")
}
