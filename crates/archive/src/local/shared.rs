//! What the writer, the keeper and those who ask share: the view, the floors, the writers, and why records are not
//! taken.

mod missing;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use poste_journal::{Disk, Reader};
use poste_service::Clock;
use rustix::io::Errno;
use tokio::sync::watch;

use super::index_file::Stretch;
use super::meta::{MetaFile, Quarantine};
use super::part::{Part, PartError, SegmentId};
use super::topics::DistinctTopics;
use super::view::View;
use crate::metrics::StoreMetrics;
use crate::record::Space;
use crate::store::{Lane, Retentions, StoreError, StoreId, Writable, Writers};

use missing::Unindexed;
pub(super) use refusals::Cause;

/// Sealed segments that are indexed in memory, each some 40 MiB, before the writer waits for their index files.
const MAX_WAITING_PARTS: usize = 3;
/// Open index files, and their memory: beyond this the ones that were not asked for longest are given back.
const MAX_INDEX_BYTES: usize = 128 * 1024 * 1024;
const MAX_OPEN_INDEXES: usize = 2048;
/// So often questions look whether that is so, beside the keeper.
const BOUND_EVERY: u64 = 256;
/// Questions are asked again when what they found went away meanwhile; never for ever.
const MAX_ATTEMPTS: usize = 64;
/// How long a question waits for an index file that it found damaged. Gateways wait 5 s for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all threads of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store_id: StoreId,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) clock: Clock,
    pub(super) meta: MetaFile,
    pub(super) metrics: StoreMetrics,
    pub(super) head: watch::Sender<u64>,
    pub(super) writable: watch::Sender<Writable>,
    /// The next record's.
    pub(super) next_seq: AtomicU64,
    /// Bytes of the segments.
    pub(super) segment_bytes: AtomicU64,
    /// Bytes of the index files.
    index_bytes: AtomicU64,
    /// Parts that are sealed and still indexed in memory.
    waiting: AtomicUsize,
    /// Damaged places of all parts.
    pub(super) quarantined_places: AtomicU64,
    pub(super) writers: Mutex<Writers>,
    /// Held by who changes them.
    writers_change: Mutex<()>,
    pub(super) retentions: Mutex<Retentions>,
    pub(super) verifying: AtomicBool,
    /// Set when the store closes: long jobs end.
    pub(super) closing: AtomicBool,
    /// The writer was asked to seal what is due, and has not got to it.
    pub(super) seal_asked: AtomicBool,
    /// Segments that are retired and not removed yet.
    pub(super) to_remove: Mutex<BTreeSet<SegmentId>>,
    /// Held by the writer while it stores, and by who raises a floor.
    pub(super) floor_gate: RwLock<()>,
    /// Tells the keeper to look around.
    pub(super) nudge: SyncSender<()>,
    readers: [Reader; 2],
    view: RwLock<Arc<View>>,
    floors: RwLock<BTreeMap<Space, i64>>,
    /// The segment of each lane that is written to.
    open_numbers: [AtomicU64; 2],
    unindexed: Mutex<Unindexed>,
    /// Somebody may wait for an index file.
    index_made: Condvar,
    topics: RwLock<Option<BTreeMap<Space, DistinctTopics>>>,
    refusals: Mutex<BTreeMap<Cause, String>>,
    questions: AtomicU64,
}

pub(super) struct Start {
    pub(super) store_id: StoreId,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) clock: Clock,
    pub(super) meta: MetaFile,
    pub(super) metrics: StoreMetrics,
    pub(super) nudge: SyncSender<()>,
    pub(super) readers: [Reader; 2],
    pub(super) parts: Vec<Arc<Part>>,
    pub(super) unindexed: Vec<(SegmentId, u64)>,
    pub(super) open_numbers: [u32; 2],
    pub(super) next_seq: u64,
    pub(super) segment_bytes: u64,
    pub(super) topics: Option<BTreeMap<Space, DistinctTopics>>,
}

