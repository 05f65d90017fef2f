//! What both sides derive from the handshake: one AES key, one MAC key, and a running Keccak state for each
//! direction that begins with the handshake packets as they were on the wire.

use poste_codec::keccak256;
use sha3::{Digest, Keccak256};
use zeroize::Zeroizing;

use super::xor;

/// The secrets of one side of a connection.
pub struct Secrets {
    pub(crate) aes: Zeroizing<[u8; 32]>,
    pub(crate) mac: Zeroizing<[u8; 32]>,
    pub(crate) egress: Keccak256,
    pub(crate) ingress: Keccak256,
}

/// What the secrets are derived from.
pub(super) struct Exchange<'a> {
    /// The X coordinate of the point that the two ephemeral keys agree on.
    pub(super) shared: Zeroizing<[u8; 32]>,
    pub(super) initiator_nonce: [u8; 32],
    pub(super) recipient_nonce: [u8; 32],
    /// The packets on the wire, size prefixes included.
    pub(super) auth: &'a [u8],
    pub(super) ack: &'a [u8],
    /// Whether the secrets are the initiator's.
    pub(super) initiator: bool,
}

impl Secrets {
    pub(super) fn derive(exchange: &Exchange<'_>) -> Self {
        let nonces = hash(&exchange.recipient_nonce, &exchange.initiator_nonce);
        let shared = hash(&exchange.shared, &nonces);
        let aes = hash(&exchange.shared, &shared);
        let mac = hash(&exchange.shared, &aes);
        let from_initiator = begin_mac(&mac, &exchange.recipient_nonce, exchange.auth);
        let from_recipient = begin_mac(&mac, &exchange.initiator_nonce, exchange.ack);
        let (egress, ingress) = if exchange.initiator {
            (from_initiator, from_recipient)
        } else {
            (from_recipient, from_initiator)
        };
        Self { aes, mac, egress, ingress }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(redacted)")
    }
}

fn hash(a: &[u8; 32], b: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut joined = Zeroizing::new([0; 64]);
    joined[..32].copy_from_slice(a);
    joined[32..].copy_from_slice(b);
    Zeroizing::new(keccak256(&joined[..]))
}

fn begin_mac(secret: &[u8; 32], nonce: &[u8; 32], packet: &[u8]) -> Keccak256 {
    let mut state = Keccak256::new();
    state.update(&xor(secret, nonce)[..]);
    state.update(packet);
    state
}
