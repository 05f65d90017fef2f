//! The local store, the embedded default: one directory, one owner. Its truth is the journal; the index in
//! memory is rebuilt from it at every start. One thread writes: it takes what is queued, writes it, syncs
//! once, publishes it to the index, and only then acknowledges (J1).

mod frame;
mod index;
mod index_file;
mod meta;
mod order;
mod select;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use poste_journal::{
    Damage, DirectoryLock, Disk, FrameAt, Journal, JournalError, Options, Reader, RealDisk, Recovery,
};
use poste_service::Clock;
use poste_wire::Hash;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::metrics::StoreMetrics;
use crate::record::{Derived, Record, Space};
use crate::store::{
    ArchiveStore, Connection, Lane, NewRecord, Outcome, Page, Pending, ProgressFn, Query, Retention,
    Retentions, Retired, StoreError, StoreId, StoreStats, TailPage, TailQuery, Verification, Writable,
    WriterId, WriterStatus, Writers,
};
use index::Index;
use meta::Meta;
use select::{Chosen, Selection};
use writer::{Job, NewEntry, Writer};

/// How a local store is opened.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Its directory; made when it is missing.
    pub dir: PathBuf,
    /// The disk it is on.
    pub disk: Arc<dyn Disk>,
    /// Tells the age of segments.
    pub clock: Clock,
    /// A segment is sealed before it would grow beyond this many bytes.
    pub segment_bytes: u64,
    /// A segment is sealed when it is this old.
    pub segment_age: Duration,
    /// The most records that wait for the disk; more wait at their callers.
    pub queue_records: usize,
    /// The most bytes of bodies that wait for the disk.
    pub queue_bytes: usize,
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
            clock,
            segment_bytes: 256 * 1024 * 1024,
            segment_age: Duration::from_secs(3600),
            queue_records: 32_768,
            queue_bytes: 64 * 1024 * 1024,
            metrics: StoreMetrics::default(),
        }
    }
}

/// Records in a directory. Dropping it finishes what was handed over and waits for that.
pub struct LocalStore {
    shared: Arc<Shared>,
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<Result<(), JournalError>>>>,
    queue_records: Arc<Semaphore>,
    queue_bytes: Arc<Semaphore>,
    limits: (usize, usize),
    /// Answers that are being put together: each holds up to a page of bodies.
    questions: Arc<Semaphore>,
    retentions: Mutex<Retentions>,
}

/// What the writer and the readers share.
#[derive(Debug)]
struct Shared {
    store_id: StoreId,
    index: RwLock<Index>,
    reader: Reader,
    head: watch::Sender<u64>,
    writable: watch::Sender<Writable>,
    writers: Mutex<Writers>,
    file_bytes: AtomicU64,
    quarantined: AtomicU64,
    quarantined_bytes: AtomicU64,
    metrics: StoreMetrics,
}

impl LocalStore {
    /// Bodies larger than this are derived off the async threads: hashing takes about 2 ms a MiB.
    const INLINE_BYTES: usize = 256 * 1024;
    /// One batch and what is grouped with it stay below the limit of a journal's group.
    const MAX_QUEUE_BYTES: usize = 512 * 1024 * 1024;
    /// Questions that are answered at a time; more wait.
    const MAX_QUESTIONS: usize = 32;

