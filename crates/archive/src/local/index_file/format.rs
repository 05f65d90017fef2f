//! The format of an index file, version 1. All integers are little-endian.
//!
//! ```text
//! file:       blocks of 4,096 bytes: for each space its seven sections, each from a new block on; then the footer
//! block:      content, 4,092 bytes | crc32c of (store id, 16 bytes | lane u8 | segment number u32
//!             | number of the block in the file u32 | content)
//! ```
//!
//! So a block of another store, file or place never verifies. Lane: 0 live, 1 imported. Items never straddle
//! blocks; what is left of a block is zero. The sections of a space, and how many items a block holds:
//!
//! ```text
//! 1 entries, 73:          time, nanoseconds i64 | id, 32 bytes | topic, 4 bytes | seq, less the first of the space, u32
//!                         | offset of the frame in the segment u32 | payload bytes u32      by (time, id)
//! 2 topic table, 511:     topic, 4 bytes | place of its first rank in section 3 u32         by topic
//! 3 topic ranks, 1,023:   rank u32                                                          by (topic, rank)
//! 4 id ranks, 1,023:      rank u32                                                          by id
//! 5 arrival ranks, 1,023: rank u32                                                          by seq
//! 6 first positions, 102: time i64 | id, 32 bytes: those of the first entry of each block of section 1
//! 7 id filter, 4,092:     bytes of a Bloom filter of 10 bits a record. Bit n is bit n % 8 of byte n / 8. An id
//!                         sets seven: for each of its first seven u32 words w * bits / 2^32
//! ```
//!
//! A rank is the place of an entry in section 1. Names of topics and ids sort as bytes. The footer's content
//! fills blocks to their end, and its last one ends, before the crc, with bytes of footer u32 | magic
//! "POSTEIDX". The footer:
//!
//! ```text
//! magic "POSTEIDX" | version u32 | store id, 16 bytes | lane u8 | segment number u32 | summary
//! | for each space: first block of each of the seven sections u32
//! ```
//!
//! The summary is described in [`super::summary`].

use crc32c::{crc32c, crc32c_append};
use poste_wire::{Hash, Topic};

use super::filter::IdFilter;
use super::{IndexEntry, IndexKey, Summary};
use crate::record::Position;
use crate::store::Lane;

/// The version of the format that this program writes and reads.
const VERSION: u32 = 1;
pub(super) const MAGIC: &[u8; 8] = b"POSTEIDX";

pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const CONTENT_BYTES: usize = BLOCK_BYTES - 4;

pub(super) const ENTRY_BYTES: usize = 56;
pub(super) const TOPIC_BYTES: usize = 8;
pub(super) const RANK_BYTES: usize = 4;
pub(super) const POSITION_BYTES: usize = 40;

pub(super) const ENTRIES_PER_BLOCK: u32 = (CONTENT_BYTES / ENTRY_BYTES) as u32;
pub(super) const RANKS_PER_BLOCK: u32 = (CONTENT_BYTES / RANK_BYTES) as u32;

/// More records are never in one segment: offsets of 32 bits and no frame without a head of 10 bytes.
pub(super) const MAX_RECORDS: u32 = 1 << 28;
/// A longer footer is damage: 4,096 quarantined stretches need half of it.
pub(super) const MAX_FOOTER_BYTES: usize = 128 * 1024;
/// What stands behind the footer in its last block.
pub(super) const TRAILER_BYTES: usize = 4 + MAGIC.len();

/// What ties a block to its file and place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal(u32);

impl Seal {
    pub(super) fn of(key: &IndexKey) -> Self {
        Self(crc32c_append(crc32c(&key.store_id.0), &lane_and_segment(key)))
    }

    /// The checksum of the content of a block.
    pub(super) fn crc(self, number: u32, content: &[u8]) -> u32 {
        crc32c_append(crc32c_append(self.0, &number.to_le_bytes()), content)
    }

    /// True when this is that block of that file.
    pub(super) fn verifies(self, number: u32, block: &[u8; BLOCK_BYTES]) -> bool {
        self.crc(number, &block[..CONTENT_BYTES]) == u32_at(block, CONTENT_BYTES)
    }
}

fn lane_and_segment(key: &IndexKey) -> [u8; 5] {
    let mut bytes = [0; 5];
    bytes[0] = match key.lane {
        Lane::Live => 0,
        Lane::Imported => 1,
    };
    bytes[1..].copy_from_slice(&key.segment.to_le_bytes());
    bytes
}

/// The first blocks of the sections of a space, and the block behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sections {
    pub(super) entries: u32,
    pub(super) topics: u32,
    pub(super) topic_ranks: u32,
    pub(super) id_ranks: u32,
    pub(super) arrival_ranks: u32,
    pub(super) firsts: u32,
    pub(super) filter: u32,
    pub(super) end: u32,
}

