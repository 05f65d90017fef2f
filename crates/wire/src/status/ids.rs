//! Names for keys, chats and messages: SHAKE-256 of 64 bytes, or Keccak-256. Their `Debug` shows none of the
//! bytes, because a few are enough to tell a reader of logs who is meant.

use std::fmt;

use poste_codec::PublicKey;
use sha3::{Digest, Keccak256};
use shake::Shake256;
use shake::digest::{ExtendableOutput, Update, XofReader};
use thiserror::Error;

use crate::hex_id::id_bytes;

/// Bytes that are no identifier, because there are too many or too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {expected} bytes, not {actual}")]
pub struct IdLengthError {
    expected: usize,
    actual: usize,
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        id_bytes!($name, $length);

        impl TryFrom<&[u8]> for $name {
            type Error = IdLengthError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdLengthError> {
                let length = IdLengthError { expected: $length, actual: bytes.len() };
                bytes.try_into().map(Self).map_err(|_| length)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

hash_id! {
    /// Names a client towards push servers and those who ask them: SHAKE-256 of the compressed public key.
    HashedPublicKey, 64
}

hash_id! {
    /// Names a chat, or a contact, in the lists of a registration and in a notification: SHAKE-256 of the chat's id.
    /// The id of a one-to-one chat, and of a contact, is the chat key of the other.
    HashedChatId, 64
}

hash_id! {
    /// Names the author of a message in a notification: SHAKE-256 of the chat key's text, not of the key.
    AuthorHash, 64
}

hash_id! {
    /// Names an application message: Keccak-256 of its signer's uncompressed key and of the message as it came.
    MessageId, 32
}

hash_id! {
    /// Names a registration in the answer to it: SHAKE-256 of the sealed registration, nonce and tag included.
    RequestId, 64
}

hash_id! {
    /// What stays the same in every way to sign and to encode one message, and so tells duplicates that the
    /// [`MessageId`] does not. Ours alone: it never travels.
    DedupeKey, 32
}

impl HashedPublicKey {
    /// Of a public key.
    pub fn of(key: &PublicKey) -> Self {
        Self(shake256_64(&key.to_compressed()))
    }
}

impl HashedChatId {
    /// Of a chat's id: the 132 characters of a [`chat_key`], or the id of a group or community chat.
    pub fn of(chat_id: &str) -> Self {
        Self(shake256_64(chat_id.as_bytes()))
    }
}

impl AuthorHash {
    /// Of the author's public key.
    pub fn of(author: &PublicKey) -> Self {
        Self(shake256_64(chat_key(author).as_bytes()))
    }
}

impl MessageId {
    /// Of a message as it came (never encoded anew) and the key that signed it.
    pub fn of(signer: &PublicKey, raw: &[u8]) -> Self {
        let hash = Keccak256::new().chain_update(signer.to_sec1()).chain_update(raw);
        Self(hash.finalize().into())
    }
}

impl RequestId {
    /// Of a sealed registration.
    pub fn of(sealed: &[u8]) -> Self {
        Self(shake256_64(sealed))
    }
}

/// A public key as Status writes it, `0x` and 130 hex digits: also the id of the contact and of the chat with it.
pub fn chat_key(key: &PublicKey) -> String {
    format!("0x{}", hex::encode(key.to_sec1()))
}

/// SHAKE-256 of `bytes`, 64 bytes long.
pub fn shake256_64(bytes: &[u8]) -> [u8; 64] {
    let mut hash = Shake256::default();
    Update::update(&mut hash, bytes);
    let mut output = [0; 64];
    hash.finalize_xof().read(&mut output);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back_but_is_not_logged() {
        let id = HashedChatId::of("chat");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("0x{id}").parse(), Ok(id));
        assert_eq!(format!("{id:?}"), "HashedChatId(redacted)");
        assert!("00".parse::<RequestId>().is_err());
    }

    #[test]
    fn only_bytes_of_the_right_number_are_an_identifier() {
        assert_eq!(MessageId::try_from(&[7; 32][..]), Ok(MessageId([7; 32])));
        let error = HashedPublicKey::try_from(&[7; 63][..]).unwrap_err();
        assert_eq!(error.to_string(), "expected 64 bytes, not 63");
    }
}
