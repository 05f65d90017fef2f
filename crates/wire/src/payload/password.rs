//! Symmetric keys, and how a password becomes one (7/WAKU-DATA; the number of rounds is that of the deployed nodes).

use std::fmt;

use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::ZeroizeOnDrop;

/// The rounds of PBKDF2; not the 65,536 that one would expect.
pub const PASSWORD_ROUNDS: u32 = 65_356;

/// A symmetric key of 32 bytes, not all of them zero. Wiped when dropped, compared in constant time, never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SymKey([u8; 32]);

/// The all-zero key, which deployed nodes refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a symmetric key must not be all zero")]
pub struct ZeroKeyError;

impl SymKey {
    /// Takes 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, ZeroKeyError> {
        let key = Self(bytes);
        if bool::from(key.0.ct_eq(&[0; 32])) { Err(ZeroKeyError) } else { Ok(key) }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SymKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SymKey {}

impl fmt::Debug for SymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymKey(redacted)")
    }
}

/// The key of a password: PBKDF2-HMAC-SHA-256 without salt. Takes tens of milliseconds: derive once, and not in an
/// async task.
pub fn password_key(password: &str) -> SymKey {
    let mut key = SymKey([0; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &[], PASSWORD_ROUNDS, &mut key.0);
    key
}
