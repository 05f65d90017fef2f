//! The local store, the embedded default: one directory, one owner. Its truth is the journal: segments in order of
//! arrival, and a small `meta`; everything else is derived and can be deleted while the process is stopped.
//!
//! One thread writes ([`writer`]): it takes what is queued, writes it, syncs once, publishes it to the index of the open
//! segment, and only then acknowledges (J1). One thread looks after the rest ([`keeper`]): index files of sealed
//! segments, the catalogue, retention. Questions ([`page`], [`tail`]) go to the parts, one for each segment, whose
//! ranges they overlap.
//!
//! ```text
//! meta.0 meta.1                     what cannot be derived (meta.rs)
//! segment-0000000007.journal        records in order of arrival (frame.rs, poste_journal)
//! segment-0000000007.index          where they are, by position, topic, id and arrival (index_file.rs)
//! imported/segment-…                the same for imported history
//! catalogue/ catalogue.clean        sled: what many footers would cost (catalogue.rs)
//! ```

mod build;
mod catalogue;
mod frame;
mod index;
mod index_file;
mod keeper;
mod lookup;
mod meta;
mod open;
mod order;
mod page;
mod part;
mod question;
mod read;
mod retention;
mod sealed;
mod select;
mod shared;
mod stats;
mod tail;
#[cfg(test)]
mod tests;
mod topics;
mod verify;
mod view;
mod writer;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use poste_journal::{Disk, JournalError, RealDisk};
use poste_service::Clock;
use poste_wire::{Hash, Topic};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::metrics::StoreMetrics;
use crate::record::{Derived, Record, Space};
use crate::store::{
    ArchiveStore, Connection, Lane, NewRecord, Outcome, Page, Pending, ProgressFn, Query, Retention,
    Retentions, Retired, StoreError, StoreId, StoreStats, TailPage, TailQuery, Verification, Writable,
    WriterId, WriterStatus,
};
use part::SegmentId;
use shared::{Shared, lane_dir};
use writer::{Command, Job, NewEntry};

/// How long a reader in order of arrival waits at a time while an index is made anew.
const INDEXING_PAUSE: Duration = Duration::from_millis(200);

/// How a local store is opened.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Its directory; made when it is missing.
    pub dir: PathBuf,
    /// The disk it is on.
    pub disk: Arc<dyn Disk>,
    /// Whether a catalogue is kept, which only a real disk can hold.
    pub catalogue: bool,
    /// Tells the age of segments and of records.
    pub clock: Clock,
    /// A segment is sealed before it would grow beyond this many bytes.
    pub segment_bytes: u64,
    /// A segment is sealed when it is this old.
    pub segment_age: Duration,
    /// The most records that wait for the disk; more wait at their callers.
    pub queue_records: usize,
    /// The most bytes of bodies that wait for the disk.
    pub queue_bytes: usize,
    /// Only records of these topics are kept; all, if there are none given.
    pub keep_topics: Option<HashSet<Topic>>,
    /// Where the store counts.
    pub metrics: StoreMetrics,
}

impl LocalOptions {
    /// On the disk of this machine, with segments of 256 MiB or one hour.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            dir: dir.into(),
            disk: Arc::new(RealDisk),
            catalogue: true,
            clock,
            segment_bytes: 256 * 1024 * 1024,
            segment_age: Duration::from_secs(3600),
            queue_records: 32_768,
            queue_bytes: 64 * 1024 * 1024,
            keep_topics: None,
            metrics: StoreMetrics::default(),
        }
    }
}

/// Records in a directory. Dropping it finishes what was handed over and waits for that.
pub struct LocalStore {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
    commands: Mutex<Option<SyncSender<Command>>>,
    keep_topics: Option<Arc<HashSet<Topic>>>,
    queue_records: Arc<Semaphore>,
    queue_bytes: Arc<Semaphore>,
    limits: (usize, usize),
    /// Answers that are being put together: each holds up to a page of bodies. What is on its way to a caller is not
    /// among them: callers that do not read would keep all others waiting.
    questions: Arc<Semaphore>,
}

/// The threads of a store. The keeper sends to the writer, so it ends first.
struct Threads {
    keeper: JoinHandle<()>,
    writer: JoinHandle<Result<(), JournalError>>,
}

impl LocalStore {
    /// Bodies larger than this are derived off the async threads: hashing takes about 2 ms a MiB.
    const INLINE_BYTES: usize = 256 * 1024;
    /// One batch and what is grouped with it stay below the limit of a journal's group.
    const MAX_QUEUE_BYTES: usize = 512 * 1024 * 1024;
    /// Questions that are answered at a time; more wait.
    const MAX_QUESTIONS: usize = 32;

