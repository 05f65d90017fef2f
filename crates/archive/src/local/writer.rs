//! The one thread that writes: group commit, duplicates, and coming back after the disk refused.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use poste_journal::{ErrorKind, FrameAt, Group, Journal, JournalError};
use poste_service::Clock;
use poste_wire::Hash;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Shared, frame};
use crate::record::{Derived, Space};
use crate::store::{Outcome, Writable};

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Job {
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
    journal: Journal,
    jobs: Receiver<Job>,
    clock: Clock,
    next_seq: u64,
    group: Group,
    /// When to try the disk again, while the journal is poisoned.
    retry: Option<Retry>,
    /// How long the last attempt waited; forgotten when a group is durable again.
    delay: Duration,
}

#[derive(Debug)]
struct Retry {
    at: Instant,
    /// For people: why records are not taken now.
    reason: &'static str,
}

impl Writer {
    /// A group takes no more batches beyond these, so that acks do not wait for ever longer writes.
    const GROUP_RECORDS: usize = 16_384;
    const GROUP_BYTES: usize = 16 * 1024 * 1024;
    /// Records are published in slices, so that readers never wait long for the index.
    const PUBLISH_RECORDS: usize = 1024;
    /// What the disk must take before records are taken again, even when the group that failed was smaller.
    const MIN_PROBE_BYTES: usize = 64 * 1024;
    const FIRST_DELAY: Duration = Duration::from_millis(100);
    const LAST_DELAY: Duration = Duration::from_secs(5);

    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Journal,
        jobs: Receiver<Job>,
        clock: Clock,
        next_seq: u64,
    ) -> Self {
        let (group, delay) = (Group::new(), Self::FIRST_DELAY);
        Self { shared, journal, jobs, clock, next_seq, group, retry: None, delay }
    }

    /// Serves jobs until every sender is gone, then closes the journal.
    pub(super) fn run(mut self) -> Result<(), JournalError> {
        let _stopped = SetUnwritable(Arc::clone(&self.shared));
        loop {
            let job = match &self.retry {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(retry) => self.jobs.recv_timeout(retry.at.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(job) => self.serve(job),
                Err(RecvTimeoutError::Timeout) => self.try_again(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.journal.is_poisoned() {
            // Nothing is acknowledged that is not durable; what is cut off now need not be cut at the start.
            self.journal.reopen(unix_millis(&self.clock))?;
        }
        self.journal.close()
    }

    /// Commits a job together with whatever waits behind it.
    fn serve(&mut self, first: Job) {
        let (mut records, mut bytes) = (0, 0);
        let mut jobs = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            records += job.entries.len();
            bytes += job.entries.iter().map(|entry| entry.body.len()).sum::<usize>();
            jobs.push(job);
            next = if records < Self::GROUP_RECORDS && bytes < Self::GROUP_BYTES {
                self.jobs.try_recv().ok()
            } else {
                None
            };
        }
        if self.retry.as_ref().is_some_and(|retry| retry.at <= Instant::now()) {
            self.try_again();
        }
        match &self.retry {
            Some(retry) => refuse(&mut jobs, retry.reason),
            None => self.commit(&mut jobs),
        }
        for job in jobs {
            self.shared.metrics.count_outcomes(&job.outcomes);
            // Whoever no longer waits has its record stored all the same.
            let _ = job.reply.send(job.outcomes);
        }
    }

    /// J1: write, fdatasync, publish; the caller acknowledges.
    fn commit(&mut self, jobs: &mut [Job]) {
        let new = self.compose(jobs);
        if new.is_empty() {
            return;
        }
        let begun = Instant::now();
        let written = self.journal.append(&mut self.group, unix_millis(&self.clock));
        let written = written.and_then(|appended| self.journal.sync().map(|()| appended.frames));
        match written {
            Ok(frames) => {
                self.shared.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                self.shared.metrics.group_records.observe(new.len() as f64);
                self.delay = Self::FIRST_DELAY;
                self.publish(&new, &frames);
            }
            Err(error) => {
                let reason = self.stop_taking(&error);
                refuse(jobs, reason);
            }
        }
    }

    /// Fills the group with what is new and marks what is not. A duplicate of a record in the same group is
    /// answered with the group, when the first one is durable (J5).
    fn compose(&mut self, jobs: &mut [Job]) -> Vec<(Space, Derived)> {
        self.group.clear();
        let mut new = Vec::new();
        let mut in_flight: HashSet<(Space, Hash)> = HashSet::new();
        let index = self.shared.index.read();
        for Job { entries, outcomes, .. } in jobs {
            for NewEntry { slot, space, derived, body } in entries.iter() {
                let id = derived.position.id;
                if index.contains(*space, &id) || !in_flight.insert((*space, id)) {
                    outcomes[*slot] = Outcome::Duplicate;
                    continue;
                }
                let head = frame::encode_head(self.next_seq + new.len() as u64, *space);
                self.group.push(&[&head, body]).expect("a derived body is far below the limit of a frame");
                new.push((*space, *derived));
            }
        }
        new
    }

    fn publish(&mut self, new: &[(Space, Derived)], frames: &[FrameAt]) {
        let records: Vec<_> = new.iter().zip(frames).collect();
        for slice in records.chunks(Self::PUBLISH_RECORDS) {
            let mut index = self.shared.index.write();
            for &((space, derived), at) in slice {
                index.insert(*space, *derived, self.next_seq, *at);
                self.next_seq += 1;
            }
        }
        self.shared.file_bytes.store(self.journal.file_bytes(), Ordering::Relaxed);
        self.shared.head.send_replace(self.next_seq - 1);
        self.shared.publish_gauges();
    }

    /// The disk refused: takes nothing more until it has come back.
    fn stop_taking(&mut self, error: &JournalError) -> &'static str {
        let reason = match error.kind() {
            ErrorKind::Full => "the archive's disk is full",
            _ => "the archive's disk does not take records",
        };
        tracing::error!(%error, "the archive takes no records until its disk has come back");
        self.retry = Some(Retry { at: Instant::now() + self.delay, reason });
        self.delay = (self.delay * 2).min(Self::LAST_DELAY);
        self.shared.writable.send_replace(Writable::No(reason.to_owned()));
        self.shared.publish_gauges();
        reason
    }

    fn try_again(&mut self) {
        match self.journal.reopen(unix_millis(&self.clock)) {
            Ok(reopened) => {
                for lost in &reopened.quarantined {
                    self.shared.index.write().remove_stretch(lost.segment, lost.offset, lost.bytes);
                }
                self.shared.count_quarantined(&reopened.quarantined);
                self.shared.file_bytes.store(self.journal.file_bytes(), Ordering::Relaxed);
                // A full disk has room for a new segment's header long before it has room for records.
                let wanted = self.group.file_bytes().max(Self::MIN_PROBE_BYTES);
                if let Err(error) = self.journal.probe(wanted) {
                    return self.wait_longer(&error);
                }
                self.retry = None;
                self.shared.writable.send_replace(Writable::Yes);
                self.shared.publish_gauges();
                tracing::info!("the archive takes records again");
            }
            Err(error) => self.wait_longer(&error),
        }
    }

    fn wait_longer(&mut self, error: &JournalError) {
        tracing::debug!(%error, "the archive's disk has not come back");
        if let Some(retry) = &mut self.retry {
            retry.at = Instant::now() + self.delay;
        }
        self.delay = (self.delay * 2).min(Self::LAST_DELAY);
        self.shared.publish_gauges();
    }
}

/// Nothing of these batches is known to be durable: neither the new records, nor those that waited for the
/// same records of this group.
fn refuse(jobs: &mut [Job], reason: &str) {
    for Job { entries, outcomes, .. } in jobs {
        for entry in entries.iter() {
            outcomes[entry.slot] = Outcome::Unavailable(reason.to_owned());
        }
    }
}

/// However the thread ends, the store takes nothing more and says so.
struct SetUnwritable(Arc<Shared>);

impl Drop for SetUnwritable {
    fn drop(&mut self) {
        self.0.writable.send_replace(Writable::No("the archive was stopped".to_owned()));
        self.0.publish_gauges();
    }
}

pub(super) fn unix_millis(clock: &Clock) -> u64 {
    u64::try_from(clock.now().as_millis()).unwrap_or(u64::MAX)
}
