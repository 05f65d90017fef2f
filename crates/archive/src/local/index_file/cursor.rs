//! Walks over the entries of one space: by position, over the records of a topic, and by order of arrival. A
//! cursor stands in a gap between two items and steps up and down from it.

use std::ops::Range;

use super::format::{
    BLOCK_BYTES, CONTENT_BYTES, ENTRIES_PER_BLOCK, ENTRY_BYTES, RANK_BYTES, RANKS_PER_BLOCK, array_at,
};
use super::search::first_not_below;
use super::{IndexEntry, IndexError, Run, SpaceIndex, invalid};
use crate::record::Position;

/// Reads single entries and keeps the blocks they were in.
#[derive(Debug)]
pub(in crate::local) struct EntryReader<'a> {
    space: SpaceIndex<'a>,
    /// A block is kept in the slot that its number names, modulo their count.
    slots: Vec<Slot>,
}

/// A block of entries, and which; memory only from the first one on.
#[derive(Debug, Default)]
struct Slot {
    block: Option<u32>,
    bytes: Option<Box<[u8; BLOCK_BYTES]>>,
}

impl<'a> EntryReader<'a> {
    /// Keeps up to so many blocks of 4 KiB; at least one.
    pub(super) fn new(space: SpaceIndex<'a>, slots: usize) -> Self {
        let mut reader = Self { space, slots: Vec::new() };
        reader.slots.resize_with(slots.max(1), Slot::default);
        reader
    }

    /// The entry with a rank; ranks at and above [`SpaceIndex::len`] are [`IndexError::Invalid`].
    pub(in crate::local) fn entry(&mut self, rank: u32) -> Result<IndexEntry, IndexError> {
        let first_seq = self.space.summary().first_seq;
        Ok(IndexEntry::decode(&self.bytes(rank)?, first_seq))
    }

    /// The first entry of `ranks` that is not before a position, or their end. They are all in one block.
    fn first_not_before(&mut self, ranks: Range<u32>, position: &Position) -> Result<u32, IndexError> {
        let (mut low, mut high) = (ranks.start, ranks.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.position < *position { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn bytes(&mut self, rank: u32) -> Result<[u8; ENTRY_BYTES], IndexError> {
        if rank >= self.space.len() {
            return Err(invalid(format!("there is no entry {rank}")));
        }
        let (number, place) = (rank / ENTRIES_PER_BLOCK, (rank % ENTRIES_PER_BLOCK) as usize);
        let slots = self.slots.len();
        let slot = &mut self.slots[number as usize % slots];
        let bytes = slot.bytes.get_or_insert_with(|| Box::new([0; BLOCK_BYTES]));
        if slot.block != Some(number) {
            slot.block = None;
            self.space.blocks().read(self.space.sections().entries + number, bytes)?;
            slot.block = Some(number);
        }
        Ok(array_at(bytes.as_slice(), place * ENTRY_BYTES))
    }
}

/// Entries by position.
#[derive(Debug)]
pub(in crate::local) struct EntryCursor<'a> {
    reader: EntryReader<'a>,
    rank: u32,
}

impl<'a> EntryCursor<'a> {
    pub(super) fn new(space: SpaceIndex<'a>, rank: u32) -> Self {
        Self { reader: EntryReader::new(space, 1), rank: rank.min(space.len()) }
    }

    /// Goes to the first entry that is not before a position, and returns its rank.
    pub(in crate::local) fn seek(&mut self, position: &Position) -> Result<u32, IndexError> {
        let space = self.reader.space;
        let firsts = space.firsts()?;
        let behind = firsts.partition_point(|first| first <= position) as u32;
        self.rank = match behind.checked_sub(1) {
            None => 0,
            Some(block) => {
                let begin = block * ENTRIES_PER_BLOCK;
                let ranks = begin..(begin + ENTRIES_PER_BLOCK).min(space.len());
                self.reader.first_not_before(ranks, position)?
            }
        };
        Ok(self.rank)
    }

    /// The entry above the cursor, which goes up by it.
    pub(in crate::local) fn next(&mut self) -> Result<Option<IndexEntry>, IndexError> {
        if self.rank >= self.reader.space.len() {
            return Ok(None);
        }
        let entry = self.reader.entry(self.rank)?;
        self.rank += 1;
        Ok(Some(entry))
    }

    /// The entry below the cursor, which goes down by it.
    pub(in crate::local) fn previous(&mut self) -> Result<Option<IndexEntry>, IndexError> {
        let Some(rank) = self.rank.checked_sub(1) else { return Ok(None) };
        let entry = self.reader.entry(rank)?;
        self.rank = rank;
        Ok(Some(entry))
    }
}

/// A part of a section of ranks; it keeps what it needs of the block that it read last.
#[derive(Debug)]
pub(super) struct Ranks<'a> {
    space: SpaceIndex<'a>,
    section: u32,
    /// Which places of the section it is about.
    places: Range<u32>,
    /// Those of one block.
    loaded: Vec<u32>,
    loaded_from: u32,
}

impl<'a> Ranks<'a> {
    pub(super) fn new(space: SpaceIndex<'a>, section: u32, places: Range<u32>) -> Self {
        Self { space, section, loaded_from: places.start, places, loaded: Vec::new() }
    }

    /// The rank at one of its places.
    pub(super) fn get(&mut self, place: u32) -> Result<u32, IndexError> {
        let loaded = |ranks: &Self| ranks.loaded.get(place.checked_sub(ranks.loaded_from)? as usize).copied();
        if let Some(rank) = loaded(self) {
            return Ok(rank);
        }
        self.load(place / RANKS_PER_BLOCK)?;
        loaded(self).ok_or_else(|| invalid(format!("there is no rank {place}")))
    }

