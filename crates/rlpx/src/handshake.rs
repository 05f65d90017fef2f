//! The RLPx handshake: two packets, after which both sides share secrets that only the owners of the two node
//! keys can have.
//!
//! The initiator sends *auth*, the recipient answers *ack*, both sealed with ECIES to the other's node key.
//! There is an older plain form of fixed size and the EIP-8 form, prefixed with its size. This side accepts
//! both, answers in the form that it was asked in, and opens with EIP-8.
//!
//! Pure: the packets are arguments and results, and [`Fresh`] holds all randomness.

mod ack;
mod auth;
mod packet;
mod secrets;

use std::fmt;

use poste_codec::{PublicKey, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

pub use packet::{Form, Packet, PacketKind, Step};
pub use secrets::Secrets;

use ack::Ack;
use auth::Auth;
use secrets::Exchange;

/// Why a handshake packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// Neither the plain nor the EIP-8 form, or sealed to another key.
    #[error("the packet is not sealed to this node's key")]
    NotForUs,
    /// Opened, but its content is no auth or ack.
    #[error("the content of the packet is malformed")]
    Malformed,
    /// A key in the packet is no point of the curve.
    #[error("a public key in the packet is invalid")]
    Key,
    /// The signature in auth names no ephemeral key.
    #[error("the signature in the packet is invalid")]
    Signature,
}

/// The randomness of one side of one handshake. Never used twice.
pub struct Fresh {
    /// The ephemeral key that the secrets come from.
    pub ephemeral: SecretKey,
    /// The nonce in auth or ack.
    pub nonce: [u8; 32],
    /// The ephemeral key of ECIES.
    pub seal_key: SecretKey,
    /// The IV of ECIES.
    pub iv: [u8; 16],
    /// How many zero bytes pad the EIP-8 form, 100 to 299: so its size says nothing and differs from the
    /// plain form's.
    pub padding: usize,
}

impl Fresh {
    /// Draws all of it from `fill`, which fills its argument with random bytes.
    pub fn draw(mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut nonce = [0; 32];
        let mut iv = [0; 16];
        let mut padding = [0; 2];
        fill(&mut nonce);
        fill(&mut iv);
        fill(&mut padding);
        Self {
            ephemeral: SecretKey::random(&mut fill),
            nonce,
            seal_key: SecretKey::random(&mut fill),
            iv,
            padding: 100 + usize::from(u16::from_be_bytes(padding)) % 200,
        }
    }
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fresh(redacted)")
    }
}

/// The dialling side, from its auth packet until the ack arrives.
pub struct Initiator {
    fresh: Fresh,
    auth: Vec<u8>,
}

impl Initiator {
    /// Makes the auth packet, in the EIP-8 form, for the node that owns `remote`.
    pub fn new(key: &SecretKey, remote: &PublicKey, fresh: Fresh) -> Self {
        let auth = Auth::sign(key, remote, &fresh).seal(remote, &fresh);
        Self { fresh, auth }
    }

    /// The packet to send.
    pub fn auth(&self) -> &[u8] {
        &self.auth
    }

    /// Reads the opened ack and derives the secrets.
    pub fn finish(self, ack: &Packet) -> Result<Secrets, HandshakeError> {
        let content = Ack::read(ack)?;
        Ok(Secrets::derive(&Exchange {
            shared: self.fresh.ephemeral.ecdh_x(&content.ephemeral),
            initiator_nonce: self.fresh.nonce,
            recipient_nonce: content.nonce,
            auth: &self.auth,
            ack: ack.wire(),
            initiator: true,
        }))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").finish_non_exhaustive()
    }
}

/// What the listening side has after it has read an auth packet.
pub struct Answer {
    /// The key that the initiator claims. Proven by the first frame whose MAC is right, not before.
    pub remote: PublicKey,
    /// The packet to send, in the form of the auth packet.
    pub ack: Vec<u8>,
    /// The secrets of the connection.
    pub secrets: Secrets,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// The listening side: reads the opened auth and makes the answer.
pub fn answer(key: &SecretKey, auth: &Packet, fresh: Fresh) -> Result<Answer, HandshakeError> {
    let content = Auth::read(auth)?;
    let initiator_ephemeral = content.ephemeral(key)?;
    let ack = Ack { ephemeral: fresh.ephemeral.public(), nonce: fresh.nonce };
    let ack = ack.seal(&content.initiator, auth.form(), &fresh);
    let secrets = Secrets::derive(&Exchange {
        shared: fresh.ephemeral.ecdh_x(&initiator_ephemeral),
        initiator_nonce: content.nonce,
        recipient_nonce: fresh.nonce,
        auth: auth.wire(),
        ack: &ack,
        initiator: false,
    });
    Ok(Answer { remote: content.initiator, ack, secrets })
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new(*a);
    out.iter_mut().zip(b).for_each(|(out, b)| *out ^= b);
    out
}

#[cfg(test)]
mod tests;

/// What the tests of the vectors need to see.
#[cfg(test)]
pub(crate) mod handshake_vectors {
    use super::*;

    pub(crate) use super::ack::Ack;
    pub(crate) use super::auth::Auth;

    pub(crate) fn read_auth(packet: &Packet) -> Auth {
        Auth::read(packet).unwrap()
    }

    pub(crate) fn read_ack(packet: &Packet) -> Ack {
        Ack::read(packet).unwrap()
    }

    pub(crate) fn sign_auth(key: &SecretKey, remote: &PublicKey, fresh: &Fresh) -> [u8; 65] {
        Auth::sign(key, remote, fresh).signature
    }

    pub(crate) fn derive(
        shared: Zeroizing<[u8; 32]>,
        initiator_nonce: [u8; 32],
        recipient_nonce: [u8; 32],
        (auth, ack): (&[u8], &[u8]),
        initiator: bool,
    ) -> Secrets {
        Secrets::derive(&Exchange { shared, initiator_nonce, recipient_nonce, auth, ack, initiator })
    }
}
