//! What an index file tells of its segment. Format 1, integers little-endian; the footer of the file holds it,
//! and the catalogue a copy:
//!
//! ```text
//! version u8 (1) | bytes of the segment u64 | bytes of the index file u64 | spaces u8
//! | for each space: length of name u8 | name | records u32 | bytes of bodies u64
//!                   | oldest: time i64, id 32 | newest: time i64, id 32 | first seq u64 | last seq u64 | topics u32
//! | quarantined stretches u32 | for each: offset u64 | bytes u64
//! ```

use super::Stretch;
use super::format::{MAX_RECORDS, POSITION_BYTES, encode_position, position_at};
use crate::record::{Position, Space};

const VERSION: u8 = 1;

/// What an index file tells of its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::local) struct Summary {
    /// Length of the segment's file, bytes.
    pub(in crate::local) segment_bytes: u64,
    /// Length of the index file, bytes.
    pub(in crate::local) file_bytes: u64,
    /// The spaces that have records, each once.
    pub(in crate::local) spaces: Vec<SpaceSummary>,
    /// The damaged parts of the segment, at most [`Summary::MAX_QUARANTINED`].
    pub(in crate::local) quarantined: Vec<Stretch>,
}

/// What it tells of one space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) struct SpaceSummary {
    pub(in crate::local) space: Space,
    /// Never 0.
    pub(in crate::local) records: u32,
    /// Sum of the lengths of the bodies.
    pub(in crate::local) body_bytes: u64,
    pub(in crate::local) oldest: Position,
    pub(in crate::local) newest: Position,
    pub(in crate::local) first_seq: u64,
    pub(in crate::local) last_seq: u64,
    /// Distinct topics.
    pub(in crate::local) topics: u32,
}

impl Summary {
    /// More damaged stretches are told of in sum: the last of the list has the bytes of all the others.
    pub(in crate::local) const MAX_QUARANTINED: usize = 4096;

    pub(in crate::local) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_to(&mut bytes);
        bytes
    }

    /// `None` for anything but the bytes of a summary.
    pub(in crate::local) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let summary = Self::decode_from(&mut bytes)?;
        bytes.is_empty().then_some(summary)
    }

    pub(super) fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.segment_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.file_bytes.to_le_bytes());
        bytes.push(self.spaces.len() as u8);
        for space in &self.spaces {
            let name = space.space.as_str();
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&space.records.to_le_bytes());
            bytes.extend_from_slice(&space.body_bytes.to_le_bytes());
            bytes.extend_from_slice(&encode_position(&space.oldest));
            bytes.extend_from_slice(&encode_position(&space.newest));
            bytes.extend_from_slice(&space.first_seq.to_le_bytes());
            bytes.extend_from_slice(&space.last_seq.to_le_bytes());
            bytes.extend_from_slice(&space.topics.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.quarantined.len() as u32).to_le_bytes());
        for stretch in &self.quarantined {
            bytes.extend_from_slice(&stretch.offset.to_le_bytes());
            bytes.extend_from_slice(&stretch.bytes.to_le_bytes());
        }
    }

    /// Takes a summary from the front of the bytes.
    pub(super) fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        let [version] = take(bytes)?;
        if version != VERSION {
            return None;
        }
        let (segment_bytes, file_bytes) = (take_u64(bytes)?, take_u64(bytes)?);
        let [count] = take(bytes)?;
        let mut spaces: Vec<SpaceSummary> = Vec::new();
        for _ in 0..count {
            let space = SpaceSummary::decode_from(bytes)?;
            if spaces.iter().any(|other| other.space == space.space) {
                return None;
            }
            spaces.push(space);
        }
        let count = u32::from_le_bytes(take(bytes)?) as usize;
        if count > Self::MAX_QUARANTINED {
            return None;
        }
        let mut quarantined = Vec::with_capacity(count);
        for _ in 0..count {
            quarantined.push(Stretch { offset: take_u64(bytes)?, bytes: take_u64(bytes)? });
        }
        Some(Self { segment_bytes, file_bytes, spaces, quarantined })
    }
}

impl SpaceSummary {
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        let [length] = take(bytes)?;
        let (name, rest) = bytes.split_at_checked(length.into())?;
        *bytes = rest;
        let summary = Self {
            space: std::str::from_utf8(name).ok()?.parse().ok()?,
            records: u32::from_le_bytes(take(bytes)?),
            body_bytes: take_u64(bytes)?,
            oldest: position_at(&take::<POSITION_BYTES>(bytes)?, 0),
            newest: position_at(&take::<POSITION_BYTES>(bytes)?, 0),
            first_seq: take_u64(bytes)?,
            last_seq: take_u64(bytes)?,
            topics: u32::from_le_bytes(take(bytes)?),
        };
        summary.is_possible().then_some(summary)
    }

    fn is_possible(&self) -> bool {
        let seqs = self.last_seq.checked_sub(self.first_seq);
        (1..=MAX_RECORDS).contains(&self.records)
            && (1..=self.records).contains(&self.topics)
            && self.oldest <= self.newest
            && seqs.is_some_and(|seqs| u32::try_from(seqs).is_ok())
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*array)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use poste_wire::Hash;

    use super::*;

    fn sample() -> Summary {
        let position = |time_ns, byte| Position { time_ns, id: Hash([byte; 32]) };
        let space = SpaceSummary {
            space: Space::Waku1,
            records: 3,
            body_bytes: 0x1234,
            oldest: position(-2, 0xaa),
            newest: position(0x0102_0304_0506_0708, 0xbb),
            first_seq: 5,
            last_seq: 9,
            topics: 2,
        };
        let quarantined = vec![Stretch { offset: 64, bytes: 0x55 }];
        Summary { segment_bytes: 0x1_0000, file_bytes: 0x8000, spaces: vec![space], quarantined }
    }

    #[test]
    fn summary_of_format_1_is_frozen() {
        let (aa, bb) = ("aa".repeat(32), "bb".repeat(32));
        let expected = [
            "01000001000000000000800000000000000105",
            "77616b7531",
            "03000000",
            "3412000000000000",
            "feffffffffffffff",
            &aa,
            "0807060504030201",
            &bb,
            "0500000000000000",
            "0900000000000000",
            "02000000",
            "0100000040000000000000005500000000000000",
        ]
        .concat();
        assert_eq!(hex::encode(sample().encode()), expected);
        assert_eq!(Summary::decode(&sample().encode()), Some(sample()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert_eq!(Summary::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Summary::decode(&[&bytes[..], &[0]].concat()), None);
        let refused = |change: fn(&mut Summary)| {
            let mut summary = sample();
            change(&mut summary);
            Summary::decode(&summary.encode()).is_none()
        };
        assert!(refused(|summary| summary.spaces[0].records = 0));
        assert!(refused(|summary| summary.spaces[0].topics = 4));
        assert!(refused(|summary| summary.spaces[0].topics = 0));
        assert!(refused(|summary| summary.spaces[0].first_seq = 10));
        assert!(refused(|summary| summary.spaces[0].last_seq = 5 + (1 << 32)));
        assert!(refused(|summary| summary.spaces[0].oldest.time_ns = i64::MAX));
        assert!(refused(|summary| summary.spaces.push(summary.spaces[0])));
        let stretch = Stretch { offset: 0, bytes: 1 };
        let mut summary = sample();
        summary.quarantined = vec![stretch; Summary::MAX_QUARANTINED];
        assert_eq!(Summary::decode(&summary.encode()), Some(summary.clone()));
        summary.quarantined.push(stretch);
        assert_eq!(Summary::decode(&summary.encode()), None);
    }
}
