//! The format of a segment file. All integers are little-endian.
//!
//! ```text
//! header, 64 bytes: magic "POSTEJNL" | version u32 | zero u32 | segment number u64 | journal id, 16 bytes
//!                   | created, unix milliseconds u64 | zero, 12 bytes | crc32c of the 60 bytes before
//! frame:            payload length u32 | check u32 | crc u32 | payload
//! ```
//!
//! `check` is the CRC-32C of (journal id, segment number, offset of the frame in the file, payload length),
//! and `crc` continues it over the payload. So bytes of another journal, another file or another place never
//! verify, and a search for the next frame decides at each byte without reading a payload. A frame is never
//! empty: a stretch of zeros is no frame.

use crc32c::{crc32c, crc32c_append};

/// The largest payload of one frame, bytes.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// Version of the segment format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const HEADER_BYTES: u64 = 64;
/// Offsets are 32 bits; no segment of ours is longer.
pub(crate) const MAX_FILE_BYTES: u64 = u32::MAX as u64;
pub(crate) const FRAME_HEADER_BYTES: usize = 12;
const MAGIC: &[u8; 8] = b"POSTEJNL";
const NAME_PREFIX: &str = "segment-";
const NAME_SUFFIX: &str = ".journal";

/// Where a frame is: enough to read its payload with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameAt {
    /// Number of the segment.
    pub segment: u32,
    /// Offset of the frame in the segment's file, bytes.
    pub offset: u32,
    /// Length of the payload, bytes.
    pub payload_bytes: u32,
}

impl FrameAt {
    /// Where it ends in the file, bytes.
    #[must_use]
    pub fn end(self) -> u64 {
        u64::from(self.offset) + FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }
}

/// The file name of a segment; names sort like their numbers.
pub(crate) fn file_name(number: u32) -> String {
    format!("{NAME_PREFIX}{number:010}{NAME_SUFFIX}")
}

/// The number in a segment's file name, or `None` for the name of anything else.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u32,
    pub(crate) journal_id: [u8; 16],
    pub(crate) created_ms: u64,
}

/// What the first 64 bytes of a segment file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    Good(Header),
    OtherVersion(u32),
    Damaged,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&u64::from(self.number).to_le_bytes());
        bytes[24..40].copy_from_slice(&self.journal_id);
        bytes[40..48].copy_from_slice(&self.created_ms.to_le_bytes());
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> HeaderState {
        if &bytes[..8] != MAGIC || u32_at(bytes, 60) != crc32c(&bytes[..60]) {
            return HeaderState::Damaged;
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return HeaderState::OtherVersion(version);
        }
        let Ok(number) = u32::try_from(u64_at(bytes, 16)) else { return HeaderState::Damaged };
        let mut journal_id = [0; 16];
        journal_id.copy_from_slice(&bytes[24..40]);
        HeaderState::Good(Self { number, journal_id, created_ms: u64_at(bytes, 40) })
    }
}

/// What ties a frame to its file: the start of every checksum in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentKey(u32);

impl SegmentKey {
    pub(crate) fn new(journal_id: &[u8; 16], number: u32) -> Self {
        Self(crc32c_append(crc32c(journal_id), &u64::from(number).to_le_bytes()))
    }

    fn check(self, offset: u64, payload_bytes: u32) -> u32 {
        let mut place = [0; 12];
        place[..8].copy_from_slice(&offset.to_le_bytes());
        place[8..].copy_from_slice(&payload_bytes.to_le_bytes());
        crc32c_append(self.0, &place)
    }

    /// The header of a frame that will stand at `offset`.
    pub(crate) fn frame_header(self, offset: u64, payload: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
        let payload_bytes = payload.len() as u32;
        let check = self.check(offset, payload_bytes);
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&payload_bytes.to_le_bytes());
        header[4..8].copy_from_slice(&check.to_le_bytes());
        header[8..].copy_from_slice(&crc32c_append(check, payload).to_le_bytes());
        header
    }

    /// The payload length that a frame header at `offset` states, if it can be a header of this place and
    /// the payload ends within `room` bytes.
    pub(crate) fn payload_bytes(self, offset: u64, header: &[u8], room: u64) -> Option<u32> {
        let payload_bytes = u32_at(header, 0);
        if payload_bytes == 0 || payload_bytes as usize > MAX_PAYLOAD_BYTES || u64::from(payload_bytes) > room
        {
            return None;
        }
        (self.check(offset, payload_bytes) == u32_at(header, 4)).then_some(payload_bytes)
    }

    /// True when the payload belongs to a header that [`SegmentKey::payload_bytes`] accepted.
    pub(crate) fn verifies(self, header: &[u8], payload: &[u8]) -> bool {
        crc32c_append(u32_at(header, 4), payload) == u32_at(header, 8)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen sample of format version 1: journal id 00..0f, segment 7, made at 1,600,000,000,000 ms.
    const HEADER_SAMPLE: &str = "504f5354454a4e4c0100000000000000070000000000000000010203\
        0405060708090a0b0c0d0e0f00806e8774010000";

    fn sample() -> Header {
        Header { number: 7, journal_id: std::array::from_fn(|i| i as u8), created_ms: 1_600_000_000_000 }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn header_of_format_version_1_is_frozen() {
        let bytes = sample().encode();
        assert!(hex(&bytes).starts_with(HEADER_SAMPLE), "{}", hex(&bytes));
        assert_eq!(hex(&bytes[60..]), "3c1254b0");
        assert_eq!(Header::decode(&bytes), HeaderState::Good(sample()));
    }

    #[test]
    fn frame_of_format_version_1_is_frozen() {
        let key = SegmentKey::new(&sample().journal_id, 7);
        let header = key.frame_header(64, b"hello");
        assert_eq!(hex(&header), "050000002609e98d72c65631");
        assert_eq!(key.payload_bytes(64, &header, 5), Some(5));
        assert!(key.verifies(&header, b"hello"));
    }

    #[test]
    fn a_header_with_any_flipped_bit_is_not_good() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), HeaderState::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_verifies_only_in_its_own_place() {
        let key = SegmentKey::new(&sample().journal_id, 7);
        let header = key.frame_header(64, b"hello");
        assert_eq!(key.payload_bytes(65, &header, 5), None, "other offset");
        assert_eq!(key.payload_bytes(64, &header, 4), None, "ends behind the file");
        assert_eq!(
            SegmentKey::new(&sample().journal_id, 8).payload_bytes(64, &header, 5),
            None,
            "other segment"
        );
        assert_eq!(SegmentKey::new(&[9; 16], 7).payload_bytes(64, &header, 5), None, "other journal");
        assert_eq!(key.payload_bytes(64, &[0; 12], 5), None, "zeros");
        assert!(!key.verifies(&header, b"hellp"));
    }

    #[test]
    fn names_sort_and_read_back() {
        assert_eq!(number_of(&file_name(42)), Some(42));
        assert!(file_name(9) < file_name(10));
        for other in
            ["LOCK", "segment-1.journal", "segment-00000000001.journal", "segment-99999999999.journal"]
        {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
