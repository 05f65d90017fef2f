//! Joining segments. Anybody can send them, so what is kept is bounded in every direction; when there is too much, the
//! oldest message goes, because the segments of an honest one come within seconds of each other.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use poste_codec::keccak256;
use thiserror::Error;

use super::Segment;

/// What is counted for each segment beside its bytes.
const SEGMENT_OVERHEAD: usize = 128;

/// How much is kept of messages that are not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReassemblyBounds {
    /// The most messages.
    pub messages: usize,
    /// The most bytes of all messages, with 128 for each segment.
    pub bytes: usize,
    /// The most segments of one message.
    pub segments: u32,
    /// The longest message, in bytes.
    pub message_bytes: usize,
    /// After how many seconds an incomplete message is given up.
    pub age_seconds: u64,
}

impl Default for ReassemblyBounds {
    /// 256 messages of up to 64 segments and 4 MiB, 32 MiB in all, for ten minutes.
    fn default() -> Self {
        Self { messages: 256, bytes: 32 << 20, segments: 64, message_bytes: 4 << 20, age_seconds: 600 }
    }
}

/// Why a segment was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RefusedSegment {
    /// The index is not below the number of segments.
    #[error("segment {index} of {count} cannot be")]
    Index {
        /// The claimed index.
        index: u32,
        /// The claimed number.
        count: u32,
    },
    /// More segments than a message may have.
    #[error("a message of {0} segments is too long")]
    TooManySegments(u32),
    /// More bytes than a message may have.
    #[error("the message is too long")]
    TooLong,
    /// All segments are there, but are not the message that they claim to be. They are forgotten.
    #[error("the segments do not make the message that they claim to be")]
    Hash,
}

/// What became of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It was the last one: the whole message.
    Complete(Bytes),
    /// Others are still missing.
    Kept,
    /// This place of the message is taken already.
    Duplicate,
    /// A parity segment: of no use.
    Ignored,
    /// Not taken.
    Refused(RefusedSegment),
}

/// Messages whose segments are not all there. Times are seconds of any clock that the caller likes, positions any
/// numbers that grow with the stream that the segments come from.
#[derive(Debug)]
pub struct Reassembly {
    bounds: ReassemblyBounds,
    pending: HashMap<Claim, Pending>,
    bytes: usize,
    given_up: u64,
}

/// Segments go together if they claim the same message and the same number of segments: so those that lie about the
/// number do not spoil it for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Claim {
    whole: [u8; 32],
    count: u32,
}

struct Pending {
    pieces: BTreeMap<u32, Bytes>,
    length: usize,
    started: u64,
    position: u64,
}

impl Reassembly {
    /// Nothing yet.
    pub fn new(bounds: ReassemblyBounds) -> Self {
        Self { bounds, pending: HashMap::new(), bytes: 0, given_up: 0 }
    }

    /// Takes a segment that came at this time and stands at this position.
    pub fn accept(&mut self, segment: Segment, now_seconds: u64, position: u64) -> Accepted {
        self.expire(now_seconds);
        let Segment::Data { whole, index, count, piece } = segment else { return Accepted::Ignored };
        if index >= count {
            return Accepted::Refused(RefusedSegment::Index { index, count });
        }
        if count > self.bounds.segments {
            return Accepted::Refused(RefusedSegment::TooManySegments(count));
        }
        let claim = Claim { whole, count };
        let present = self.pending.get(&claim);
        if present.is_some_and(|pending| pending.pieces.contains_key(&index)) {
            return Accepted::Duplicate;
        }
        let length = present.map_or(0, |pending| pending.length) + piece.len();
        let cost = piece.len() + SEGMENT_OVERHEAD;
        if length > self.bounds.message_bytes || cost > self.bounds.bytes {
            self.forget(&claim);
            return Accepted::Refused(RefusedSegment::TooLong);
        }

        let pending = self.pending.entry(claim).or_insert_with(|| Pending {
            pieces: BTreeMap::new(),
            length: 0,
            started: now_seconds,
            position,
        });
        // A copy, so that a short piece does not hold the long frame that it came in.
        pending.pieces.insert(index, Bytes::copy_from_slice(&piece));
        pending.length = length;
        self.bytes += cost;
        if pending.pieces.len() == count as usize {
            return self.join(&claim);
        }
        self.make_room(&claim);
        Accepted::Kept
    }

    /// Gives up the messages that are too old, and says how many. [`Self::accept`] does so too.
    pub fn expire(&mut self, now_seconds: u64) -> usize {
        let age = self.bounds.age_seconds;
        let old = |pending: &Pending| now_seconds.saturating_sub(pending.started) > age;
        let claims: Vec<_> =
            self.pending.iter().filter(|(_, pending)| old(pending)).map(|(claim, _)| *claim).collect();
        for claim in &claims {
            self.forget(claim);
        }
        self.given_up += claims.len() as u64;
        claims.len()
    }

    /// The lowest position of the segments kept: a reader that starts there again, after these were lost, misses none.
    pub fn lowest_position(&self) -> Option<u64> {
        self.pending.values().map(|pending| pending.position).min()
    }

    /// How many messages are incomplete.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether no message is incomplete.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many bytes are kept, with 128 for each segment.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages were given up so far, for their age or to make room.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    fn join(&mut self, claim: &Claim) -> Accepted {
        let Some(pending) = self.forget(claim) else { return Accepted::Refused(RefusedSegment::Hash) };
        let mut message = Vec::with_capacity(pending.length);
        pending.pieces.values().for_each(|piece| message.extend_from_slice(piece));
        if keccak256(&message) == claim.whole {
            Accepted::Complete(message.into())
        } else {
            Accepted::Refused(RefusedSegment::Hash)
        }
    }

    /// Gives up the oldest messages, but not this one, until the rest is within the bounds.
    fn make_room(&mut self, keep: &Claim) {
        while self.bytes > self.bounds.bytes || self.pending.len() > self.bounds.messages {
            let others = self.pending.iter().filter(|(claim, _)| *claim != keep);
            let oldest = others.min_by_key(|(_, pending)| (pending.started, pending.position));
            // Alone it is too much only where a message may be longer than all together.
            let claim = oldest.map_or(*keep, |(claim, _)| *claim);
            self.forget(&claim);
            self.given_up += 1;
        }
    }

    fn forget(&mut self, claim: &Claim) -> Option<Pending> {
        let pending = self.pending.remove(claim)?;
        self.bytes -= pending.length + pending.pieces.len() * SEGMENT_OVERHEAD;
        Some(pending)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("pieces", &self.pieces.len())
            .field("length", &self.length)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}
