//! Sealing plaintexts (7/WAKU-DATA, section "Encryption"). Symmetric: AES-256-GCM, `ciphertext ‖ tag(16) ‖ nonce(12)`,
//! the nonce last. Asymmetric: ECIES without shared data, as in the RLPx handshake.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use poste_codec::ecies::{self, EciesError};
use poste_codec::{PublicKey, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::SymKey;

/// Bytes that symmetric sealing adds: tag 16, nonce 12.
pub const SYMMETRIC_OVERHEAD: usize = TAG_LENGTH + NONCE_LENGTH;

const TAG_LENGTH: usize = 16;
const NONCE_LENGTH: usize = 12;

/// The key does not open the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Shorter than the overhead, sealed with another key, or altered.
    #[error("the symmetric key does not open the data")]
    Symmetric,
    /// The same of a private key.
    #[error(transparent)]
    Asymmetric(#[from] EciesError),
}

/// Seals with a symmetric key. The nonce must be fresh and random for every call.
pub fn seal_symmetric(key: &SymKey, nonce: [u8; NONCE_LENGTH], plaintext: &[u8]) -> Vec<u8> {
    let mut data = cipher(key)
        .encrypt(&Nonce::from(nonce), plaintext)
        .expect("AES-GCM takes 64 GiB, and plaintexts are below 17 MiB");
    data.extend(nonce);
    data
}

/// Opens what was sealed with a symmetric key.
pub fn open_symmetric(key: &SymKey, data: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (sealed, nonce) = data.split_last_chunk::<NONCE_LENGTH>().ok_or(OpenError::Symmetric)?;
    let plaintext = cipher(key).decrypt(&Nonce::from(*nonce), sealed).map_err(|_| OpenError::Symmetric)?;
    Ok(Zeroizing::new(plaintext))
}

/// Seals to a public key. `ephemeral` and `iv` must be fresh and random for every call.
pub fn seal_asymmetric(to: &PublicKey, ephemeral: &SecretKey, iv: [u8; 16], plaintext: &[u8]) -> Vec<u8> {
    ecies::encrypt(to, ephemeral, iv, plaintext, &[])
}

/// Opens what was sealed to the public key of `secret`.
pub fn open_asymmetric(secret: &SecretKey, data: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    Ok(Zeroizing::new(ecies::decrypt(secret, data, &[])?))
}

fn cipher(key: &SymKey) -> Aes256Gcm {
    Aes256Gcm::new(key.as_bytes().into())
}
