//! What mailservers of the status-im Whisper ask each other (shh/6 only): packets 123 and 124.

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item};

use super::{PacketError, messages};
use crate::{Bloom, Cursor, Envelope};

/// Asks for envelopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// Not created before this, unix seconds.
    pub lower: u32,
    /// Not created after this, unix seconds.
    pub upper: u32,
    /// Their topics.
    pub bloom: Bloom,
    /// How many at most: 1 to 1000.
    pub limit: u32,
    /// Only what comes behind this place.
    pub cursor: Option<Cursor>,
}

/// A part of the answer. The parts carry nothing that ties them to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncResponse {
    /// Envelopes.
    pub envelopes: Vec<Envelope>,
    /// In the last part: where the next request may go on.
    pub cursor: Option<Cursor>,
    /// Whether this is the last part.
    pub is_final: bool,
    /// Why the answer ends early; empty if it does not.
    pub error: String,
}

impl SyncRequest {
    pub(super) fn decode(payload: &Bytes) -> Result<Self, PacketError> {
        let [lower, upper, bloom, limit, cursor] = Item::parse(payload)?.tuple()?;
        Ok(Self {
            lower: lower.u32()?,
            upper: upper.u32()?,
            bloom: Bloom::try_from(bloom.bytes()?)?,
            limit: limit.u32()?,
            cursor: decode_cursor(&cursor)?,
        })
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder.list(5).uint(self.lower.into()).uint(self.upper.into()).bytes(&self.bloom.0);
        encode_cursor(self.cursor, encoder.uint(self.limit.into()));
    }
}

impl SyncResponse {
    pub(super) fn decode(payload: &Bytes) -> Result<Self, PacketError> {
        let [envelopes, cursor, is_final, error] = Item::parse(payload)?.tuple()?;
        Ok(Self {
            envelopes: messages::decode_list(envelopes.list()?, payload)?,
            cursor: decode_cursor(&cursor)?,
            is_final: is_final.bool()?,
            error: String::from_utf8_lossy(error.bytes()?).into_owned(),
        })
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        messages::write_list(encoder.list(4), &self.envelopes);
        encode_cursor(self.cursor, encoder);
        encoder.bool(self.is_final).bytes(self.error.as_bytes());
    }
}

fn decode_cursor(item: &Item<'_>) -> Result<Option<Cursor>, PacketError> {
    match item.bytes()? {
        [] => Ok(None),
        bytes => Ok(Some(Cursor::try_from(bytes)?)),
    }
}

fn encode_cursor(cursor: Option<Cursor>, encoder: &mut Encoder) {
    match cursor {
        None => encoder.bytes(&[]),
        Some(cursor) => encoder.bytes(&cursor.to_bytes()),
    };
}
