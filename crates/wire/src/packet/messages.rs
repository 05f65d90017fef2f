//! Lists of envelopes: Messages (1) and mail (127, "P2P message" in the specifications).

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item, List};

use super::{Dialect, PacketError};
use crate::{Envelope, Hash};

/// Envelopes, and the hash that a confirmation names them by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    /// The envelopes, in the order of the packet.
    pub envelopes: Vec<Envelope>,
    /// What 11 and 12 call this batch: [`batch_hash`] of the payload as received, or as it will be sent.
    pub batch_hash: Hash,
}

impl Messages {
    /// A batch for sending.
    pub fn new(envelopes: Vec<Envelope>) -> Self {
        let batch_hash = batch_hash(&encode(&envelopes));
        Self { envelopes, batch_hash }
    }

    pub(super) fn decode(payload: &Bytes) -> Result<Self, PacketError> {
        let envelopes = decode_list(Item::parse(payload)?.list()?, payload)?;
        Ok(Self { envelopes, batch_hash: batch_hash(payload) })
    }
}

/// The hash of a batch: Keccak-256 of the payload of a Messages packet, exactly as it is on the wire.
pub fn batch_hash(payload: &[u8]) -> Hash {
    Hash::of(payload)
}

/// Waku always has a list. In shh/6 go-ethereum knows only one bare envelope; status-im sends one bare and several as
/// a list, and reads both.
pub(super) fn decode_mail(dialect: Dialect, payload: &Bytes) -> Result<Vec<Envelope>, PacketError> {
    let item = Item::parse(payload)?;
    let list = item.list()?;
    let bare = list.clone().next().is_some_and(|first| !first.is_list());
    if dialect == Dialect::Shh6 && bare {
        return Ok(vec![Envelope::decode_item(&item, payload)?]);
    }
    decode_list(list, payload)
}

pub(super) fn encode_mail(dialect: Dialect, envelopes: &[Envelope]) -> Bytes {
    match envelopes {
        [envelope] if dialect == Dialect::Shh6 => envelope.rlp().clone(),
        envelopes => encode(envelopes),
    }
}

pub(super) fn encode(envelopes: &[Envelope]) -> Bytes {
    let mut encoder = Encoder::new();
    write_list(&mut encoder, envelopes);
    encoder.finish().into()
}

pub(super) fn write_list(encoder: &mut Encoder, envelopes: &[Envelope]) {
    encoder.list(envelopes.len());
    for envelope in envelopes {
        encoder.raw(envelope.rlp());
    }
}

pub(super) fn decode_list(list: List<'_>, packet: &Bytes) -> Result<Vec<Envelope>, PacketError> {
    list.map(|item| Ok(Envelope::decode_item(&item, packet)?)).collect()
}
