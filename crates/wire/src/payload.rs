//! What is inside an envelope's data (7/WAKU-DATA): `flags ‖ size field ‖ payload ‖ padding ‖ [signature]`, sealed with
//! a symmetric key (AES-256-GCM) or to a public key (ECIES). Nothing in an envelope says which: one tries one's keys.

mod password;
mod seal;

use poste_codec::{PublicKey, SecretKey, keccak256, recover};
use thiserror::Error;
use zeroize::Zeroizing;

pub use password::{PASSWORD_ROUNDS, SymKey, ZeroKeyError, password_key};
pub use seal::{
    OpenError, SYMMETRIC_OVERHEAD, open_asymmetric, open_symmetric, seal_asymmetric, seal_symmetric,
};

/// Plaintexts are padded to a multiple of this many bytes, by 1 to as many bytes.
pub const MAX_PADDING: usize = 256;
/// The length of a signature: R‖S‖V.
pub const SIGNATURE_LENGTH: usize = 65;

const SIZE_FIELD_MASK: u8 = 0b0000_0011;
const SIGNED_FLAG: u8 = 0b0000_0100;

/// Why a plaintext cannot be built or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The size field has three bytes, so a payload is below 16 MiB.
    #[error("a payload has less than 16777216 bytes, not {0}")]
    TooLong(usize),
    /// There is not even the flags byte.
    #[error("the plaintext is empty")]
    Empty,
    /// Signed, but too short to hold a signature.
    #[error("the plaintext is too short for its signature")]
    NoRoomForSignature,
    /// The size field, or the payload that it announces, ends behind the plaintext.
    #[error("the payload runs past the end of the plaintext")]
    Truncated,
    /// No key could have made the signature.
    #[error("the signature of the plaintext names no key")]
    Signature,
}

/// A plaintext, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Plaintext<'a> {
    /// The first byte; only its lowest three bits mean something.
    pub flags: u8,
    /// What the application sent.
    pub payload: &'a [u8],
    /// Random filling.
    pub padding: &'a [u8],
    /// R‖S‖V over everything before it, if it is signed.
    pub signature: Option<[u8; SIGNATURE_LENGTH]>,
    /// Whose signature that is.
    pub signer: Option<PublicKey>,
}

impl std::fmt::Debug for Plaintext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plaintext")
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("padding", &format_args!("{} bytes", self.padding.len()))
            .field("signed", &self.signature.is_some())
            .finish_non_exhaustive()
    }
}

/// How many bytes of padding bring a plaintext to a multiple of 256: 1 to 256, never 0.
pub fn padding_length(payload_length: usize, signed: bool) -> usize {
    let raw =
        1 + size_field_length(payload_length) + payload_length + if signed { SIGNATURE_LENGTH } else { 0 };
    MAX_PADDING - raw % MAX_PADDING
}

/// Builds a plaintext. `padding` is taken as it is: fresh random bytes, [`padding_length`] of them.
pub fn build(
    payload: &[u8],
    padding: &[u8],
    signer: Option<&SecretKey>,
) -> Result<Zeroizing<Vec<u8>>, PayloadError> {
    let size_field = size_field_length(payload.len());
    if size_field > usize::from(SIZE_FIELD_MASK) {
        return Err(PayloadError::TooLong(payload.len()));
    }
    let capacity = 1 + size_field + payload.len() + padding.len() + SIGNATURE_LENGTH;
    let mut plaintext = Zeroizing::new(Vec::with_capacity(capacity));
    plaintext.push(size_field as u8 | if signer.is_some() { SIGNED_FLAG } else { 0 });
    plaintext.extend(&payload.len().to_le_bytes()[..size_field]);
    plaintext.extend(payload);
    plaintext.extend(padding);
    if let Some(signer) = signer {
        let signature = signer.sign(&keccak256(&plaintext));
        plaintext.extend(signature);
    }
    Ok(plaintext)
}

/// Takes a plaintext apart, and finds who signed it.
pub fn parse(plaintext: &[u8]) -> Result<Plaintext<'_>, PayloadError> {
    let parsed = take_apart(plaintext)?;
    let signer = match &parsed.signature {
        None => None,
        Some(signature) => {
            let digest = keccak256(&plaintext[..plaintext.len() - SIGNATURE_LENGTH]);
            Some(recover(&digest, signature).map_err(|_| PayloadError::Signature)?)
        }
    };
    Ok(Plaintext { signer, ..parsed })
}

/// What the application sent, for those who do not care who signed it: the signature may be any bytes, and the
/// recovery of a key is spared.
pub fn content(plaintext: &[u8]) -> Result<&[u8], PayloadError> {
    take_apart(plaintext).map(|parsed| parsed.payload)
}

/// Without the signer.
fn take_apart(plaintext: &[u8]) -> Result<Plaintext<'_>, PayloadError> {
    let (flags, rest) = plaintext.split_first().ok_or(PayloadError::Empty)?;
    let (rest, signature) = match flags & SIGNED_FLAG {
        0 => (rest, None),
        _ => {
            let (rest, signature) = rest.split_last_chunk().ok_or(PayloadError::NoRoomForSignature)?;
            if rest.is_empty() {
                return Err(PayloadError::NoRoomForSignature);
            }
            (rest, Some(*signature))
        }
    };
    let size_field = usize::from(flags & SIZE_FIELD_MASK);
    let (size, rest) = rest.split_at_checked(size_field).ok_or(PayloadError::Truncated)?;
    let size = size.iter().rev().fold(0, |size, byte| size << 8 | usize::from(*byte));
    let (payload, padding) = rest.split_at_checked(size).ok_or(PayloadError::Truncated)?;
    Ok(Plaintext { flags: *flags, payload, padding, signature, signer: None })
}

/// The shortest that holds the length, but at least one byte.
fn size_field_length(payload_length: usize) -> usize {
    let bits = usize::BITS - payload_length.leading_zeros();
    bits.div_ceil(8).max(1) as usize
}

#[cfg(test)]
mod tests;
