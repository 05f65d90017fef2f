//! The seam between the archive and what keeps its records: [`ArchiveStore`] speaks the archive's language,
//! so that journal files, a database or memory can stand behind it.

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(any(test, feature = "test-hooks"))]
mod dropping;
mod error;
mod memory;
mod writers;

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use poste_wire::{Bloom, Hash, Topic};
use tokio::sync::watch;

use crate::record::{Position, Record, Refusal, Space};

#[cfg(any(test, feature = "test-hooks"))]
pub use dropping::DroppingStore;
pub use error::{ErrorKind, StoreError};
pub use memory::MemoryStore;
pub use writers::{Connection, WriterId, WriterStatus, Writers};

/// What keeps the records. Every implementation passes one conformance suite, a model test against an
/// ordered map.
#[tonic::async_trait]
pub trait ArchiveStore: fmt::Debug + Send + Sync + 'static {
    /// Who this store is: made once, kept for ever.
    fn store_id(&self) -> StoreId;

    /// Hands over a batch and returns once there is room for it; the [`Pending`] then ends when every record
    /// is durable and answerable, or refused. Batches of one caller are stored in the order of the calls.
    /// What is imported is kept apart from what arrives, so that old history does not sit between new.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the store is closed, [`ErrorKind::Invalid`] when the batch is larger
    /// than the store's whole queue.
    async fn append(&self, batch: Vec<NewRecord>, lane: Lane) -> Result<Pending, StoreError>;

    /// One page of history. There is no state between pages.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when bodies cannot be read now.
    async fn page(&self, query: Query) -> Result<Page, StoreError>;

    /// Records in order of arrival, of both lanes. It never waits: [`ArchiveStore::head`] tells when there is
    /// more.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when bodies cannot be read now.
    async fn tail(&self, query: TailQuery) -> Result<TailPage, StoreError>;

    /// The seq of the newest record that is or was answerable, as it grows; 0 in an empty store. It does not
    /// sink when that record is retired, nor over a restart that lost nothing, and later records get higher ones.
    fn head(&self) -> watch::Receiver<u64>;

    /// A bound of what retention took away: no record with a higher seq was ever retired, so a reader in order
    /// of arrival that stands here or further has missed nothing by it, and one that stands lower may have. 0
    /// when nothing was ever retired, never above the head. It never sinks, also over a restart, and is raised
    /// before the records vanish: when it is not above `after` once a [`TailPage`] is there, that page lacks none.
    fn retired_seq(&self) -> u64;

    /// Whether the store takes records, as it changes.
    fn writable(&self) -> watch::Receiver<Writable>;

    /// For each id the record, if it is stored; with an empty body unless asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when bodies cannot be read now.
    async fn lookup(
        &self,
        space: Space,
        ids: Vec<Hash>,
        with_bodies: bool,
    ) -> Result<Vec<Option<Record>>, StoreError>;

    /// What the store holds.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the store cannot tell now.
    async fn stats(&self) -> Result<StoreStats, StoreError>;

    /// A writer has connected, at this time (nanoseconds since 1970), that takes no record which is older than
    /// `max_intake_age`. From now on, and durably, it is one that may hold records back: until it says goodbye, or is
    /// forgotten. What is believed of it while it is connected is its last report; before the first, what would be if
    /// it were away (nothing of a new one).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Full`] when that cannot be made durable,
    /// [`ErrorKind::Invalid`] when too many writers are known.
    async fn writer_connected(
        &self,
        writer: &WriterId,
        at_ns: i64,
        max_intake_age: Duration,
    ) -> Result<Connection, StoreError>;

    /// A connected writer tells the creation time of the oldest record that it has held back for long, or
    /// that there is none. What an older connection of the same writer says is not heard.
    ///
    /// # Errors
    /// As [`ArchiveStore::writer_connected`]; [`StoreError::Displaced`] on an older connection.
    async fn writer_reports(
        &self,
        writer: &WriterId,
        connection: Connection,
        held_back_ns: Option<i64>,
    ) -> Result<(), StoreError>;

    /// A connection of a writer has ended: with a goodbye, when the writer holds nothing back; or without: then
    /// it holds back everything that it took since its last report, as old as it takes records, or what it held back
    /// then if that is older. The store may take a time that is up to two minutes earlier. Without a report it is
    /// everything since it first connected, or what was believed before. So it is for every writer when the store is
    /// opened again.
    ///
    /// # Errors
    /// As [`ArchiveStore::writer_connected`]; [`StoreError::Displaced`] for a goodbye on an older connection.
    async fn writer_left(
        &self,
        writer: &WriterId,
        connection: Connection,
        goodbye: bool,
    ) -> Result<(), StoreError>;

    /// Waits no longer for a writer that is away. False when it is not known, or connected.
    ///
    /// # Errors
    /// As [`ArchiveStore::writer_connected`].
    async fn forget_writer(&self, writer: &WriterId) -> Result<bool, StoreError>;

    /// Every writer that may hold something back, sorted by id.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the store cannot tell now.
    async fn writers(&self) -> Result<Vec<WriterStatus>, StoreError>;

    /// Raises the floor of a space to this creation time (nanoseconds since 1970): what is older is no longer
    /// answered by a page, a tail or a look-up, from before this returns, and refused when it is appended; its
    /// place on disk is given back as far as it can be. A floor never sinks: a lower one changes nothing (J7).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Full`] when the new floor cannot be made durable.
    async fn retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError>;

    /// What [`ArchiveStore::retire`] would do, without doing it: it tells the same.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the store cannot tell now.
    async fn would_retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError>;

    /// Sets how long records are kept; the store sees to it by itself from now on, at once and then all
    /// the time. What is set durably is an override: it outlives the process and beats what is set otherwise (by
    /// the configuration, at each start) until [`ArchiveStore::reset_retention`].
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Full`] when an override cannot be made durable; nothing has
    /// changed then.
    async fn set_retention(&self, retention: Retention, durable: bool) -> Result<(), StoreError>;

    /// Takes the override back, durably: what the configuration says counts again.
    ///
    /// # Errors
    /// As [`ArchiveStore::set_retention`].
    async fn reset_retention(&self) -> Result<(), StoreError>;

    /// What was set, and what is in force.
    fn retention(&self) -> Retentions;

    /// Reads everything that is stored and compares it with its checksums and with the index. What turns out
    /// damaged goes to quarantine; what cannot be read is passed over and counted. `progress` is called now and
    /// then; false from it ends the verification.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when another verification is running.
    async fn verify(&self, progress: ProgressFn) -> Result<Verification, StoreError>;

    /// Finishes what was handed over, makes it durable and gives the store's files back.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Full`] when the last of it could not be made durable; it
    /// was not acknowledged then.
    async fn close(&self) -> Result<(), StoreError>;
}

