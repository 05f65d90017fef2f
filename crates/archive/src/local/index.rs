//! The index of an open segment, in memory: where every record is, by position, by topic, by id and by order of
//! arrival. About 90 bytes a record. It holds nothing that the segment does not.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Index as Indexed;

use hashbrown::HashTable;
use poste_journal::FrameAt;
use poste_wire::{Hash, Topic};

use super::frame;
use super::order::Order;
use super::part::Span;
use crate::record::{Derived, Position, Space};

/// Where one record is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) position: Position,
    pub(super) seq: u64,
    /// Which of the space's topics.
    pub(super) topic: u32,
    /// No payload marks a record that was removed because its frame is damaged.
    pub(super) at: FrameAt,
}

impl Entry {
    pub(super) fn is_removed(&self) -> bool {
        self.at.payload_bytes == 0
    }
}

/// Every record of a space, numbered by order of arrival; in blocks, so that growing copies nothing.
#[derive(Debug, Default)]
pub(super) struct Records {
    blocks: Vec<Vec<Entry>>,
}

impl Records {
    const BLOCK: usize = 1 << 14;

    pub(super) fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * Self::BLOCK + last.len())
    }

    fn push(&mut self, entry: Entry) -> u32 {
        let number = self.len() as u32;
        match self.blocks.last_mut() {
            Some(last) if last.len() < Self::BLOCK => last.push(entry),
            _ => {
                // The first block grows from little: a small store stays small.
                let room = if self.blocks.is_empty() { 0 } else { Self::BLOCK };
                self.blocks.push(Vec::with_capacity(room));
                self.blocks.last_mut().expect("a block was just pushed").push(entry);
            }
        }
        number
    }

    fn get_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.blocks[number as usize / Self::BLOCK][number as usize % Self::BLOCK]
    }

    /// The number of the first record behind a seq.
    pub(super) fn first_behind(&self, seq: u64) -> u32 {
        let (mut low, mut high) = (0, self.len() as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            if self[middle].seq <= seq { low = middle + 1 } else { high = middle }
        }
        low
    }
}

impl Indexed<u32> for Records {
    type Output = Entry;

    fn index(&self, number: u32) -> &Entry {
        &self.blocks[number as usize / Self::BLOCK][number as usize % Self::BLOCK]
    }
}

/// One topic and its records by position.
#[derive(Debug)]
pub(super) struct TopicOrder {
    pub(super) topic: Topic,
    pub(super) order: Order,
}

/// The records of one space.
#[derive(Debug)]
pub(super) struct SpaceIndex {
    space: Space,
    pub(super) records: Records,
    pub(super) by_position: Order,
    pub(super) topics: Vec<TopicOrder>,
    topic_numbers: HashMap<Topic, u32>,
    by_id: HashTable<u32>,
    /// Seeded: whoever makes envelopes cannot choose ids that collide here.
    hasher: RandomState,
    body_bytes: u64,
}

impl SpaceIndex {
    fn new(space: Space) -> Self {
        Self {
            space,
            records: Records::default(),
            by_position: Order::default(),
            topics: Vec::new(),
            topic_numbers: HashMap::new(),
            by_id: HashTable::new(),
            hasher: RandomState::new(),
            body_bytes: 0,
        }
    }

