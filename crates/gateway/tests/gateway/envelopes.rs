//! Envelopes and requests for mail, as tests need them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use poste_codec::SecretKey;
use poste_wire::mail::MailRequest;
use poste_wire::payload::{self, MAX_PADDING};
use poste_wire::{Envelope, SymKey, Topic, password_key, pow};
use rand::Rng;

use crate::stack::{NOW, PASSWORD};

/// A topic for what has none in particular.
pub(crate) const TOPIC: Topic = Topic([0xa1, 0xb2, 0xc3, 0xd4]);

/// An envelope of the present: different from every other, with enough work for the default minimum.
pub(crate) fn envelope(topic: Topic, size: usize) -> Envelope {
    envelope_at(NOW, 50, topic, size)
}

/// An envelope that was made at `sent` and lives for `ttl` seconds.
pub(crate) fn envelope_at(sent: u32, ttl: u32, topic: Topic, size: usize) -> Envelope {
    mined(sent.wrapping_add(ttl), ttl, topic, size, 0.000_002)
}

/// An envelope with at least this proof of work.
pub(crate) fn mined(expiry: u32, ttl: u32, topic: Topic, size: usize, target: f64) -> Envelope {
    pow::mine(expiry, ttl, topic, &unique(size), target, || false).unwrap()
}

/// An envelope whose proof of work is below `pow`, in spite of all chance.
pub(crate) fn weak(sent: u32, ttl: u32, topic: Topic, size: usize, pow: f64) -> Envelope {
    let tries = (0..).map(|nonce| Envelope::new(sent + ttl, ttl, topic, &unique(size), nonce));
    tries.into_iter().find(|envelope| envelope.pow() < pow).unwrap()
}

/// Data that occurs once: a number, then chance, so that snappy makes nothing of it.
fn unique(size: usize) -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut data = vec![0; size];
    rand::rng().fill_bytes(&mut data);
    data.iter_mut().zip(number).for_each(|(data, number)| *data = number);
    data
}

/// The key of the mail password.
pub(crate) fn mail_key() -> &'static SymKey {
    static KEY: OnceLock<SymKey> = OnceLock::new();
    KEY.get_or_init(|| password_key(PASSWORD))
}

/// A key that nobody else has.
pub(crate) fn fresh_key() -> SecretKey {
    SecretKey::random(|bytes| rand::rng().fill_bytes(bytes))
}

/// A request for mail, sealed and signed as deployed clients do.
pub(crate) fn sealed(request: &MailRequest) -> Envelope {
    seal(&request.encode(), mail_key(), Some(&fresh_key()))
}

/// Any payload, sealed with any key, signed or not.
pub(crate) fn seal(payload: &[u8], key: &SymKey, signer: Option<&SecretKey>) -> Envelope {
    let mut padding = [0; MAX_PADDING];
    rand::rng().fill_bytes(&mut padding);
    let padding = &padding[..payload::padding_length(payload.len(), signer.is_some())];
    seal_plaintext(&payload::build(payload, padding, signer).unwrap(), key)
}

/// Any plaintext, sealed.
pub(crate) fn seal_plaintext(plaintext: &[u8], key: &SymKey) -> Envelope {
    let mut nonce = [0; 12];
    rand::rng().fill_bytes(&mut nonce);
    request_envelope(&payload::seal_symmetric(key, nonce, plaintext))
}

/// The envelope of a request with this data.
pub(crate) fn request_envelope(data: &[u8]) -> Envelope {
    pow::mine(NOW + 50, 50, Topic::default(), data, 0.002, || false).unwrap()
}

/// Everything that there ever was.
pub(crate) fn everything() -> MailRequest {
    MailRequest::between(0, u32::MAX)
}
