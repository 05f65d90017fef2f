//! The one thread that looks after what is stored: it makes index files of sealed segments, makes them anew where they
//! are missing or damaged, keeps the catalogue, and does what the retention says.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::catalogue::Catalogue;
use super::part::{Part, PartError, SealedPart, SegmentId};
use super::sealed::topic_counts;
use super::shared::{Cause, Shared, last_seq};
use super::topics::{DistinctTopics, day_of};
use super::writer::Command;
use crate::record::Space;
use crate::store::{Lane, StoreError};

/// How often it looks around when nothing calls it.
const INTERVAL: Duration = Duration::from_secs(1);
/// For so long a disk may refuse a part of a segment before that part is given up and goes to quarantine: until then
/// no records are taken, and gateways keep theirs in their spools.
const PATIENCE: Duration = Duration::from_secs(600);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Segments that are indexed at a time: each needs some 60 MiB meanwhile.
const MAX_BUILDERS: usize = 4;

#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    writer: SyncSender<Command>,
    calls: Receiver<()>,
    catalogue: Catalogue,
    /// The segments that the catalogue knows.
    recorded: BTreeSet<SegmentId>,
    /// Segments that could not be indexed.
    failures: BTreeMap<SegmentId, Failing>,
    /// The catalogue knows all topics that the store knows.
    topics_recorded: bool,
    /// The newest imported record when it was looked last, and whether its segment has to be sealed.
    imported_seq: u64,
    imported_grew: bool,
}