    /// Opens the store in its directory, or makes one there. It blocks while it reads the footers of the index files
    /// and replays the open segments, at most some seconds; segments whose index file is missing are indexed
    /// afterwards, and until then answers are not complete and say so.
    ///
    /// # Errors
    /// [`crate::store::ErrorKind::Busy`] when another process has the directory, `Corrupt` when its files are
    /// not those of a store of this program, `Unavailable` when the disk refuses.
    pub fn open(options: LocalOptions) -> Result<Self, StoreError> {
        open::open(options)
    }

    /// Runs a question on a thread where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = Arc::clone(&self.questions).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let shared = Arc::clone(&self.shared);
        // The room is given back when the answer is taken, or dropped with it.
        let ask = move || (ask(&shared), room);
        match tokio::task::spawn_blocking(ask).await {
            Ok((answer, _room)) => answer,
            // It is not run only when the runtime is going down.
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Like [`LocalStore::blocking`], for what takes long and must not keep questions waiting.
    async fn long<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || run(&shared)).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Tells the threads to end and gives what is to be waited for.
    fn end(&self) -> Option<Threads> {
        let threads = self.threads.lock().take()?;
        self.shared.closing.store(true, Ordering::Relaxed);
        let _ = self.shared.nudge.try_send(());
        drop(self.commands.lock().take());
        Some(threads)
    }
}

impl Threads {
    fn join(self) -> Result<(), StoreError> {
        let kept = self.keeper.join();
        let written = self.writer.join();
        match (written, kept) {
            (Ok(result), Ok(())) => Ok(result?),
            _ => Err(StoreError::Closed),
        }
    }
}

#[tonic::async_trait]
impl ArchiveStore for LocalStore {
    fn store_id(&self) -> StoreId {
        self.shared.store_id
    }

    async fn append(&self, batch: Vec<NewRecord>, lane: Lane) -> Result<Pending, StoreError> {
        let bytes: usize = batch.iter().map(|record| record.body.len()).sum();
        if batch.len() > self.limits.0 || bytes > self.limits.1 {
            return Err(StoreError::Invalid(format!(
                "a batch of {} records and {bytes} bytes is larger than the archive's whole queue",
                batch.len()
            )));
        }
        let keep = self.keep_topics.clone();
        let Derivation { entries, outcomes } = if bytes > Self::INLINE_BYTES {
            let derive = tokio::task::spawn_blocking(move || Derivation::of(batch, keep.as_deref()));
            derive.await.map_err(|_| StoreError::Closed)?
        } else {
            Derivation::of(batch, keep.as_deref())
        };
        if entries.is_empty() {
            self.shared.metrics.count_outcomes(&outcomes);
            return Ok(Pending::ready(outcomes));
        }
        let permits =
            |queue: &Arc<Semaphore>, count: usize| Arc::clone(queue).acquire_many_owned(count as u32);
        let room = (
            permits(&self.queue_records, entries.len()).await.map_err(|_| StoreError::Closed)?,
            permits(&self.queue_bytes, bytes).await.map_err(|_| StoreError::Closed)?,
        );
        let count = outcomes.len();
        let (reply, outcome) = oneshot::channel();
        let job = Job { lane, entries, outcomes, reply, _room: room };
        // There are never more jobs than permits, and few other commands, so this finds room.
        let sent = match self.commands.lock().as_ref() {
            Some(commands) => commands.try_send(Command::Store(job)).is_ok(),
            None => false,
        };
        if !sent {
            return Err(StoreError::Closed);
        }
        let gone = move |_| vec![Outcome::Unavailable("the archive was stopped".to_owned()); count];
        Ok(Pending::new(async move { outcome.await.unwrap_or_else(gone) }))
    }

    async fn page(&self, query: Query) -> Result<Page, StoreError> {
        self.blocking(move |shared| shared.page(&query)).await
    }