    /// Of places whose ranks ascend, the first whose rank is not below `rank`, or their end.
    fn first_not_below(&mut self, rank: u32) -> Result<u32, IndexError> {
        if self.places.is_empty() {
            return Ok(self.places.end);
        }
        let mut low = self.places.start / RANKS_PER_BLOCK;
        let mut high = (self.places.end - 1) / RANKS_PER_BLOCK + 1;
        // What was read last is looked at before anything else is read.
        let mut fresh = !self.loaded.is_empty();
        while low < high {
            let mut middle = low + (high - low) / 2;
            if fresh {
                middle = self.loaded_from / RANKS_PER_BLOCK;
            } else {
                self.load(middle)?;
            }
            fresh = false;
            match (self.loaded.first(), self.loaded.last()) {
                (Some(first), Some(last)) if *first < rank && rank <= *last => {
                    let place = self.loaded.partition_point(|loaded| *loaded < rank) as u32;
                    return Ok(self.loaded_from + place);
                }
                (_, Some(last)) if *last < rank => low = middle + 1,
                _ => high = middle,
            }
        }
        // All before this block is below, and its own first one is not: it was looked at, or is the end.
        Ok((low * RANKS_PER_BLOCK).clamp(self.places.start, self.places.end))
    }

    fn load(&mut self, block: u32) -> Result<(), IndexError> {
        let begin = (block * RANKS_PER_BLOCK).max(self.places.start);
        let end = ((block + 1) * RANKS_PER_BLOCK).min(self.places.end);
        self.loaded.clear();
        self.loaded_from = begin;
        let mut bytes = [0; BLOCK_BYTES];
        self.space.blocks().read(self.section + block, &mut bytes)?;
        let from = begin - block * RANKS_PER_BLOCK;
        let (ranks, _) = bytes[..CONTENT_BYTES].as_chunks::<RANK_BYTES>();
        let wanted = ranks.iter().skip(from as usize).take(end.saturating_sub(begin) as usize);
        self.loaded.extend(wanted.map(|bytes| u32::from_le_bytes(*bytes)));
        if self.loaded.iter().any(|&rank| rank >= self.space.len()) {
            self.loaded.clear();
            return Err(invalid("a rank that no entry has"));
        }
        Ok(())
    }
}

/// The records of one topic by position, as ranks: where many topics are merged, most entries are not read.
#[derive(Debug)]
pub(in crate::local) struct RunCursor<'a> {
    ranks: Ranks<'a>,
    place: u32,
}

impl<'a> RunCursor<'a> {
    pub(super) fn new(space: SpaceIndex<'a>, run: Run) -> Self {
        let end = run.first.saturating_add(run.count).min(space.len());
        let places = run.first.min(end)..end;
        Self { place: places.start, ranks: Ranks::new(space, space.sections().topic_ranks, places) }
    }

    /// Goes to the first rank that is not below `rank`.
    pub(in crate::local) fn seek(&mut self, rank: u32) -> Result<(), IndexError> {
        self.place = self.ranks.first_not_below(rank)?;
        Ok(())
    }

    /// The rank above the cursor, which goes up by it.
    pub(in crate::local) fn next(&mut self) -> Result<Option<u32>, IndexError> {
        if self.place >= self.ranks.places.end {
            return Ok(None);
        }
        let rank = self.ranks.get(self.place)?;
        self.place += 1;
        Ok(Some(rank))
    }

    /// The rank below the cursor, which goes down by it.
    pub(in crate::local) fn previous(&mut self) -> Result<Option<u32>, IndexError> {
        if self.place <= self.ranks.places.start {
            return Ok(None);
        }
        let rank = self.ranks.get(self.place - 1)?;
        self.place -= 1;
        Ok(Some(rank))
    }
}

/// Records in order of arrival.
#[derive(Debug)]
pub(in crate::local) struct ArrivalCursor<'a> {
    ranks: Ranks<'a>,
    reader: EntryReader<'a>,
    place: u32,
}

impl<'a> ArrivalCursor<'a> {
    /// What arrives together is close to each other by position, but not in order: so many blocks of 4 KiB.
    const SLOTS: usize = 16;

    /// Before the first record behind a seq.
    pub(super) fn after(space: SpaceIndex<'a>, after_seq: u64) -> Result<Self, IndexError> {
        let ranks = Ranks::new(space, space.sections().arrival_ranks, 0..space.len());
        let mut cursor = Self { ranks, reader: EntryReader::new(space, Self::SLOTS), place: 0 };
        let (first, last) = (space.summary().first_seq, space.summary().last_seq);
        cursor.place = match after_seq {
            seq if seq < first => 0,
            seq if seq >= last => space.len(),
            seq => first_not_below(space.len(), first..=last, seq + 1, |place| Ok(cursor.at(place)?.seq))?,
        };
        Ok(cursor)
    }

    /// The next record, or `None` behind the last.
    pub(in crate::local) fn next(&mut self) -> Result<Option<IndexEntry>, IndexError> {
        if self.place >= self.ranks.places.end {
            return Ok(None);
        }
        let entry = self.at(self.place)?;
        self.place += 1;
        Ok(Some(entry))
    }

    fn at(&mut self, place: u32) -> Result<IndexEntry, IndexError> {
        let rank = self.ranks.get(place)?;
        self.reader.entry(rank)
    }
}
