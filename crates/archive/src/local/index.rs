//! The index in memory: where every record is, by position, by topic, by id and by order of arrival. About 90
//! bytes a record. It holds nothing that the journal does not, and is rebuilt from it at every start.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Index as Indexed;

use hashbrown::HashTable;
use poste_journal::FrameAt;
use poste_wire::{Hash, Topic};

use super::frame;
use super::order::Order;
use crate::record::{Derived, Position, Space};
use crate::store::SpaceStats;

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

    fn stats(&self) -> SpaceStats {
        let ends = self.by_position.ends();
        let time = |number: u32| self.records[number].position.time_ns;
        SpaceStats {
            space: self.space,
            records: self.by_position.len() as u64,
            bytes: self.body_bytes,
            topics: self.topics.iter().filter(|topic| topic.order.len() > 0).count() as u64,
            oldest_ns: ends.map(|(first, _)| time(first)),
            newest_ns: ends.map(|(_, last)| time(last)),
            floor_ns: None,
        }
    }
}

/// The records of all spaces.
#[derive(Debug, Default)]
pub(super) struct Index {
    spaces: BTreeMap<Space, SpaceIndex>,
    /// The seq of the newest record.
    pub(super) head: u64,
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
        let new = index.insert(derived, seq, at);
        if new {
            self.head = self.head.max(seq);
        }
        new
    }

    /// Takes a record out whose frame is damaged. False if it is out already.
    pub(super) fn remove(&mut self, space: Space, number: u32) -> bool {
        self.spaces.get_mut(&space).is_some_and(|index| index.remove(number))
    }

    /// Takes out every record whose frame begins in a stretch of a segment.
    pub(super) fn remove_stretch(&mut self, segment: u32, offset: u64, bytes: u64) {
        for index in self.spaces.values_mut() {
            for number in 0..index.records.len() as u32 {
                let at = index.records[number].at;
                if at.segment == segment && (offset..offset + bytes).contains(&u64::from(at.offset)) {
                    index.remove(number);
                }
            }
        }
    }

    pub(super) fn stats(&self) -> Vec<SpaceStats> {
        self.spaces.values().map(SpaceIndex::stats).filter(|stats| stats.records > 0).collect()
    }
}