    /// Opens the store in its directory, or makes one there, and replays its journal. It blocks: every body is
    /// hashed again, which takes some 7 seconds per million envelopes of 300 bytes on a busy machine of 2026.
    ///
    /// # Errors
    /// [`crate::store::ErrorKind::Busy`] when another process has the directory, `Corrupt` when its files are
    /// not those of a store of this program, `Unavailable` when the disk refuses.
    pub fn open(options: LocalOptions) -> Result<Self, StoreError> {
        let limits = (options.queue_records, options.queue_bytes.min(Self::MAX_QUEUE_BYTES));
        let begun = Instant::now();
        let lock = DirectoryLock::acquire(Arc::clone(&options.disk), &options.dir)?;
        let store_id = Meta::open(&lock)?.store_id;
        let journal_options = Options {
            journal_id: store_id.0,
            segment_bytes: options.segment_bytes,
            segment_age: options.segment_age,
        };
        let mut replay = Replay::default();
        let now_ms = writer::unix_millis(&options.clock);
        let mut visit = |at: FrameAt, payload: &[u8]| replay.take(at, payload);
        let (journal, recovery) = Journal::open(lock, journal_options, now_ms, &mut visit)?;
        if let Some(reason) = replay.newer {
            return Err(StoreError::Corrupt(format!("{} holds {reason}", options.dir.display())));
        }
        tracing::info!(
            records = recovery.frames,
            segments = recovery.segments,
            quarantined = recovery.quarantined.len(),
            took = ?begun.elapsed(),
            "opened the archive's store"
        );
        let next_seq = next_seq(replay.index.head, &recovery, journal.open_segment());
        let (head, writable) = (watch::Sender::new(replay.index.head), watch::Sender::new(Writable::Yes));
        let shared = Arc::new(Shared {
            store_id,
            index: RwLock::new(replay.index),
            reader: journal.reader(),
            head,
            writable,
            writers: Mutex::default(),
            file_bytes: AtomicU64::new(journal.file_bytes()),
            quarantined: AtomicU64::new(replay.undecodable),
            quarantined_bytes: AtomicU64::new(replay.undecodable_bytes),
            metrics: options.metrics,
        });
        shared.count_quarantined(&recovery.quarantined);
        shared.publish_gauges();
        let (jobs, receiver) = sync_channel(limits.0);
        let writer = Writer::new(Arc::clone(&shared), journal, receiver, options.clock, next_seq);
        let thread = std::thread::Builder::new()
            .name("archive-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Unreadable {
                path: options.dir.clone(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            shared,
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            queue_records: Arc::new(Semaphore::new(limits.0)),
            queue_bytes: Arc::new(Semaphore::new(limits.1)),
            limits,
            questions: Arc::new(Semaphore::new(Self::MAX_QUESTIONS)),
            retentions: Mutex::default(),
        })
    }

    /// Runs a question on a thread where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        let room = Arc::clone(&self.questions).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        // The room is given back when the answer is taken, or dropped with it.
        let ask = move || (ask(&shared), room);
        match tokio::task::spawn_blocking(ask).await {
            Ok((answer, _room)) => answer,
            // It is not run only when the runtime is going down.
            Err(_) => Err(StoreError::Closed),
        }
    }

    fn join(&self) -> Result<(), StoreError> {
        drop(self.jobs.lock().take());
        let thread = self.thread.lock().take();
        match thread.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => Ok(result?),
            Some(Err(_)) => Err(StoreError::Closed),
        }
    }
}

#[tonic::async_trait]
impl ArchiveStore for LocalStore {
    fn store_id(&self) -> StoreId {
        self.shared.store_id
    }

