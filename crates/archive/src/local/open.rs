//! Opening a store: its lock, its meta, the catalogue if it can be believed, the footers of the index files, and the
//! open segments of both lanes, which alone are read whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use parking_lot::Mutex;
use poste_journal::{Damage, DirectoryLock, Disk, FrameAt, Journal, Options, Recovery};
use tokio::sync::Semaphore;

use super::build::{Derive, Placed, stretch};
use super::catalogue::Catalogue;
use super::index::Index;
use super::index_file::{IndexFile, IndexKey, Stretch, Summary};
use super::keeper::{self, Keeper};
use super::meta::{MetaFile, Quarantine};
use super::part::{OpenPart, Part, SealedPart, SegmentId};
use super::shared::{Shared, Start, lane_dir, last_seq};
use super::topics::DistinctTopics;
use super::writer::{LaneWriter, Writer};
use super::{LocalOptions, LocalStore, Threads, frame, index_path};
use crate::record::Space;
use crate::store::{Lane, StoreError, StoreId};

/// Distinct topics of all index files together that are read before the first answer; more are read afterwards.
const TOPICS_AT_START: u64 = 10_000_000;

pub(super) fn open(options: LocalOptions) -> Result<LocalStore, StoreError> {
    let begun = Instant::now();
    let lock = DirectoryLock::acquire(Arc::clone(&options.disk), &options.dir)?;
    let meta = MetaFile::open(&lock)?;
    let store_id = meta.with(|meta| meta.store_id);
    let imported =
        DirectoryLock::acquire(Arc::clone(&options.disk), &lane_dir(&options.dir, Lane::Imported))?;
    let (catalogue, believed) = if options.catalogue {
        Catalogue::open(&options.dir, store_id.0)
    } else {
        (Catalogue::absent(), false)
    };
    let mut known: BTreeMap<SegmentId, Summary> = BTreeMap::new();
    if believed {
        let summaries = catalogue.segments().into_iter().flatten();
        known.extend(summaries.filter_map(|(lane, number, bytes)| {
            Some((SegmentId { lane, number }, Summary::decode(&bytes)?))
        }));
    }
    let live = open_lane(Lane::Live, lock, store_id, &options, &known, &meta)?;
    let imported = open_lane(Lane::Imported, imported, store_id, &options, &known, &meta)?;
    let mut parts: Vec<Arc<Part>> = live.parts.iter().chain(&imported.parts).cloned().collect();
    parts.sort_unstable_by_key(|part| part.id());
    tracing::info!(
        segments = parts.len(),
        to_index = live.unindexed.len() + imported.unindexed.len(),
        believed_catalogue = believed,
        took = ?begun.elapsed(),
        "opened the archive's store"
    );
    let head = parts.iter().filter_map(|part| last_seq(part)).max().unwrap_or(0);
    let lost = live.lost_records + imported.lost_records;
    let next_seq = meta.with(|meta| meta.next_seq).max(head + 1) + lost;
    let (topics, topics_recorded) =
        topics(&catalogue, believed && live.all_known && imported.all_known, &parts);
    let (nudge, calls) = sync_channel(1);
    let shared = Arc::new(Shared::new(Start {
        store_id,
        disk: Arc::clone(&options.disk),
        dir: options.dir.clone(),
        clock: options.clock,
        meta,
        metrics: options.metrics,
        nudge,
        readers: [live.journal.reader(), imported.journal.reader()],
        parts,
        unindexed: live.unindexed.iter().chain(&imported.unindexed).copied().collect(),
        open_numbers: [live.journal.open_segment(), imported.journal.open_segment()],
        next_seq,
        segment_bytes: live.journal.file_bytes() + imported.journal.file_bytes(),
        topics,
    }));
    let limits = (options.queue_records, options.queue_bytes.min(LocalStore::MAX_QUEUE_BYTES));
    // One place for each batch that has a permit, and some for the keeper.
    let (commands, receiver) = sync_channel(limits.0 + 16);
    let lanes = [
        LaneWriter::new(Lane::Live, live.journal, live.open),
        LaneWriter::new(Lane::Imported, imported.journal, imported.open),
    ];
    let writer = Writer::new(Arc::clone(&shared), receiver, lanes);
    let writer = spawn("archive-writer", &options.dir, move || writer.run())?;
    let keeper = Keeper::new(Arc::clone(&shared), commands.clone(), calls, catalogue, topics_recorded);
    let keeper = spawn("archive-keeper", &options.dir, move || keeper.run())?;
    Ok(LocalStore {
        shared,
        threads: Mutex::new(Some(Threads { keeper, writer })),
        commands: Mutex::new(Some(commands)),
        keep_topics: options.keep_topics.map(Arc::new),
        queue_records: Arc::new(Semaphore::new(limits.0)),
        queue_bytes: Arc::new(Semaphore::new(limits.1)),
        limits,
        questions: Arc::new(Semaphore::new(LocalStore::MAX_QUESTIONS)),
    })
}

