//! The data of an envelope or Waku message (26/WAKU2-PAYLOAD): sealing and opening with what Status needs around it.
//! Who signed a frame is never asked: the deployed clients sign it with their identity even where the message inside
//! is by a throw-away key, so the answer would tell what nobody needs to know.

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::SymKey;
use crate::payload::{self, OpenError, PayloadError};

/// Why data could not be opened as a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Not for this key.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// For this key, but no frame.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// Opens data that was sealed to the public key of `secret`, and gives what the application sent.
pub fn open_asymmetric(secret: &SecretKey, data: &[u8]) -> Result<Bytes, FrameError> {
    content(&payload::open_asymmetric(secret, data)?)
}

/// Opens data that was sealed with a topic's key, and gives what the application sent.
pub fn open_symmetric(key: &SymKey, data: &[u8]) -> Result<Bytes, FrameError> {
    content(&payload::open_symmetric(key, data)?)
}

/// Seals to a public key. Deployed clients drop a frame that is not signed; `signer` should be the key that also signs
/// the message inside. `fill` gives random bytes, and is called for the padding, the ephemeral key and the IV.
pub fn seal_asymmetric(
    to: &PublicKey,
    content: &[u8],
    signer: &SecretKey,
    mut fill: impl FnMut(&mut [u8]),
) -> Result<Vec<u8>, PayloadError> {
    let plaintext = plaintext(content, signer, &mut fill)?;
    let ephemeral = SecretKey::random(&mut fill);
    let mut iv = [0; 16];
    fill(&mut iv);
    Ok(payload::seal_asymmetric(to, &ephemeral, iv, &plaintext))
}

/// Seals with a topic's key; otherwise like [`seal_asymmetric`]. `fill` is called for the padding and the nonce.
pub fn seal_symmetric(
    key: &SymKey,
    content: &[u8],
    signer: &SecretKey,
    mut fill: impl FnMut(&mut [u8]),
) -> Result<Vec<u8>, PayloadError> {
    let plaintext = plaintext(content, signer, &mut fill)?;
    let mut nonce = [0; 12];
    fill(&mut nonce);
    Ok(payload::seal_symmetric(key, nonce, &plaintext))
}

fn plaintext(
    content: &[u8],
    signer: &SecretKey,
    fill: &mut impl FnMut(&mut [u8]),
) -> Result<Zeroizing<Vec<u8>>, PayloadError> {
    let mut padding = vec![0; payload::padding_length(content.len(), true)];
    fill(&mut padding);
    payload::build(content, &padding, Some(signer))
}

fn content(plaintext: &[u8]) -> Result<Bytes, FrameError> {
    Ok(Bytes::copy_from_slice(payload::content(plaintext)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    /// Bytes that differ from call to call.
    fn fill() -> impl FnMut(&mut [u8]) {
        let mut next = 0;
        move |bytes| {
            next += 1;
            bytes.fill(next);
        }
    }

    #[test]
    fn a_frame_is_padded_signed_and_opened_by_its_key_only() {
        let data = seal_asymmetric(&key(1).public(), b"content", &key(2), fill()).unwrap();
        assert_eq!((data.len() - poste_codec::ecies::OVERHEAD) % 256, 0);
        assert_eq!(open_asymmetric(&key(1), &data).unwrap(), "content");
        assert!(open_asymmetric(&key(2), &data).is_err());
        let plaintext = payload::open_asymmetric(&key(1), &data).unwrap();
        assert_eq!(payload::parse(&plaintext).unwrap().signer, Some(key(2).public()));

        let symmetric = SymKey::from_bytes([1; 32]).unwrap();
        let data = seal_symmetric(&symmetric, b"content", &key(2), fill()).unwrap();
        assert_eq!((data.len() - payload::SYMMETRIC_OVERHEAD) % 256, 0);
        assert_eq!(open_symmetric(&symmetric, &data).unwrap(), "content");
        assert!(open_symmetric(&SymKey::from_bytes([2; 32]).unwrap(), &data).is_err());
    }

    #[test]
    fn a_frame_need_not_be_signed() {
        let plaintext = payload::build(b"content", &[0; 10], None).unwrap();
        let data = payload::seal_asymmetric(&key(1).public(), &key(2), [3; 16], &plaintext);
        assert_eq!(open_asymmetric(&key(1), &data).unwrap(), "content");
        let data = payload::seal_asymmetric(&key(1).public(), &key(2), [3; 16], &[]);
        assert_eq!(open_asymmetric(&key(1), &data), Err(FrameError::Payload(PayloadError::Empty)));
    }
}
