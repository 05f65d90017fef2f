//! secp256k1 keys as devp2p writes them: public keys are 64 bytes X‖Y, signatures 65 bytes R‖S‖V with V 0 or 1.
//!
//! The only place that knows which library multiplies points: libsecp256k1, for its speed
//! (docs/decisions/0023-the-curve-in-c.md). The tests hold it against `k256`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, SECP256K1};
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
        secp256k1::PublicKey::from_byte_array_uncompressed(key.to_sec1()).map_err(|_| KeyError::Public)?;
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
        let key = secp256k1::PublicKey::from_byte_array_compressed(*bytes).map_err(|_| KeyError::Public)?;
        Ok(Self::of(&key))
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

    fn point(&self) -> secp256k1::PublicKey {
        secp256k1::PublicKey::from_byte_array_uncompressed(self.to_sec1())
            .expect("checked when the key was made")
    }

    fn of(key: &secp256k1::PublicKey) -> Self {
        let mut xy = [0; 64];
        xy.copy_from_slice(&key.serialize_uncompressed()[1..]);
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
    key: secp256k1::SecretKey,
    /// Takes a multiplication on the curve and is not always needed.
    public: OnceLock<PublicKey>,
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl SecretKey {
    /// Reads 32 bytes, big-endian.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = secp256k1::SecretKey::from_byte_array(*bytes).map_err(|_| KeyError::Secret)?;
        Ok(Self(Arc::new(Secret { key, public: OnceLock::new() })))
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
        Zeroizing::new(self.0.key.secret_bytes())
    }

    /// The public key of this key.
    pub fn public(&self) -> PublicKey {
        *self.0.public.get_or_init(|| PublicKey::of(&self.0.key.public_key(SECP256K1)))
    }

    /// The X coordinate of the Diffie-Hellman point, always 32 bytes.
    pub fn ecdh_x(&self, public: &PublicKey) -> Zeroizing<[u8; 32]> {
        let shared = Zeroizing::new(secp256k1::ecdh::shared_secret_point(&public.point(), &self.0.key));
        let mut x = Zeroizing::new([0; 32]);
        x.copy_from_slice(&shared[..32]);
        x
    }

    /// Signs a 32-byte digest (RFC 6979, low S): R‖S‖V with V 0 or 1.
    pub fn sign(&self, digest: &[u8; 32]) -> [u8; 65] {
        let signature = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(*digest), &self.0.key);
        let (recovery, rs) = signature.serialize_compact();
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&rs);
        bytes[64] = i32::from(recovery) as u8; // 0 to 3
        bytes
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
    let recovery = RecoveryId::try_from(i32::from(v)).map_err(|_| KeyError::Signature)?;
    let signature =
        RecoverableSignature::from_compact(&signature[..64], recovery).map_err(|_| KeyError::Signature)?;
    let key = SECP256K1
        .recover_ecdsa(Message::from_digest(*digest), &signature)
        .map_err(|_| KeyError::Signature)?;
    Ok(PublicKey::of(&key))
}

#[cfg(test)]
mod tests {
    use k256::elliptic_curve::sec1::ToSec1Point;
    use proptest::prelude::*;

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

    /// What `k256` makes of the same signature.
    fn recover_by_k256(digest: &[u8; 32], signature: &[u8; 65]) -> Option<PublicKey> {
        let rs = k256::ecdsa::Signature::from_slice(&signature[..64]).ok()?;
        let v = k256::ecdsa::RecoveryId::from_byte(signature[64])?;
        let key = k256::ecdsa::VerifyingKey::recover_from_prehash(digest, &rs, v).ok()?;
        Some(PublicKey::from_bytes(key.to_sec1_point(false).as_bytes()).unwrap())
    }

    /// The same signature with n - s, which names the same key.
    fn twin(signature: &[u8; 65]) -> [u8; 65] {
        let rs = k256::ecdsa::Signature::from_slice(&signature[..64]).unwrap();
        let negated = k256::ecdsa::Signature::from_scalars(rs.r().to_bytes(), (-*rs.s()).to_bytes()).unwrap();
        let mut twin = [signature[64] ^ 1; 65];
        twin[..64].copy_from_slice(&negated.to_bytes());
        twin
    }

    proptest! {
        #[test]
        fn two_libraries_agree(a: [u8; 32], b: [u8; 32], digest: [u8; 32], mut random: [u8; 64], v in 0..5_u8) {
            let ours = [a, b].map(|bytes| SecretKey::from_bytes(&bytes));
            let theirs = [a, b].map(|bytes| k256::SecretKey::from_slice(&bytes));
            prop_assert_eq!(ours.each_ref().map(Result::is_ok), theirs.each_ref().map(Result::is_ok));
            let ([Ok(a), Ok(b)], [Ok(their_a), Ok(their_b)]) = (ours, theirs) else { return Ok(()) };

            let points = [false, true].map(|compressed| their_a.public_key().to_sec1_point(compressed));
            prop_assert_eq!(&a.public().to_sec1()[..], points[0].as_bytes());
            prop_assert_eq!(&a.public().to_compressed()[..], points[1].as_bytes());
            let shared = their_a.diffie_hellman(&their_b.public_key());
            prop_assert_eq!(&a.ecdh_x(&b.public())[..], &shared.raw_secret_bytes()[..]);

            let signature = a.sign(&digest);
            let (rs, recovery) = k256::ecdsa::SigningKey::from(their_a).sign_prehash_recoverable(&digest);
            prop_assert_eq!(&signature[..64], &rs.to_bytes()[..]);
            prop_assert_eq!(signature[64], recovery.to_byte());
            prop_assert_eq!(recover(&digest, &signature), Ok(a.public()));
            prop_assert_eq!(recover(&digest, &twin(&signature)), Ok(a.public()));

            // Half of all X belong to a point, so half of these name a key.
            random[0] &= 0x7f;
            let mut made_up = [v; 65];
            made_up[..64].copy_from_slice(&random);
            prop_assert_eq!(recover(&digest, &made_up).ok(), recover_by_k256(&digest, &made_up));
        }
    }

    #[test]
    fn two_libraries_agree_at_the_edges() {
        let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
        let mut below = <[u8; 32]>::try_from(order.clone()).unwrap();
        below[31] -= 1;
        let mut one = [0; 32];
        one[31] = 1;
        let edges = [[0; 32], one, [1; 32], below, order.try_into().unwrap(), [0xff; 32]];
        let mut named = 0;
        for digest in edges {
            for r in edges {
                for s in edges {
                    for v in 0..6 {
                        let signature: [u8; 65] = [&r[..], &s, &[v]].concat().try_into().unwrap();
                        let key = recover(&digest, &signature).ok();
                        assert_eq!(key, recover_by_k256(&digest, &signature), "{digest:x?} {signature:x?}");
                        named += usize::from(key.is_some());
                    }
                }
            }
            for secret in edges {
                let theirs = k256::SecretKey::from_slice(&secret).ok();
                let ours = SecretKey::from_bytes(&secret).ok();
                assert_eq!(ours.is_some(), theirs.is_some(), "{secret:x?}");
                let Some((ours, theirs)) = ours.zip(theirs) else { continue };
                let public = ours.public();
                assert_eq!(&public.to_sec1()[..], theirs.public_key().to_sec1_point(false).as_bytes());
                assert_eq!(recover(&digest, &ours.sign(&digest)), Ok(public));
            }
        }
        assert!(named > 0);
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", key(9)), "SecretKey(redacted)");
    }
}
