//! The MAC of frames: a running Keccak-256 that both sides feed with everything encrypted so far. Its sum
//! never finalises the state.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use sha3::{Digest, Keccak256};
use subtle::ConstantTimeEq;

/// Bytes of a tag.
pub(super) const TAG: usize = 16;

/// The state of one direction.
pub(super) struct MacState {
    cipher: Box<Aes256>,
    hash: Keccak256,
}

impl MacState {
    pub(super) fn new(secret: &[u8; 32], hash: Keccak256) -> Self {
        Self { cipher: Box::new(Aes256::new(secret.into())), hash }
    }

    /// The tag of an encrypted header of 16 bytes.
    pub(super) fn header(&mut self, header: &[u8]) -> [u8; TAG] {
        let mut seed = [0; TAG];
        seed.copy_from_slice(header);
        self.update(&seed)
    }

    /// Takes in a piece of an encrypted, padded body.
    pub(super) fn absorb(&mut self, piece: &[u8]) {
        self.hash.update(piece);
    }

    /// The tag of the body that has been taken in.
    pub(super) fn body(&mut self) -> [u8; TAG] {
        let seed = self.sum();
        self.update(&seed)
    }

    /// Whether `tag` is the header's, in constant time.
    pub(super) fn header_is(&mut self, header: &[u8], tag: &[u8]) -> bool {
        self.header(header).ct_eq(tag).into()
    }

    /// Whether `tag` is the body's, in constant time.
    pub(super) fn body_is(&mut self, tag: &[u8]) -> bool {
        self.body().ct_eq(tag).into()
    }

    fn update(&mut self, seed: &[u8; TAG]) -> [u8; TAG] {
        let mut block = self.sum();
        self.cipher.encrypt_block((&mut block).into());
        block.iter_mut().zip(seed).for_each(|(block, seed)| *block ^= seed);
        self.hash.update(block);
        self.sum()
    }

    fn sum(&self) -> [u8; TAG] {
        let digest: [u8; 32] = self.hash.clone().finalize().into();
        let mut half = [0; TAG];
        half.copy_from_slice(&digest[..TAG]);
        half
    }
}
