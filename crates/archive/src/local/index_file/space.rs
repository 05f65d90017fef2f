//! The records of one space in an index file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use poste_wire::{Hash, Topic};

use super::blocks::Blocks;
use super::cursor::Ranks;
use super::filter::IdFilter;
use super::format::{POSITION_BYTES, Sections, TOPIC_BYTES, array_at, entry_blocks, position_at, u32_at};
use super::search::first_not_below;
use super::{
    ArrivalCursor, EntryCursor, EntryReader, IndexEntry, IndexError, Run, RunCursor, SpaceSummary,
    TopicTable, invalid,
};
use crate::record::Position;

/// The records of one space in an index file. A rank is the place of a record by position.
#[derive(Debug, Clone, Copy)]
pub(in crate::local) struct SpaceIndex<'a> {
    blocks: &'a Blocks,
    summary: &'a SpaceSummary,
    sections: &'a Sections,
    resident: &'a Resident,
}

impl<'a> SpaceIndex<'a> {
    pub(super) fn new(
        blocks: &'a Blocks,
        summary: &'a SpaceSummary,
        sections: &'a Sections,
        resident: &'a Resident,
    ) -> Self {
        Self { blocks, summary, sections, resident }
    }

    /// How many records there are; ranks are below it.
    pub(in crate::local) fn len(self) -> u32 {
        self.summary.records
    }

    /// What the footer tells.
    pub(in crate::local) fn summary(self) -> &'a SpaceSummary {
        self.summary
    }

    /// The distinct topics; resident from the first use on.
    pub(in crate::local) fn topics(self) -> Result<Arc<TopicTable>, IndexError> {
        self.resident.topics.get_or_load(|| {
            let mut topics = Vec::with_capacity(self.summary.topics as usize);
            self.blocks.scan_items(
                self.sections.topics,
                self.summary.topics,
                |item: &[u8; TOPIC_BYTES]| {
                    topics.push((Topic(array_at(item, 0)), u32_at(item, 4)));
                    Ok(())
                },
            )?;
            let bytes = size_of_val(topics.as_slice());
            let table = TopicTable::new(topics, self.len()).ok_or_else(|| invalid("topics out of order"))?;
            Ok((table, bytes))
        })
    }

    /// The rank of the first entry that is not before a position, or [`SpaceIndex::len`].
    pub(in crate::local) fn rank_of(self, position: &Position) -> Result<u32, IndexError> {
        self.entries(0).seek(position)
    }

    /// A cursor by position, before the entry with a rank.
    pub(in crate::local) fn entries(self, from_rank: u32) -> EntryCursor<'a> {
        EntryCursor::new(self, from_rank)
    }

    /// A cursor over the records of a topic, before the first.
    pub(in crate::local) fn run(self, run: Run) -> RunCursor<'a> {
        RunCursor::new(self, run)
    }

    /// A cursor by order of arrival, before the first record whose seq is above `after_seq`.
    pub(in crate::local) fn arrivals(self, after_seq: u64) -> Result<ArrivalCursor<'a>, IndexError> {
        ArrivalCursor::after(self, after_seq)
    }

    /// Reads single entries; keeps the last block.
    pub(in crate::local) fn reader(self) -> EntryReader<'a> {
        EntryReader::new(self, 1)
    }

    /// The entry with a rank.
    pub(in crate::local) fn entry(self, rank: u32) -> Result<IndexEntry, IndexError> {
        self.reader().entry(rank)
    }

    /// The record at a position.
    pub(in crate::local) fn find(self, position: &Position) -> Result<Option<IndexEntry>, IndexError> {
        let range = self.summary.oldest..=self.summary.newest;
        if !range.contains(position) || !self.filter()?.may_contain(&position.id) {
            return Ok(None);
        }
        let mut cursor = self.entries(0);
        cursor.seek(position)?;
        Ok(cursor.next()?.filter(|entry| entry.position == *position))
    }

    /// The record with an id, wherever it stands.
    pub(in crate::local) fn find_id(self, id: &Hash) -> Result<Option<IndexEntry>, IndexError> {
        if !self.filter()?.may_contain(id) {
            return Ok(None);
        }
        let mut ranks = Ranks::new(self, self.sections.id_ranks, 0..self.len());
        let mut reader = self.reader();
        let head = id_head(id);
        let mut place = first_not_below(self.len(), 0..=u64::MAX, head, |place| {
            Ok(id_head(&reader.entry(ranks.get(place)?)?.position.id))
        })?;
        while place < self.len() {
            let entry = reader.entry(ranks.get(place)?)?;
            if entry.position.id >= *id {
                return Ok((entry.position.id == *id).then_some(entry));
            }
            place += 1;
        }
        Ok(None)
    }

    /// The positions of the first entry of each block; resident from the first use on.
    pub(super) fn firsts(self) -> Result<Arc<Vec<Position>>, IndexError> {
        self.resident.firsts.get_or_load(|| {
            let count = entry_blocks(self.len());
            let mut firsts = Vec::with_capacity(count as usize);
            self.blocks.scan_items(self.sections.firsts, count, |item: &[u8; POSITION_BYTES]| {
                firsts.push(position_at(item, 0));
                Ok(())
            })?;
            let bytes = size_of_val(firsts.as_slice());
            Ok((firsts, bytes))
        })
    }

    /// Which ids are not there; resident from the first use on.
    pub(super) fn filter(self) -> Result<Arc<IdFilter>, IndexError> {
        self.resident.filter.get_or_load(|| {
            let size = IdFilter::bytes_for(self.len());
            let mut bytes = Vec::with_capacity(size);
            self.blocks.scan(self.sections.filter, self.sections.end - self.sections.filter, |content| {
                bytes.extend_from_slice(&content[..content.len().min(size - bytes.len())]);
                Ok(())
            })?;
            Ok((IdFilter::from_bytes(self.len(), bytes), size))
        })
    }

    pub(super) fn blocks(self) -> &'a Blocks {
        self.blocks
    }

    pub(super) fn sections(self) -> &'a Sections {
        self.sections
    }
}