/// Since when a segment cannot be indexed, and when that is tried again.
#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    pause: Duration,
    next: Instant,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        writer: SyncSender<Command>,
        calls: Receiver<()>,
        catalogue: Catalogue,
        topics_recorded: bool,
    ) -> Self {
        let recorded = catalogue.segments().into_iter().flatten();
        let recorded = recorded.map(|(lane, number, _)| SegmentId { lane, number }).collect();
        Self {
            shared,
            writer,
            calls,
            catalogue,
            recorded,
            failures: BTreeMap::new(),
            topics_recorded,
            imported_seq: 0,
            imported_grew: false,
        }
    }

    /// Works until the store closes; then the catalogue is closed well.
    pub(super) fn run(mut self) {
        let _failed = SayFailed(Arc::clone(&self.shared), self.writer.clone());
        while !self.shared.is_closing() {
            self.index_sealed();
            self.index_missing();
            self.learn_topics();
            self.retire();
            self.record_segments();
            self.seal();
            self.shared.bound_indexes();
            self.shared.publish_gauges();
            match self.calls.recv_timeout(INTERVAL) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // What is not indexed yet is missing at the next start, and then made from its segment.
        self.index_sealed();
        self.record_segments();
        self.record_topics();
        if self.topics_recorded {
            // Without the topics of some segment it must not be believed (J9).
            self.catalogue.close(self.shared.store_id.0);
        }
    }

    /// Makes the files of segments that are sealed and still indexed in memory.
    fn index_sealed(&mut self) {
        for part in self.shared.waiting_parts() {
            let Part::Open(open) = part.as_ref() else { continue };
            match self.shared.index_open_part(open) {
                Ok(sealed) => self.add(sealed),
                Err(error) => {
                    tracing::warn!(%error, "an index file could not be written: trying again");
                    if self.shared.has_many_waiting() {
                        // Memory is not endless, and whoever waits for the disk does better to know.
                        let reason =
                            "the archive's index files cannot be written: see the log for what its disk says";
                        self.shared.refuse(Cause::IndexesBehind, Some(reason.to_owned()));
                        look_again(&self.writer);
                    }
                    return;
                }
            }
        }
        self.shared.refuse(Cause::IndexesBehind, None);
    }

    /// Makes the files that are missing or damaged from their segments, the newest first: several at a time, for hashing
    /// and sorting are nearly all of the work.
    fn index_missing(&mut self) {
        let now = Instant::now();
        let is_due = |id: &SegmentId| self.failures.get(id).is_none_or(|failing| failing.next <= now);
        let missing: Vec<_> = self.shared.unindexed_segments().into_iter().filter(is_due).collect();
        if missing.is_empty() {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let builders = cores.min(MAX_BUILDERS).min(missing.len());
        let cores_each = cores / builders;
        let given_up = |id| self.failures.get(&id).is_some_and(|failing| now - failing.since >= PATIENCE);
        let missing: Vec<_> = missing.into_iter().map(|id| (id, given_up(id))).collect();
        let shared = Arc::clone(&self.shared);
        let (shared, missing, next) = (shared.as_ref(), missing.as_slice(), &AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let (made, results) = sync_channel(builders);
            for _ in 0..builders {
                let made = made.clone();
                scope.spawn(move || {
                    while let Some(&(id, given_up)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = shared.index_segment(id, given_up, cores_each);
                        if made.send((id, result)).is_err() || shared.is_closing() {
                            return;
                        }
                    }
                });
            }
            drop(made);
            for (id, result) in results {
                self.end_missing(id, result);
            }
        });
    }

    fn end_missing(&mut self, id: SegmentId, result: Result<Option<SealedPart>, StoreError>) {
        match result {
            Ok(Some(sealed)) => {
                self.add(sealed);
                self.shared.indexed(id);
                self.failures.remove(&id);
                self.index_sealed();
            }
            Ok(None) => {}
            // Retired since it was found to be missing.
            Err(_) if !self.shared.segment_exists(id) => {
                self.shared.indexed(id);
                self.failures.remove(&id);
            }
            Err(error) => {
                let now = Instant::now();
                let failing =
                    self.failures.entry(id).or_insert(Failing { since: now, pause: INTERVAL, next: now });
                failing.next = now + failing.pause;
                failing.pause = (failing.pause * 2).min(LONGEST_PAUSE);
                tracing::error!(
                    segment = id.number,
                    %error,
                    "a segment cannot be indexed, so answers are not complete and no records are taken: trying again"
                );
            }
        }
    }

    fn add(&mut self, sealed: SealedPart) {
        let part = Arc::new(Part::Sealed(sealed));
        // Before it can be asked: a bloom question must not miss a topic of it (J9).
        self.add_topics(&part);
        let seq = last_seq(&part).unwrap_or(0);
        self.shared.next_seq.fetch_max(seq + 1, std::sync::atomic::Ordering::Relaxed);
        self.shared.change_view(|view| view.with(part));
        self.shared.head.send_if_modified(|head| {
            let grows = *head < seq;
            *head = (*head).max(seq);
            grows
        });
        look_again(&self.writer);
    }

    /// The distinct topics of all segments, read from their index files where no catalogue told them.
    fn learn_topics(&mut self) {
        if self.shared.topics(|_| ()).is_some() {
            return self.record_topics();
        }
        let mut spaces: BTreeMap<Space, DistinctTopics> = BTreeMap::new();
        for part in self.shared.view().parts() {
            let Part::Sealed(sealed) = part.as_ref() else { continue };
            if self.shared.is_closing() {
                return;
            }
            if let Err(error) = add_part_topics(&mut spaces, sealed) {
                // Questions go to every part meanwhile; a damaged file is noticed there.
                tracing::warn!(error = %error.error, "the topics of an index file cannot be read");
                let _ = self.shared.mistrust(error);
                return;
            }
        }
        self.shared.change_topics(|known| *known = Some(spaces));
        self.topics_recorded = false;
        self.record_topics();
    }

    /// Lets the catalogue know all topics, once they are known.
    fn record_topics(&mut self) {
        let catalogue = &self.catalogue;
        let known = self.topics_recorded
            || self
                .shared
                .topics(|spaces| {
                    for (&space, topics) in spaces {
                        catalogue.clear_topics(space);
                        catalogue.put_topics(space, topics.iter());
                    }
                })
                .is_some();
        self.topics_recorded = known;
    }

    fn add_topics(&mut self, part: &Part) {
        let Part::Sealed(sealed) = part else { return };
        let catalogue = &self.catalogue;
        let added = self.shared.change_topics(|known| {
            let Some(spaces) = known else { return Ok(()) };
            for summary in &sealed.summary.spaces {
                let days = day_of(summary.oldest.time_ns)..=day_of(summary.newest.time_ns);
                let counts = topic_counts(sealed, summary.space)?;
                let changed = spaces.entry(summary.space).or_default().add_segment(days, counts);
                catalogue.put_topics(summary.space, changed);
            }
            Ok(())
        });
        if let Err(PartError { error, .. }) = added {
            tracing::warn!(%error, "the topics of a new index file cannot be read");
            // Without them the others are no superset: they are learnt again from the files.
            self.shared.change_topics(|known| *known = None);
            self.topics_recorded = false;
        }
    }

    /// Lets the catalogue know what there is.
    fn record_segments(&mut self) {
        let view = self.shared.view();
        let sealed = |part: &Arc<Part>| matches!(part.as_ref(), Part::Sealed(_)).then(|| part.id());
        let there: BTreeSet<SegmentId> = view.parts().iter().filter_map(sealed).collect();
        for id in self.recorded.difference(&there) {
            self.catalogue.remove_segment(id.lane, id.number);
        }
        for id in there.difference(&self.recorded) {
            if let Some(Part::Sealed(part)) = view.find(*id).map(AsRef::as_ref) {
                self.catalogue.put_segment(id.lane, id.number, &part.summary.encode());
            }
        }
        self.recorded = there;
    }

    fn retire(&mut self) {
        match self.shared.keep_retention(&self.writer) {
            Ok(()) | Err(StoreError::Closed) => {}
            Err(error) => tracing::error!(%error, "old records could not be retired: trying again"),
        }
    }

    /// Seals what is old enough; imported history as soon as it no longer grows.
    fn seal(&mut self) {
        // A writer that is too busy for it seals by itself.
        if !self.shared.seal_asked.swap(true, Ordering::Relaxed)
            && self.writer.try_send(Command::SealDue).is_err()
        {
            self.shared.seal_asked.store(false, Ordering::Relaxed);
        }
        let imported = self.shared.imported_seq();
        if imported == self.imported_seq && self.imported_grew {
            self.imported_grew = self.writer.try_send(Command::Seal(Lane::Imported)).is_err();
        } else if imported != self.imported_seq {
            (self.imported_seq, self.imported_grew) = (imported, true);
        }
    }
}

/// Tells the writer that it may no longer have to wait. When its queue is full, it looks by itself.
fn look_again(writer: &SyncSender<Command>) {
    let _ = writer.try_send(Command::LookAgain);
}

/// A keeper that fails leaves nobody waiting for its index files.
struct SayFailed(Arc<Shared>, SyncSender<Command>);

impl Drop for SayFailed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.refuse(Cause::Stopped, Some("the archive has failed: start it again".to_owned()));
            look_again(&self.1);
        }
    }
}

/// Adds the topics of a sealed segment.
pub(super) fn add_part_topics(
    spaces: &mut BTreeMap<Space, DistinctTopics>,
    part: &SealedPart,
) -> Result<(), PartError> {
    for summary in &part.summary.spaces {
        let counts = topic_counts(part, summary.space)?;
        let days = day_of(summary.oldest.time_ns)..=day_of(summary.newest.time_ns);
        spaces.entry(summary.space).or_default().add_segment(days, counts);
    }
    Ok(())
}
