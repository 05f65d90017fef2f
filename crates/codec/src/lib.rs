//! The few primitives that devp2p and Waku payloads share: strict RLP, ECIES, Keccak-256 and secp256k1 keys.
//!
//! Nothing here does I/O, reads a clock or draws randomness: what is random is an argument. What it is not: the
//! formats themselves (envelopes and packets are in `poste-wire`, the transport is in `poste-rlpx`).
//!
//! Start with [`rlp::Item`] for reading and [`rlp::Encoder`] for writing.

pub mod ecies;
pub mod keys;
pub mod rlp;

pub use keys::{KeyError, PublicKey, SecretKey, recover};

use sha3::{Digest, Keccak256};

/// Keccak-256 of `bytes` (the pre-NIST padding that Ethereum uses, not SHA3-256).
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}
