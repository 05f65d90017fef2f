//! Application messages: a payload with the signature that names its sender (62/STATUS-PAYLOADS).

use std::fmt;

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey, keccak256, recover};
use prost::Message;
use sha3::{Digest, Keccak256};
use thiserror::Error;

use super::ids::{DedupeKey, MessageId};
use super::proto::ApplicationMetadataMessage;

pub use super::proto::application_metadata_message::Type as MessageType;

const SIGNATURE_LENGTH: usize = 65;

/// Why bytes are no application message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Not a message of these fields.
    #[error("the bytes are no application message")]
    Encoding(#[from] prost::DecodeError),
    /// Absent, or not R‖S‖V. An envelope's signature is no substitute.
    #[error("the signature has {0} bytes, not {SIGNATURE_LENGTH}")]
    SignatureLength(usize),
    /// No key could have made the signature, or V is not below 4.
    #[error("the signature names no sender")]
    Signature,
}

/// A message whose signature names its sender. The kind is not covered by the signature: read the payload strictly as
/// what the kind says.
#[derive(Clone, PartialEq, Eq)]
pub struct ApplicationMessage {
    /// Who signed the payload.
    pub signer: PublicKey,
    /// What the payload is: a [`MessageType`], or a number that is none.
    pub kind: i32,
    /// The inner message; of a registration the sealed one.
    pub payload: Bytes,
    /// Names the message as it came. Whoever saw a message can make others with the same payload and signer but
    /// another id: see [`Self::dedupe_key`].
    pub id: MessageId,
}

impl ApplicationMessage {
    /// Reads a message, and finds who signed it. One recovery of a key.
    pub fn read(raw: Bytes) -> Result<Self, MessageError> {
        let message = ApplicationMetadataMessage::decode(raw.clone())?;
        let signature: [u8; SIGNATURE_LENGTH] = message.signature[..]
            .try_into()
            .map_err(|_| MessageError::SignatureLength(message.signature.len()))?;
        // 27 and 28 are for envelopes only: the deployed nodes refuse them here.
        if signature[SIGNATURE_LENGTH - 1] > 3 {
            return Err(MessageError::Signature);
        }
        let digest = keccak256(&message.payload);
        let signer = recover(&digest, &signature).map_err(|_| MessageError::Signature)?;
        let id = MessageId::of(&signer, &raw);
        Ok(Self { signer, kind: message.r#type, payload: message.payload, id })
    }

    /// Signs a payload (RFC 6979, S in the lower half, V 0 or 1) and writes the message. The same payload and key give
    /// the same bytes.
    pub fn write(kind: MessageType, payload: impl Into<Bytes>, signer: &SecretKey) -> Vec<u8> {
        let payload = payload.into();
        let signature = Bytes::copy_from_slice(&signer.sign(&keccak256(&payload)));
        ApplicationMetadataMessage { signature, payload, r#type: kind.into() }.encode_to_vec()
    }

    /// What the payload is, if its kind is known.
    pub fn message_type(&self) -> Option<MessageType> {
        MessageType::try_from(self.kind).ok()
    }

    /// The same for every message of this signer, kind and payload. A signature (R, S) has a twin (R, −S), and fields
    /// can be encoded in many ways, so one who saw a message can send it again under another [`MessageId`]. Leaving the
    /// signature out covers its twin, and every signature that the sender itself may make anew.
    pub fn dedupe_key(&self) -> DedupeKey {
        let hash = Keccak256::new()
            .chain_update(b"poste application message")
            .chain_update(self.signer.as_bytes())
            .chain_update(self.kind.to_be_bytes())
            .chain_update(&self.payload);
        DedupeKey(hash.finalize().into())
    }
}

impl fmt::Debug for ApplicationMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationMessage")
            .field("kind", &self.kind)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