/// A lane as it was found.
struct OpenedLane {
    journal: Journal,
    /// The segment that is written to.
    open: Arc<Part>,
    /// All of them, that one included.
    parts: Vec<Arc<Part>>,
    /// Sealed segments without a usable index file, with their lengths.
    unindexed: Vec<(SegmentId, u64)>,
    /// The catalogue knew every sealed segment.
    all_known: bool,
    /// Records that may have stood where the end of the journal is damaged. As many seqs are left out, so that no
    /// reader's token ever names another record than the one it saw.
    lost_records: u64,
}

fn open_lane(
    lane: Lane,
    lock: DirectoryLock,
    store_id: StoreId,
    options: &LocalOptions,
    known: &BTreeMap<SegmentId, Summary>,
    meta: &MetaFile,
) -> Result<OpenedLane, StoreError> {
    let dir = lock.dir().to_path_buf();
    let now_ms = u64::try_from(options.clock.now().as_millis()).unwrap_or(u64::MAX);
    let mut indexes: BTreeMap<u32, Index> = BTreeMap::new();
    let mut derive = Derive::new(|placed: Placed| {
        let index = indexes.entry(placed.at.segment).or_default();
        index.insert(placed.space, placed.derived, placed.seq, placed.at);
    });
    let journal_options = Options {
        segment_bytes: options.segment_bytes,
        segment_age: options.segment_age,
        min_number: meta.with(|meta| meta.min_number(lane)),
        ..Options::new(journal_id(store_id, lane))
    };
    let mut replay = OpenSegmentOnly(|at: FrameAt, payload: &[u8]| derive.frame(at, payload));
    let (journal, recovery) = Journal::open(lock, journal_options, now_ms, &mut replay)?;
    let (undecodable, newer) = derive.finish();
    if let Some(reason) = newer {
        return Err(StoreError::Corrupt(format!("{} holds {reason}", dir.display())));
    }

    let open_number = journal.open_segment();
    let mut damaged: BTreeMap<u32, Vec<Stretch>> = BTreeMap::new();
    for &Damage { segment, offset, bytes } in &recovery.quarantined {
        damaged.entry(segment).or_default().push(Stretch { offset, bytes });
    }
    for &at in &undecodable {
        damaged.entry(at.segment).or_default().push(stretch(at));
    }
    let lost_records = lost_bytes(&recovery) / frame::head_bytes(Space::Waku1) as u64;

    // What the disk refuses now it may give later: nobody may take what was read for all there is.
    for number in &recovery.unreadable {
        indexes.remove(number);
        damaged.remove(number);
    }

    let mut parts: Vec<Arc<Part>> = Vec::new();
    let mut unindexed = Vec::new();
    let mut all_known = true;
    // What was replayed is indexed in memory: the open segment, and one that is sealed because of its damage.
    let replayed: BTreeSet<u32> =
        indexes.keys().chain(damaged.keys()).chain([&open_number]).copied().collect();
    for &number in &replayed {
        let id = SegmentId { lane, number };
        let index = indexes.remove(&number).unwrap_or_default();
        let mut quarantined = damaged.remove(&number).unwrap_or_default();
        let noted: Vec<Stretch> = meta.with(|meta| {
            let places = meta.quarantines_of(lane, number);
            places.map(|place| Stretch { offset: place.offset, bytes: place.bytes }).collect()
        });
        let part = OpenPart::new(id, index, std::mem::take(&mut quarantined));
        let part = Part::Open(part);
        for stretch in noted {
            part.quarantine(stretch);
        }
        parts.push(Arc::new(part));
    }
    for (number, bytes) in journal.segments() {
        if replayed.contains(&number) {
            continue;
        }
        let id = SegmentId { lane, number };
        let path = index_path(&options.dir, id);
        let remembered = known.get(&id).filter(|summary| summary.segment_bytes == bytes);
        all_known &= remembered.is_some();
        let summary = match remembered {
            Some(summary) => Some(summary.clone()),
            None => read_summary(options.disk.as_ref(), &path, store_id, id, bytes),
        };
        let Some(summary) = summary else {
            if !recovery.unreadable.contains(&number) {
                note_lost_end(options.disk.as_ref(), &path, store_id, id, bytes, meta)?;
            }
            unindexed.push((id, bytes));
            continue;
        };
        let quarantined = known_quarantine(meta, id, &summary);
        let disk = Arc::clone(&options.disk);
        let part = SealedPart::new(id, disk, path, store_id, summary, quarantined);
        parts.push(Arc::new(Part::Sealed(part)));
    }
    remove_orphans(options.disk.as_ref(), &dir, &journal);
    let open = parts.iter().find(|part| part.id().number == open_number);
    let open = Arc::clone(open.expect("the open segment is among those that were replayed"));
    Ok(OpenedLane { journal, open, parts, unindexed, all_known, lost_records })
}

