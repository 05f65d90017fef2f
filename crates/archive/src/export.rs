//! Export files: history of one space on its way from one archive to another, or to a shelf.
//!
//! A file is a header and then frames, each with its length and its checksum. Records stand in the order of their
//! positions, each once. So a file that was cut off says by its last record where to go on, and what is sent then makes
//! it byte for byte the file that one run would have made. All integers are little-endian, checksums are CRC-32C.
//!
//! ```text
//! header, 49 + s bytes
//!    0   8  magic "POSTEEXP"
//!    8   4  version, u32: 1
//!   12  16  id of the store that the records come from
//!   28   8  from, i64: inclusive lower bound of the creation times, nanoseconds since 1970
//!   36   8  to, i64: inclusive upper bound
//!   44   1  s, u8: length of the space's name, 1 to 128
//!   45   s  name of the space, UTF-8, as in "waku1"
//!   45+s 4  checksum of the 45 + s bytes before
//!
//! frame, 9 + n bytes
//!    0   4  n, u32: length of the payload
//!    4   1  kind, u8: 1 record, 2 checkpoint, 3 end
//!    5   4  checksum of the 5 bytes before and the payload
//!    9   n  payload
//!
//! payload of a record, 41 to 40 + 1,048,640 bytes
//!    0   8  creation time, i64: nanoseconds since 1970
//!    8  32  id
//!   40      body
//!
//! payload of a checkpoint and of the end, 20 bytes
//!    0   8  records before it in the file, u64
//!    8   8  bytes of their frames, u64
//!   16   4  checksum over all these frames, one behind the other
//! ```
//!
//! A checkpoint stands behind a record exactly when since the last one (or the header) there are 1,000 records, or
//! 4 MiB of their frames. The end is the last frame; nothing follows it. A file without it is unfinished.
//!
//! Creation time and id say where a record stands, for whoever goes on with a file. An archive that imports it believes
//! neither: it derives both from the body.
//!
//! [`Encoder`] and [`Decoder`] are state machines over bytes: they read no file and wait for nothing.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use crate::record::{MAX_BODY_BYTES, Position};
use crate::store::StoreId;

pub use decode::{Decoder, Piece};
pub use encode::Encoder;

/// Version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The longest name of a space, bytes.
pub const MAX_SPACE_BYTES: usize = 128;

const MAGIC: &[u8; 8] = b"POSTEEXP";
/// A header up to the name of its space.
const HEADER_FIXED_BYTES: usize = 45;
const FRAME_HEAD_BYTES: usize = 9;
/// Time and id of a record, before its body.
const RECORD_FIXED_BYTES: usize = 40;
const MAX_RECORD_BYTES: usize = RECORD_FIXED_BYTES + MAX_BODY_BYTES;
const TOTALS_BYTES: usize = 20;
const CRC_BYTES: usize = 4;
/// So many records, or bytes of their frames, and a checkpoint is due.
const CHECKPOINT_RECORDS: u32 = 1000;
const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;

const KIND_RECORD: u8 = 1;
const KIND_CHECKPOINT: u8 = 2;
const KIND_END: u8 = 3;

/// What an export file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Where its records come from.
    pub store_id: StoreId,
    /// Name of the space that they belong to, 1 to 128 bytes.
    pub space: String,
    /// Inclusive lower bound of the creation time, nanoseconds since 1970.
    pub from_ns: i64,
    /// Inclusive upper bound of the creation time, nanoseconds since 1970.
    pub to_ns: i64,
}

/// All records of a file up to some place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub records: u64,
    /// The bytes of their frames.
    pub bytes: u64,
    /// CRC-32C over these frames, one behind the other.
    pub crc: u32,
}

/// Where a file stands behind a whole frame: all that is needed to go on with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The last record.
    pub last: Option<Position>,
    /// All records.
    pub totals: Totals,
    /// Records behind the last checkpoint.
    pub unchecked_records: u32,
    /// The bytes of their frames.
    pub unchecked_bytes: u64,
}

impl Place {
    /// Takes a record into account.
    fn pass(&mut self, position: Position, frame: &[u8]) {
        self.last = Some(position);
        self.totals.records += 1;
        self.totals.bytes += frame.len() as u64;
        self.totals.crc = crc32c::crc32c_append(self.totals.crc, frame);
        self.unchecked_records += 1;
        self.unchecked_bytes += frame.len() as u64;
    }

    fn checkpoint_is_due(&self) -> bool {
        self.unchecked_records >= CHECKPOINT_RECORDS || self.unchecked_bytes >= CHECKPOINT_BYTES
    }

    fn pass_checkpoint(&mut self) {
        self.unchecked_records = 0;
        self.unchecked_bytes = 0;
    }
}

impl Totals {
    fn to_bytes(self) -> [u8; TOTALS_BYTES] {
        let mut bytes = [0; TOTALS_BYTES];
        bytes[..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[16..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }
}

/// Where and how bytes cease to be an export file. What stands before is sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {flaw}")]
pub struct Damage {
    /// Offset in the file of the first frame that is not sound, bytes.
    pub at: u64,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// What is wrong with a part of an export file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The file ends before its end frame.
    #[error("the file ends here, and is unfinished")]
    Unfinished,
    /// Another kind of file.
    #[error("this is not an export file of poste")]
    NotAnExport,
    /// Of a later program.
    #[error("the file has version {0} of the format, and this program reads {FORMAT_VERSION}")]
    Version(u32),
    /// The header names no space.
    #[error("the header does not name a space")]
    SpaceName,
    /// Its bytes are not those that were written.
    #[error("the checksum does not fit: the file is damaged")]
    Checksum,
    /// No frame of this format has that kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// No frame of its kind has that length.
    #[error("a frame with an impossible length of {0} bytes")]
    Length(u32),
    /// A record is not behind the one before it.
    #[error("a record that is not in order")]
    Order,
    /// A record is not of the range that the header names.
    #[error("a record outside of the range that the header names")]
    Range,
    /// There is a checkpoint where none belongs, or none where one does.
    #[error("checkpoints are not where they belong")]
    CheckpointPlace,
    /// The records before are not those that were written.
    #[error("the records before do not add up: some are missing, or were put in")]
    Totals,
    /// Something follows the end.
    #[error("more bytes follow the end of the export")]
    BehindTheEnd,
}
