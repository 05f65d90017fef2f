//! secp256k1 keys as devp2p writes them: public keys are 64 bytes X‖Y, signatures 65 bytes R‖S‖V with V 0 or 1.

use std::fmt;
use std::sync::{Arc, OnceLock};

use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use k256::elliptic_curve::sec1::ToSec1Point;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keccak256;

/// What is wrong with a key or a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Neither 64 bytes nor 65 bytes that begin with 0x04, or no point of the curve.
    #[error("not a secp256k1 public key: expected 64 bytes X‖Y of a point on the curve")]
    Public,
    /// Zero, or not below the order of the group.
    #[error("not a secp256k1 private key: expected 32 bytes between 1 and the order of the group")]
    Secret,
    /// No key could have made this signature.
    #[error("the signature names no public key")]
    Signature,
}

/// A public key: X‖Y of a point that is known to lie on the curve.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 64]);

impl PublicKey {
    /// Reads 64 bytes X‖Y, or 65 bytes 0x04‖X‖Y, and checks that the point lies on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let xy: [u8; 64] = match bytes {
            [4, xy @ ..] if bytes.len() == 65 => xy.try_into().map_err(|_| KeyError::Public)?,
            xy => xy.try_into().map_err(|_| KeyError::Public)?,
        };
        let key = Self(xy);
        k256::PublicKey::from_sec1_bytes(&key.to_sec1()).map_err(|_| KeyError::Public)?;
        Ok(key)
    }

    /// X‖Y, 64 bytes: how devp2p names a node.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// 0x04‖X‖Y, 65 bytes: the uncompressed SEC1 form.
    pub fn to_sec1(&self) -> [u8; 65] {
        let mut sec1 = [4; 65];
        sec1[1..].copy_from_slice(&self.0);
        sec1
    }

    /// Reads the compressed SEC1 form, 33 bytes 0x02‖X or 0x03‖X, and checks that the point lies on the curve.
    pub fn from_compressed(bytes: &[u8; 33]) -> Result<Self, KeyError> {
        // The curve's library also reads 0x05‖X, the compact form, which leaves the parity of Y open.
        if !matches!(bytes[0], 2 | 3) {
            return Err(KeyError::Public);
        }
        k256::PublicKey::from_sec1_bytes(bytes).map(|key| Self::of(&key)).map_err(|_| KeyError::Public)
    }

    /// 0x02‖X where Y is even and 0x03‖X where it is odd, 33 bytes: the compressed SEC1 form.
    pub fn to_compressed(&self) -> [u8; 33] {
        let mut compressed = [2 | self.0[63] & 1; 33];
        compressed[1..].copy_from_slice(&self.0[..32]);
        compressed
    }

    /// The node address: Keccak-256 of the 64 bytes.
    pub fn node_id(&self) -> [u8; 32] {
        keccak256(&self.0)
    }

    fn point(&self) -> k256::PublicKey {
        k256::PublicKey::from_sec1_bytes(&self.to_sec1()).expect("checked when the key was made")
    }

    fn of(key: &k256::PublicKey) -> Self {
        let sec1 = key.to_sec1_point(false);
        let mut xy = [0; 64];
        xy.copy_from_slice(&sec1.as_bytes()[1..]);
        Self(xy)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:02x}{:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// A private key. Wiped when the last clone is dropped, and never printed.
#[derive(Clone)]
pub struct SecretKey(Arc<Secret>);

struct Secret {
    key: k256::SecretKey,
    /// With the public key, which takes a multiplication on the curve and is not always needed.
    signing: OnceLock<SigningKey>,
}

impl SecretKey {
    /// Reads 32 bytes, big-endian.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = k256::SecretKey::from_slice(bytes).map_err(|_| KeyError::Secret)?;
        Ok(Self(Arc::new(Secret { key, signing: OnceLock::new() })))
    }

    /// A new key from a source of randomness, which is asked again in the one case in 2^128 that its 32 bytes
    /// are no key.
    pub fn random(mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        loop {
            fill(&mut bytes[..]);
            if let Ok(key) = Self::from_bytes(&bytes) {
                return key;
            }
        }
    }

    /// The 32 bytes, big-endian.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.key.to_bytes().into())
    }

    /// The public key of this key.
    pub fn public(&self) -> PublicKey {
        PublicKey::of(&self.signing().verifying_key().into())
    }

    /// The X coordinate of the Diffie-Hellman point, always 32 bytes.
    pub fn ecdh_x(&self, public: &PublicKey) -> Zeroizing<[u8; 32]> {
        let shared = self.0.key.diffie_hellman(&public.point());
        Zeroizing::new((*shared.raw_secret_bytes()).into())
    }

    /// Signs a 32-byte digest (RFC 6979, low S): R‖S‖V with V 0 or 1.
    pub fn sign(&self, digest: &[u8; 32]) -> [u8; 65] {
        let (signature, recovery) = self.signing().sign_prehash_recoverable(digest);
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = recovery.to_byte();
        bytes
    }

    fn signing(&self) -> &SigningKey {
        self.0.signing.get_or_init(|| SigningKey::from(&self.0.key))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// The key that made `signature` (R‖S‖V) over `digest`. V may be 0 or 1, as devp2p and Go write it, or 27 or
/// 28, as 7/WAKU-DATA has it.
pub fn recover(digest: &[u8; 32], signature: &[u8; 65]) -> Result<PublicKey, KeyError> {
    let v = match signature[64] {
        v @ (27 | 28) => v - 27,
        v => v,
    };
    let recovery = RecoveryId::from_byte(v).ok_or(KeyError::Signature)?;
    let signature = Signature::from_slice(&signature[..64]).map_err(|_| KeyError::Signature)?;
    let key =
        VerifyingKey::recover_from_prehash(digest, &signature, recovery).map_err(|_| KeyError::Signature)?;
    Ok(PublicKey::of(&key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn both_sides_agree_on_the_shared_secret() {
        let (a, b) = (key(1), key(2));
        assert_eq!(*a.ecdh_x(&b.public()), *b.ecdh_x(&a.public()));
    }

    #[test]
    fn a_signature_names_its_signer_in_both_conventions() {
        let digest = keccak256(b"digest");
        let mut signature = key(7).sign(&digest);
        assert!(signature[64] < 2);
        assert_eq!(recover(&digest, &signature), Ok(key(7).public()));
        signature[64] += 27;
        assert_eq!(recover(&digest, &signature), Ok(key(7).public()));
        signature[64] = 29;
        assert_eq!(recover(&digest, &signature), Err(KeyError::Signature));
    }

    #[test]
    fn keys_off_the_curve_are_refused() {
        assert_eq!(PublicKey::from_bytes(&[1; 64]), Err(KeyError::Public));
        assert_eq!(PublicKey::from_bytes(&[0; 64]), Err(KeyError::Public));
        assert_eq!(PublicKey::from_bytes(&key(3).public().as_bytes()[..63]), Err(KeyError::Public));
        assert!(SecretKey::from_bytes(&[0; 32]).is_err());
        assert!(SecretKey::from_bytes(&[0xff; 32]).is_err());
    }

    #[test]
    fn a_compressed_key_names_the_same_point() {
        let mut parities = [false; 2];
        for byte in 1..9 {
            let compressed = key(byte).public().to_compressed();
            parities[usize::from(compressed[0] - 2)] = true;
            assert_eq!(PublicKey::from_compressed(&compressed), Ok(key(byte).public()));
        }
        assert_eq!(parities, [true; 2]);
        assert_eq!(PublicKey::from_compressed(&[0xff; 33]), Err(KeyError::Public));
        let mut other_form = key(1).public().to_compressed();
        for first in [0, 1, 4, 5, 6, 7] {
            other_form[0] = first;
            assert_eq!(PublicKey::from_compressed(&other_form), Err(KeyError::Public), "{first}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", key(9)), "SecretKey(redacted)");
    }
}