/// Sealed segments have index files; the open one has to be read.
struct OpenSegmentOnly<F>(F);

impl<F: FnMut(FrameAt, &[u8])> poste_journal::Replay for OpenSegmentOnly<F> {
    fn wanted(&mut self, _segment: u32) -> bool {
        false
    }

    fn frame(&mut self, at: FrameAt, payload: &[u8]) {
        (self.0)(at, payload);
    }
}

fn read_summary(
    disk: &dyn Disk,
    path: &Path,
    store_id: StoreId,
    id: SegmentId,
    segment_bytes: u64,
) -> Option<Summary> {
    let key = IndexKey { store_id, lane: id.lane, segment: id.number };
    match IndexFile::open(disk, path, key) {
        Ok(file) if file.summary().segment_bytes == segment_bytes => Some(file.summary().clone()),
        Ok(_) => {
            tracing::warn!(segment = id.number, "an index file is of another state of its segment");
            None
        }
        Err(error) => {
            tracing::warn!(segment = id.number, %error, "an index file is made anew from its segment");
            None
        }
    }
}

/// A sealed segment that is shorter than its index file says has lost records: that is a gap, and is noted before the
/// index file is made anew without them.
fn note_lost_end(
    disk: &dyn Disk,
    path: &Path,
    store_id: StoreId,
    id: SegmentId,
    segment_bytes: u64,
    meta: &MetaFile,
) -> Result<(), StoreError> {
    let key = IndexKey { store_id, lane: id.lane, segment: id.number };
    let Ok(file) = IndexFile::open(disk, path, key) else { return Ok(()) };
    let bytes = file.summary().segment_bytes.saturating_sub(segment_bytes);
    if bytes == 0 {
        return Ok(());
    }
    tracing::error!(segment = id.number, bytes, "the end of a sealed segment is missing: records are lost");
    let place = Quarantine { lane: id.lane, segment: id.number, offset: segment_bytes, bytes };
    meta.update(|meta| meta.quarantine(place))
}

/// What is damaged in a sealed segment: as its index file says, and as was noticed since.
pub(super) fn known_quarantine(meta: &MetaFile, id: SegmentId, summary: &Summary) -> Vec<Stretch> {
    let mut stretches = summary.quarantined.clone();
    meta.with(|meta| {
        for place in meta.quarantines_of(id.lane, id.number) {
            let stretch = Stretch { offset: place.offset, bytes: place.bytes };
            super::part::add_stretch(&mut stretches, stretch);
        }
    });
    stretches
}

/// Removes index files whose segment is gone: retention was interrupted.
fn remove_orphans(disk: &dyn Disk, dir: &Path, journal: &Journal) {
    let segments: BTreeSet<u32> = journal.segments().into_iter().map(|(number, _)| number).collect();
    for name in disk.list(dir).unwrap_or_default() {
        let number = name.strip_prefix("segment-").and_then(|name| name.strip_suffix(".index"));
        let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else { continue };
        if !segments.contains(&number) {
            // It does no harm and is tried again at the next start.
            let _ = disk.remove(&dir.join(name));
        }
    }
}

/// The distinct topics of the sealed segments, and whether the catalogue has them all. `None` when reading them would
/// delay the first answer.
fn topics(
    catalogue: &Catalogue,
    believed: bool,
    parts: &[Arc<Part>],
) -> (Option<BTreeMap<Space, DistinctTopics>>, bool) {
    if believed {
        let load = |space| Some((space, DistinctTopics::from_spans(catalogue.load_topics(space)?)));
        let loaded: Option<BTreeMap<_, _>> = [Space::Waku1].into_iter().map(load).collect();
        if loaded.is_some() {
            return (loaded, true);
        }
    }
    let sealed = || {
        parts.iter().filter_map(|part| match part.as_ref() {
            Part::Sealed(part) => Some(part),
            Part::Open(_) => None,
        })
    };
    let all: u64 = sealed().flat_map(|part| &part.summary.spaces).map(|space| u64::from(space.topics)).sum();
    if all > TOPICS_AT_START {
        return (None, false);
    }
    let mut spaces = BTreeMap::new();
    let read = sealed().try_for_each(|part| keeper::add_part_topics(&mut spaces, part));
    (read.is_ok().then_some(spaces), false)
}

fn lost_bytes(recovery: &Recovery) -> u64 {
    recovery.quarantined.iter().chain(&recovery.cut).map(|damage| damage.bytes).sum()
}

/// The files of the lanes are told apart by their checksums too.
fn journal_id(store_id: StoreId, lane: Lane) -> [u8; 16] {
    match lane {
        Lane::Live => store_id.0,
        Lane::Imported => store_id.0.map(|byte| byte ^ 0x5a),
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    dir: &Path,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, StoreError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|error| StoreError::Unreadable { path: dir.to_path_buf(), reason: error.to_string() })
}