    async fn append(&self, batch: Vec<NewRecord>, _lane: Lane) -> Result<Pending, StoreError> {
        let bytes: usize = batch.iter().map(|record| record.body.len()).sum();
        if batch.len() > self.limits.0 || bytes > self.limits.1 {
            return Err(StoreError::Invalid(format!(
                "a batch of {} records and {bytes} bytes is larger than the archive's whole queue",
                batch.len()
            )));
        }
        let Derivation { entries, outcomes } = if bytes > Self::INLINE_BYTES {
            let derive = tokio::task::spawn_blocking(move || Derivation::of(batch));
            derive.await.map_err(|_| StoreError::Closed)?
        } else {
            Derivation::of(batch)
        };
        if entries.is_empty() {
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
        // There are never more jobs than permits, so this finds room.
        let sent = match self.jobs.lock().as_ref() {
            Some(jobs) => jobs.try_send(Job { entries, outcomes, reply, _room: room }).is_ok(),
            None => false,
        };
        if !sent {
            return Err(StoreError::Closed);
        }
        let gone = move |_| vec![Outcome::Unavailable("the archive was stopped".to_owned()); count];
        Ok(Pending::new(async move { outcome.await.unwrap_or_else(gone) }))
    }

    async fn page(&self, query: Query) -> Result<Page, StoreError> {
        self.blocking(move |shared| {
            let selection = |index: &Index| index.select(&query);
            let (Selection { next, .. }, records) = shared.read(query.space, selection, |s| &s.chosen)?;
            Ok(Page { records, next, ..Page::default() })
        })
        .await
    }

    async fn tail(&self, query: TailQuery) -> Result<TailPage, StoreError> {
        self.blocking(move |shared| {
            let selection = |index: &Index| index.select_tail(&query);
            let ((_, scanned), records) = shared.read(query.space, selection, |s| &s.0)?;
            Ok(TailPage { records, scanned })
        })
        .await
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    fn retired_seq(&self) -> u64 {
        0
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
        self.blocking(move |shared| {
            let find = |index: &Index| -> Vec<Option<Chosen>> {
                ids.iter().map(|id| index.space(space)?.chosen_by_id(id)).collect()
            };
            if !with_bodies {
                let found = find(&shared.index.read());
                return Ok(found.into_iter().map(|chosen| Some(chosen?.record(Bytes::new()))).collect());
            }
            let compact = |index: &Index| find(index).into_iter().flatten().collect::<Vec<_>>();
            let (_, records) = shared.read(space, compact, |chosen| chosen)?;
            let mut records = records.into_iter().peekable();
            let in_turn = |id: &Hash| records.next_if(|record| record.position.id == *id);
            Ok(ids.iter().map(in_turn).collect())
        })
        .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.blocking(|shared| {
            let index = shared.index.read();
            Ok(StoreStats {
                seq: index.head,
                spaces: index.stats(),
                file_bytes: shared.file_bytes.load(Ordering::Relaxed),
                quarantined: shared.quarantined.load(Ordering::Relaxed),
                quarantined_bytes: shared.quarantined_bytes.load(Ordering::Relaxed),
                writable: Some(shared.writable.borrow().clone()),
                ..StoreStats::default()
            })
        })
        .await
    }

    async fn writer_connected(&self, writer: &WriterId, at_ns: i64) -> Result<Connection, StoreError> {
        self.shared.writers.lock().connected(writer, at_ns)
    }

    async fn writer_reports(
        &self,
        writer: &WriterId,
        connection: Connection,
        held_back_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        self.shared.writers.lock().reports(writer, connection, held_back_ns, i64::MAX);
        Ok(())
    }

    async fn writer_left(
        &self,
        writer: &WriterId,
        connection: Connection,
        goodbye: bool,
    ) -> Result<(), StoreError> {
        self.shared.writers.lock().left(writer, connection, goodbye);
        Ok(())
    }

    async fn forget_writer(&self, writer: &WriterId) -> Result<bool, StoreError> {
        Ok(self.shared.writers.lock().forget(writer))
    }

    async fn writers(&self) -> Result<Vec<WriterStatus>, StoreError> {
        Ok(self.shared.writers.lock().all())
    }

    async fn retire(&self, _space: Space, _floor_ns: i64) -> Result<Retired, StoreError> {
        Err(StoreError::Closed)
    }

    async fn would_retire(&self, _space: Space, _floor_ns: i64) -> Result<Retired, StoreError> {
        Err(StoreError::Closed)
    }

    async fn set_retention(&self, retention: Retention, durable: bool) -> Result<(), StoreError> {
        self.retentions.lock().set(retention, durable);
        Ok(())
    }

    async fn reset_retention(&self) -> Result<(), StoreError> {
        self.retentions.lock().overridden = None;
        Ok(())
    }

    fn retention(&self) -> Retentions {
        *self.retentions.lock()
    }

    async fn verify(&self, _progress: ProgressFn) -> Result<Verification, StoreError> {
        Err(StoreError::Closed)
    }

    async fn close(&self) -> Result<(), StoreError> {
        drop(self.jobs.lock().take());
        let thread = self.thread.lock().take();
        let Some(thread) = thread else { return Ok(()) };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(result)) => Ok(result?),
            _ => Err(StoreError::Closed),
        }
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!(%error, "the archive's last records were not made durable or acknowledged");
        }
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("store_id", &self.shared.store_id).finish_non_exhaustive()
    }
}

