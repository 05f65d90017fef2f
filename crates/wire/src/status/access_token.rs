//! The token that a sender must show: in clear to the server, and encrypted once for each contact where only contacts
//! may notify.

use std::fmt;

use poste_codec::{PublicKey, SecretKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::sealed::{SEALED_OVERHEAD, SharedKey};
use super::uuid::{NotUuidError, is_uuid, v4};

/// The longest text that is a UUID, `urn:uuid:` in front.
const MAX_TOKEN_LENGTH: usize = 45;

/// A UUID that authorises notifications. Wiped when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// Takes a UUID (see [`is_uuid`]) as the text that it is: grants cover the text.
    pub fn uuid(text: &str) -> Result<Self, NotUuidError> {
        if is_uuid(text) { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(NotUuidError) }
    }

    /// A new one, from 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(v4(bytes)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the text is this token, byte for byte; takes the same time for every text of one length.
    pub fn matches(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for AccessToken {}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(redacted)")
    }
}

/// An entry of `allowed_key_list`: the token for one contact. The nonce must be fresh and random for every call.
pub fn encrypt_access_token(
    owner: &SecretKey,
    contact: &PublicKey,
    nonce: [u8; 12],
    token: &AccessToken,
) -> Vec<u8> {
    SharedKey::between(owner, contact).seal(nonce, token.as_str().as_bytes())
}

/// The token that the owner of an `allowed_key_list` encrypted for `own`: the first entry that opens to a UUID. Nothing
/// says whose an entry is, so all are tried.
pub fn find_access_token<'e>(
    own: &SecretKey,
    owner: &PublicKey,
    entries: impl IntoIterator<Item = &'e [u8]>,
) -> Option<AccessToken> {
    let key = SharedKey::between(own, owner);
    let short = entries.into_iter().filter(|entry| entry.len() <= MAX_TOKEN_LENGTH + SEALED_OVERHEAD);
    short.filter_map(|entry| key.open(entry).ok()).find_map(|opened| {
        let text = std::str::from_utf8(&opened).ok()?;
        AccessToken::uuid(text).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_contact_finds_its_entry_and_nobody_else_does() {
        let token = AccessToken::from_random([5; 16]);
        let entry =
            |contact: u8| encrypt_access_token(&key(1), &key(contact).public(), [contact; 12], &token);
        let list = [vec![], vec![0; 64], vec![0; 1000], entry(2), entry(3)];
        let find = |own: u8| find_access_token(&key(own), &key(1).public(), list.iter().map(Vec::as_slice));
        assert_eq!(entry(2).len(), 64);
        assert_eq!(find(2), Some(token.clone()));
        assert_eq!(find(3), Some(token.clone()));
        assert_eq!(find(4), None);
    }

    #[test]
    fn tokens_are_compared_byte_for_byte_and_not_printed() {
        let token = AccessToken::from_random([0xab; 16]);
        assert!(token.matches(token.as_str()));
        assert!(!token.matches(&token.as_str().to_uppercase()));
        assert!(!token.matches(&token.as_str()[..35]));
        assert!(!token.matches(""));
        assert_eq!(AccessToken::uuid("token"), Err(NotUuidError));
        assert_eq!(format!("{token:?}"), "AccessToken(redacted)");
    }
}
