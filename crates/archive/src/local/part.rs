//! The parts of the store: one for each segment. The open segment of a lane is indexed in memory; a sealed one by
//! its index file. A question goes to the parts whose range it overlaps.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use poste_journal::Disk;
use poste_wire::Hash;

use super::index::Index;
use super::index_file::{IndexError, IndexFile, IndexKey, Stretch, Summary};
use super::question::Candidate;
use crate::record::{Position, Space};
use crate::store::{Lane, StoreId};

/// Which segment, of which lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentId {
    pub(super) lane: Lane,
    pub(super) number: u32,
}

/// One segment and what finds its records.
#[derive(Debug)]
pub(super) enum Part {
    Open(OpenPart),
    Sealed(SealedPart),
}

/// A segment that is indexed in memory: it is written to, or its index file is not there yet.
#[derive(Debug)]
pub(super) struct OpenPart {
    pub(super) id: SegmentId,
    pub(super) index: RwLock<Index>,
    /// Damaged stretches: what stood there is not in the index.
    quarantined: Mutex<Vec<Stretch>>,
}

/// A segment that never changes again, with its index file.
#[derive(Debug)]
pub(super) struct SealedPart {
    pub(super) id: SegmentId,
    pub(super) summary: Summary,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    key: IndexKey,
    file: Mutex<Option<Arc<IndexFile>>>,
    /// Stretches of the segment that turned out damaged: what the index says of them is not believed.
    quarantined: RwLock<Vec<Stretch>>,
    used: AtomicU64,
}

/// What a part holds of one space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) oldest: Position,
    pub(super) newest: Position,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) records: u64,
    pub(super) body_bytes: u64,
}

/// Why a part cannot be asked.
#[derive(Debug)]
pub(super) struct PartError {
    pub(super) id: SegmentId,
    pub(super) error: IndexError,
}

impl Part {
    pub(super) fn id(&self) -> SegmentId {
        match self {
            Self::Open(part) => part.id,
            Self::Sealed(part) => part.id,
        }
    }

    /// What it holds of a space; `None` when that is nothing.
    pub(super) fn span(&self, space: Space) -> Option<Span> {
        match self {
            Self::Open(part) => part.index.read().space(space)?.span(),
            Self::Sealed(part) => part.span(space),
        }
    }

    /// Whether it holds a record with this position; asked by question number `question`.
    pub(super) fn contains(
        &self,
        space: Space,
        position: &Position,
        question: u64,
    ) -> Result<bool, PartError> {
        match self {
            Self::Open(part) => Ok(part.index.read().contains(space, &position.id)),
            Self::Sealed(part) => {
                let Some(span) = part.span(space) else { return Ok(false) };
                if *position < span.oldest || *position > span.newest {
                    return Ok(false);
                }
                part.touch(question);
                part.ask(|file| match file.space(space) {
                    Some(index) => {
                        let found = index.find(position)?;
                        Ok(found.is_some_and(|entry| !part.is_quarantined(entry.offset)))
                    }
                    None => Ok(false),
                })
            }
        }
    }

    /// The record with this id.
    pub(super) fn candidate_by_id(&self, space: Space, id: &Hash) -> Result<Option<Candidate>, PartError> {
        match self {
            Self::Open(part) => {
                Ok(part.index.read().space(space).and_then(|index| index.candidate_by_id(id)))
            }
            Self::Sealed(part) => part.ask(|file| {
                let Some(index) = file.space(space) else { return Ok(None) };
                let found = index.find_id(id)?.map(|entry| part.candidate(&entry));
                Ok(found.filter(|candidate| !part.is_quarantined(candidate.at.offset)))
            }),
        }
    }

    /// Puts a stretch of the segment into quarantine. False when all of it was there already.
    pub(super) fn quarantine(&self, stretch: Stretch) -> bool {
        match self {
            Self::Open(part) => {
                part.index.write().remove_stretch(stretch.offset, stretch.bytes);
                add_stretch(&mut part.quarantined.lock(), stretch)
            }
            Self::Sealed(part) => add_stretch(&mut part.quarantined.write(), stretch),
        }
    }