impl Shared {
    /// Chooses records under the index's lock and reads their bodies outside of it. A record whose frame
    /// turns out damaged goes to quarantine, and the choice is made again without it.
    fn read<S>(
        &self,
        space: Space,
        choose: impl Fn(&Index) -> S,
        chosen_of: impl Fn(&S) -> &Vec<Chosen>,
    ) -> Result<(S, Vec<Record>), StoreError> {
        loop {
            let selection = choose(&self.index.read());
            let chosen = chosen_of(&selection);
            let frames: Vec<FrameAt> = chosen.iter().map(|one| one.at).collect();
            let mut records = Vec::with_capacity(chosen.len());
            let mut damaged = false;
            for (one, payload) in chosen.iter().zip(self.reader.read_many(&frames)) {
                match payload {
                    Ok(payload) => records.push(one.record(payload.slice(frame::head_bytes(space)..))),
                    Err(JournalError::Damaged { .. }) => {
                        damaged = true;
                        self.quarantine_record(space, one);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if !damaged {
                return Ok((selection, records));
            }
        }
    }

    fn quarantine_record(&self, space: Space, record: &Chosen) {
        if self.index.write().remove(space, record.number) {
            tracing::error!(
                segment = record.at.segment,
                offset = record.at.offset,
                "a stored record is damaged on disk: it went to quarantine"
            );
            self.quarantined.fetch_add(1, Ordering::Relaxed);
            self.quarantined_bytes.fetch_add(u64::from(record.at.payload_bytes), Ordering::Relaxed);
            self.publish_gauges();
        }
    }

    fn count_quarantined(&self, damage: &[Damage]) {
        for one in damage {
            self.quarantined.fetch_add(1, Ordering::Relaxed);
            self.quarantined_bytes.fetch_add(one.bytes, Ordering::Relaxed);
        }
    }

    fn publish_gauges(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as i64;
        self.metrics.head_seq.set(*self.head.borrow() as i64);
        self.metrics.file_bytes.set(count(&self.file_bytes));
        self.metrics.quarantined_places.set(count(&self.quarantined));
        self.metrics.quarantined_bytes.set(count(&self.quarantined_bytes));
        self.metrics.writable.set(i64::from(self.writable.borrow().is_yes()));
    }
}

impl Chosen {
    fn record(&self, body: Bytes) -> Record {
        Record { position: self.position, topic: self.topic, seq: self.seq, body }
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
    fn of(batch: Vec<NewRecord>) -> Self {
        let mut entries = Vec::with_capacity(batch.len());
        let mut outcomes = Vec::with_capacity(batch.len());
        for (slot, NewRecord { space, body }) in batch.into_iter().enumerate() {
            match Derived::of(space, &body) {
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

/// Rebuilds the index from the journal.
#[derive(Default)]
struct Replay {
    index: Index,
    undecodable: u64,
    undecodable_bytes: u64,
    /// Why the store cannot be opened: a newer program wrote into it.
    newer: Option<frame::FrameError>,
}

impl Replay {
    fn take(&mut self, at: FrameAt, payload: &[u8]) {
        let derived = frame::decode(payload).and_then(|frame| {
            if frame.seq <= self.index.head {
                return Err(frame::FrameError::Seq);
            }
            let body = Bytes::copy_from_slice(frame.body);
            let derived = Derived::of(frame.space, &body).map_err(|_| frame::FrameError::Body)?;
            Ok((frame, derived))
        });
        match derived {
            Ok((frame, derived)) => {
                self.index.insert(frame.space, derived, frame.seq, at);
            }
            Err(error @ (frame::FrameError::Version(_) | frame::FrameError::Space)) => {
                self.newer.get_or_insert(error);
            }
            Err(error) => {
                tracing::error!(segment = at.segment, offset = at.offset, %error, "quarantined a record");
                self.undecodable += 1;
                self.undecodable_bytes += u64::from(at.payload_bytes);
            }
        }
    }
}

/// The seq of the next record. Where the end of the journal is damaged, as many are left out as could have
/// stood there, so that no reader's token ever names another record than the one it saw.
fn next_seq(head: u64, recovery: &Recovery, open_segment: u32) -> u64 {
    let near_the_end = |damage: &&Damage| damage.segment + 1 >= open_segment;
    let lost = recovery.quarantined.iter().filter(near_the_end).chain(&recovery.cut);
    let lost_bytes: u64 = lost.map(|damage| damage.bytes).sum();
    head + 1 + lost_bytes / frame::head_bytes(Space::Waku1) as u64
}
