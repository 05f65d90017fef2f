//! The one thread that writes: group commit, duplicates, sealing, and coming back after the disk refused. It owns the
//! journals of both lanes.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use poste_journal::{ErrorKind, FrameAt, Group, Journal, JournalError};
use poste_wire::Hash;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::frame;
use super::index::Index;
use super::index_file::Stretch;
use super::part::{OpenPart, Part, PartError, SegmentId};
use super::shared::{Cause, Shared};
use crate::record::{Derived, Refusal, Space};
use crate::store::{Lane, Outcome};

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Store(Job),
    /// Seals the open segment of a lane, if it holds something.
    Seal(Lane),
    /// Seals every open segment that is old enough.
    SealDue,
    /// Removes sealed segments, and says which are gone.
    Remove(Vec<SegmentId>, SyncSender<Removed>),
    /// The keeper has caught up a little, or says why it does not.
    LookAgain,
}

/// What became of segments that were to be removed.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) segments: Vec<SegmentId>,
    /// Why one of the others is still there.
    pub(super) error: Option<JournalError>,
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lane: Lane,
    pub(super) entries: Vec<NewEntry>,
    /// One for each record of the batch: `Stored` for those in `entries`, until something else is known.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) reply: oneshot::Sender<Vec<Outcome>>,
    /// Its share of the queue, given back when it is answered.
    pub(super) _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct NewEntry {
    /// Its place in the batch.
    pub(super) slot: usize,
    pub(super) space: Space,
    pub(super) derived: Derived,
    pub(super) body: Bytes,
}

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// Batches that have not been looked at, in the order in which they came. As many as the queue has permits for.
    held: VecDeque<Job>,
    lanes: [LaneWriter; 2],
}

/// The writing side of one lane.
#[derive(Debug)]
pub(super) struct LaneWriter {
    lane: Lane,
    journal: Journal,
    /// The segment that is written to, as it is indexed.
    open: Arc<Part>,
    group: Group,
    /// When to try the disk again, while the journal is poisoned.
    retry_at: Option<Instant>,
    /// How long the last attempt waited; forgotten when a group is durable again.
    delay: Duration,
}

impl LaneWriter {
    const FIRST_DELAY: Duration = Duration::from_millis(100);
    const LAST_DELAY: Duration = Duration::from_secs(5);

    pub(super) fn new(lane: Lane, journal: Journal, open: Arc<Part>) -> Self {
        Self { lane, journal, open, group: Group::new(), retry_at: None, delay: Self::FIRST_DELAY }
    }
}

impl Writer {
    /// A group takes no more batches beyond these, so that acks do not wait for ever longer writes.
    const GROUP_RECORDS: usize = 16_384;
    const GROUP_BYTES: usize = 4 * 1024 * 1024;
    /// Records are published in slices, so that readers never wait long for the index.
    const PUBLISH_RECORDS: usize = 1024;
    /// What the disk must take before records are taken again, even when the group that failed was smaller.
    const MIN_PROBE_BYTES: usize = 64 * 1024;
    /// A segment of small records is sealed before its index in memory exceeds some 40 MiB, and before a start would
    /// have to hash more than that.
    const PART_RECORDS: usize = 400_000;

    pub(super) fn new(shared: Arc<Shared>, commands: Receiver<Command>, lanes: [LaneWriter; 2]) -> Self {
        Self { shared, commands, held: VecDeque::new(), lanes }
    }

