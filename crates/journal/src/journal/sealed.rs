//! Sealed segments: when the open one becomes one, which there are, and how they go.

use std::io;
use std::time::Duration;

use super::Journal;
use crate::error::JournalError;
use crate::segment::{HEADER_BYTES, file_name};

impl Journal {
    /// Whether the open segment holds frames and is as old as [`super::Options::segment_age`]. A segment is sealed when
    /// something more comes; an owner of a quiet journal asks this and calls [`Journal::seal`].
    #[must_use]
    pub fn seal_due(&self, now_ms: u64) -> bool {
        let age = Duration::from_millis(now_ms.saturating_sub(self.segment.created_ms));
        self.segment.written > HEADER_BYTES && age >= self.options.segment_age
    }

    /// Syncs, and if the open segment holds frames, seals it and begins the next. Returns the number of the segment
    /// that never changes from now on.
    ///
    /// # Errors
    /// [`JournalError::Io`] poisons the journal; [`JournalError::Poisoned`] as long as it is.
    pub fn seal(&mut self, now_ms: u64) -> Result<Option<u32>, JournalError> {
        self.sync()?;
        if self.segment.written == HEADER_BYTES {
            return Ok(None);
        }
        self.roll(now_ms).map(Some)
    }

    /// Numbers and lengths (bytes) of the sealed segments, in order: also of those that were not wanted when the
    /// journal was opened.
    #[must_use]
    pub fn segments(&self) -> Vec<(u32, u64)> {
        self.sealed.iter().map(|(&number, &bytes)| (number, bytes)).collect()
    }

    /// Removes a sealed segment and everything in it, durably, and returns how many bytes that gave back. It works on
    /// a full disk and while the journal is poisoned, and never poisons it. A segment that is not there is fine.
    ///
    /// # Errors
    /// [`JournalError::StillOpen`] for the segment that is written to. [`JournalError::Io`] when the disk refuses: the
    /// segment may come back after a power cut, and counts until another call succeeds.
    pub fn remove(&mut self, segment: u32) -> Result<u64, JournalError> {
        if segment == self.segment.number {
            return Err(JournalError::StillOpen { segment });
        }
        let path = self.lock.dir().join(file_name(segment));
        let removed = self.lock.disk().remove(&path);
        self.let_go(segment, "remove", removed)
    }

    /// Takes a sealed segment out of the journal and leaves its file on disk for people to look at, named
    /// `segment-….journal.damaged`. Otherwise as [`Journal::remove`].
    ///
    /// # Errors
    /// As [`Journal::remove`].
    pub fn set_aside(&mut self, segment: u32) -> Result<u64, JournalError> {
        if segment == self.segment.number {
            return Err(JournalError::StillOpen { segment });
        }
        let name = file_name(segment);
        let dir = self.lock.dir();
        let renamed = self.lock.disk().rename(&dir.join(&name), &dir.join(name + ".damaged"));
        self.let_go(segment, "rename", renamed)
    }

    /// The file of a segment has gone, or was not there.
    fn let_go(
        &mut self,
        segment: u32,
        action: &'static str,
        gone: io::Result<()>,
    ) -> Result<u64, JournalError> {
        let (disk, dir) = (self.lock.disk(), self.lock.dir());
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(JournalError::io(action, &dir.join(file_name(segment)))(error));
            }
            _ => self.reader.forget(segment),
        }
        disk.sync_dir(dir).map_err(JournalError::io("fsync", dir))?;
        Ok(self.sealed.remove(&segment).unwrap_or(0))
    }
}
