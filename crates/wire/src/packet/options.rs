//! The options of Waku's Status and status update: a list of pairs, each a key and a value (6/WAKU1, sections "Status"
//! and "Status update"; 5/WAKU0). Only what is sent counts: absent is not the same as empty.

use poste_codec::rlp::{Encoder, Item};

use super::{Dialect, PacketError};
use crate::{Bloom, Topic};

/// How many topics a topic interest may hold.
pub const MAX_TOPIC_INTEREST: usize = 10_000;

/// What a node says about itself; each field only if it was said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Key 0: the least proof of work that the node takes.
    pub pow_requirement: Option<f64>,
    /// Key 1: the topics that it wants, as a filter.
    pub bloom: Option<Bloom>,
    /// Key 2: whether it is a light node, which relays nothing.
    pub light: Option<bool>,
    /// Key 3: whether it confirms envelopes (packets 11 and 12).
    pub confirmations: Option<bool>,
    /// Key 4: how many packets a second it takes.
    pub packet_limits: Option<RateLimits>,
    /// Key 5: the very topics that it wants, as they were sent. Said together with a bloom filter, this counts.
    pub topic_interest: Option<Vec<Topic>>,
    /// Key 6, not in waku/0: how many bytes a second it takes.
    pub byte_limits: Option<RateLimits>,
}

/// A node's limits a second; 0 is none. An advertisement only: nobody obeys it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// For each IP address.
    pub ip: u64,
    /// For each peer.
    pub peer: u64,
    /// For each topic.
    pub topic: u64,
}

impl Options {
    /// Reads the pairs in any order. Unknown keys are skipped (status-go stops at the first one and loses the rest); of
    /// a repeated key the last counts.
    pub(super) fn decode(dialect: Dialect, item: &Item<'_>) -> Result<Self, PacketError> {
        let mut options = Self::default();
        for pair in item.list()? {
            let [key, value] = pair.tuple()?;
            match key_of(dialect, key.bytes()?) {
                Some(0) => options.pow_requirement = Some(pow(&value)?),
                Some(1) => options.bloom = Some(Bloom::try_from(value.bytes()?)?),
                Some(2) => options.light = Some(value.bool()?),
                Some(3) => options.confirmations = Some(value.bool()?),
                Some(4) => options.packet_limits = Some(RateLimits::decode(&value)?),
                Some(5) => options.topic_interest = Some(topics(&value)?),
                Some(6) => options.byte_limits = Some(RateLimits::decode(&value)?),
                _ => {}
            }
        }
        Ok(options)
    }

    /// Writes the pairs with ascending keys, because status-go reads nothing behind a key that it does not know.
    pub(super) fn encode(&self, dialect: Dialect, encoder: &mut Encoder) {
        let byte_limits = self.byte_limits.filter(|_| dialect != Dialect::Waku0);
        let said = [
            self.pow_requirement.is_some(),
            self.bloom.is_some(),
            self.light.is_some(),
            self.confirmations.is_some(),
            self.packet_limits.is_some(),
            self.topic_interest.is_some(),
            byte_limits.is_some(),
        ];
        encoder.list(said.into_iter().filter(|said| *said).count());
        if let Some(pow) = self.pow_requirement {
            pair(dialect, encoder, 0).uint(pow.to_bits());
        }
        if let Some(bloom) = &self.bloom {
            pair(dialect, encoder, 1).bytes(&bloom.0);
        }
        if let Some(light) = self.light {
            pair(dialect, encoder, 2).bool(light);
        }
        if let Some(confirmations) = self.confirmations {
            pair(dialect, encoder, 3).bool(confirmations);
        }
        if let Some(limits) = self.packet_limits {
            limits.encode(pair(dialect, encoder, 4));
        }
        if let Some(topics) = &self.topic_interest {
            let encoder = pair(dialect, encoder, 5).list(topics.len());
            for topic in topics {
                encoder.bytes(&topic.0);
            }
        }
        if let Some(limits) = byte_limits {
            limits.encode(pair(dialect, encoder, 6));
        }
    }
}

impl RateLimits {
    pub(super) fn decode(item: &Item<'_>) -> Result<Self, PacketError> {
        let [ip, peer, topic] = item.tuple()?;
        Ok(Self { ip: ip.u64()?, peer: peer.u64()?, topic: topic.u64()? })
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder.list(3).uint(self.ip).uint(self.peer).uint(self.topic);
    }
}

/// A minimum proof of work: the bits of a double as an integer.
pub(super) fn pow(item: &Item<'_>) -> Result<f64, PacketError> {
    let pow = f64::from_bits(item.u64()?);
    if pow.is_finite() && pow >= 0.0 { Ok(pow) } else { Err(PacketError::Pow) }
}

fn topics(item: &Item<'_>) -> Result<Vec<Topic>, PacketError> {
    let list = item.list()?;
    let count = list.len();
    if count > MAX_TOPIC_INTEREST {
        return Err(PacketError::TooManyTopics(count));
    }
    list.map(|topic| Ok(Topic(topic.fixed()?))).collect()
}

/// waku/1 keys are integers (0 is the empty string), waku/0 keys are one digit of text.
fn key_of(dialect: Dialect, key: &[u8]) -> Option<u8> {
    match (dialect, key) {
        (Dialect::Waku0, [digit @ b'0'..=b'5']) => Some(digit - b'0'),
        (Dialect::Waku0, _) => None,
        (_, []) => Some(0),
        (_, [number @ 1..=6]) => Some(*number),
        _ => None,
    }
}

fn pair(dialect: Dialect, encoder: &mut Encoder, key: u8) -> &mut Encoder {
    let encoder = encoder.list(2);
    match dialect {
        Dialect::Waku0 => encoder.bytes(&[b'0' + key]),
        _ => encoder.uint(key.into()),
    }
}
