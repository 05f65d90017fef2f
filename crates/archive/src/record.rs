//! What the archive keeps, and how it derives a record's place from its body alone (J4): no writer can
//! misfile a record.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use poste_wire::{Envelope, EnvelopeError, Hash, Topic};

/// The largest body, bytes: an envelope of 1 MiB as its network counts it, with room for its RLP headers
/// and its other fields.
pub const MAX_BODY_BYTES: usize = 1024 * 1024 + 64;

/// A network whose records are kept apart from all others, in an order of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Space {
    /// `waku1`: envelopes of `waku/*` and `shh/6`.
    Waku1,
}

impl Space {
    /// Its name on the wire and on disk.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waku1 => "waku1",
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Space {
    type Err = Refusal;

    fn from_str(name: &str) -> Result<Self, Refusal> {
        match name {
            "waku1" => Ok(Self::Waku1),
            _ => Err(Refusal::UnknownSpace),
        }
    }
}

/// A place in the total order of a space: by time, then by id. As a cursor it excludes the record it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Creation time, nanoseconds since 1970.
    pub time_ns: i64,
    /// Identity of the record.
    pub id: Hash,
}

impl Position {
    /// Before every record of a time.
    #[must_use]
    pub fn first_of(time_ns: i64) -> Self {
        Self { time_ns, id: Hash([0; 32]) }
    }

    /// Behind every record of a time, or its last one.
    #[must_use]
    pub fn last_of(time_ns: i64) -> Self {
        Self { time_ns, id: Hash([0xff; 32]) }
    }
}

/// A record as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the order of its space.
    pub position: Position,
    /// What it is filed under.
    pub topic: Topic,
    /// Order of arrival in this store.
    pub seq: u64,
    /// The bytes as received; empty where a look-up did not ask for them.
    pub body: Bytes,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("position", &self.position)
            .field("topic", &self.topic)
            .field("seq", &self.seq)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// What the archive derives from a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// Its place in the order of its space.
    pub position: Position,
    /// What it is filed under.
    pub topic: Topic,
}

impl Derived {
    /// Derives the place of a body in `space`. In `waku1` the time is `expiry - ttl` (seconds, here in
    /// nanoseconds) and the id the Keccak-256 of the envelope's RLP.
    ///
    /// # Errors
    /// A [`Refusal`] for bytes that are not a record of that space.
    pub fn of(space: Space, body: &Bytes) -> Result<Self, Refusal> {
        match space {
            Space::Waku1 => {
                if body.len() > MAX_BODY_BYTES {
                    return Err(Refusal::TooLarge { bytes: body.len() });
                }
                let envelope = Envelope::decode(body.clone())?;
                let Some(sent) = envelope.expiry().checked_sub(envelope.ttl()) else {
                    // Deployed nodes let this wrap around into a far future; no peer takes it.
                    return Err(Refusal::TimeWraps);
                };
                let position = Position { time_ns: i64::from(sent) * 1_000_000_000, id: envelope.hash() };
                Ok(Self { position, topic: envelope.topic() })
            }
        }
    }
}

/// Why bytes are not a record: sending them again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody files records there.
    #[error("unknown space: this archive keeps `waku1`")]
    UnknownSpace,
    /// Larger than any record of the space.
    #[error("a body of {bytes} bytes is larger than the {MAX_BODY_BYTES} of the largest envelope")]
    TooLarge {
        /// Its size, bytes.
        bytes: usize,
    },
    /// Not an envelope.
    #[error(transparent)]
    Undecodable(#[from] EnvelopeError),
    /// The creation time would be before 1970.
    #[error("the envelope's ttl is larger than its expiry")]
    TimeWraps,
    /// Retention has taken away what is as old.
    #[error("it is older than what this archive keeps")]
    BelowFloor,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j4_time_topic_and_id_come_from_the_body() {
        let envelope = Envelope::new(1_600_000_050, 50, Topic([1, 2, 3, 4]), b"data", 7);
        let derived = Derived::of(Space::Waku1, envelope.rlp()).unwrap();
        assert_eq!(derived.position, Position { time_ns: 1_600_000_000_000_000_000, id: envelope.hash() });
        assert_eq!(derived.topic, Topic([1, 2, 3, 4]));
        assert_eq!(derived.position.id, Hash::of(envelope.rlp()));
    }

    #[test]
    fn what_is_no_envelope_of_this_time_is_refused() {
        let refuse = |body: &[u8]| Derived::of(Space::Waku1, &Bytes::copy_from_slice(body)).unwrap_err();
        assert!(matches!(refuse(b""), Refusal::Undecodable(_)));
        assert!(matches!(refuse(&[0xc0]), Refusal::Undecodable(_)));
        let wraps = Envelope::new(10, 11, Topic([0; 4]), b"", 0);
        assert_eq!(refuse(wraps.rlp()), Refusal::TimeWraps);
        let largest = Envelope::new(u32::MAX, 1, Topic([0; 4]), &vec![1; 1024 * 1024 - 20], u64::MAX);
        assert!(Derived::of(Space::Waku1, largest.rlp()).is_ok(), "{} bytes", largest.rlp().len());
        assert!(matches!(refuse(&vec![0; MAX_BODY_BYTES + 1]), Refusal::TooLarge { .. }));
        assert_eq!("waku2/x".parse::<Space>(), Err(Refusal::UnknownSpace));
    }
}
