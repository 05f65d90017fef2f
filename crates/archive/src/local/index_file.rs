//! The index of a sealed segment: one immutable file that tells by position, by topic, by id and by order of
//! arrival where each record's frame is. It is made from the segment alone, so a file that is missing or
//! damaged is made anew. About 70 bytes a record on disk; in memory the footer, and on demand some two
//! bytes a record more that can be given back. Every block that is read is verified. [`format`] describes
//! the bytes.

mod blocks;
mod cursor;
mod filter;
mod format;
mod search;
mod space;
mod summary;
#[cfg(test)]
mod tests;
mod topics;
mod verify;
mod write;

use std::io;
use std::path::Path;
use std::sync::Arc;

use poste_journal::{Disk, DiskFile};
use poste_wire::Topic;

use crate::record::{Position, Space};
use crate::store::{Lane, StoreId};
use blocks::Blocks;
use format::{Footer, Sections};
use space::Resident;

pub(super) use cursor::{ArrivalCursor, EntryCursor, EntryReader, RunCursor};
pub(super) use space::SpaceIndex;
pub(super) use summary::{SpaceSummary, Summary};
pub(super) use topics::{Run, TopicTable};
pub(super) use write::write;

/// Which segment an index file belongs to: the start of every checksum in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexKey {
    pub(super) store_id: StoreId,
    pub(super) lane: Lane,
    /// Number of the segment in its lane.
    pub(super) segment: u32,
}

/// Where one record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) position: Position,
    pub(super) topic: Topic,
    pub(super) seq: u64,
    /// Offset of the frame in the segment's file, bytes.
    pub(super) offset: u32,
    /// Length of the frame's payload, bytes.
    pub(super) payload_bytes: u32,
}

/// A damaged part of a segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Why an index file does not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// The disk refuses: asking again may help.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is missing, damaged, or not the index of this segment: it is to be made anew from the segment.
    #[error("the index file cannot be used and is to be made anew from its segment: {0}")]
    Invalid(String),
}

/// An open index file.
#[derive(Debug)]
pub(super) struct IndexFile {
    key: IndexKey,
    blocks: Blocks,
    summary: Summary,
    /// As many as the summary has spaces.
    spaces: Vec<(Sections, Resident)>,
}

impl IndexFile {
    /// Opens the file and reads its footer.
    pub(super) fn open(disk: &dyn Disk, path: &Path, key: IndexKey) -> Result<Self, IndexError> {
        let file = match disk.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IndexError::Invalid("it is missing".to_owned()));
            }
            opened => opened?,
        };
        Self::of(file, key)
    }

    fn of(file: Arc<dyn DiskFile>, key: IndexKey) -> Result<Self, IndexError> {
        let blocks = Blocks::of(file, &key)?;
        let Footer { summary, sections } = blocks.footer(&key)?;
        let spaces = sections.into_iter().map(|sections| (sections, Resident::default())).collect();
        Ok(Self { key, blocks, summary, spaces })
    }

    /// What the footer tells.
    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The records of a space, if there are any.
    pub(super) fn space(&self, space: Space) -> Option<SpaceIndex<'_>> {
        self.spaces().find(|index| index.summary().space == space)
    }

    /// Reads the whole file: every checksum, every order, and that all parts tell of the same records.
    pub(super) fn verify(&self) -> Result<(), IndexError> {
        verify::verify(self)
    }

    /// Memory of the parts that were loaded on demand, bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        self.spaces.iter().map(|(_, resident)| resident.bytes()).sum()
    }

    /// Gives that memory back; who is using a part keeps it for as long. It is loaded again on demand.
    pub(super) fn forget_resident(&self) {
        self.spaces.iter().for_each(|(_, resident)| resident.forget());
    }

    fn spaces(&self) -> impl Iterator<Item = SpaceIndex<'_>> {
        let spaces = self.summary.spaces.iter().zip(&self.spaces);
        spaces
            .map(|(summary, (sections, resident))| SpaceIndex::new(&self.blocks, summary, sections, resident))
    }
}

fn invalid(reason: impl Into<String>) -> IndexError {
    IndexError::Invalid(reason.into())
}