impl Shared {
    pub(super) fn new(start: Start) -> Self {
        let (floors, writers, overridden) = start.meta.with(|meta| {
            let writers = meta.writers.iter().map(|(id, since_ns)| (id.clone(), *since_ns));
            (meta.floors.clone(), Writers::restored(writers), meta.retention)
        });
        // What was given may be retired or lost; whoever stands there has missed nothing more.
        let head = start.next_seq.saturating_sub(1);
        let shared = Self {
            store_id: start.store_id,
            disk: start.disk,
            dir: start.dir,
            clock: start.clock,
            meta: start.meta,
            metrics: start.metrics,
            head: watch::Sender::new(head),
            writable: watch::Sender::new(Writable::Yes),
            next_seq: AtomicU64::new(start.next_seq),
            segment_bytes: AtomicU64::new(start.segment_bytes),
            index_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            quarantined_places: AtomicU64::new(0),
            writers: Mutex::new(writers),
            writers_change: Mutex::new(()),
            retentions: Mutex::new(Retentions { overridden, ..Retentions::default() }),
            verifying: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            seal_asked: AtomicBool::new(false),
            to_remove: Mutex::default(),
            floor_gate: RwLock::new(()),
            nudge: start.nudge,
            readers: start.readers,
            view: RwLock::new(Arc::new(View::new(start.parts))),
            floors: RwLock::new(floors),
            open_numbers: start.open_numbers.map(|number| AtomicU64::new(number.into())),
            unindexed: Mutex::default(),
            index_made: Condvar::new(),
            topics: RwLock::new(start.topics),
            refusals: Mutex::default(),
            questions: AtomicU64::new(0),
        };
        shared.count_parts(&shared.view());
        for (id, bytes) in start.unindexed {
            shared.add_unindexed(id, bytes);
        }
        shared.publish_gauges();
        shared
    }

    // ------------------------------------------------------------------------------------------- parts

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// The parts, and whether none is missing because its index is being made anew.
    pub(super) fn whole_view(&self) -> (Arc<View>, bool) {
        // A part is noted as missing before it is hidden, and until it is back.
        let unindexed = self.unindexed.lock();
        (self.view(), unindexed.segments.is_empty())
    }

    pub(super) fn change_view(&self, change: impl FnOnce(&View) -> View) {
        let mut view = self.view.write();
        *view = Arc::new(change(&view));
        self.count_parts(&view);
    }

    fn count_parts(&self, view: &View) {
        let places = view.parts().iter().map(|part| part.quarantined().len() as u64).sum();
        self.quarantined_places.store(places, Ordering::Relaxed);
        self.index_bytes.store(index_bytes(view.parts()), Ordering::Relaxed);
        self.waiting.store(self.waiting_in(view).count(), Ordering::Relaxed);
    }

    pub(super) fn reader(&self, lane: Lane) -> &Reader {
        &self.readers[lane_index(lane)]
    }

    pub(super) fn open_number(&self, lane: Lane) -> u32 {
        self.open_numbers[lane_index(lane)].load(Ordering::Acquire) as u32
    }

    pub(super) fn set_open_number(&self, lane: Lane, number: u32) {
        self.open_numbers[lane_index(lane)].store(number.into(), Ordering::Release);
    }

    /// The newest record of the imported lane's open segment; 0 when it is empty.
    pub(super) fn imported_seq(&self) -> u64 {
        let id = SegmentId { lane: Lane::Imported, number: self.open_number(Lane::Imported) };
        self.view().find(id).and_then(|part| last_seq(part)).unwrap_or(0)
    }

    /// Parts that are sealed and still indexed in memory, oldest first.
    pub(super) fn waiting_parts(&self) -> Vec<Arc<Part>> {
        self.waiting_in(&self.view()).cloned().collect()
    }

    fn waiting_in<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a Arc<Part>> {
        view.parts().iter().filter(|part| {
            matches!(part.as_ref(), Part::Open(_)) && part.id().number != self.open_number(part.id().lane)
        })
    }

