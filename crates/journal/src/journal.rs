//! The writing side: append a group, sync it, roll to the next segment, and come back after an error.

mod open;
mod sealed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{DiskFile, write_all_at};
use crate::error::JournalError;
use crate::group::Group;
use crate::lock::DirectoryLock;
use crate::reader::Reader;
use crate::scan::{damage, scan};
use crate::segment::{FrameAt, HEADER_BYTES, Header, SegmentKey, file_name};

pub use crate::scan::Damage;
pub use open::{Recovery, Replay};

/// How a journal cuts itself into segments, and whose it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Identity of the journal: 16 random bytes, kept by its owner. Files of another journal are refused.
    pub journal_id: [u8; 16],
    /// A segment is sealed before it would grow beyond this many bytes (at most 2 GiB; one group may be
    /// larger than a segment and then has one of its own).
    pub segment_bytes: u64,
    /// A segment is sealed when it is this old and something more comes.
    pub segment_age: Duration,
    /// The smallest number that a new segment may have. A number is never given twice: an owner that removes
    /// segments passes one more than the highest that it remembers. The journal itself goes on from what it finds.
    pub min_number: u32,
}

impl Options {
    /// Segments of 256 MiB or one hour.
    #[must_use]
    pub fn new(journal_id: [u8; 16]) -> Self {
        Self {
            journal_id,
            segment_bytes: 256 * 1024 * 1024,
            segment_age: Duration::from_secs(3600),
            min_number: 1,
        }
    }
}

/// What [`Journal::append`] did.
#[derive(Debug, Default)]
pub struct Appended {
    /// The place of each payload, in the order of the group. Not durable before [`Journal::sync`].
    pub frames: Vec<FrameAt>,
    /// The segment that was sealed before, if this group began a new one: it never changes again.
    pub sealed: Option<u32>,
}

/// What [`Journal::reopen`] found.
#[derive(Debug, Default)]
pub struct Reopened {
    /// What had been durable and can no longer be read.
    pub quarantined: Vec<Damage>,
    /// The segment that was left behind, verified and cut to what was durable.
    pub sealed: Option<u32>,
}

/// The writing side of a journal. It has one owner; see the crate's promises J1 to J3.
#[derive(Debug)]
pub struct Journal {
    lock: DirectoryLock,
    options: Options,
    segment: OpenSegment,
    next_number: u32,
    /// Length of each segment before the open one, bytes.
    sealed: BTreeMap<u32, u64>,
    poisoned: bool,
    reader: Reader,
}

#[derive(Debug)]
struct OpenSegment {
    number: u32,
    key: SegmentKey,
    created_ms: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    written: u64,
    /// What is durable; acknowledged bytes end here.
    durable: u64,
}

impl Journal {
    const MAX_SEGMENT_BYTES: u64 = 1 << 31;

