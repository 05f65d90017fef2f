//! The content of auth: who dials, and a signature that carries the ephemeral public key.

use poste_codec::rlp::{Encoder, Item, Limits};
use poste_codec::{PublicKey, SecretKey, recover};

use super::packet::{Form, Packet, PacketKind, seal_eip8};
use super::{Fresh, HandshakeError, xor};

/// The version in our packets. Nobody looks at it.
pub(super) const VERSION: u64 = 4;

/// `signature ‖ initiator ‖ nonce`; the plain form holds also the hash of the ephemeral key and a zero byte.
#[derive(Debug)]
pub(crate) struct Auth {
    /// Over (static shared secret XOR nonce), made with the ephemeral key.
    pub(crate) signature: [u8; 65],
    pub(crate) initiator: PublicKey,
    pub(crate) nonce: [u8; 32],
}

impl Auth {
    pub(super) fn sign(key: &SecretKey, remote: &PublicKey, fresh: &Fresh) -> Self {
        let signature = fresh.ephemeral.sign(&xor(&key.ecdh_x(remote), &fresh.nonce));
        Self { signature, initiator: key.public(), nonce: fresh.nonce }
    }

    pub(super) fn seal(&self, to: &PublicKey, fresh: &Fresh) -> Vec<u8> {
        let mut body = Encoder::new();
        body.list(4).bytes(&self.signature).bytes(self.initiator.as_bytes()).bytes(&self.nonce).uint(VERSION);
        seal_eip8(body.finish(), to, fresh)
    }

    /// Further items, the version and the padding are ignored.
    pub(super) fn read(packet: &Packet) -> Result<Self, HandshakeError> {
        let (signature, initiator, nonce) = match packet.form() {
            Form::Plain => {
                let body: &[u8; PacketKind::Auth.plain_body_size()] =
                    packet.body().try_into().map_err(|_| HandshakeError::Malformed)?;
                let (signature, rest) = body.split_first_chunk().ok_or(HandshakeError::Malformed)?;
                let (_ephemeral_hash, rest) = rest.split_at(32);
                let (initiator, rest) = rest.split_first_chunk().ok_or(HandshakeError::Malformed)?;
                let nonce = rest.first_chunk().ok_or(HandshakeError::Malformed)?;
                (*signature, *initiator, *nonce)
            }
            Form::Eip8 => {
                let (list, _padding) = Item::parse_prefix(packet.body(), Limits::default())
                    .map_err(|_| HandshakeError::Malformed)?;
                let mut items = list.list().map_err(|_| HandshakeError::Malformed)?;
                (fixed(items.next())?, fixed::<64>(items.next())?, fixed(items.next())?)
            }
        };
        let initiator = PublicKey::from_bytes(&initiator).map_err(|_| HandshakeError::Key)?;
        Ok(Self { signature, initiator, nonce })
    }

    /// The initiator's ephemeral key, recovered from the signature by the recipient.
    pub(crate) fn ephemeral(&self, recipient: &SecretKey) -> Result<PublicKey, HandshakeError> {
        let digest = xor(&recipient.ecdh_x(&self.initiator), &self.nonce);
        recover(&digest, &self.signature).map_err(|_| HandshakeError::Signature)
    }
}

pub(super) fn fixed<const N: usize>(item: Option<Item<'_>>) -> Result<[u8; N], HandshakeError> {
    item.and_then(|item| item.fixed().ok()).ok_or(HandshakeError::Malformed)
}
