//! Messages too long for one envelope, cut into segments. The deployed senders add Reed-Solomon parity segments from
//! the eighth segment on; they are accepted and ignored, as whole messages can be joined without them.

mod reassembly;

use std::fmt;

use bytes::Bytes;
use poste_codec::keccak256;
use prost::Message;

use super::proto::SegmentMessage;

pub use reassembly::{Accepted, Reassembly, ReassemblyBounds, RefusedSegment};

/// The longest piece in one segment, in bytes: three quarters of the 150 KiB that every node on the way relays.
pub const SEGMENT_LENGTH: usize = 150 * 1024 / 4 * 3;

const HASH_LENGTH: usize = 32;

/// A piece of a message, or what restores lost pieces.
#[derive(Clone, PartialEq, Eq)]
pub enum Segment {
    /// A piece of the message.
    Data {
        /// Keccak-256 of the whole message, as the sender claims.
        whole: [u8; HASH_LENGTH],
        /// Place among the segments, from 0, as the sender claims.
        index: u32,
        /// How many there are, as the sender claims; never 0.
        count: u32,
        /// The piece, never empty.
        piece: Bytes,
    },
    /// A parity segment.
    Parity,
}

impl Segment {
    /// Reads the content of a frame as a segment; `None` if it is a message by itself. An application message can be
    /// read as a `SegmentMessage` (its signature as the hash, its kind as the number of segments), so the hash must
    /// have its length, and there must be a piece and a number of segments.
    pub fn read(content: &Bytes) -> Option<Self> {
        let message = SegmentMessage::decode(content.clone()).ok()?;
        let whole = message.entire_message_hash[..].try_into().ok()?;
        let (count, parity_count) = (message.segments_count, message.parity_segments_count);
        if message.payload.is_empty() || (count < 2 && parity_count == 0) {
            return None;
        }
        match count {
            0 => Some(Self::Parity),
            _ => Some(Self::Data { whole, index: message.index, count, piece: message.payload }),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { index, count, piece, .. } => {
                write!(f, "Data({index} of {count}, {} bytes)", piece.len())
            }
            Self::Parity => f.write_str("Parity"),
        }
    }
}

/// What goes into frames: the message itself if it has at most `length` bytes, else its segments with pieces of that
/// length (mostly [`SEGMENT_LENGTH`]), without parity. A length of 0 counts as 1.
pub fn split(message: impl Into<Bytes>, length: usize) -> Vec<Bytes> {
    let message = message.into();
    let length = length.max(1);
    if message.len() <= length {
        return vec![message];
    }
    let whole = Bytes::copy_from_slice(&keccak256(&message));
    let segments_count = u32::try_from(message.len().div_ceil(length)).unwrap_or(u32::MAX);
    let segment = |(index, piece): (u32, &[u8])| {
        let segment = SegmentMessage {
            entire_message_hash: whole.clone(),
            index,
            segments_count,
            payload: message.slice_ref(piece),
            ..SegmentMessage::default()
        };
        segment.encode_to_vec().into()
    };
    (0..).zip(message.chunks(length)).map(segment).collect()
}

#[cfg(test)]
mod tests;