    /// Serves commands until every sender is gone, then closes the journals.
    pub(super) fn run(mut self) -> Result<(), JournalError> {
        let _stopped = SayStopped(Arc::clone(&self.shared));
        let mut left_over = None;
        loop {
            // While index files are behind, batches wait; everything else goes on, for the keeper may wait for it.
            if left_over.is_none()
                && !self.shared.is_behind()
                && let Some(job) = self.held.pop_front()
            {
                left_over = self.serve(job);
                continue;
            }
            let command = match left_over.take() {
                Some(command) => Ok(command),
                None => match self.lanes.iter().filter_map(|lane| lane.retry_at).min() {
                    None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(at) => self.commands.recv_timeout(at.saturating_duration_since(Instant::now())),
                },
            };
            match command {
                Ok(Command::Store(job)) => self.held.push_back(job),
                Ok(Command::Seal(lane)) => self.seal(lane),
                Ok(Command::SealDue) => {
                    self.shared.seal_asked.store(false, Ordering::Relaxed);
                    self.seal_due();
                }
                Ok(Command::Remove(segments, reply)) => {
                    // Whoever no longer waits finds out at the next start.
                    let _ = reply.send(self.remove(&segments));
                }
                Ok(Command::LookAgain) => {}
                Err(RecvTimeoutError::Timeout) => self.retry(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        while let Some(job) = self.held.pop_front() {
            // Nobody is left who could send anything else.
            let _ = self.serve(job);
        }
        for lane in self.lanes {
            let mut journal = lane.journal;
            if journal.is_poisoned() {
                // Nothing is acknowledged that is not durable; what is cut off now need not be cut at the start.
                journal.reopen(self.shared.unix_millis())?;
            }
            journal.close()?;
        }
        Ok(())
    }

    /// Commits a job together with whatever waits behind it. Returns a command that is no job.
    fn serve(&mut self, first: Job) -> Option<Command> {
        let (mut records, mut bytes) = (0, 0);
        let mut jobs = Vec::new();
        let mut left_over = None;
        let mut next = Some(first);
        while let Some(job) = next.take() {
            records += job.entries.len();
            bytes += job.entries.iter().map(|entry| entry.body.len()).sum::<usize>();
            jobs.push(job);
            if records < Self::GROUP_RECORDS && bytes < Self::GROUP_BYTES {
                next = self.held.pop_front();
                if next.is_none() {
                    match self.commands.try_recv() {
                        Ok(Command::Store(job)) => next = Some(job),
                        Ok(other) => left_over = Some(other),
                        Err(_) => {}
                    }
                }
            }
        }
        self.retry();
        // In the order in which they came, also over both lanes.
        for group in jobs.chunk_by_mut(|one, next| one.lane == next.lane) {
            match self.shared.refusal() {
                Some(reason) => refuse(group, &reason),
                None => self.commit(group),
            }
        }
        for job in jobs {
            self.shared.metrics.count_outcomes(&job.outcomes);
            // Whoever no longer waits has its record stored all the same.
            let _ = job.reply.send(job.outcomes);
        }
        left_over
    }

    /// J1: write, fdatasync, publish; the caller acknowledges.
    fn commit(&mut self, jobs: &mut [Job]) {
        let Some(lane) = jobs.first().map(|job| job.lane) else { return };
        // No floor rises between the look at it and the publication of what was above it.
        let shared = Arc::clone(&self.shared);
        let _floors_stand = shared.floor_gate.read();
        let new = match self.compose(lane, jobs) {
            Ok(Some(new)) => new,
            Ok(None) => return refuse(jobs, "an index of the archive is being made anew"),
            Err(error) => {
                // Without that index nobody can tell whether a record is new.
                if let Err(error) = self.shared.mistrust(error) {
                    tracing::error!(%error, "an index file cannot be read, so records are not taken");
                }
                return refuse(jobs, "an index file of the archive cannot be read");
            }
        };
        if new.is_empty() {
            return;
        }
        if matches!(self.lane(lane).open.as_ref(), Part::Open(open) if open.index.read().len() >= Self::PART_RECORDS)
        {
            self.seal(lane);
        }
        let begun = Instant::now();
        let now_ms = self.shared.unix_millis();
        let LaneWriter { journal, group, .. } = self.lane(lane);
        let written = journal.append(group, now_ms);
        let written = written.and_then(|appended| journal.sync().map(|()| appended));
        match written {
            Ok(appended) => {
                self.shared.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                self.shared.metrics.group_records.observe(new.len() as f64);
                self.lane(lane).delay = LaneWriter::FIRST_DELAY;
                if appended.sealed.is_some() {
                    self.begin_part(lane);
                }
                self.publish(lane, &new, &appended.frames);
            }
            Err(error) => {
                let reason = self.stop_taking(lane, &error);
                refuse(jobs, reason);
            }
        }
    }

    /// Fills the group with what is new and marks what is not. A duplicate of a record in the same group is
    /// answered with the group, when the first one is durable (J5).
    fn compose(&mut self, lane: Lane, jobs: &mut [Job]) -> Result<Option<Vec<(Space, Derived)>>, PartError> {
        let shared = Arc::clone(&self.shared);
        let group = &mut self.lane(lane).group;
        group.clear();
        let mut new = Vec::new();
        let mut in_flight: HashSet<(Space, Hash)> = HashSet::new();
        // Where an index is missing nobody can tell what is new.
        let Some(parts) = candidates(&shared, jobs) else { return Ok(None) };
        let first_seq = shared.next_seq.load(Ordering::Relaxed);
        let question = shared.next_question();
        for job in jobs {
            let Job { entries, outcomes, .. } = job;
            for NewEntry { slot, space, derived, body } in entries.iter() {
                let position = derived.position;
                if shared.floor_ns(*space).is_some_and(|floor_ns| position.time_ns < floor_ns) {
                    outcomes[*slot] = Outcome::Refused(Refusal::BelowFloor);
                    continue;
                }
                let mut known = in_flight.contains(&(*space, position.id));
                for part in parts.iter().rev() {
                    known = known || part.contains(*space, &position, question)?;
                }
                if known {
                    outcomes[*slot] = Outcome::Duplicate;
                    continue;
                }
                in_flight.insert((*space, position.id));
                let head = frame::encode_head(first_seq + new.len() as u64, *space);
                group.push(&[&head, body]).expect("a derived body is far below the limit of a frame");
                new.push((*space, *derived));
            }
        }
        Ok(Some(new))
    }

    fn publish(&mut self, lane: Lane, new: &[(Space, Derived)], frames: &[FrameAt]) {
        let part = Arc::clone(&self.lane(lane).open);
        let Part::Open(open) = part.as_ref() else { return };
        let first_seq = self.shared.next_seq.load(Ordering::Relaxed);
        let records: Vec<_> = (first_seq..).zip(new.iter().zip(frames)).collect();
        for slice in records.chunks(Self::PUBLISH_RECORDS) {
            let mut index = open.index.write();
            for &(seq, ((space, derived), at)) in slice {
                index.insert(*space, *derived, seq, *at);
            }
        }
        let head = first_seq + new.len() as u64 - 1;
        // The keeper may have found higher ones in a segment that was not indexed.
        self.shared.next_seq.fetch_max(head + 1, Ordering::Relaxed);
        self.shared.head.send_if_modified(|known| {
            let grows = *known < head;
            *known = (*known).max(head);
            grows
        });
        self.shared.metrics.head_seq.set(head as i64);
        self.count_bytes();
    }

    /// The journal of a lane writes to a new segment: the one before is indexed in memory until it has its file.
    fn begin_part(&mut self, lane: Lane) {
        let number = self.lane(lane).journal.open_segment();
        let part =
            Arc::new(Part::Open(OpenPart::new(SegmentId { lane, number }, Index::default(), Vec::new())));
        // In this order: a new part that is not known as the open one would pass for a sealed one.
        self.shared.set_open_number(lane, number);
        self.shared.change_view(|view| view.with(Arc::clone(&part)));
        self.lane(lane).open = part;
        self.count_bytes();
        // When everything of it is retired, nothing else remembers how far the numbers had come.
        let next_seq = self.shared.next_seq.load(Ordering::Relaxed);
        let noted = self.shared.meta.update(|meta| {
            meta.next_seq = meta.next_seq.max(next_seq);
            meta.raise_min_number(lane, number);
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "the store's meta file could not be written");
        }
        let _ = self.shared.nudge.try_send(());
    }

    fn count_bytes(&self) {
        let bytes = self.lanes.iter().map(|lane| lane.journal.file_bytes()).sum();
        self.shared.segment_bytes.store(bytes, Ordering::Relaxed);
    }

    // --------------------------------------------------------------------------- sealing and removing

    fn seal(&mut self, lane: Lane) {
        let now_ms = self.shared.unix_millis();
        match self.lane(lane).journal.seal(now_ms) {
            Ok(None) | Err(JournalError::Poisoned) => {}
            Ok(Some(_)) => self.begin_part(lane),
            Err(error) => {
                self.stop_taking(lane, &error);
            }
        }
    }

    fn seal_due(&mut self) {
        let now_ms = self.shared.unix_millis();
        for lane in [Lane::Live, Lane::Imported] {
            if self.lane(lane).journal.seal_due(now_ms) {
                self.seal(lane);
            }
        }
    }

    fn remove(&mut self, segments: &[SegmentId]) -> Removed {
        let mut removed = Removed::default();
        for &id in segments {
            match self.lane(id.lane).journal.remove(id.number) {
                Ok(_) => removed.segments.push(id),
                Err(error) => removed.error = Some(error),
            }
        }
        self.count_bytes();
        removed
    }

    // ------------------------------------------------------------------------------ the disk refuses

    /// The disk refused: takes nothing more until it has come back.
    fn stop_taking(&mut self, lane: Lane, error: &JournalError) -> &'static str {
        let reason = match error.kind() {
            ErrorKind::Full => "the archive's disk is full",
            _ => "the archive's disk does not take records",
        };
        tracing::error!(%error, "the archive takes no records until its disk has come back");
        let LaneWriter { journal, open, .. } = self.lane(lane);
        if journal.open_segment() != open.id().number {
            // The segment before was sealed in good order; it was the first group of the next that failed.
            self.begin_part(lane);
        }
        self.wait_longer(lane);
        self.shared.refuse(Cause::Disk(lane), Some(reason.to_owned()));
        reason
    }

    /// Tries the disks that are due again.
    fn retry(&mut self) {
        let now = Instant::now();
        for lane in [Lane::Live, Lane::Imported] {
            if self.lane(lane).retry_at.is_some_and(|at| at <= now) {
                self.try_again(lane);
            }
        }
    }

    fn try_again(&mut self, lane: Lane) {
        if let Err(error) = self.reopen(lane) {
            tracing::debug!(%error, "the archive's disk has not come back");
            self.wait_longer(lane);
            return;
        }
        self.lane(lane).retry_at = None;
        self.shared.refuse(Cause::Disk(lane), None);
        self.shared.publish_gauges();
        tracing::info!("the archive takes records again");
    }

    fn reopen(&mut self, lane: Lane) -> Result<(), JournalError> {
        let now_ms = self.shared.unix_millis();
        let reopened = self.lane(lane).journal.reopen(now_ms)?;
        let before = Arc::clone(&self.lane(lane).open);
        for lost in &reopened.quarantined {
            self.shared.quarantine(&before, Stretch { offset: lost.offset, bytes: lost.bytes });
        }
        if self.lane(lane).journal.open_segment() != before.id().number {
            if reopened.sealed.is_none() {
                // Nothing was ever in it, and its file is gone.
                self.shared.change_view(|view| view.without(&[before.id()]));
            }
            self.begin_part(lane);
        }
        self.count_bytes();
        // A full disk has room for a new segment's header long before it has room for records.
        let LaneWriter { journal, group, .. } = self.lane(lane);
        journal.probe(group.file_bytes().max(Self::MIN_PROBE_BYTES))
    }

    fn wait_longer(&mut self, lane: Lane) {
        let lane = self.lane(lane);
        lane.retry_at = Some(Instant::now() + lane.delay);
        lane.delay = (lane.delay * 2).min(LaneWriter::LAST_DELAY);
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneWriter {
        let index = super::shared::lane_index(lane);
        debug_assert_eq!(self.lanes[index].lane, lane);
        &mut self.lanes[index]
    }
}

/// The parts that may hold one of these records; `None` when one of them may be missing.
fn candidates(shared: &Shared, jobs: &[Job]) -> Option<Vec<Arc<Part>>> {
    let times = || jobs.iter().flat_map(|job| &job.entries).map(|entry| entry.derived.position.time_ns);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Some(Vec::new()) };
    let (view, is_whole) = shared.whole_view();
    let overlaps = |part: &&Arc<Part>| match part.as_ref() {
        Part::Open(_) => true,
        Part::Sealed(part) => part
            .summary
            .spaces
            .iter()
            .any(|space| space.oldest.time_ns <= last && space.newest.time_ns >= first),
    };
    is_whole.then(|| view.parts().iter().filter(overlaps).cloned().collect())
}

/// Nothing of these batches is known to be durable: neither the new records, nor those that waited for the
/// same records of this group.
fn refuse(jobs: &mut [Job], reason: &str) {
    for job in jobs {
        let Job { entries, outcomes, .. } = job;
        for entry in entries.iter() {
            outcomes[entry.slot] = Outcome::Unavailable(reason.to_owned());
        }
    }
}

/// However the thread ends, the store takes nothing more and says so.
struct SayStopped(Arc<Shared>);

impl Drop for SayStopped {
    fn drop(&mut self) {
        self.0.refuse(Cause::Stopped, Some("the archive was stopped".to_owned()));
    }
}
