//! What a confirming node answers to a batch (6/WAKU1, section "Message response"): packet 12, which precedes 11.

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item};

use super::{Dialect, PacketError};
use crate::Hash;

/// The only version there is; others are to be ignored.
const VERSION: u64 = 1;

/// Which envelopes of a batch were not taken. Those of the batch that it does not name were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageResponse {
    /// The batch.
    pub batch_hash: Hash,
    /// What was wrong, envelope by envelope.
    pub faults: Vec<EnvelopeFault>,
}

/// Why an envelope was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeFault {
    /// The envelope.
    pub hash: Hash,
    /// The sender's code for the reason: see [`EnvelopeFault::time_code`] and [`EnvelopeFault::other_code`].
    pub code: u64,
    /// The reason in words.
    pub description: String,
}

impl EnvelopeFault {
    /// The code that says that the clocks of the two differ. The specification has 1; deployed nodes know this one.
    pub fn time_code(dialect: Dialect) -> u64 {
        if dialect.is_waku() { 21 } else { 37 }
    }

    /// The code for every other reason. The specification has 2; deployed nodes know this one.
    pub fn other_code(dialect: Dialect) -> u64 {
        if dialect.is_waku() { 22 } else { 38 }
    }
}

impl MessageResponse {
    pub(super) fn decode(payload: &Bytes) -> Result<Option<Self>, PacketError> {
        let [version, response] = Item::parse(payload)?.tuple()?;
        if version.u64()? != VERSION {
            return Ok(None);
        }
        let [batch_hash, faults] = response.tuple()?;
        let faults = faults.list()?.map(|fault| EnvelopeFault::decode(&fault)).collect::<Result<_, _>>()?;
        Ok(Some(Self { batch_hash: Hash(batch_hash.fixed()?), faults }))
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder.list(2).uint(VERSION).list(2).bytes(&self.batch_hash.0).list(self.faults.len());
        for fault in &self.faults {
            encoder.list(3).bytes(&fault.hash.0).uint(fault.code).bytes(fault.description.as_bytes());
        }
    }
}

impl EnvelopeFault {
    fn decode(item: &Item<'_>) -> Result<Self, PacketError> {
        let [hash, code, description] = item.tuple()?;
        Ok(Self {
            hash: Hash(hash.fixed()?),
            code: code.u64()?,
            description: String::from_utf8_lossy(description.bytes()?).into_owned(),
        })
    }
}
