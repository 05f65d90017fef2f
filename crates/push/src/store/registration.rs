//! What a registration is to a store: who, which version, and sealed bytes.

use std::fmt;
use std::sync::Arc;

use poste_wire::status::{HashedPublicKey, InstallationId};
use zeroize::Zeroizing;

/// The most bytes of device data: 10,000 entries in each of a registration's lists fit.
pub const MAX_DEVICE_DATA_BYTES: usize = 4 * 1024 * 1024;

/// One device of an owner: what a registration is stored under. They are ordered by key, then by installation id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// Whose.
    pub key: HashedPublicKey,
    /// Which.
    pub installation: InstallationId,
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceId(redacted)")
    }
}

/// Which provider a device token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// Apple's.
    Apn,
    /// Google's.
    Firebase,
}

/// All that a registration says and nobody searches for: device token, access token, grant, lists. Bytes of the
/// caller's own form (the registration's protobuf). They are sealed on disk, wiped when dropped, and never printed.
/// Clones share them.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceData(Arc<Zeroizing<Vec<u8>>>);

impl DeviceData {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<Vec<u8>>> for DeviceData {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl fmt::Debug for DeviceData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceData({} bytes)", self.0.len())
    }
}

/// The symmetric keys of an owner's two query topics, which take PBKDF2 tens of milliseconds each. The store only
/// keeps them.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicKeys(Zeroizing<[u8; Self::BYTES]>);

impl TopicKeys {
    /// Bytes of both keys.
    pub(crate) const BYTES: usize = 64;

    /// The key of the topic whose text is the bare hexadecimal hash, which is what real clients use, and that of the
    /// text with `0x` in front, which is the specification's.
    #[must_use]
    pub fn new(bare: &[u8; 32], prefixed: &[u8; 32]) -> Self {
        let mut keys = Zeroizing::new([0; Self::BYTES]);
        keys[..32].copy_from_slice(bare);
        keys[32..].copy_from_slice(prefixed);
        Self(keys)
    }

    /// The key of the topic without `0x`.
    #[must_use]
    pub fn bare(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("there are 64 bytes")
    }

    /// The key of the topic with `0x`.
    #[must_use]
    pub fn prefixed(&self) -> &[u8; 32] {
        self.0.last_chunk().expect("there are 64 bytes")
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Both keys, one behind the other.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        Some(Self(Zeroizing::new(*bytes)))
    }
}

impl fmt::Debug for TopicKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicKeys(redacted)")
    }
}

/// A registration to store.
#[derive(Debug, Clone)]
pub struct NewRegistration {
    /// Of which device.
    pub device: DeviceId,
    /// Must be above the device's stored one.
    pub version: u64,
    /// Which provider.
    pub token_type: TokenType,
    /// Everything else that it says.
    pub data: DeviceData,
    /// The keys of the owner's query topics.
    pub topic_keys: TopicKeys,
    /// When it came, seconds since 1970.
    pub at_unix_s: u64,
}

/// A stored registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Of which device.
    pub device: DeviceId,
    /// Its version.
    pub version: u64,
    /// Which provider.
    pub token_type: TokenType,
    /// Everything else that it says.
    pub data: DeviceData,
    /// When it came, seconds since 1970.
    pub registered_unix_s: u64,
    /// When its device was reached, seconds since 1970 and to about a day; absent when it was not.
    pub reached_unix_s: Option<u64>,
}

/// What became of a registration or an unregistration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It is durable.
    Done(OwnerState),
    /// Nothing changed: this version, at or above the given one, is stored for the device.
    VersionMismatch {
        /// The stored version.
        stored: u64,
    },
    /// Nothing changed: the owner has as many devices or bytes as [`Caps`] allow, and this would be more.
    TooManyDevices,
    /// Nothing changed: the store holds as much as [`Caps`] allow.
    StoreFull,
}

/// How an owner stands after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerState {
    /// How many registrations the owner has now. Without any, nobody has to listen on the query topics.
    pub registrations: usize,
}

/// How much one owner, and all together, may have. Anybody can register, with as many keys as they like, so without
/// these one could fill the disk. What is forgotten makes room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Registrations.
    pub registrations: usize,
    /// Devices of which anything is kept, be it only a version.
    pub devices: usize,
    /// Bytes of device data.
    pub data_bytes: usize,
    /// Registrations of all owners. At the cap only owners who have a device are let in.
    pub all_registrations: u64,
    /// Devices of all owners of which only a version is kept. At the cap an owner of whom nothing is kept cannot
    /// unregister.
    pub all_tombstones: u64,
    /// Bytes of device data of all owners. From half of it on only owners who have a device are let in: the other
    /// half is kept for them.
    pub all_data_bytes: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            registrations: 32,
            devices: 256,
            data_bytes: 16 * 1024 * 1024,
            all_registrations: 4_000_000,
            all_tombstones: 16_000_000,
            all_data_bytes: 32 * 1024 * 1024 * 1024,
        }
    }
}
