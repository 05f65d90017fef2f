//! Who may have a client notified: whoever knows the access token. When another one replaces it, and how contacts get it
//! where nobody else may.

use bytes::Bytes;
use poste_codec::SecretKey;
use poste_wire::status::{AccessToken, encrypt_access_token};

use super::profile::Profile;

/// Whether the present token must not be used for this profile: it was open to all and now is for contacts only, or
/// somebody who has it is no contact any more, or blocked. `before` is the profile of the last registration.
pub(super) fn is_outdated(before: &Profile, now: &Profile) -> bool {
    let may_still = |contact| now.contacts.contains(contact) && !now.blocked.contains(contact);
    (now.contacts_only && !before.contacts_only) || !before.welcome().all(may_still)
}

/// The token for every contact that is not blocked, or for nobody where all may notify. One multiplication on the curve
/// for each contact.
pub(super) fn allowed_key_list(
    owner: &SecretKey,
    token: &AccessToken,
    profile: &Profile,
    mut fill: impl FnMut(&mut [u8]),
) -> Vec<Bytes> {
    // A server's list of who is blocked goes by what a request says of its author: only the token keeps anybody out.
    let contacts = profile.welcome().filter(|_| profile.contacts_only);
    let entry = |contact| {
        let mut nonce = [0; 12];
        fill(&mut nonce);
        encrypt_access_token(owner, contact, nonce, token).into()
    };
    let mut list: Vec<Bytes> = contacts.map(entry).collect();
    // By their nonces, so that no place in the list tells anything.
    list.sort_unstable();
    list
}

#[cfg(test)]
mod tests {
    use poste_codec::PublicKey;
    use poste_wire::status::find_access_token;

    use super::*;
    use crate::notify::profile::Device;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn public(byte: u8) -> PublicKey {
        key(byte).public()
    }

    fn profile(contacts_only: bool, contacts: &[u8]) -> Profile {
        Profile {
            contacts_only,
            contacts: contacts.iter().map(|contact| public(*contact)).collect(),
            ..Profile::open_to_all(Device::Firebase { token: "token".into() })
        }
    }

    #[test]
    fn a_token_is_outdated_when_somebody_knows_it_who_should_not() {
        for (before, now, outdated) in [
            (profile(false, &[]), profile(false, &[]), false),
            (profile(false, &[1]), profile(true, &[1]), true),
            (profile(true, &[1]), profile(true, &[1, 2]), false),
            (profile(true, &[1, 2]), profile(true, &[1]), true),
            (profile(true, &[1]), profile(true, &[2]), true),
            (profile(true, &[1]), profile(false, &[1]), false),
            (profile(false, &[1]), profile(false, &[]), true),
        ] {
            assert_eq!(is_outdated(&before, &now), outdated, "{before:?} {now:?}");
        }
    }

    #[test]
    fn who_is_blocked_loses_the_token() {
        let blocking = |blocked: &[u8]| Profile {
            blocked: blocked.iter().map(|contact| public(*contact)).collect(),
            ..profile(true, &[1, 2])
        };
        assert!(is_outdated(&blocking(&[]), &blocking(&[2])));
        assert!(!is_outdated(&blocking(&[2]), &blocking(&[2])), "who never had this one");
        assert!(!is_outdated(&blocking(&[2]), &blocking(&[])));
        assert!(!is_outdated(&blocking(&[]), &blocking(&[5])), "a stranger");
        let token = AccessToken::from_random([7; 16]);
        let entries = allowed_key_list(&key(9), &token, &blocking(&[2]), |bytes| bytes.fill(3));
        let find = |own| find_access_token(&key(own), &public(9), entries.iter().map(|entry| &entry[..]));
        assert_eq!((find(1), find(2)), (Some(token.clone()), None));
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn each_contact_finds_the_token_and_nobody_is_listed_where_all_may() {
        let token = AccessToken::from_random([7; 16]);
        let mut last = 0;
        let mut list = |profile: &Profile| {
            allowed_key_list(&key(9), &token, profile, |bytes| {
                last += 1;
                bytes.fill(last);
            })
        };
        assert!(list(&profile(false, &[1, 2])).is_empty());
        let entries = list(&profile(true, &[1, 2]));
        assert_eq!(entries.len(), 2);
        assert_ne!(entries[0][..12], entries[1][..12], "each has a nonce of its own");
        let find = |own| find_access_token(&key(own), &public(9), entries.iter().map(|entry| &entry[..]));
        assert_eq!(find(1), Some(token.clone()));
        assert_eq!(find(2), Some(token.clone()));
        assert_eq!(find(3), None);
    }
}
