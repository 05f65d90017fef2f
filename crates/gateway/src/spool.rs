//! The spool: accepted envelopes on the gateway's own disk while the archive cannot be reached.
//!
//! A journal in a directory of its own. What [`SpoolWriter::write`] has returned for survives a crash, so it may be
//! confirmed to peers. Bodies stay on disk; memory holds only where each one is ([`index`]). What is drained is leased,
//! and a segment's file is removed once everything in it is settled; it is kept for people when something in it is lost.
//! Draining an envelope again is harmless: the archive answers it as a duplicate.
//!
//! What was confirmed is given up only when it reads wrongly or the archive refuses it for good. What the disk does not
//! give, or the archive has no quota for, is tried again, and holds up nothing else.
//!
//! Start at [`Spool::open`]; `mailserver/outbox` decides what goes in and what comes out when.

mod identity;
mod index;
mod lease;
mod pause;
mod record;
mod survey;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use poste_journal::{DirectoryLock, Disk, ErrorKind, Journal, JournalError, Options, Reader};
use poste_service::Clock;
use poste_service::readiness::Check;
use thiserror::Error;
use tracing::{debug, error, info};

use crate::metrics::SpoolMetrics;
use identity::Identity;
pub(crate) use identity::is_spool;
use index::Index;
pub(crate) use lease::{Drained, Fate, Lease};
pub(crate) use record::SPACE;
pub(crate) use writer::SpoolWriter;

/// The directory of the spool in a gateway's data directory.
pub(crate) const DIRECTORY: &str = "spool";

/// Segments are small, so that their room comes back soon: a part of the spool's size, within these bounds.
const SEGMENTS: u64 = 16;
const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
const MAX_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// By so much an envelope may be older than its ttl when it is spooled: it waits in memory for a while, and clocks are set.
const AGE_TOLERANCE: Duration = Duration::from_secs(600);

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
    /// The longest ttl of envelopes: none was made so long before it came.
    pub(crate) max_ttl: Duration,
    pub(crate) ready: Check,
    /// Whether this program reads all that is in it.
    pub(crate) version: Check,
    pub(crate) metrics: SpoolMetrics,
}

/// What those who drain a spool share with its writer.
#[derive(Debug)]
pub(crate) struct Spool {
    index: Mutex<Index>,
    survey: Mutex<survey::Progress>,
    /// That has changed.
    surveyed: Condvar,
    reader: Reader,
    writer_id: String,
    max_intake_age: Duration,
    fault: Mutex<Option<Fault>>,
    ready: Check,
    version: Check,
    metrics: SpoolMetrics,
}

