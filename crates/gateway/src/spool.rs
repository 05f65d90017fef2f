//! The spool: accepted envelopes on the gateway's own disk while the archive cannot be reached.
//!
//! A journal in a directory of its own. What [`SpoolWriter::write`] has returned for survives a crash, so it may be
//! confirmed to peers. Bodies stay on disk; memory holds only where each one is ([`index`]). What is drained is leased,
//! and a segment's file is removed once everything in it is settled. Draining an envelope again is harmless: the archive
//! answers it as a duplicate.
//!
//! Start at [`Spool::open`]; `mailserver/outbox` decides what goes in and what comes out when.

mod identity;
mod index;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_journal::{
    DirectoryLock, Disk, ErrorKind, FrameAt, Journal, JournalError, Options, Reader, Recovery,
};
use poste_service::Clock;
use poste_service::readiness::Check;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::metrics::SpoolMetrics;
use identity::Identity;
pub(crate) use identity::is_spool;
use index::{Index, Place};
pub(crate) use record::SPACE;
pub(crate) use writer::SpoolWriter;

/// The directory of the spool in a gateway's data directory.
pub(crate) const DIRECTORY: &str = "spool";

/// Segments are small, so that their room comes back soon: a part of the spool's size, within these bounds.
const SEGMENTS: u64 = 16;
const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
const MAX_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// How often an unreadable place is read again before it counts as lost, and how long between.
const MAX_READ_FAILURES: u32 = 10;
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Why a spool cannot be opened.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file that says whose it is.
    #[error("{}: {reason}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A record of a newer program.
    #[error("{} holds records of version {version}, and this program reads only version {}: use the newer program to drain it", dir.display(), record::VERSION)]
    Version {
        /// The spool's directory.
        dir: PathBuf,
        /// The version that was found.
        version: u8,
    },
    /// Its thread.
    #[error("the thread of the spool cannot be started: {0}")]
    Thread(io::Error),
}

/// How a spool is opened.
#[derive(Debug)]
pub(crate) struct SpoolOptions {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// The bound of its files.
    pub(crate) max_bytes: u64,
    /// Under which name its envelopes are archived, unless the directory says otherwise already.
    pub(crate) writer_id: String,
    pub(crate) clock: Clock,
    pub(crate) ready: Check,
    pub(crate) metrics: SpoolMetrics,
}

/// What those who drain a spool share with its writer.
#[derive(Debug)]
pub(crate) struct Spool {
    index: Mutex<Index>,
    reader: Reader,
    writer_id: String,
    fault: Mutex<Option<Fault>>,
    ready: Check,
    metrics: SpoolMetrics,
}

/// Why a spool takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its files have reached their bound.
    Full,
    /// Its disk refuses.
    Disk(String),
}

impl Fault {
    pub(crate) fn of(error: &JournalError) -> Self {
        match error.kind() {
            ErrorKind::Full => Self::Disk(format!("its disk is full: {error}")),
            _ => Self::Disk(error.to_string()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Full => "the spool is full: is the archive up?".to_owned(),
            Self::Disk(why) => format!("the spool takes nothing: {why}"),
        }
    }
}

/// How much a spool holds that is not settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpoolSize {
    pub(crate) envelopes: usize,
    /// Of their encodings.
    pub(crate) bytes: u64,
}

impl Spool {
    /// Takes the directory's lock and reads what an earlier life has left. It blocks.
    pub(crate) fn open(options: SpoolOptions) -> Result<(Arc<Self>, SpoolWriter), SpoolError> {
        let SpoolOptions { disk, dir, max_bytes, writer_id, clock, ready, metrics } = options;
        let lock = DirectoryLock::acquire(disk, &dir)?;
        let identity = Identity::open(&lock, &writer_id)?;
        let segment_bytes = (max_bytes / SEGMENTS).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
        let journal = Options { segment_bytes, ..Options::new(identity.journal_id) };
        let mut index = Index::default();
        let mut unknown = None;
        let mut unreadable = 0;
        let mut replay = |at: FrameAt, payload: &[u8]| match record::sent(payload) {
            Ok(sent) => index.add(at, sent),
            Err(record::RecordError::Version(version)) => unknown = Some(version),
            Err(record::RecordError::Form) => {
                unreadable += 1;
                index.damaged(at.segment);
            }
        };
        let (journal, recovery) = Journal::open(lock, journal, writer::unix_millis(&clock), &mut replay)?;
        if let Some(version) = unknown {
            return Err(SpoolError::Version { dir, version });
        }
        report(&recovery, unreadable, &mut index, &metrics);
        ready.ready();
        let spool = Arc::new(Self {
            index: Mutex::new(index),
            reader: journal.reader(),
            writer_id: identity.writer_id,
            fault: Mutex::default(),
            ready,
            metrics,
        });
        let writer = SpoolWriter::new(journal, Arc::clone(&spool), max_bytes, clock);
        let SpoolSize { envelopes, bytes } = spool.size();
        if envelopes > 0 {
            info!(envelopes, bytes, "the spool holds envelopes from before, they go to the archive");
        }
        spool.measure();
        Ok((spool, writer))
    }

    /// Under which name its envelopes are archived.
    pub(crate) fn writer_id(&self) -> &str {
        &self.writer_id
    }

    /// What it holds.
    pub(crate) fn size(&self) -> SpoolSize {
        self.index.lock().size()
    }

