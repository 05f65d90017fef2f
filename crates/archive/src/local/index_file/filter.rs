//! Tells of most ids that are not in a file that they are not, without reading it.

use poste_wire::Hash;

use super::format::{CONTENT_BYTES, array_at};

const BITS_PER_RECORD: u64 = 10;
/// Bits that an id sets: of a hundred ids that are not there, one looks as if it were.
const WORDS: usize = 7;

/// A Bloom filter. An id is a Keccak hash: its own words are as good as any hash of it.
#[derive(Debug)]
pub(super) struct IdFilter {
    bits: u64,
    bytes: Vec<u8>,
}

impl IdFilter {
    pub(super) fn new(records: u32) -> Self {
        Self { bits: u64::from(records) * BITS_PER_RECORD, bytes: vec![0; Self::bytes_for(records)] }
    }

    /// The filter that [`IdFilter::blocks`] told the bytes of; they are as many as the records need.
    pub(super) fn from_bytes(records: u32, bytes: Vec<u8>) -> Self {
        debug_assert_eq!(bytes.len(), Self::bytes_for(records));
        Self { bits: u64::from(records) * BITS_PER_RECORD, bytes }
    }

    /// How many bytes it takes.
    pub(super) fn bytes_for(records: u32) -> usize {
        (u64::from(records) * BITS_PER_RECORD).div_ceil(8) as usize
    }

    /// What goes into each block of a file.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(CONTENT_BYTES)
    }

    pub(super) fn insert(&mut self, id: &Hash) {
        for bit in bits_of(id, self.bits) {
            self.bytes[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// False when the id is not there for certain.
    pub(super) fn may_contain(&self, id: &Hash) -> bool {
        bits_of(id, self.bits).all(|bit| self.bytes[bit / 8] & (1 << (bit % 8)) != 0)
    }
}

/// Below `bits`, which is below 2^32 for as many records as a file may hold.
fn bits_of(id: &Hash, bits: u64) -> impl Iterator<Item = usize> {
    let word = |index: usize| u64::from(u32::from_le_bytes(array_at(&id.0, index * 4)));
    (0..WORDS).map(move |index| ((word(index) * bits) >> 32) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_and_few_others() {
        for records in [1, 2, 100, 20_000_u32] {
            let id = |n: u32| Hash::of(&n.to_be_bytes());
            let mut filter = IdFilter::new(records);
            (0..records).for_each(|n| filter.insert(&id(n)));
            let filter = IdFilter::from_bytes(records, filter.blocks().flatten().copied().collect());
            assert!((0..records).all(|n| filter.may_contain(&id(n))), "{records}");
            let wrong = (records..records + 10_000).filter(|&n| filter.may_contain(&id(n))).count();
            // A handful of records leaves the bits to chance.
            assert!(wrong < if records < 100 { 1000 } else { 200 }, "{wrong} of 10,000 with {records}");
        }
    }
}