/// Why a spool takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its files have reached their bound.
    Full {
        /// How much room is missing at least, as the first that waits takes so many bytes.
        needed: u64,
    },
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
            Self::Full { .. } => "the spool is full: is the archive up?".to_owned(),
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
    /// Takes the directory's lock and reads what an earlier life has left: of its files only the last, the others in the
    /// background. It blocks.
    pub(crate) fn open(options: SpoolOptions) -> Result<(Arc<Self>, SpoolWriter), SpoolError> {
        let SpoolOptions { disk, dir, max_bytes, writer_id, clock, max_ttl, ready, version, metrics } =
            options;
        let lock = DirectoryLock::acquire(disk, &dir)?;
        let identity = Identity::open(&lock, &writer_id)?;
        let segment_bytes = (max_bytes / SEGMENTS).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
        let journal = Options { segment_bytes, ..Options::new(identity.journal_id) };
        let mut found = survey::Found::default();
        let (journal, recovery) = Journal::open(lock, journal, writer::unix_millis(&clock), &mut found)?;
        if let Some(version) = found.newer {
            return Err(SpoolError::Version { dir, version });
        }
        let mut index = found.into_index(&recovery);
        let reader = journal.reader();
        let max_intake_age = max_ttl.saturating_add(AGE_TOLERANCE);
        let max_age_ms = u64::try_from(max_intake_age.as_millis()).unwrap_or(u64::MAX);
        let bounded = index.bound_unread(|segment| {
            let oldest_ms = reader.created_ms(segment)?.map(|created| created.saturating_sub(max_age_ms));
            Ok::<_, JournalError>(oldest_ms.map(|oldest| u32::try_from(oldest / 1000).unwrap_or(u32::MAX)))
        });
        if let Err(error) = bounded {
            // A start does not ask such a disk for one file after another. Reading them says the same, and tries again.
            debug!(cause = %error, "nobody knows how old the envelopes in some files of the spool may be");
        }
        ready.ready();
        version.ready();
        let spool = Arc::new(Self {
            survey: Mutex::new(survey::Progress::new(&index)),
            surveyed: Condvar::new(),
            index: Mutex::new(index),
            reader,
            writer_id: identity.writer_id,
            max_intake_age,
            fault: Mutex::default(),
            ready,
            version,
            metrics,
        });
        let SpoolSize { envelopes, bytes } = spool.size();
        if envelopes > 0 {
            info!(envelopes, bytes, "the spool holds envelopes from before, they go to the archive");
        }
        let writer = SpoolWriter::new(journal, Arc::clone(&spool), max_bytes, clock)?;
        Ok((spool, writer))
    }

    /// Waits until the disk was asked for everything that an earlier life has left. It blocks.
    #[cfg(test)]
    fn look_through(&self) {
        let mut progress = self.survey.lock();
        while !progress.is_done() {
            self.surveyed.wait(&mut progress);
        }
    }

    /// Under which name its envelopes are archived.
    pub(crate) fn writer_id(&self) -> &str {
        &self.writer_id
    }

    /// No envelope is older than this when it is spooled.
    pub(crate) fn max_intake_age(&self) -> Duration {
        self.max_intake_age
    }

    /// What it holds.
    pub(crate) fn size(&self) -> SpoolSize {
        self.index.lock().size()
    }

    /// How many files hold something that is not settled, as far as anybody can know.
    pub(crate) fn files(&self) -> usize {
        self.index.lock().files()
    }

    /// How many envelopes were settled since it was opened.
    pub(crate) fn settled(&self) -> u64 {
        self.index.lock().settled()
    }

    /// Creation time of the oldest envelope in it, unix seconds. It may be too old while a segment is drained, or not read
    /// yet.
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

    /// Everything that was put off is due.
    #[cfg(test)]
    fn end_pauses(&self) {
        self.index.lock().end_pauses();
        self.surveyed.notify_all();
    }

    /// Whether it holds nothing, as far as anybody can know.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.lock().is_empty()
    }

    /// The next envelopes to drain, of one segment, oldest first. None: there are none now.
    pub(crate) fn lease(self: &Arc<Self>, max_records: usize, max_bytes: usize) -> Option<Lease> {
        let (segment, places) = self.index.lock().take(max_records, max_bytes, Instant::now())?;
        Some(Lease::new(Arc::clone(self), segment, places))
    }

    /// Whether there is something to drain now, or may be in a moment: not if all that is left was put off.
    pub(crate) fn has_due(&self) -> bool {
        self.index.lock().has_due(Instant::now())
    }

    fn measure(&self) {
        let SpoolMetrics { envelopes, unreadable, damaged, .. } = &self.metrics;
        let index = self.index.lock();
        for (gauge, count) in [
            (envelopes, index.size().envelopes),
            (unreadable, index.unreadable_segments()),
            (damaged, index.damaged_segments()),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn say_lost(segment: u32, lost: u64, why: &dyn fmt::Display) {
    error!(segment, lost, cause = %why, "confirmed envelopes of the spool are lost; their file will be kept");
}

/// `pause` is absent when the same was said a moment ago.
fn say_unreadable(segment: u32, pause: Option<Duration>, why: &dyn fmt::Display) {
    if let Some(pause) = pause {
        error!(segment, ?pause, cause = %why, "a file of the spool cannot be read now, trying again after a pause");
    }
}

/// Where the spool of a data directory is.
pub(crate) fn directory(data: &Path) -> PathBuf {
    data.join(DIRECTORY)
}
