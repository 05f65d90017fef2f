//! What gorush hands back to us: `notif_id`, from which a failure is attributed without a table of what was sent.
//!
//! ```text
//! hex( version u8 | platform u8 | sent_at u64, ms since 1970 | fingerprint 16 | reference 0..=128 | tag 16 )
//! ```
//!
//! The tag is HMAC-SHA256, cut to 16 bytes, over everything before it: nobody without the key can report a failure.
//! The fingerprint is that of the device token (gorush masks tokens, so they cannot be compared), under the same key
//! with another purpose.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::notification::{DeviceToken, MAX_REFERENCE_BYTES, Reference, Service};

const VERSION: u8 = 1;
const FINGERPRINT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + 1 + 8 + FINGERPRINT_BYTES;

/// The key under which notifications are marked. Replicas that share a feedback hook share it. Cheap to clone.
#[derive(Clone)]
pub struct NotificationKey(Arc<Zeroizing<[u8; 32]>>);

impl NotificationKey {
    /// A key of 32 secret bytes that serve no other purpose.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// The fingerprint of a token under this key.
    pub fn fingerprint(&self, token: &DeviceToken) -> TokenFingerprint {
        let mut mac = self.mac(b"poste device token v1");
        mac.update(token.expose().as_bytes());
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        fingerprint.copy_from_slice(&mac.finalize().into_bytes()[..FINGERPRINT_BYTES]);
        TokenFingerprint(fingerprint)
    }

    pub(crate) fn seal(&self, mark: &Mark) -> String {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + mark.reference.as_bytes().len() + TAG_BYTES);
        bytes.extend([VERSION, mark.service.platform()]);
        bytes.extend(u64::try_from(mark.sent_at.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend(mark.fingerprint.0);
        bytes.extend(mark.reference.as_bytes());
        let tag = self.tag(&bytes).finalize().into_bytes();
        bytes.extend(&tag[..TAG_BYTES]);
        hex::encode(bytes)
    }

    /// Reads what [`seal`](Self::seal) wrote under this key; nothing else. The tag is compared in constant time.
    pub(crate) fn open(&self, notif_id: &str) -> Option<Mark> {
        if notif_id.len() > 2 * (HEAD_BYTES + MAX_REFERENCE_BYTES + TAG_BYTES) {
            return None;
        }
        let bytes = hex::decode(notif_id).ok()?;
        let (sealed, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        self.tag(sealed).verify_truncated_left(tag).ok()?;
        let (head, reference) = sealed.split_first_chunk::<HEAD_BYTES>()?;
        let (&[version, platform], head) = head.split_first_chunk::<2>()?;
        let (millis, fingerprint) = head.split_first_chunk::<8>()?;
        if version != VERSION {
            return None;
        }
        Some(Mark {
            service: Service::from_platform(platform)?,
            sent_at: Duration::from_millis(u64::from_be_bytes(*millis)),
            fingerprint: TokenFingerprint(fingerprint.try_into().ok()?),
            reference: Reference::new(reference).ok()?,
        })
    }

    fn tag(&self, sealed: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac(b"poste notif_id v1");
        mac.update(sealed);
        mac
    }

    fn mac(&self, purpose: &'static [u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.0[..]).expect("HMAC takes keys of any length");
        mac.update(purpose);
        mac.update(&[0]);
        mac
    }
}

impl fmt::Debug for NotificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotificationKey(…)")
    }
}

/// What a `notif_id` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) service: Service,
    /// Since 1970; whole milliseconds.
    pub(crate) sent_at: Duration,
    pub(crate) fingerprint: TokenFingerprint,
    pub(crate) reference: Reference,
}

/// By what two tokens are known to be the same without either of them at hand. Compared in constant time.
#[derive(Clone, Copy)]
pub struct TokenFingerprint(pub(crate) [u8; FINGERPRINT_BYTES]);

impl PartialEq for TokenFingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenFingerprint {}

impl fmt::Debug for TokenFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenFingerprint(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> NotificationKey {
        NotificationKey::new([7; 32])
    }

    fn mark(reference: &[u8]) -> Mark {
        Mark {
            service: Service::Fcm,
            sent_at: Duration::from_millis(1_700_000_000_123),
            fingerprint: key().fingerprint(&DeviceToken::new("token")),
            reference: Reference::new(reference).unwrap(),
        }
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_that_differs_in_a_bit() {
        for reference in [&b""[..], b"row 17", &[255; MAX_REFERENCE_BYTES]] {
            let sealed = key().seal(&mark(reference));
            assert_eq!(key().open(&sealed), Some(mark(reference)));
            assert_eq!(NotificationKey::new([8; 32]).open(&sealed), None, "another key");
            let bytes = hex::decode(&sealed).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut altered = bytes.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key().open(&hex::encode(altered)), None, "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert_eq!(key().open(&hex::encode(&bytes[..len])), None, "{len} bytes");
            }
        }
    }

    #[test]
    fn fingerprints_tell_tokens_apart() {
        let fingerprint = |token| key().fingerprint(&DeviceToken::new(token));
        assert_eq!(fingerprint("token"), fingerprint("token"));
        assert_ne!(fingerprint("token"), fingerprint("tokem"));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text in ".{0,400}", digits in "[0-9a-f]{0,400}") {
            prop_assert_eq!(key().open(&text), None);
            prop_assert_eq!(key().open(&digits), None);
        }
    }
}
