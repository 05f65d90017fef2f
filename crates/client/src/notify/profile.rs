//! What a receiver wants: which device is to ring, for whom, and for what.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use poste_codec::PublicKey;
use poste_wire::status::proto::push_notification_registration::TokenType;
use poste_wire::status::push::{MAX_APN_TOPIC_LENGTH, MAX_DEVICE_TOKEN_LENGTH, MAX_LIST_ENTRIES};
use poste_wire::status::{HashedChatId, chat_key};
use thiserror::Error;

/// How a device is reached. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub enum Device {
    /// By Apple's service.
    Apn {
        /// The device token.
        token: String,
        /// The app's bundle id.
        topic: String,
    },
    /// By Firebase.
    Firebase {
        /// The registration token.
        token: String,
    },
}

/// A registration's content as far as its owner decides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// The device.
    pub device: Device,
    /// Whether only contacts may notify: the access token is then encrypted for each of them.
    pub contacts_only: bool,
    /// The contacts.
    pub contacts: BTreeSet<PublicKey>,
    /// Those from whom nothing is wanted, also where they are among the contacts.
    pub blocked: BTreeSet<PublicKey>,
    /// Ids of chats whose messages notify nobody: of a one-to-one chat the other's chat key, else the chat's id.
    pub muted: BTreeSet<String>,
    /// Ids of the public and community chats that were joined: mentions in them notify, unless they are muted.
    pub joined: BTreeSet<String>,
    /// Whether mentions notify nobody.
    pub block_mentions: bool,
}

/// Why no server would take a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// Nothing to reach the device by.
    #[error("the device token is empty")]
    NoToken,
    /// Longer than any is.
    #[error("the device token has more than {MAX_DEVICE_TOKEN_LENGTH} bytes")]
    LongToken,
    /// Apple's service needs it.
    #[error("the app's bundle id (APN topic) has 1 to {MAX_APN_TOPIC_LENGTH} bytes")]
    ApnTopic,
    /// More entries than servers take.
    #[error("more than {MAX_LIST_ENTRIES} {0}")]
    TooMany(&'static str),
}

impl Profile {
    /// Everybody may notify this device of everything but mentions, which need [`Self::joined`].
    #[must_use]
    pub fn open_to_all(device: Device) -> Self {
        Self {
            device,
            contacts_only: false,
            contacts: BTreeSet::new(),
            blocked: BTreeSet::new(),
            muted: BTreeSet::new(),
            joined: BTreeSet::new(),
            block_mentions: false,
        }
    }

    /// Whether servers would take it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ProfileError> {
        match self.device.token().len() {
            0 => return Err(ProfileError::NoToken),
            1..=MAX_DEVICE_TOKEN_LENGTH => {}
            _ => return Err(ProfileError::LongToken),
        }
        if let Device::Apn { topic, .. } = &self.device
            && !(1..=MAX_APN_TOPIC_LENGTH).contains(&topic.len())
        {
            return Err(ProfileError::ApnTopic);
        }
        let lists = [
            (self.contacts.len(), "contacts"),
            (self.blocked.len(), "blocked contacts"),
            (self.muted.len(), "muted chats"),
            (self.joined.len(), "joined chats"),
        ];
        let too_many = lists.into_iter().find(|(length, _)| *length > MAX_LIST_ENTRIES);
        too_many.map_or(Ok(()), |(_, what)| Err(ProfileError::TooMany(what)))
    }

    /// The contacts from whom something is wanted.
    pub(super) fn welcome(&self) -> impl Iterator<Item = &PublicKey> {
        self.contacts.difference(&self.blocked)
    }

    pub(super) fn blocked_list(&self) -> Vec<Bytes> {
        self.blocked.iter().map(|contact| hashed(&chat_key(contact))).collect()
    }

    pub(super) fn muted_list(&self) -> Vec<Bytes> {
        self.muted.iter().map(|chat| hashed(chat)).collect()
    }

    /// The chats where a mention notifies.
    pub(super) fn mentions_list(&self) -> Vec<Bytes> {
        self.joined.difference(&self.muted).map(|chat| hashed(chat)).collect()
    }
}

impl Device {
    pub(super) fn token(&self) -> &str {
        let (Self::Apn { token, .. } | Self::Firebase { token }) = self;
        token
    }

    pub(super) fn token_type(&self) -> TokenType {
        match self {
            Self::Apn { .. } => TokenType::ApnToken,
            Self::Firebase { .. } => TokenType::FirebaseToken,
        }
    }

    pub(super) fn apn_topic(&self) -> &str {
        match self {
            Self::Apn { topic, .. } => topic,
            Self::Firebase { .. } => "",
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apn { .. } => "Apn(redacted)",
            Self::Firebase { .. } => "Firebase(redacted)",
        })
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("device", &self.device)
            .field("contacts_only", &self.contacts_only)
            .field("contacts", &self.contacts.len())
            .finish_non_exhaustive()
    }
}

fn hashed(chat_id: &str) -> Bytes {
    Bytes::copy_from_slice(HashedChatId::of(chat_id).as_bytes())
}

#[cfg(test)]
mod tests {
    use poste_codec::SecretKey;

    use super::*;

    fn profile() -> Profile {
        Profile::open_to_all(Device::Firebase { token: "token".into() })
    }

    #[test]
    fn lists_are_hashes_and_what_is_muted_is_not_among_the_mentions() {
        let contact = SecretKey::from_bytes(&[5; 32]).unwrap().public();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let profile = Profile {
            blocked: BTreeSet::from([contact]),
            muted: texts(&["a", "b"]),
            joined: texts(&["b", "c"]),
            ..profile()
        };
        assert_eq!(profile.blocked_list(), [hashed(&chat_key(&contact))]);
        assert_eq!(profile.muted_list(), [hashed("a"), hashed("b")]);
        assert_eq!(profile.mentions_list(), [hashed("c")]);
        assert_eq!(hashed("a").len(), 64);
    }

    #[test]
    fn what_no_server_takes_is_refused_beforehand() {
        assert_eq!(profile().check(), Ok(()));
        let with = |device| Profile { device, ..profile() }.check();
        let apn = |topic: &str| Device::Apn { token: "token".into(), topic: topic.into() };
        assert_eq!(with(Device::Firebase { token: String::new() }), Err(ProfileError::NoToken));
        assert_eq!(with(Device::Firebase { token: "x".repeat(4097) }), Err(ProfileError::LongToken));
        assert_eq!(with(apn("")), Err(ProfileError::ApnTopic));
        assert_eq!(with(apn(&"x".repeat(257))), Err(ProfileError::ApnTopic));
        assert_eq!(with(apn("app")), Ok(()));
        let muted = (0..=MAX_LIST_ENTRIES).map(|number| number.to_string()).collect();
        let error = Profile { muted, ..profile() }.check().unwrap_err();
        assert_eq!(error.to_string(), "more than 10000 muted chats");
    }

    #[test]
    fn no_token_is_printed() {
        let printed = format!("{:?}", profile());
        assert!(!printed.contains("token"), "{printed}");
    }
}