/// What is told while a long job goes on; false ends the job.
pub type ProgressFn = Arc<dyn Fn(Progress) -> bool + Send + Sync>;

/// How far a long job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Which way records come into a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// As they arrive.
    Live,
    /// History of another archive.
    Imported,
}

/// Whether a store takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// It does.
    Yes,
    /// It does not, and why, for people.
    No(String),
}

impl Writable {
    /// Whether it does.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// How long records are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records with an older creation time are retired.
    pub max_age: Option<Duration>,
    /// The oldest records are retired while the store's files are larger than this many bytes.
    pub max_bytes: Option<u64>,
    /// But for the sake of `max_bytes` no record younger than this is retired: then the store refuses new
    /// ones instead, so that nobody can flush other people's history (J7).
    pub min_age: Duration,
}

/// What a store was told about retention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retentions {
    /// By the configuration.
    pub configured: Retention,
    /// By an operator, durably, in its place.
    pub overridden: Option<Retention>,
}

impl Retentions {
    /// What counts.
    #[must_use]
    pub fn in_force(&self) -> Retention {
        self.overridden.unwrap_or(self.configured)
    }

    /// Takes note of what was set.
    pub fn set(&mut self, retention: Retention, durable: bool) {
        if durable {
            self.overridden = Some(retention);
        } else {
            self.configured = retention;
        }
    }
}

/// What a retention took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retired {
    /// The floor of the space now, nanoseconds since 1970.
    pub floor_ns: Option<i64>,
    /// Records between the floor before and the floor now: they are answered no more. Of segments whose index is
    /// being made anew they are not known.
    pub hidden: u64,
    /// Records that are gone from disk at once, hidden now or before. The others share a file with younger records,
    /// or with what was stored last, and go with it.
    pub records: u64,
    /// Bytes given back at once.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Records that were read and are what the index says.
    pub records: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Damaged places that were not known before; they are in quarantine now.
    pub quarantined: u64,
    /// Index files that did not agree with their segment; they are made anew.
    pub indexes_rebuilt: u64,
    /// Files of which the disk did not give some part: what stands there was not compared, and nothing was given up
    /// for it.
    pub unreadable: u64,
    /// Segments that were passed over because their index was being made anew.
    pub unindexed: u64,
    /// False when it was ended before its end, or passed over a segment.
    pub complete: bool,
    /// Each finding in words, at most 1,000.
    pub findings: Vec<String>,
}

/// Identity of a store: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a writer sends: the rest is derived.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Where it belongs.
    pub space: Space,
    /// The bytes as received.
    pub body: Bytes,
}

impl fmt::Debug for NewRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRecord").field("space", &self.space).field("body_bytes", &self.body.len()).finish()
    }
}

