//! The bytes of a row. A device's key in every table is its owner's hashed key (64 bytes) and the installation id.
//! What must be found or compared lies open; the rest is sealed with the key of the slot that the row names.
//!
//! | bytes | of a row in `rows` |
//! |---|---|
//! | 8 | version |
//! | 4 | slot of the key |
//! | 1 | token type: 1 APNs, 2 Firebase |
//! | 8 | when it was registered, seconds since 1970 |
//! | 8 | when its device was reached, seconds since 1970, or 0 |
//! | 80 | the topic keys, sealed |
//!
//! Numbers are big-endian. The device data lies sealed in a table of its own, so that walking the rows does not
//! read it.

use poste_wire::status::{HashedPublicKey, InstallationId};

use super::seal::{Kind, SealKey, TAG_BYTES};
use crate::store::{DeviceData, DeviceId, NewRegistration, Registration, TokenType, TopicKeys};

const SEALED_TOPIC_KEYS_BYTES: usize = TopicKeys::BYTES + TAG_BYTES;
const ROW_BYTES: usize = 8 + 4 + 1 + 8 + 8 + SEALED_TOPIC_KEYS_BYTES;

/// A row of `rows`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) version: u64,
    pub(super) slot: u32,
    pub(super) token_type: TokenType,
    pub(super) registered_unix_s: u64,
    /// 0 when it was never reached.
    pub(super) reached_unix_s: u64,
    pub(super) sealed_topic_keys: [u8; SEALED_TOPIC_KEYS_BYTES],
}

impl Row {
    /// Seals a registration: its row, and its device data.
    pub(super) fn seal(registration: &NewRegistration, slot: u32, key: &SealKey) -> (Self, Vec<u8>) {
        let context = context(&device_key(&registration.device), registration.version, slot);
        let data = key.seal(Kind::DeviceData, &context, registration.data.as_bytes());
        let topic_keys = key.seal(Kind::TopicKeys, &context, registration.topic_keys.as_bytes());
        let row = Self {
            version: registration.version,
            slot,
            token_type: registration.token_type,
            registered_unix_s: registration.at_unix_s,
            reached_unix_s: 0,
            sealed_topic_keys: topic_keys.try_into().expect("two keys and a tag"),
        };
        (row, data)
    }

    /// `None` when the key is not the one that the row was sealed with.
    pub(super) fn open_topic_keys(&self, device_key: &[u8], key: &SealKey) -> Option<TopicKeys> {
        let context = context(device_key, self.version, self.slot);
        TopicKeys::from_bytes(&key.open(Kind::TopicKeys, &context, &self.sealed_topic_keys)?)
    }

    /// `None` when the key is not the one that the row was sealed with.
    pub(super) fn open(&self, device_key: &[u8], sealed: &[u8], key: &SealKey) -> Option<Registration> {
        let context = context(device_key, self.version, self.slot);
        let data = key.open(Kind::DeviceData, &context, sealed)?;
        Some(Registration {
            device: device_of(device_key)?,
            version: self.version,
            token_type: self.token_type,
            data: DeviceData::from(data),
            registered_unix_s: self.registered_unix_s,
            reached_unix_s: (self.reached_unix_s != 0).then_some(self.reached_unix_s),
        })
    }

    /// When it was registered or reached, whichever is later.
    pub(super) fn last_sign_unix_s(&self) -> u64 {
        self.registered_unix_s.max(self.reached_unix_s)
    }

    pub(super) fn encode(&self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        bytes[..8].copy_from_slice(&self.version.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_be_bytes());
        bytes[12] = match self.token_type {
            TokenType::Apn => 1,
            TokenType::Firebase => 2,
        };
        bytes[13..21].copy_from_slice(&self.registered_unix_s.to_be_bytes());
        bytes[21..29].copy_from_slice(&self.reached_unix_s.to_be_bytes());
        bytes[29..].copy_from_slice(&self.sealed_topic_keys);
        bytes
    }

    /// `None` for what this program does not write.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ROW_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Some(Self {
            version: number(0),
            slot: u32::from_be_bytes(bytes[8..12].try_into().expect("4 bytes")),
            token_type: match bytes[12] {
                1 => TokenType::Apn,
                2 => TokenType::Firebase,
                _ => return None,
            },
            registered_unix_s: number(13),
            reached_unix_s: number(21),
            sealed_topic_keys: bytes[29..].try_into().expect("the rest"),
        })
    }
}

/// Bytes of the sealed device data of a registration.
pub(super) fn sealed_bytes(registration: &NewRegistration) -> u64 {
    (registration.data.as_bytes().len() + TAG_BYTES) as u64
}

/// What a device is found under.
pub(super) fn device_key(device: &DeviceId) -> Vec<u8> {
    [device.key.as_bytes().as_slice(), device.installation.as_str().as_bytes()].concat()
}

/// `None` for what no device is found under.
pub(super) fn device_of(device_key: &[u8]) -> Option<DeviceId> {
    let (hash, installation) = device_key.split_first_chunk::<{ HashedPublicKey::LENGTH }>()?;
    let installation = InstallationId::any(std::str::from_utf8(installation).ok()?).ok()?;
    Some(DeviceId { key: HashedPublicKey(*hash), installation })
}

/// The owner of what is found under this.
pub(super) fn owner_of(device_key: &[u8]) -> Option<HashedPublicKey> {
    Some(HashedPublicKey(*device_key.first_chunk()?))
}

/// Behind everything of an owner, and before everything of the next: no UTF-8 text has this byte.
pub(super) fn behind_owner(key: &HashedPublicKey) -> Vec<u8> {
    [key.as_bytes().as_slice(), &[0xff]].concat()
}

/// What a row's texts are bound to, so that none can be moved to another row, or be passed off as a newer one.
fn context(device_key: &[u8], version: u64, slot: u32) -> Vec<u8> {
    [device_key, &version.to_be_bytes(), &slot.to_be_bytes()].concat()
}