/// What ids are sorted by before the rest of them.
pub(super) fn id_head(id: &Hash) -> u64 {
    u64::from_be_bytes(array_at(&id.0, 0))
}

/// What is held in memory of one space, from its first use on.
#[derive(Debug, Default)]
pub(super) struct Resident {
    topics: Part<TopicTable>,
    firsts: Part<Vec<Position>>,
    filter: Part<IdFilter>,
}

impl Resident {
    pub(super) fn bytes(&self) -> usize {
        self.topics.bytes() + self.firsts.bytes() + self.filter.bytes()
    }

    pub(super) fn forget(&self) {
        self.topics.forget();
        self.firsts.forget();
        self.filter.forget();
    }
}

#[derive(Debug)]
struct Part<T> {
    value: Mutex<Option<Arc<T>>>,
    /// Beside the lock, which is held while the value is read from the disk.
    bytes: AtomicUsize,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), bytes: AtomicUsize::new(0) }
    }
}

impl<T> Part<T> {
    /// The value; `load` gives it with its size in bytes.
    fn get_or_load(
        &self,
        load: impl FnOnce() -> Result<(T, usize), IndexError>,
    ) -> Result<Arc<T>, IndexError> {
        let mut value = self.value.lock();
        if let Some(value) = value.as_ref() {
            return Ok(Arc::clone(value));
        }
        let (loaded, bytes) = load()?;
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(Arc::clone(value.insert(Arc::new(loaded))))
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn forget(&self) {
        let mut value = self.value.lock();
        self.bytes.store(0, Ordering::Relaxed);
        // Freed after the lock.
        let _value = value.take();
        drop(value);
    }
}
