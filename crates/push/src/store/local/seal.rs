//! AES-256-GCM under a key of its own for each row. A key seals each kind of text once, so the kind serves as nonce.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use rand::Rng;
use zeroize::Zeroizing;

/// Bytes that sealing adds.
pub(super) const TAG_BYTES: usize = 16;

/// What a key seals, once each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    DeviceData = 1,
    TopicKeys = 2,
    Answer = 3,
}

/// A key, wiped when dropped.
pub(super) struct SealKey(Zeroizing<[u8; SealKey::BYTES]>);

impl SealKey {
    pub(super) const BYTES: usize = 32;

    pub(super) fn random() -> Self {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        rand::rng().fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    pub(super) fn new(bytes: Zeroizing<[u8; Self::BYTES]>) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Seals a text of this kind: the only one that this key ever seals. `context` is checked when it is opened.
    pub(super) fn seal(&self, kind: Kind, context: &[u8], text: &[u8]) -> Vec<u8> {
        let sealed = self.cipher().encrypt(&nonce(kind), Payload { msg: text, aad: context });
        sealed.expect("texts are far below the 64 GiB that a nonce serves")
    }

    /// `None` when it was sealed with another key, as another kind or in another context, or was changed.
    pub(super) fn open(&self, kind: Kind, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.cipher().decrypt(&nonce(kind), Payload { msg: sealed, aad: context });
        text.ok().map(Zeroizing::new)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.as_bytes().into())
    }
}

fn nonce(kind: Kind) -> Nonce<aes_gcm::aes::cipher::consts::U12> {
    let mut nonce = [0; 12];
    nonce[11] = kind as u8;
    nonce.into()
}
