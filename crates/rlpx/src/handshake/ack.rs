//! The content of ack: the recipient's ephemeral public key and nonce.

use poste_codec::PublicKey;
use poste_codec::rlp::{Encoder, Item, Limits};

use super::auth::{VERSION, fixed};
use super::packet::{Form, Packet, PacketKind, seal_eip8, seal_plain};
use super::{Fresh, HandshakeError};

/// `ephemeral key ‖ nonce`; the plain form ends in a zero byte.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) ephemeral: PublicKey,
    pub(crate) nonce: [u8; 32],
}

impl Ack {
    pub(super) fn seal(&self, to: &PublicKey, form: Form, fresh: &Fresh) -> Vec<u8> {
        match form {
            Form::Plain => {
                let body = [&self.ephemeral.as_bytes()[..], &self.nonce, &[0]].concat();
                seal_plain(&body, to, fresh)
            }
            Form::Eip8 => {
                let mut body = Encoder::new();
                body.list(3).bytes(self.ephemeral.as_bytes()).bytes(&self.nonce).uint(VERSION);
                seal_eip8(body.finish(), to, fresh)
            }
        }
    }

    /// Further items, the version and the padding are ignored.
    pub(super) fn read(packet: &Packet) -> Result<Self, HandshakeError> {
        let (ephemeral, nonce): ([u8; 64], [u8; 32]) = match packet.form() {
            Form::Plain => {
                let body: &[u8; PacketKind::Ack.plain_body_size()] =
                    packet.body().try_into().map_err(|_| HandshakeError::Malformed)?;
                let (ephemeral, rest) = body.split_first_chunk().ok_or(HandshakeError::Malformed)?;
                (*ephemeral, *rest.first_chunk().ok_or(HandshakeError::Malformed)?)
            }
            Form::Eip8 => {
                let (list, _padding) = Item::parse_prefix(packet.body(), Limits::default())
                    .map_err(|_| HandshakeError::Malformed)?;
                let mut items = list.list().map_err(|_| HandshakeError::Malformed)?;
                (fixed(items.next())?, fixed(items.next())?)
            }
        };
        let ephemeral = PublicKey::from_bytes(&ephemeral).map_err(|_| HandshakeError::Key)?;
        Ok(Self { ephemeral, nonce })
    }
}