    /// So many index files are still to be written that records wait for them. When records are refused anyway, they
    /// need not wait for that.
    pub(super) fn is_behind(&self) -> bool {
        self.has_many_waiting() && self.takes_records()
    }

    pub(super) fn has_many_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > MAX_WAITING_PARTS
    }

    /// Asks a question until what it finds stays in place. A part that cannot be asked is made anew, and the question
    /// goes on without it: whoever asks is told by `complete_until`.
    pub(super) fn ask<T>(
        &self,
        mut question: impl FnMut() -> Result<Option<T>, AskError>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..MAX_ATTEMPTS {
            match question() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(AskError::Part(error)) => {
                    let id = error.id;
                    self.mistrust(error)?;
                    self.wait_for_index(id, deadline);
                }
                Err(AskError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError::Unreadable {
            path: self.dir.clone(),
            reason: "files change faster than a question can be answered".to_owned(),
        })
    }

    /// The number of a question, for telling which parts are in use.
    pub(super) fn next_question(&self) -> u64 {
        let number = self.questions.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(BOUND_EVERY) {
            self.bound_indexes();
        }
        number
    }

    /// An index file cannot be used: it is made anew from its segment.
    pub(super) fn mistrust(&self, PartError { id, error }: PartError) -> Result<(), StoreError> {
        use super::index_file::IndexError;
        let missing = match &error {
            IndexError::Invalid(_) => true,
            // The file can be had again from its segment. That there are too many open files, or no memory, says
            // nothing about it.
            IndexError::Io(error) => {
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
                    || Errno::from_io_error(error) == Some(Errno::IO)
            }
        };
        if !missing {
            let path = super::index_path(&self.dir, id);
            return Err(StoreError::Unreadable { path, reason: error.to_string() });
        }
        if self.view().find(id).is_none() {
            // Retired since, or somebody else noticed.
            return Ok(());
        }
        tracing::error!(segment = id.number, %error, "an index file is damaged: making it anew from its segment");
        // Told before it is hidden: no answer in between may pass for complete.
        self.add_unindexed(id, 0);
        self.change_view(|view| view.without(&[id]));
        let _ = self.nudge.try_send(());
        Ok(())
    }

    // --------------------------------------------------------------------------- honesty: floor, writers

    pub(super) fn floor_ns(&self, space: Space) -> Option<i64> {
        self.floors.read().get(&space).copied()
    }

    /// Hides what is below; the floor is durable already.
    pub(super) fn hide_below(&self, space: Space, floor_ns: i64) {
        let mut floors = self.floors.write();
        let floor = floors.entry(space).or_insert(floor_ns);
        *floor = (*floor).max(floor_ns);
    }

    /// What an answer can claim of the writers, read before the parts that are asked.
    pub(super) fn complete_until_ns(&self) -> Option<i64> {
        self.writers.lock().complete_until_ns()
    }

    /// Changes what is known of the writers; the durable part of it is on disk when this returns.
    pub(super) fn change_writers<T>(
        &self,
        change: impl FnOnce(&mut Writers) -> Result<(T, bool), StoreError>,
    ) -> Result<T, StoreError> {
        // One change at a time; questions look at the writers while the disk is waited for.
        let _changing = self.writers_change.lock();
        let mut changed = self.writers.lock().clone();
        let (answer, is_durable) = change(&mut changed)?;
        if is_durable {
            let durable: Vec<_> = changed.durable().map(|(id, since_ns)| (id.clone(), since_ns)).collect();
            self.meta.update(|meta| meta.writers = durable.into_iter().collect())?;
        }
        *self.writers.lock() = changed;
        Ok(answer)
    }

    // ----------------------------------------------------------------------------------------- topics

    /// The distinct topics of the sealed segments, once they are known.
    pub(super) fn topics<T>(&self, ask: impl FnOnce(&BTreeMap<Space, DistinctTopics>) -> T) -> Option<T> {
        self.topics.read().as_ref().map(ask)
    }

    pub(super) fn change_topics<T>(
        &self,
        change: impl FnOnce(&mut Option<BTreeMap<Space, DistinctTopics>>) -> T,
    ) -> T {
        change(&mut self.topics.write())
    }

    // ------------------------------------------------------------------------------------- quarantine

    /// Puts a stretch of a segment into quarantine, and remembers that durably if it can.
    pub(super) fn quarantine(&self, part: &Arc<Part>, stretch: Stretch) -> bool {
        if !part.quarantine(stretch) {
            return false;
        }
        self.quarantined_places.fetch_add(1, Ordering::Relaxed);
        let id = part.id();
        tracing::error!(
            segment = id.number,
            offset = stretch.offset,
            bytes = stretch.bytes,
            "a stored record is damaged on disk: it went to quarantine"
        );
        let Stretch { offset, bytes } = stretch;
        let note = Quarantine { lane: id.lane, segment: id.number, offset, bytes };
        if let Err(error) = self.meta.update(|meta| meta.quarantine(note)) {
            // The next start finds the damage again, when the record is asked for.
            tracing::error!(%error, "a quarantine could not be noted");
        }
        self.publish_gauges();
        true
    }

    /// Damaged places, and the bytes in them.
    pub(super) fn quarantined(&self) -> (u64, u64) {
        let view = self.view();
        let stretches = view.parts().iter().flat_map(|part| part.quarantined());
        stretches.fold((0, 0), |(count, bytes), stretch| (count + 1, bytes + stretch.bytes))
    }

    // ---------------------------------------------------------------------------------------- upkeep

    /// Bytes of the segments and index files, which are nearly all of the store.
    pub(super) fn file_bytes(&self) -> u64 {
        self.segment_bytes.load(Ordering::Relaxed) + self.index_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn publish_gauges(&self) {
        let (count, bytes) = self.quarantined();
        self.metrics.head_seq.set(*self.head.borrow() as i64);
        self.metrics.file_bytes.set(self.file_bytes() as i64);
        self.metrics.quarantined_places.set(count as i64);
        self.metrics.quarantined_bytes.set(bytes as i64);
        self.metrics.writable.set(i64::from(self.writable.borrow().is_yes()));
    }

    /// Gives back the memory and the open files of index files that were not asked for longest.
    pub(super) fn bound_indexes(&self) {
        let view = self.view();
        let mut open: Vec<_> = view
            .parts()
            .iter()
            .filter_map(|part| match part.as_ref() {
                Part::Sealed(part) if part.is_open() => Some(part),
                _ => None,
            })
            .collect();
        open.sort_by_cached_key(|part| std::cmp::Reverse(part.last_used()));
        let (mut bytes, mut count) = (0, 0);
        for part in open {
            bytes += part.resident_bytes();
            count += 1;
            if bytes > MAX_INDEX_BYTES || count > MAX_OPEN_INDEXES {
                part.forget();
            }
        }
    }

    pub(super) fn unix_millis(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn unix_nanos(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanos()).unwrap_or(i64::MAX)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

/// Why a question was not answered.
#[derive(Debug)]
pub(super) enum AskError {
    Part(PartError),
    Store(StoreError),
}

impl From<PartError> for AskError {
    fn from(error: PartError) -> Self {
        Self::Part(error)
    }
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn index_bytes(parts: &[Arc<Part>]) -> u64 {
    let bytes = |part: &Arc<Part>| match part.as_ref() {
        Part::Open(_) => 0,
        Part::Sealed(part) => part.summary.file_bytes,
    };
    parts.iter().map(bytes).sum()
}

pub(super) fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::Imported => 1,
    }
}

/// The highest seq of a part, over all spaces.
pub(super) fn last_seq(part: &Part) -> Option<u64> {
    part.span(Space::Waku1).map(|span| span.last_seq)
}

/// Where a lane's segments lie.
pub(super) fn lane_dir(dir: &Path, lane: Lane) -> PathBuf {
    match lane {
        Lane::Live => dir.to_path_buf(),
        Lane::Imported => dir.join("imported"),
    }
}