    /// Creation time of the oldest envelope in it, unix seconds. It may be too old while a segment is drained.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.index.lock().oldest()
    }

    /// Whether it takes nothing.
    pub(crate) fn is_faulty(&self) -> bool {
        self.fault.lock().is_some()
    }

    /// Says that it takes nothing, or again something. The first is told at once and once.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        let mut now = self.fault.lock();
        match (&*now, &fault) {
            (None, Some(fault)) => {
                error!(
                    cause = fault.text(),
                    "envelopes cannot be spooled; none is accepted while the archive is away"
                );
                self.metrics.full_state.set(1);
            }
            (Some(_), None) => {
                info!("the spool takes envelopes again");
                self.metrics.full_state.set(0);
            }
            _ => {}
        }
        match &fault {
            Some(fault) => self.ready.not_ready(fault.text()),
            None => self.ready.ready(),
        }
        *now = fault;
    }

    /// The next envelopes to drain, of one segment, oldest first. None: there are none now.
    pub(crate) fn lease(self: &Arc<Self>, max_records: usize, max_bytes: usize) -> Option<Lease> {
        let (segment, places) = self.index.lock().take(max_records, max_bytes)?;
        Some(Lease { spool: Arc::clone(self), segment, places })
    }

    /// Whether draining rests for a while although there is something.
    pub(crate) fn rests(&self) -> bool {
        self.index.lock().rests()
    }

    /// Drains nothing for a while.
    pub(crate) fn rest(&self, pause: Duration) {
        self.index.lock().rest(pause);
    }

    fn lose(&self, segment: u32, count: u64, why: &dyn std::fmt::Display) {
        self.metrics.lost.inc_by(count);
        error!(segment, count, cause = %why, "confirmed envelopes are lost: their place in the spool is damaged");
    }

    fn measure(&self) {
        self.metrics.envelopes.set(i64::try_from(self.size().envelopes).unwrap_or(i64::MAX));
    }
}

/// Envelopes on their way out of the spool. What is not settled goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    spool: Arc<Spool>,
    segment: u32,
    places: Vec<Place>,
}

/// Envelopes of a lease, read.
#[derive(Debug)]
pub(crate) struct Drained {
    lease: Lease,
    /// One for each place that is left of the lease.
    pub(crate) bodies: Vec<Bytes>,
}

impl Lease {
    /// Reads the bodies. What is damaged is lost, counted, and said; what the disk does not give now stays in the spool.
    /// It blocks.
    pub(crate) fn read(mut self) -> Drained {
        let frames: Vec<FrameAt> = self.places.iter().map(|place| place.frame(self.segment)).collect();
        let (mut bodies, mut read, mut lost, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (payload, place) in self.spool.reader.read_many(&frames).into_iter().zip(self.places.drain(..)) {
            match payload.map(|payload| record::body(&payload)) {
                Ok(Some(body)) => {
                    bodies.push(body);
                    read.push(place);
                }
                Ok(None) => lost.push((place, "it is no record".to_owned())),
                Err(error @ JournalError::Damaged { .. }) => lost.push((place, error.to_string())),
                Err(error) => again.push((place, error.to_string())),
            }
        }
        self.places = read;
        self.give_up(lost);
        if !again.is_empty() {
            self.try_again(again);
        }
        Drained { lease: self, bodies }
    }

    fn give_up(&self, lost: Vec<(Place, String)>) {
        let Some((_, why)) = lost.first() else { return };
        self.spool.lose(self.segment, lost.len() as u64, why);
        let mut index = self.spool.index.lock();
        index.damaged(self.segment);
        index.settle(self.segment, lost.into_iter().map(|(place, _)| place));
    }

    fn try_again(&self, unread: Vec<(Place, String)>) {
        let mut index = self.spool.index.lock();
        if index.read_failed(self.segment) > MAX_READ_FAILURES {
            drop(index);
            return self.give_up(unread);
        }
        warn!(segment = self.segment, cause = unread[0].1, "the spool cannot be read now, trying again");
        index.put_back(self.segment, unread.into_iter().map(|(place, _)| place));
        index.rest(READ_AGAIN);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.places.is_empty() {
            self.spool.index.lock().put_back(self.segment, self.places.drain(..));
        }
    }
}

impl Drained {
    /// Settles those for which `done` says so by their number; the others go back. Returns whether a segment has
    /// nothing left.
    pub(crate) fn settle(mut self, done: impl Fn(usize) -> bool) -> bool {
        let (mut settled, mut kept) = (Vec::new(), Vec::new());
        for (number, place) in self.lease.places.drain(..).enumerate() {
            if done(number) { settled.push(place) } else { kept.push(place) }
        }
        self.lease.places = kept;
        let spool = Arc::clone(&self.lease.spool);
        let finished = spool.index.lock().settle(self.lease.segment, settled);
        drop(self);
        spool.measure();
        finished
    }

    /// Those that no archive will ever take: said and counted as lost. They are settled by [`Drained::settle`].
    pub(crate) fn refused(&self, count: u64) {
        let spool = &self.lease.spool;
        spool.metrics.lost.inc_by(count);
        error!(count, "the archive refuses envelopes for good that were confirmed from the spool");
    }
}

/// Says what of an earlier life cannot be read. How many envelopes stood in a damaged stretch nobody knows: it counts
/// as one.
fn report(recovery: &Recovery, unreadable: u64, index: &mut Index, metrics: &SpoolMetrics) {
    for damage in &recovery.quarantined {
        index.damaged(damage.segment);
    }
    let lost = recovery.quarantined.len() as u64 + unreadable;
    if lost > 0 {
        metrics.lost.inc_by(lost);
        error!(
            stretches = lost,
            "the spool is damaged: confirmed envelopes are lost, at least one for each stretch; the files are kept"
        );
    }
}

/// Where the spool of a data directory is.
pub(crate) fn directory(data: &Path) -> PathBuf {
    data.join(DIRECTORY)
}
