//! How auth and ack travel: the plain form of fixed size, or `size(2) ‖ ECIES(body)` with the size as ECIES
//! shared data (EIP-8).

use std::fmt;

use poste_codec::{PublicKey, SecretKey, ecies};

use super::{Fresh, HandshakeError};

/// The two packets of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// From the initiator.
    Auth,
    /// From the recipient.
    Ack,
}

impl PacketKind {
    /// The size of the plain form on the wire. Every packet has at least this many bytes, so a reader begins
    /// with them.
    pub const fn plain_size(self) -> usize {
        self.plain_body_size() + ecies::OVERHEAD
    }

    /// The size of the plain form's content.
    pub(super) const fn plain_body_size(self) -> usize {
        match self {
            Self::Auth => 194,
            Self::Ack => 97,
        }
    }
}

/// How a packet is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Fixed fields, without a size.
    Plain,
    /// RLP with padding, behind its size.
    Eip8,
}

/// A packet that was opened: its bytes on the wire and its content.
pub struct Packet {
    form: Form,
    wire: Vec<u8>,
    body: Vec<u8>,
}

/// What [`Packet::open`] makes of the bytes read so far.
#[derive(Debug)]
pub enum Step {
    /// The packet is complete.
    Complete(Packet),
    /// It is in the EIP-8 form, and so many bytes in all are needed (at most 65,537).
    NeedTotal(usize),
}

impl Packet {
    /// Opens a packet of which `wire` has been read: first exactly [`PacketKind::plain_size`] bytes; then,
    /// when the answer is [`Step::NeedTotal`], exactly that many.
    pub fn open(kind: PacketKind, key: &SecretKey, wire: Vec<u8>) -> Result<Step, HandshakeError> {
        let plain_size = kind.plain_size();
        let prefix = *wire.first_chunk::<2>().ok_or(HandshakeError::NotForUs)?;
        let size = usize::from(u16::from_be_bytes(prefix));
        if wire.len() == plain_size {
            if let Ok(body) = ecies::decrypt(key, &wire, &[]) {
                return Ok(Step::Complete(Self { form: Form::Plain, wire, body }));
            }
            return if size < plain_size {
                Err(HandshakeError::NotForUs)
            } else {
                Ok(Step::NeedTotal(size + 2))
            };
        }
        let body = ecies::decrypt(key, &wire[2..], &prefix).map_err(|_| HandshakeError::NotForUs)?;
        Ok(Step::Complete(Self { form: Form::Eip8, wire, body }))
    }

    /// The form that it came in.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The bytes on the wire, size prefix included: the MACs begin with them.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The content: fixed fields, or RLP and padding.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet").field("form", &self.form).finish_non_exhaustive()
    }
}

/// Seals fixed fields in the plain form.
pub(super) fn seal_plain(body: &[u8], to: &PublicKey, fresh: &Fresh) -> Vec<u8> {
    ecies::encrypt(to, &fresh.seal_key, fresh.iv, body, &[])
}

/// Seals RLP in the EIP-8 form, with the padding of `fresh`.
pub(super) fn seal_eip8(mut body: Vec<u8>, to: &PublicKey, fresh: &Fresh) -> Vec<u8> {
    body.resize(body.len() + fresh.padding.min(16_384), 0);
    let size =
        u16::try_from(body.len() + ecies::OVERHEAD).expect("the content and its padding are below 64 KiB");
    let prefix = size.to_be_bytes();
    let sealed = ecies::encrypt(to, &fresh.seal_key, fresh.iv, &body, &prefix);
    [&prefix[..], &sealed].concat()
}
