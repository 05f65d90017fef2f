//! Records sorted by position, as chunks of their numbers: some five bytes a record, and cheap to add to at
//! the end, where most records belong.

use super::index::{Entry, Records};
use super::question::Bounds;

/// Numbers of records, sorted by the positions of the records.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// None is empty, and each is sorted and before the next.
    chunks: Vec<Vec<u32>>,
    len: usize,
}

/// A gap between two records of an [`Order`]: before the slot of the chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    chunk: usize,
    slot: usize,
}

impl Order {
    const CHUNK: usize = 512;

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds record `number`, which `records` holds already.
    pub(super) fn insert(&mut self, number: u32, records: &Records) {
        let position = records[number].position;
        let Place { mut chunk, mut slot } = self.place(records, |other| other.position < position);
        self.len += 1;
        if chunk == self.chunks.len() {
            match self.chunks.last() {
                Some(last) if last.len() < Self::CHUNK => {
                    chunk -= 1;
                    slot = last.len();
                }
                // Full, and this is its end: a new chunk leaves the full one full.
                _ => self.chunks.push(Vec::new()),
            }
        }
        if self.chunks[chunk].len() >= Self::CHUNK {
            let upper = self.chunks[chunk].split_off(Self::CHUNK / 2);
            self.chunks.insert(chunk + 1, upper);
            if slot > Self::CHUNK / 2 {
                slot -= Self::CHUNK / 2;
                chunk += 1;
            }
        }
        self.chunks[chunk].insert(slot, number);
    }

    /// Takes record `number` out, if it is there.
    pub(super) fn remove(&mut self, number: u32, records: &Records) {
        let position = records[number].position;
        let Place { chunk, slot } = self.place(records, |other| other.position < position);
        if self.chunks.get(chunk).and_then(|numbers| numbers.get(slot)) == Some(&number) {
            self.len -= 1;
            self.chunks[chunk].remove(slot);
            if self.chunks[chunk].is_empty() {
                self.chunks.remove(chunk);
            }
        }
    }

    /// The place behind every record for which `before` holds; it must hold for a beginning of the order.
    pub(super) fn place(&self, records: &Records, before: impl Fn(&Entry) -> bool) -> Place {
        let chunk = self
            .chunks
            .partition_point(|numbers| numbers.last().is_some_and(|&number| before(&records[number])));
        let slot = self
            .chunks
            .get(chunk)
            .map_or(0, |numbers| numbers.partition_point(|&number| before(&records[number])));
        Place { chunk, slot }
    }

    /// The record behind a place, which moves past it.
    pub(super) fn step_up(&self, place: &mut Place) -> Option<u32> {
        let numbers = self.chunks.get(place.chunk)?;
        let number = numbers[place.slot];
        place.slot += 1;
        if place.slot == numbers.len() {
            *place = Place { chunk: place.chunk + 1, slot: 0 };
        }
        Some(number)
    }

    /// The record before a place, which moves before it.
    pub(super) fn step_down(&self, place: &mut Place) -> Option<u32> {
        if place.slot == 0 {
            place.chunk = place.chunk.checked_sub(1)?;
            place.slot = self.chunks[place.chunk].len();
        }
        place.slot -= 1;
        Some(self.chunks[place.chunk][place.slot])
    }

    /// The first and the last record.
    pub(super) fn ends(&self) -> Option<(u32, u32)> {
        Some((*self.chunks.first()?.first()?, *self.chunks.last()?.last()?))
    }
}

/// The records of an [`Order`] within bounds, in one direction.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    order: &'a Order,
    records: &'a Records,
    bounds: Bounds,
    descending: bool,
    place: Place,
}

impl<'a> Walk<'a> {
    pub(super) fn new(order: &'a Order, records: &'a Records, bounds: Bounds, descending: bool) -> Self {
        let place = if descending {
            order.place(records, |entry| !bounds.above(&entry.position))
        } else {
            order.place(records, |entry| bounds.below(&entry.position))
        };
        Self { order, records, bounds, descending, place }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (u32, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let number = if self.descending {
            self.order.step_down(&mut self.place)
        } else {
            self.order.step_up(&mut self.place)
        }?;
        let entry = &self.records[number];
        let outside = if self.descending {
            self.bounds.below(&entry.position)
        } else {
            self.bounds.above(&entry.position)
        };
        (!outside).then_some((number, entry))
    }
}