impl Sections {
    /// The sections of a space that begins at a block.
    pub(super) fn new(first_block: u32, records: u32, topics: u32) -> Self {
        let mut end = first_block;
        let mut next = |items: u32, item_bytes: usize| {
            let begins = end;
            end += items.div_ceil((CONTENT_BYTES / item_bytes) as u32);
            begins
        };
        Self {
            entries: next(records, ENTRY_BYTES),
            topics: next(topics, TOPIC_BYTES),
            topic_ranks: next(records, RANK_BYTES),
            id_ranks: next(records, RANK_BYTES),
            arrival_ranks: next(records, RANK_BYTES),
            firsts: next(entry_blocks(records), POSITION_BYTES),
            filter: next(IdFilter::bytes_for(records) as u32, 1),
            end,
        }
    }

    fn begins(&self) -> [u32; 7] {
        let Self { entries, topics, topic_ranks, id_ranks, arrival_ranks, firsts, filter, end: _ } = *self;
        [entries, topics, topic_ranks, id_ranks, arrival_ranks, firsts, filter]
    }
}

/// How many blocks the entries of a space take.
pub(super) fn entry_blocks(records: u32) -> u32 {
    records.div_ceil(ENTRIES_PER_BLOCK)
}

/// How many blocks a footer takes.
pub(super) fn footer_blocks(footer_bytes: usize) -> u32 {
    (footer_bytes + TRAILER_BYTES).div_ceil(CONTENT_BYTES) as u32
}

/// What the end of the file tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) summary: Summary,
    /// As many as the summary has spaces.
    pub(super) sections: Vec<Sections>,
}

impl Footer {
    pub(super) fn encode(&self, key: &IndexKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&key.store_id.0);
        bytes.extend_from_slice(&lane_and_segment(key));
        self.summary.encode_to(&mut bytes);
        for begins in self.sections.iter().flat_map(Sections::begins) {
            bytes.extend_from_slice(&begins.to_le_bytes());
        }
        bytes
    }

    /// Reads a footer of a file of `file_bytes`; what is wrong with it otherwise.
    pub(super) fn decode(bytes: &[u8], key: &IndexKey, file_bytes: u64) -> Result<Self, String> {
        let version = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk());
        let Some((version, rest)) = version else { return Err("no footer".to_owned()) };
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(format!("format {version}, and this program reads only format {VERSION}"));
        }
        let rest =
            rest.strip_prefix(&key.store_id.0).and_then(|rest| rest.strip_prefix(&lane_and_segment(key)));
        let Some(mut rest) = rest else { return Err("the footer of another segment".to_owned()) };
        let summary = Summary::decode_from(&mut rest).ok_or("a footer without meaning")?;
        let mut end = 0;
        let mut sections = Vec::with_capacity(summary.spaces.len());
        for space in &summary.spaces {
            let expected = Sections::new(end, space.records, space.topics);
            for begins in expected.begins() {
                rest = rest
                    .strip_prefix(&begins.to_le_bytes())
                    .ok_or("sections that are not in their places")?;
            }
            end = expected.end;
            sections.push(expected);
        }
        let blocks = u64::from(end) + u64::from(footer_blocks(bytes.len()));
        let exact = rest.is_empty() && summary.file_bytes == file_bytes;
        if !exact || blocks * BLOCK_BYTES as u64 != file_bytes {
            return Err("a length that is not what its footer tells".to_owned());
        }
        Ok(Self { summary, sections })
    }
}

impl IndexEntry {
    /// Its bytes in a space that begins with a seq; the distance must fit 32 bits.
    pub(super) fn encode(&self, first_seq: u64) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..40].copy_from_slice(&encode_position(&self.position));
        bytes[40..44].copy_from_slice(&self.topic.0);
        bytes[44..48].copy_from_slice(&((self.seq - first_seq) as u32).to_le_bytes());
        bytes[48..52].copy_from_slice(&self.offset.to_le_bytes());
        bytes[52..].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; ENTRY_BYTES], first_seq: u64) -> Self {
        Self {
            position: position_at(bytes, 0),
            topic: Topic(array_at(bytes, 40)),
            seq: first_seq.saturating_add(u32_at(bytes, 44).into()),
            offset: u32_at(bytes, 48),
            payload_bytes: u32_at(bytes, 52),
        }
    }
}

pub(super) fn encode_position(position: &Position) -> [u8; POSITION_BYTES] {
    let mut bytes = [0; POSITION_BYTES];
    bytes[..8].copy_from_slice(&position.time_ns.to_le_bytes());
    bytes[8..].copy_from_slice(&position.id.0);
    bytes
}

pub(super) fn position_at(bytes: &[u8], at: usize) -> Position {
    Position { time_ns: i64::from_le_bytes(array_at(bytes, at)), id: Hash(array_at(bytes, at + 8)) }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// A part of what is long enough to have it.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
