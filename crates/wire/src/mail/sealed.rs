//! The envelope that a request travels in: sealed with the mailserver's password key, or to its node key, and signed
//! with the sender's node key, at topic 0. Deployed mailservers want the signature but do not ask whose it is.

use std::fmt;

use poste_codec::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::Refusal;
use crate::payload::{self, PayloadError, SymKey};
use crate::pow::{self, MineError};
use crate::{Envelope, Topic};

/// The ttl of a request's envelope, in seconds. Nobody checks its expiry.
pub const REQUEST_TTL: u32 = 50;

/// What a request's envelope is made of.
#[derive(Clone, Copy)]
pub struct RequestSeal<'a> {
    /// The request, in the layout that the mailserver reads.
    pub payload: &'a [u8],
    /// The sender's node key.
    pub signer: &'a SecretKey,
    /// The mailserver's password key.
    pub key: &'a SymKey,
    /// Unix seconds.
    pub now: u32,
    /// The least proof of work that the mailserver takes.
    pub pow_target: f64,
    /// Fresh random bytes.
    pub nonce: [u8; 12],
    /// Fresh random bytes, of which as many are used as the padding is long.
    pub padding: &'a [u8; payload::MAX_PADDING],
}

impl fmt::Debug for RequestSeal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSeal")
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("now", &self.now)
            .field("pow_target", &self.pow_target)
            .finish_non_exhaustive()
    }
}

/// Seals, signs and mines a request. Mining takes as long as the target wants: see [`pow::mine`].
pub fn seal_request(
    seal: &RequestSeal<'_>,
    should_stop: impl FnMut() -> bool,
) -> Result<Envelope, SealRequestError> {
    let padding = &seal.padding[..payload::padding_length(seal.payload.len(), true)];
    let plaintext = payload::build(seal.payload, padding, Some(seal.signer))?;
    let data = payload::seal_symmetric(seal.key, seal.nonce, &plaintext);
    let expiry = seal.now.saturating_add(REQUEST_TTL);
    Ok(pow::mine(expiry, REQUEST_TTL, Topic::default(), &data, seal.pow_target, should_stop)?)
}

/// Why a request was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealRequestError {
    /// The request is too long.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The proof of work was not found.
    #[error(transparent)]
    Mine(#[from] MineError),
}

/// What a mailserver opens requests with.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestKeys<'a> {
    /// The key of its password.
    pub password: Option<&'a SymKey>,
    /// Its own key pair, tried first. Deployed servers have this in shh/6 only.
    pub node: Option<&'a SecretKey>,
}

/// A request that was opened.
pub struct OpenedRequest {
    /// The request, in one of its layouts: see [`super::MailRequest::decode`].
    pub payload: Zeroizing<Vec<u8>>,
    /// Who signed it; not necessarily the peer that sent it.
    pub signer: PublicKey,
}

impl fmt::Debug for OpenedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = format_args!("{} bytes", self.payload.len());
        f.debug_struct("OpenedRequest").field("payload", &payload).finish_non_exhaustive()
    }
}

/// Opens a request's envelope, with the checks of deployed servers in their order.
pub fn open_request(
    envelope: &Envelope,
    keys: RequestKeys<'_>,
    min_pow: f64,
) -> Result<OpenedRequest, Refusal> {
    if envelope.pow() < min_pow {
        return Err(Refusal::PowTooLow);
    }
    let plaintext = decrypt(envelope.data(), keys).ok_or(Refusal::Undecryptable)?;
    let parsed = payload::parse(&plaintext).map_err(|_| Refusal::Undecryptable)?;
    let signer = parsed.signer.ok_or(Refusal::Unsigned)?;
    Ok(OpenedRequest { payload: Zeroizing::new(parsed.payload.to_vec()), signer })
}

fn decrypt(data: &[u8], keys: RequestKeys<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let by_node = keys.node.and_then(|key| payload::open_asymmetric(key, data).ok());
    by_node.or_else(|| keys.password.and_then(|key| payload::open_symmetric(key, data).ok()))
}