    /// The number of the record with this id.
    pub(super) fn find(&self, id: &Hash) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |&number| self.records[number].position.id == *id).copied()
    }

    pub(super) fn topic_number(&self, topic: &Topic) -> Option<u32> {
        self.topic_numbers.get(topic).copied()
    }

    /// Length of a record's body.
    pub(super) fn body_bytes(&self, entry: &Entry) -> usize {
        (entry.at.payload_bytes as usize).saturating_sub(frame::head_bytes(self.space))
    }

    /// Adds a record behind all others in order of arrival. False, and nothing happens, if its id is known.
    fn insert(&mut self, derived: Derived, seq: u64, at: FrameAt) -> bool {
        let Derived { position, topic } = derived;
        if self.find(&position.id).is_some() {
            return false;
        }
        let topic_number = *self.topic_numbers.entry(topic).or_insert_with(|| {
            self.topics.push(TopicOrder { topic, order: Order::default() });
            self.topics.len() as u32 - 1
        });
        let entry = Entry { position, seq, topic: topic_number, at };
        self.body_bytes += self.body_bytes(&entry) as u64;
        let number = self.records.push(entry);
        let Self { records, by_id, hasher, .. } = self;
        by_id.insert_unique(hasher.hash_one(position.id), number, |&other| {
            hasher.hash_one(records[other].position.id)
        });
        self.by_position.insert(number, &self.records);
        self.topics[topic_number as usize].order.insert(number, &self.records);
        true
    }

    /// Takes a record out whose frame is damaged. False if it is out already.
    fn remove(&mut self, number: u32) -> bool {
        let entry = self.records[number];
        if entry.is_removed() {
            return false;
        }
        self.body_bytes -= self.body_bytes(&entry) as u64;
        self.by_position.remove(number, &self.records);
        self.topics[entry.topic as usize].order.remove(number, &self.records);
        let hash = self.hasher.hash_one(entry.position.id);
        if let Ok(found) = self.by_id.find_entry(hash, |&other| other == number) {
            found.remove();
        }
        self.records.get_mut(number).at.payload_bytes = 0;
        true
    }

    /// What there is; `None` when that is nothing.
    pub(super) fn span(&self) -> Option<Span> {
        let (first, last) = self.by_position.ends()?;
        let last_number = self.records.len() as u32 - 1;
        Some(Span {
            oldest: self.records[first].position,
            newest: self.records[last].position,
            first_seq: self.records[0].seq,
            last_seq: self.records[last_number].seq,
            records: self.by_position.len() as u64,
            body_bytes: self.body_bytes,
        })
    }

    /// The topics of its records.
    pub(super) fn distinct_topics(&self) -> impl Iterator<Item = Topic> {
        self.topics.iter().filter(|topic| topic.order.len() > 0).map(|topic| topic.topic)
    }

    /// Every record, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Topic, &Entry)> {
        let numbers = 0..self.records.len() as u32;
        numbers
            .map(|number| &self.records[number])
            .filter(|entry| !entry.is_removed())
            .map(|entry| (self.topics[entry.topic as usize].topic, entry))
    }
}

/// The records of all spaces in one segment.
#[derive(Debug, Default)]
pub(super) struct Index {
    spaces: BTreeMap<Space, SpaceIndex>,
}

impl Index {
    pub(super) fn space(&self, space: Space) -> Option<&SpaceIndex> {
        self.spaces.get(&space)
    }

    pub(super) fn contains(&self, space: Space, id: &Hash) -> bool {
        self.space(space).is_some_and(|index| index.find(id).is_some())
    }

    /// Adds a record. False, and nothing happens, if its id is known.
    pub(super) fn insert(&mut self, space: Space, derived: Derived, seq: u64, at: FrameAt) -> bool {
        let index = self.spaces.entry(space).or_insert_with(|| SpaceIndex::new(space));
        index.insert(derived, seq, at)
    }

    /// Takes out every record whose frame begins in a stretch of the segment. False when there was none.
    pub(super) fn remove_stretch(&mut self, offset: u64, bytes: u64) -> bool {
        let mut removed = false;
        for index in self.spaces.values_mut() {
            for number in 0..index.records.len() as u32 {
                let at = index.records[number].at;
                if (offset..offset.saturating_add(bytes)).contains(&u64::from(at.offset)) {
                    removed |= index.remove(number);
                }
            }
        }
        removed
    }

    pub(super) fn spaces(&self) -> impl Iterator<Item = (Space, &SpaceIndex)> {
        self.spaces.iter().map(|(&space, index)| (space, index))
    }

    /// How many records there are, of all spaces.
    pub(super) fn len(&self) -> usize {
        self.spaces.values().map(|index| index.by_position.len()).sum()
    }
}
