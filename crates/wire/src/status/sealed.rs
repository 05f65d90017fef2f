//! Sealing between two keys, as registrations and encrypted access tokens have it: AES-256-GCM under the bare X
//! coordinate of their Diffie-Hellman point, `nonce(12) ‖ ciphertext ‖ tag(16)`. Here the nonce comes first; in
//! symmetric frames it comes last.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use poste_codec::{PublicKey, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes that sealing adds: nonce 12, tag 16.
pub(super) const SEALED_OVERHEAD: usize = NONCE_LENGTH + 16;

const NONCE_LENGTH: usize = 12;

/// What was not sealed between these two keys, or was altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the key shared by the two sides does not open the bytes")]
pub struct SealedError;

/// The key that two sides share. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct SharedKey(Zeroizing<[u8; 32]>);

impl SharedKey {
    /// The key that `own` shares with `other`; the other side gets the same. One multiplication on the curve.
    pub fn between(own: &SecretKey, other: &PublicKey) -> Self {
        Self(own.ecdh_x(other))
    }

    /// The 32 bytes: the X coordinate, with its leading zeros.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals. The nonce must be fresh and random for every call.
    pub fn seal(&self, nonce: [u8; NONCE_LENGTH], plaintext: &[u8]) -> Vec<u8> {
        let sealed = self.cipher().encrypt(&Nonce::from(nonce), plaintext);
        let sealed = sealed.expect("AES-GCM takes 64 GiB, and nothing of that length is in memory");
        [&nonce[..], &sealed].concat()
    }

    /// Opens what the other side sealed.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let (nonce, sealed) = sealed.split_first_chunk().ok_or(SealedError)?;
        let plaintext = self.cipher().decrypt(&Nonce::from(*nonce), sealed).map_err(|_| SealedError)?;
        Ok(Zeroizing::new(plaintext))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn blobs_of_every_short_length_are_refused() {
        let shared = SharedKey::between(&key(1), &key(2).public());
        for length in 0..64 {
            assert_eq!(shared.open(&vec![0; length]), Err(SealedError), "{length}");
        }
        assert_eq!(format!("{shared:?}"), "SharedKey(redacted)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_other_side_opens_and_nobody_else_does(plaintext: Vec<u8>, nonce: [u8; 12], flip: u16) {
            let mut sealed = SharedKey::between(&key(1), &key(2).public()).seal(nonce, &plaintext);
            prop_assert_eq!(sealed.len(), plaintext.len() + SEALED_OVERHEAD);
            let other = SharedKey::between(&key(2), &key(1).public());
            prop_assert_eq!(&other.open(&sealed).unwrap()[..], &plaintext[..]);
            prop_assert!(SharedKey::between(&key(3), &key(1).public()).open(&sealed).is_err());
            let length = sealed.len();
            sealed[usize::from(flip) % length] ^= 1;
            prop_assert!(other.open(&sealed).is_err());
        }
    }
}