    /// Its damaged stretches.
    pub(super) fn quarantined(&self) -> Vec<Stretch> {
        match self {
            Self::Open(part) => part.quarantined.lock().clone(),
            Self::Sealed(part) => part.quarantined.read().clone(),
        }
    }
}

/// False when all of it was there already.
pub(super) fn add_stretch(known: &mut Vec<Stretch>, new: Stretch) -> bool {
    let end = |stretch: &Stretch| stretch.offset.saturating_add(stretch.bytes);
    if known.iter().any(|known| known.offset <= new.offset && end(known) >= end(&new)) {
        return false;
    }
    known.push(new);
    true
}

impl OpenPart {
    pub(super) fn quarantined(&self) -> Vec<Stretch> {
        self.quarantined.lock().clone()
    }

    pub(super) fn new(id: SegmentId, index: Index, quarantined: Vec<Stretch>) -> Self {
        Self { id, index: RwLock::new(index), quarantined: Mutex::new(quarantined) }
    }
}

impl SealedPart {
    pub(super) fn new(
        id: SegmentId,
        disk: Arc<dyn Disk>,
        path: PathBuf,
        store_id: StoreId,
        summary: Summary,
        quarantined: Vec<Stretch>,
    ) -> Self {
        Self {
            id,
            summary,
            disk,
            path,
            key: IndexKey { store_id, lane: id.lane, segment: id.number },
            file: Mutex::new(None),
            quarantined: RwLock::new(quarantined),
            used: AtomicU64::new(0),
        }
    }

    pub(super) fn span(&self, space: Space) -> Option<Span> {
        let summary = self.summary.spaces.iter().find(|summary| summary.space == space)?;
        Some(Span {
            oldest: summary.oldest,
            newest: summary.newest,
            first_seq: summary.first_seq,
            last_seq: summary.last_seq,
            records: u64::from(summary.records),
            body_bytes: summary.body_bytes,
        })
    }

    /// The index file, opened when it is first asked for.
    pub(super) fn file(&self) -> Result<Arc<IndexFile>, PartError> {
        let mut file = self.file.lock();
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        let opened = IndexFile::open(self.disk.as_ref(), &self.path, self.key).and_then(|opened| {
            // The summary may come from the catalogue; the file has the last word.
            if *opened.summary() == self.summary {
                Ok(opened)
            } else {
                Err(IndexError::Invalid("it is not the file that the catalogue knows".to_owned()))
            }
        });
        let opened = Arc::new(opened.map_err(|error| PartError { id: self.id, error })?);
        *file = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Asks the index file.
    pub(super) fn ask<T>(
        &self,
        ask: impl FnOnce(&IndexFile) -> Result<T, IndexError>,
    ) -> Result<T, PartError> {
        let file = self.file()?;
        ask(&file).map_err(|error| PartError { id: self.id, error })
    }

    /// Remembers when it was asked last, in questions since the start.
    pub(super) fn touch(&self, question: u64) {
        self.used.store(question, Ordering::Relaxed);
    }

    pub(super) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Memory that its index takes.
    pub(super) fn resident_bytes(&self) -> usize {
        self.file.lock().as_ref().map_or(0, |file| file.resident_bytes())
    }

    /// Whether its index file is held open.
    pub(super) fn is_open(&self) -> bool {
        self.file.lock().is_some()
    }

    /// Gives back memory and the open file; whoever asks next reads again.
    pub(super) fn forget(&self) {
        *self.file.lock() = None;
    }

    pub(super) fn is_quarantined(&self, offset: u32) -> bool {
        let offset = u64::from(offset);
        self.quarantined
            .read()
            .iter()
            .any(|stretch| (stretch.offset..stretch.offset.saturating_add(stretch.bytes)).contains(&offset))
    }

    pub(super) fn has_quarantined(&self) -> bool {
        !self.quarantined.read().is_empty()
    }

    pub(super) fn candidate(&self, entry: &super::index_file::IndexEntry) -> Candidate {
        Candidate {
            position: entry.position,
            topic: entry.topic,
            seq: entry.seq,
            at: poste_journal::FrameAt {
                segment: self.id.number,
                offset: entry.offset,
                payload_bytes: entry.payload_bytes,
            },
        }
    }
}
