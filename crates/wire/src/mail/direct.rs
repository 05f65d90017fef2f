//! Packet 126: a request for mail, sealed in an envelope or written directly. Direct requests are how status-go's own
//! messenger asks: no encryption, no signature, no proof of work.

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item, RlpError};

use super::MailRequest;
use super::form::{read_topics, write_topics};
use crate::packet::{Dialect, PacketError};
use crate::{Envelope, Hash};

/// What packet 126 holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailRequestPacket {
    /// A request sealed in an envelope, whose hash is the id of the request.
    Sealed(Envelope),
    /// A request in the open.
    Direct(DirectRequest),
}

/// A request in the open, with an id that its sender chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectRequest {
    /// The id, to be echoed as it is: status-go fills it with text. A shorter or longer one was brought to 32 bytes,
    /// aligned to the right, as deployed servers do.
    pub id: Hash,
    /// What is asked for; answers may always be batched.
    pub request: MailRequest,
}

impl MailRequestPacket {
    /// Reads the payload of the packet. The id of a direct request is too long for the expiry of an envelope, so no
    /// payload is both.
    pub fn decode(dialect: Dialect, payload: Bytes) -> Result<Self, PacketError> {
        match Envelope::decode(payload.clone()) {
            Ok(envelope) => Ok(Self::Sealed(envelope)),
            Err(_) => Ok(Self::Direct(DirectRequest::decode(dialect, &payload)?)),
        }
    }

    /// Writes the payload of the packet.
    pub fn encode(&self, dialect: Dialect) -> Bytes {
        match self {
            Self::Sealed(envelope) => envelope.rlp().clone(),
            Self::Direct(direct) => direct.encode(dialect).into(),
        }
    }

    /// What the completion will call this request.
    pub fn request_id(&self) -> Hash {
        match self {
            Self::Sealed(envelope) => envelope.hash(),
            Self::Direct(direct) => direct.id,
        }
    }
}

impl DirectRequest {
    /// Reads id, from, to, limit, cursor, bloom and, in Waku only, topics.
    fn decode(dialect: Dialect, payload: &[u8]) -> Result<Self, RlpError> {
        let item = Item::parse(payload)?;
        let ([id, lower, upper, limit, cursor, bloom], topics) = if dialect.is_waku() {
            let [id, lower, upper, limit, cursor, bloom, topics] = item.tuple()?;
            ([id, lower, upper, limit, cursor, bloom], read_topics(&topics)?)
        } else {
            (item.tuple()?, Vec::new())
        };
        let request = MailRequest {
            lower: lower.u32()?,
            upper: upper.u32()?,
            bloom: Bytes::copy_from_slice(bloom.bytes()?),
            topics,
            limit: limit.u32()?,
            cursor: Bytes::copy_from_slice(cursor.bytes()?),
            batch: true,
        };
        Ok(Self { id: right_aligned(id.bytes()?), request })
    }

    fn encode(&self, dialect: Dialect) -> Vec<u8> {
        let request = &self.request;
        let mut encoder = Encoder::new();
        encoder.list(if dialect.is_waku() { 7 } else { 6 }).bytes(&self.id.0);
        encoder.uint(request.lower.into()).uint(request.upper.into()).uint(request.limit.into());
        encoder.bytes(&request.cursor).bytes(&request.bloom);
        if dialect.is_waku() {
            write_topics(&mut encoder, &request.topics);
        }
        encoder.finish()
    }
}

fn right_aligned(id: &[u8]) -> Hash {
    let mut hash = Hash::default();
    let kept = &id[id.len().saturating_sub(32)..];
    hash.0[32 - kept.len()..].copy_from_slice(kept);
    hash
}