/// What became of one record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Now durable and answerable.
    Stored,
    /// Was already durable and answerable; the first record stays.
    Duplicate,
    /// Not a record: sending it again does not help.
    Refused(Refusal),
    /// Of a topic that this archive does not keep: not stored, and nothing is wrong.
    NotKept,
    /// Its writer has used up what it may store of records of that size for now.
    OverQuota(String),
    /// The store cannot take it now: send it again later. The text is for people.
    Unavailable(String),
}

/// The outcomes of a batch, one for each record in its order, once they are known. Dropping it takes nothing
/// back.
pub struct Pending(Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>);

impl Pending {
    /// Outcomes that a future will bring.
    pub fn new(outcomes: impl Future<Output = Vec<Outcome>> + Send + 'static) -> Self {
        Self(Box::pin(outcomes))
    }

    /// Outcomes that are known already.
    #[must_use]
    pub fn ready(outcomes: Vec<Outcome>) -> Self {
        Self::new(std::future::ready(outcomes))
    }
}

impl Future for Pending {
    type Output = Vec<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Which records of a range are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All.
    Everything,
    /// Those of these topics; none matches nothing.
    Topics(Vec<Topic>),
    /// Those whose topic's projection the filter covers.
    Bloom(Box<Bloom>),
}

/// Which way a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// A question for one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Where to look.
    pub space: Space,
    /// Inclusive lower bound of the creation time, nanoseconds.
    pub from_ns: i64,
    /// Inclusive upper bound of the creation time, nanoseconds.
    pub to_ns: i64,
    /// Which records of the range.
    pub filter: Filter,
    /// In which order.
    pub direction: Direction,
    /// The most records of a page, at least 1.
    pub max_records: usize,
    /// The most bytes of bodies on a page; a single larger record still makes one.
    pub max_bytes: usize,
    /// Continue behind this position (ascending) or before it (descending).
    pub cursor: Option<Position>,
}

/// One page of history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The records, in the order asked for.
    pub records: Vec<Record>,
    /// The cursor of the next page; absent at the end of the range.
    pub next: Option<Position>,
    /// No known writer holds back a record that is older than this creation time, nanoseconds since 1970;
    /// absent when nothing is held back. Records from here on may still come. It holds for this page: what a
    /// writer handed over while the page was made is on it, or counts as held back.
    pub complete_until_ns: Option<i64>,
    /// No record of this creation time or later was retired, nanoseconds since 1970; absent when none ever was.
    /// It holds for this page: what was retired while the page was made, and is not on it, is below.
    pub floor_ns: Option<i64>,
    /// Damaged places of the store: each may be a gap, perhaps in what was asked for.
    pub quarantined: u64,
}

/// A question for records in order of arrival.
#[derive(Debug, Clone)]
pub struct TailQuery {
    /// Where to look.
    pub space: Space,
    /// Records behind this seq.
    pub after: u64,
    /// And up to this one, if given.
    pub until: Option<u64>,
    /// Records of these topics, or all.
    pub topics: Option<Arc<HashSet<Topic>>>,
    /// The most records, at least 1.
    pub max_records: usize,
    /// The most bytes of bodies; a single larger record still comes.
    pub max_bytes: usize,
}

/// Records in order of arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailPage {
    /// The records.
    pub records: Vec<Record>,
    /// Everything up to this seq has been looked at: continue behind it. It may be larger than the last
    /// record's, is never beyond `until` or the head, and is above `after` where they are.
    pub scanned: u64,
}

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// The highest seq given.
    pub seq: u64,
    /// Each space that holds something, or has a floor.
    pub spaces: Vec<SpaceStats>,
    /// Bytes of the store's files.
    pub file_bytes: u64,
    /// Damaged places that were quarantined; each may be a gap.
    pub quarantined: u64,
    /// Bytes in them.
    pub quarantined_bytes: u64,
    /// How many segment files there are.
    pub segments: u64,
    /// Whether the store takes records.
    pub writable: Option<Writable>,
    /// How far an index that is being made anew is; absent when none is. Until then answers are not complete
    /// and say so, and no records are taken.
    pub indexing: Option<Progress>,
    /// How long records are kept.
    pub retention: Retention,
}

/// What one space holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceStats {
    /// Which.
    pub space: Space,
    /// How many records; some may be below the floor and wait for their file to be removed.
    pub records: u64,
    /// Sum of the bodies, bytes.
    pub bytes: u64,
    /// How many distinct topics. It may be too low for a while after a start that has to count them again.
    pub topics: u64,
    /// Creation time of the oldest record, nanoseconds.
    pub oldest_ns: Option<i64>,
    /// Creation time of the newest record, nanoseconds.
    pub newest_ns: Option<i64>,
    /// No record of this creation time or later was retired, nanoseconds; absent when none ever was.
    pub floor_ns: Option<i64>,
}