    /// Writes a group behind what is there, rolling to a new segment first when the open one is full or
    /// old. `now_ms` is the unix time in milliseconds. The group keeps its payloads.
    ///
    /// # Errors
    /// [`JournalError::Io`] poisons the journal; [`JournalError::Poisoned`] as long as it is.
    pub fn append(&mut self, group: &mut Group, now_ms: u64) -> Result<Appended, JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        if group.is_empty() {
            return Ok(Appended::default());
        }
        let mut sealed = None;
        if self.must_roll(group.file_bytes() as u64, now_ms) {
            sealed = Some(self.roll(now_ms)?);
        }
        let segment = &mut self.segment;
        let frames = group.seal(segment.key, segment.number, segment.written);
        if let Err(error) = write_all_at(segment.file.as_ref(), group.bytes(), segment.written) {
            self.poisoned = true;
            return Err(JournalError::io("write", &segment.path)(error));
        }
        segment.written += group.file_bytes() as u64;
        Ok(Appended { frames, sealed })
    }

    /// Makes everything appended so far durable: one fdatasync.
    ///
    /// # Errors
    /// [`JournalError::Io`] poisons the journal: nothing appended since the last success is durable for
    /// sure. [`JournalError::Poisoned`] as long as it is.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        let segment = &mut self.segment;
        if segment.durable < segment.written {
            if let Err(error) = segment.file.sync_data() {
                self.poisoned = true;
                return Err(JournalError::io("fsync", &segment.path)(error));
            }
            segment.durable = segment.written;
        }
        Ok(())
    }

    /// True after an error of a write or an fsync, until [`Journal::reopen`] succeeds.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Comes back after an error, without a restart. What was appended but not synced is cut off; what was
    /// durable is read again from the disk, past the cache, since a failed fsync may have dropped pages
    /// that the cache still shows; writing goes on in a new segment. Does nothing when all is well.
    ///
    /// # Errors
    /// [`JournalError::Io`] while the disk still refuses: try again later.
    pub fn reopen(&mut self, now_ms: u64) -> Result<Reopened, JournalError> {
        if !self.poisoned {
            return Ok(Reopened::default());
        }
        let OpenSegment { number, key, durable, .. } = self.segment;
        let (file, path) = (Arc::clone(&self.segment.file), self.segment.path.clone());
        file.truncate(durable).map_err(JournalError::io("truncate", &path))?;
        file.sync_data().map_err(JournalError::io("fsync", &path))?;
        file.forget_cached().map_err(JournalError::io("drop the cache of", &path))?;
        self.segment.written = durable;
        let found = scan(file.as_ref(), key, durable, |_, _| {});
        if found.unreadable {
            // What the disk refuses now it may give later: only what reads wrongly is damage.
            let error = io::Error::other("a part of it cannot be read");
            return Err(JournalError::io("verify", &path)(error));
        }
        let quarantined: Vec<Damage> = found.damaged.iter().map(|range| damage(number, range)).collect();
        self.begin_segment(now_ms)?;
        self.poisoned = false;
        if durable > HEADER_BYTES {
            return Ok(Reopened { quarantined, sealed: Some(number) });
        }
        // Nothing was ever acknowledged in it: without this every attempt on a full disk leaves a file.
        self.sealed.remove(&number);
        let disk = self.lock.disk();
        if let Err(error) = disk.remove(&path).and_then(|()| disk.sync_dir(self.lock.dir())) {
            tracing::warn!(%error, "an empty journal segment could not be removed");
        }
        Ok(Reopened::default())
    }

    /// Reads frames back; usable from other threads, also after the journal is closed.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Bytes of all segment files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.sealed.values().sum::<u64>() + self.segment.written
    }

    /// Whether the disk takes `bytes` more: writes them behind what is there, syncs, and cuts them off again. What
    /// an interrupted probe leaves is a torn tail.
    ///
    /// # Errors
    /// [`JournalError::Io`] poisons the journal; [`JournalError::Poisoned`] as long as it is.
    pub fn probe(&mut self, bytes: usize) -> Result<(), JournalError> {
        const BLOCK: [u8; 4096] = [0; 4096];
        self.sync()?;
        self.poisoned = true;
        let OpenSegment { file, path, written, .. } = &self.segment;
        for offset in (0..bytes).step_by(BLOCK.len()) {
            let block = &BLOCK[..BLOCK.len().min(bytes - offset)];
            write_all_at(file.as_ref(), block, written + offset as u64)
                .map_err(JournalError::io("write", path))?;
        }
        file.sync_data().map_err(JournalError::io("fsync", path))?;
        file.truncate(*written).map_err(JournalError::io("truncate", path))?;
        file.sync_data().map_err(JournalError::io("fsync", path))?;
        self.poisoned = false;
        Ok(())
    }

    /// Number of the segment that is written to.
    #[must_use]
    pub fn open_segment(&self) -> u32 {
        self.segment.number
    }

    /// Syncs and gives the directory back.
    ///
    /// # Errors
    /// As [`Journal::sync`].
    pub fn close(mut self) -> Result<(), JournalError> {
        self.sync()
    }

    fn must_roll(&self, group_bytes: u64, now_ms: u64) -> bool {
        let segment = &self.segment;
        let limit = self.options.segment_bytes.min(Self::MAX_SEGMENT_BYTES);
        let full = segment.written > HEADER_BYTES && segment.written + group_bytes > limit;
        full || self.seal_due(now_ms)
    }

    /// Makes what the open segment holds durable and begins the next; returns the number that is sealed now.
    fn roll(&mut self, now_ms: u64) -> Result<u32, JournalError> {
        let sealed = self.segment.number;
        self.sync()?;
        self.poisoned = true;
        self.begin_segment(now_ms)?;
        self.poisoned = false;
        Ok(sealed)
    }

    /// Makes the next segment durable and writes there from now on.
    fn begin_segment(&mut self, now_ms: u64) -> Result<(), JournalError> {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        let segment = create_segment(&self.lock, &self.options.journal_id, number, now_ms)?;
        let before = std::mem::replace(&mut self.segment, segment);
        self.sealed.insert(before.number, before.written);
        Ok(())
    }
}

/// A new segment with its header, durable under its name.
fn create_segment(
    lock: &DirectoryLock,
    journal_id: &[u8; 16],
    number: u32,
    now_ms: u64,
) -> Result<OpenSegment, JournalError> {
    let path = lock.dir().join(file_name(number));
    let file = lock.disk().create(&path).map_err(JournalError::io("create", &path))?;
    let header = Header { number, journal_id: *journal_id, created_ms: now_ms };
    let durable = write_all_at(file.as_ref(), &header.encode(), 0)
        .map_err(JournalError::io("write", &path))
        .and_then(|()| file.sync_data().map_err(JournalError::io("fsync", &path)))
        .and_then(|()| lock.disk().sync_dir(lock.dir()).map_err(JournalError::io("fsync", lock.dir())));
    if let Err(error) = durable {
        // What is left of it is no more than a header, which the next start ignores.
        let _ = lock.disk().remove(&path);
        return Err(error);
    }
    let key = SegmentKey::new(journal_id, number);
    Ok(OpenSegment {
        number,
        key,
        created_ms: now_ms,
        path,
        file,
        written: HEADER_BYTES,
        durable: HEADER_BYTES,
    })
}