    async fn tail(&self, query: TailQuery) -> Result<TailPage, StoreError> {
        let after = query.after;
        let page = self.blocking(move |shared| shared.tail(&query)).await?;
        if page.scanned == after && self.shared.indexing().is_some() {
            // Nothing can be told until an index is there: whoever asks again at once gains nothing.
            tokio::time::sleep(INDEXING_PAUSE).await;
        }
        Ok(page)
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    fn retired_seq(&self) -> u64 {
        self.shared.meta.with(|meta| meta.retired_seq)
    }

    fn writable(&self) -> watch::Receiver<Writable> {
        self.shared.writable.subscribe()
    }

    async fn lookup(
        &self,
        space: Space,
        ids: Vec<Hash>,
        with_bodies: bool,
    ) -> Result<Vec<Option<Record>>, StoreError> {
        self.blocking(move |shared| shared.lookup(space, &ids, with_bodies)).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.blocking(|shared| shared.stats()).await
    }

    async fn writer_connected(
        &self,
        writer: &WriterId,
        at_ns: i64,
        max_intake_age: Duration,
    ) -> Result<Connection, StoreError> {
        let id = writer.clone();
        let connect = move |shared: &Shared| {
            shared.change_writers(|writers| Ok((writers.connected(&id, at_ns, max_intake_age)?, true)))
        };
        self.long(connect).await
    }

    async fn writer_reports(
        &self,
        writer: &WriterId,
        connection: Connection,
        held_back_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        let id = writer.clone();
        let report = move |shared: &Shared| {
            let now_ns = shared.unix_nanos();
            shared.change_writers(|writers| Ok(((), writers.reports(&id, connection, held_back_ns, now_ns)?)))
        };
        self.long(report).await
    }

    async fn writer_left(
        &self,
        writer: &WriterId,
        connection: Connection,
        goodbye: bool,
    ) -> Result<(), StoreError> {
        let id = writer.clone();
        let leave = move |shared: &Shared| {
            shared.change_writers(|writers| Ok(((), writers.left(&id, connection, goodbye)?)))
        };
        self.long(leave).await
    }

    async fn forget_writer(&self, writer: &WriterId) -> Result<bool, StoreError> {
        let id = writer.clone();
        let forget = move |shared: &Shared| {
            shared.change_writers(|writers| {
                let forgotten = writers.forget(&id);
                Ok((forgotten, forgotten))
            })
        };
        self.long(forget).await
    }

    async fn writers(&self) -> Result<Vec<WriterStatus>, StoreError> {
        Ok(self.shared.writers.lock().all())
    }

    async fn retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError> {
        let commands = self.commands.lock().clone().ok_or(StoreError::Closed)?;
        self.long(move |shared| shared.retire(&commands, space, floor_ns)).await
    }

    async fn would_retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError> {
        self.long(move |shared| shared.would_retire(space, floor_ns)).await
    }

    async fn set_retention(&self, retention: Retention, durable: bool) -> Result<(), StoreError> {
        let set = move |shared: &Shared| {
            if durable {
                shared.meta.update(|meta| meta.retention = Some(retention))?;
            }
            shared.retentions.lock().set(retention, durable);
            let _ = shared.nudge.try_send(());
            Ok(())
        };
        self.long(set).await
    }

    async fn reset_retention(&self) -> Result<(), StoreError> {
        let reset = |shared: &Shared| {
            shared.meta.update(|meta| meta.retention = None)?;
            shared.retentions.lock().overridden = None;
            let _ = shared.nudge.try_send(());
            Ok(())
        };
        self.long(reset).await
    }

    fn retention(&self) -> Retentions {
        *self.shared.retentions.lock()
    }

    async fn verify(&self, progress: ProgressFn) -> Result<Verification, StoreError> {
        self.long(move |shared| shared.verify(&progress)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let Some(threads) = self.end() else { return Ok(()) };
        tokio::task::spawn_blocking(move || threads.join()).await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end().map(Threads::join) {
            tracing::error!(%error, "the archive's last records were not made durable or acknowledged");
        }
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("store_id", &self.shared.store_id).finish_non_exhaustive()
    }
}

/// A batch with everything derived.
struct Derivation {
    /// What is a record, each with its place in the batch.
    entries: Vec<NewEntry>,
    /// One for each record of the batch.
    outcomes: Vec<Outcome>,
}

impl Derivation {
    fn of(batch: Vec<NewRecord>, keep_topics: Option<&HashSet<Topic>>) -> Self {
        let mut entries = Vec::with_capacity(batch.len());
        let mut outcomes = Vec::with_capacity(batch.len());
        for (slot, NewRecord { space, body }) in batch.into_iter().enumerate() {
            match Derived::of(space, &body) {
                Ok(derived) if keep_topics.is_some_and(|topics| !topics.contains(&derived.topic)) => {
                    outcomes.push(Outcome::NotKept);
                }
                Ok(derived) => {
                    entries.push(NewEntry { slot, space, derived, body });
                    outcomes.push(Outcome::Stored);
                }
                Err(refusal) => outcomes.push(Outcome::Refused(refusal)),
            }
        }
        Self { entries, outcomes }
    }
}

fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    lane_dir(dir, id.lane).join(format!("segment-{:010}.journal", id.number))
}

fn index_path(dir: &Path, id: SegmentId) -> PathBuf {
    lane_dir(dir, id.lane).join(format!("segment-{:010}.index", id.number))
}
