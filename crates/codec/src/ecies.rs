//! ECIES over secp256k1 as devp2p defines it: for the RLPx handshake and for asymmetric envelopes (7/WAKU-DATA).
//!
//! Layout: `0x04‖R (65) | IV (16) | AES-128-CTR ciphertext | HMAC-SHA-256 tag (32)`. The keys come from the
//! concatenation KDF of NIST SP 800-56 over the X coordinate of the shared point; the tag covers the IV, the
//! ciphertext and `s2`, shared data that is not sent (EIP-8 puts the packet's size prefix there).

use aes::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{PublicKey, SecretKey};

/// Bytes that encryption adds: ephemeral key 65, IV 16, tag 32.
pub const OVERHEAD: usize = 65 + 16 + 32;

/// Why a ciphertext was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EciesError {
    /// Shorter than the overhead.
    #[error("too short for an ECIES ciphertext")]
    Short,
    /// The ephemeral key is not an uncompressed point of the curve.
    #[error("the ephemeral public key is invalid")]
    EphemeralKey,
    /// Made for another key, or altered.
    #[error("the authentication tag does not match")]
    Tag,
}

/// Encrypts `plaintext` to a public key. `ephemeral` and `iv` must be fresh and random for every call.
pub fn encrypt(to: &PublicKey, ephemeral: &SecretKey, iv: [u8; 16], plaintext: &[u8], s2: &[u8]) -> Vec<u8> {
    let keys = Keys::derive(&ephemeral.ecdh_x(to));
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD);
    out.extend_from_slice(&ephemeral.public().to_sec1());
    out.extend_from_slice(&iv);
    out.extend_from_slice(plaintext);
    keys.apply_cipher(&iv, &mut out[81..]);
    let tag = keys.mac(&out[65..], s2).finalize().into_bytes();
    out.extend_from_slice(&tag);
    out
}

/// Opens a ciphertext. The tag is checked, in constant time, before anything is decrypted.
pub fn decrypt(secret: &SecretKey, data: &[u8], s2: &[u8]) -> Result<Vec<u8>, EciesError> {
    if data.len() < OVERHEAD {
        return Err(EciesError::Short);
    }
    let (ephemeral, rest) = data.split_at(65);
    let (sealed, tag) = rest.split_at(rest.len() - 32);
    if ephemeral[0] != 4 {
        return Err(EciesError::EphemeralKey);
    }
    let ephemeral = PublicKey::from_bytes(ephemeral).map_err(|_| EciesError::EphemeralKey)?;
    let keys = Keys::derive(&secret.ecdh_x(&ephemeral));
    keys.mac(sealed, s2).verify_slice(tag).map_err(|_| EciesError::Tag)?;
    let (iv, ciphertext) = sealed.split_first_chunk::<16>().expect("length checked above");
    let mut plaintext = ciphertext.to_vec();
    keys.apply_cipher(iv, &mut plaintext);
    Ok(plaintext)
}

/// Ke for AES-128-CTR, and Km, which is the hash of the second half of the derived bytes.
struct Keys {
    cipher: Zeroizing<[u8; 16]>,
    mac: Zeroizing<[u8; 32]>,
}

impl Keys {
    fn derive(shared: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(1u32.to_be_bytes());
        hash.update(shared);
        let derived: Zeroizing<[u8; 32]> = Zeroizing::new(hash.finalize().into());
        let mut cipher = Zeroizing::new([0; 16]);
        cipher.copy_from_slice(&derived[..16]);
        Self { cipher, mac: Zeroizing::new(Sha256::digest(&derived[16..]).into()) }
    }

    fn apply_cipher(&self, iv: &[u8; 16], bytes: &mut [u8]) {
        ctr::Ctr128BE::<aes::Aes128>::new((&*self.cipher).into(), iv.into()).apply_keystream(bytes);
    }

    fn mac(&self, sealed: &[u8], s2: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.mac[..]).expect("HMAC takes a key of any length");
        mac.update(sealed);
        mac.update(s2);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let sealed = encrypt(&key(1).public(), &key(2), [3; 16], b"hello", b"s2");
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        assert_eq!(decrypt(&key(1), &sealed, b"s2").unwrap(), b"hello");
        assert_eq!(decrypt(&key(4), &sealed, b"s2"), Err(EciesError::Tag));
        assert_eq!(decrypt(&key(1), &sealed, b""), Err(EciesError::Tag));
        for i in 65..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert_eq!(decrypt(&key(1), &altered, b"s2"), Err(EciesError::Tag), "byte {i}");
        }
        for length in 0..OVERHEAD {
            assert_eq!(decrypt(&key(1), &sealed[..length], b"s2"), Err(EciesError::Short));
        }
        let mut altered = sealed;
        altered[0] = 2;
        assert_eq!(decrypt(&key(1), &altered, b"s2"), Err(EciesError::EphemeralKey));
    }
}
