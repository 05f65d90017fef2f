//! The envelope: what travels between nodes and lies in archives (6/WAKU1, EIP-627). The same bytes in `waku/1`,
//! `waku/0` and `shh/6`: `rlp[expiry, ttl, topic, data, nonce]`.

use std::fmt;

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item, RlpError};
use thiserror::Error;

use crate::{Cursor, Hash, Topic, pow};

/// Bytes that are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an envelope of expiry, ttl, topic, data and nonce: {0}")]
pub struct EnvelopeError(
    /// What is wrong with the RLP.
    #[from]
    pub RlpError,
);

/// An envelope with its encoding as it was received. Cloning it copies no bytes.
#[derive(Clone)]
pub struct Envelope {
    expiry: u32,
    ttl: u32,
    topic: Topic,
    nonce: u64,
    hash: Hash,
    data: Bytes,
    rlp: Bytes,
}

impl Envelope {
    /// What the size of an envelope counts besides its data, whatever its header really takes.
    pub const HEADER_SIZE: usize = 20;

    /// Makes an envelope of its five fields. The nonce is taken as it is: see [`pow::mine`].
    pub fn new(expiry: u32, ttl: u32, topic: Topic, data: &[u8], nonce: u64) -> Self {
        let mut encoder = Encoder::new();
        encoder.list(5).uint(expiry.into()).uint(ttl.into()).bytes(&topic.0).bytes(data).uint(nonce);
        let rlp = Bytes::from(encoder.finish());
        let nonce_length = nonce_rlp_length(nonce);
        let data_end = rlp.len() - nonce_length;
        let data = rlp.slice(data_end - data.len()..data_end);
        Self { expiry, ttl, topic, nonce, hash: Hash::of(&rlp), data, rlp }
    }

    /// Reads an envelope that fills `rlp`; nothing is copied.
    pub fn decode(rlp: Bytes) -> Result<Self, EnvelopeError> {
        Self::decode_item(&Item::parse(&rlp)?, &rlp)
    }

    /// Reads an envelope from an item of a longer packet. When `packet` is what the item was read from, the envelope
    /// shares its bytes, and keeps the whole packet alive: see [`Envelope::detached`].
    pub fn decode_item(item: &Item<'_>, packet: &Bytes) -> Result<Self, EnvelopeError> {
        let [expiry, ttl, topic, data, nonce] = item.tuple()?;
        Ok(Self {
            expiry: expiry.u32()?,
            ttl: ttl.u32()?,
            topic: Topic(topic.fixed()?),
            nonce: nonce.u64()?,
            hash: Hash::of(item.raw()),
            data: share(packet, data.bytes()?),
            rlp: share(packet, item.raw()),
        })
    }

    /// The same envelope in an allocation of its own: for keeping it longer than the packet that it came in.
    pub fn detached(&self) -> Self {
        let rlp = Bytes::copy_from_slice(&self.rlp);
        let data_end = rlp.len() - nonce_rlp_length(self.nonce);
        Self { data: rlp.slice(data_end - self.data.len()..data_end), rlp, ..self.clone() }
    }

    /// When it ceases to be relayed, unix seconds.
    pub fn expiry(&self) -> u32 {
        self.expiry
    }

    /// For how many seconds it is relayed.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// What it is sorted by.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// The encrypted payload (7/WAKU-DATA).
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// What was found by mining.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The encoding, exactly as received.
    pub fn rlp(&self) -> &Bytes {
        &self.rlp
    }

    /// Its name everywhere: Keccak-256 of the encoding, nonce included.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// When it was made, unix seconds: expiry less ttl, wrapping as in deployed nodes. An envelope whose ttl exceeds
    /// its expiry so comes from far in the future.
    pub fn sent(&self) -> u32 {
        self.expiry.wrapping_sub(self.ttl)
    }

    /// Its size as limits count it: the data and a fixed 20 bytes, not the length of the encoding.
    pub fn size(&self) -> usize {
        Self::HEADER_SIZE + self.data.len()
    }

    /// Its place in the archive's order.
    pub fn cursor(&self) -> Cursor {
        Cursor { sent: self.sent(), hash: self.hash }
    }

    /// Its proof of work, by its own ttl; infinite when that is 0. Hashes the data.
    pub fn pow(&self) -> f64 {
        self.pow_with_ttl(self.ttl.into())
    }

    /// Its proof of work if it had to be relayed for `ttl` seconds.
    pub fn pow_with_ttl(&self, ttl: u64) -> f64 {
        pow::Work::of(self).pow(ttl)
    }

    /// Its proof of work at a receiver whose clock says `now` (unix seconds): an envelope from the future has to bear
    /// the time until it is made, and one second more.
    pub fn pow_at(&self, now: u32) -> f64 {
        let ahead = match self.sent().checked_sub(now) {
            None | Some(0) => 0,
            Some(seconds) => u64::from(seconds) + 1,
        };
        self.pow_with_ttl(u64::from(self.ttl) + ahead)
    }
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        self.rlp == other.rlp
    }
}

impl Eq for Envelope {}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("hash", &self.hash)
            .field("topic", &self.topic)
            .field("expiry", &self.expiry)
            .field("ttl", &self.ttl)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// `part` as a share of `whole`, or as a copy if it is no part of it.
fn share(whole: &Bytes, part: &[u8]) -> Bytes {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= whole.len() => whole.slice(start..end),
        _ => Bytes::copy_from_slice(part),
    }
}

fn nonce_rlp_length(nonce: u64) -> usize {
    match nonce {
        0..=0x7f => 1,
        _ => 1 + 8 - nonce.leading_zeros() as usize / 8,
    }
}

#[cfg(test)]
mod tests;
