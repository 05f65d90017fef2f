//! The seam between the push server and what keeps its state: [`RegistrationStore`] speaks the server's language, so
//! that a file, a database or memory can stand behind it.
//!
//! Whatever a call changed is durable when the call returns. The store reads no clock: times are arguments. It decides
//! nothing about a registration but what needs a transaction: versions only rise, and an owner's rows are capped.

#[cfg(test)]
mod conformance;
mod error;
mod local;
mod memory;
mod registration;
mod request;

use std::fmt;

use poste_wire::status::HashedPublicKey;

pub use error::{ErrorKind, StoreError};
pub use local::{Options, RedbStore, is_store};
pub use memory::MemoryStore;
pub use registration::{
    Caps, DeviceData, DeviceId, MAX_DEVICE_DATA_BYTES, NewRegistration, OwnerState, Registered, Registration,
    TokenType, TopicKeys,
};
pub use request::{AnswerId, Checkpoint, Claim, ClaimEnd, ClaimKey, MAX_ANSWER_BYTES};

/// How many bytes of device data one call of [`RegistrationStore::find`] opens, about: the last device may go beyond.
pub const MAX_FOUND_BYTES: usize = 8 * 1024 * 1024;

/// What keeps the registrations and what became of the requests. Every implementation passes one conformance suite,
/// a model test against ordered maps.
///
/// A call whose future is dropped may still take effect. After an error of the disk nothing is written any more until
/// the store is opened again.
#[tonic::async_trait]
pub trait RegistrationStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a registration, or replaces the one of the same device, if its version is above the device's stored
    /// one (that of a forgotten registration included) and the owner has room. The check and the change are one
    /// transaction. The key of what it replaces is overwritten when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the device data is larger than [`MAX_DEVICE_DATA_BYTES`].
    async fn register(&self, registration: NewRegistration) -> Result<Registered, StoreError>;

    /// Forgets a registration and keeps the version, under the same conditions as [`RegistrationStore::register`].
    /// For a device that was never registered the version is kept all the same, so that older registrations that
    /// arrive later stay rejected. When this returns, no file holds anything that opens the device data.
    /// `at_unix_s` is the time, seconds since 1970.
    async fn unregister(
        &self,
        device: &DeviceId,
        version: u64,
        at_unix_s: u64,
    ) -> Result<Registered, StoreError>;

    /// Forgets a registration whatever its version, or, given one, only if it still has that version: so a late
    /// failure of a token never deletes a newer one. The device's version is kept. `None` when there was nothing to
    /// forget. When this returns, no file holds anything that opens the device data. `at_unix_s` is the time, seconds since
    /// 1970.
    async fn forget(
        &self,
        device: &DeviceId,
        only_version: Option<u64>,
        at_unix_s: u64,
    ) -> Result<Option<OwnerState>, StoreError>;

    /// The highest version that was stored for a device, forgotten ones included.
    async fn version(&self, device: &DeviceId) -> Result<Option<u64>, StoreError>;

    /// All registrations of an owner, in order of their installation ids.
    async fn registrations(&self, key: &HashedPublicKey) -> Result<Vec<Registration>, StoreError>;

    /// The registrations of the first of some devices, in the order asked for: as many as have [`MAX_FOUND_BYTES`] of
    /// device data together, and one at least. Whoever asked for more asks again for the rest. A device that is named
    /// several times is opened once.
    async fn find(&self, devices: Vec<DeviceId>) -> Result<Vec<Option<Registration>>, StoreError>;

    /// What a request begins with, in one question: its remembered answer, or else the registrations of the first of
    /// some devices, as [`RegistrationStore::find`] gives them.
    async fn look_up(&self, answer: &AnswerId, devices: Vec<DeviceId>) -> Result<LookedUp, StoreError> {
        match self.answer(answer).await? {
            Some(answer) => Ok(LookedUp::Answer(answer)),
            None => self.find(devices).await.map(LookedUp::Devices),
        }
    }

    /// The topic keys of an owner who has a registration.
    async fn topic_keys(&self, key: &HashedPublicKey) -> Result<Option<TopicKeys>, StoreError>;

    /// The next owners who have registrations, in order of their hashed keys, behind `after`: at most `max`, and
    /// fewer only at the end. It opens nothing that is sealed, so that a million of them are walked in seconds;
    /// [`RegistrationStore::topic_keys`] gives the keys of one when a query comes.
    async fn keys(
        &self,
        after: Option<&HashedPublicKey>,
        max: usize,
    ) -> Result<Vec<HashedPublicKey>, StoreError>;

    /// Notes that devices were reached at this time. To spare the disk a time is replaced only by one that is a day
    /// later or more. Devices without a registration are passed over.
    async fn note_successes(&self, devices: Vec<DeviceId>, at_unix_s: u64) -> Result<(), StoreError>;

    /// What claims on these keys would meet now, without claiming anything; absent for a key that is free.
    async fn claims(&self, keys: Vec<ClaimKey>) -> Result<Vec<Option<Claim>>, StoreError>;

    /// Claims the right to notify, for each key in order. [`Claim::Won`] is answered at most once for a key, unless
    /// the claim ends as [`ClaimEnd::Refused`] or expires. A claim that is open when the store is opened again
    /// becomes [`Claim::Unknown`].
    async fn claim(&self, claims: Vec<ClaimKey>, at_unix_s: u64) -> Result<Vec<Claim>, StoreError>;

    /// Ends claims and, in the same transaction, remembers an answer, replacing an earlier one of the same id. Keys
    /// that are not claimed at the moment are left as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the answer is larger than [`MAX_ANSWER_BYTES`].
    async fn finish(
        &self,
        ends: Vec<(ClaimKey, ClaimEnd)>,
        answer: Option<(AnswerId, Vec<u8>)>,
        at_unix_s: u64,
    ) -> Result<(), StoreError>;

    /// The remembered answer to a request. No file holds anything that opens it without the id.
    async fn answer(&self, id: &AnswerId) -> Result<Option<Vec<u8>>, StoreError>;

    /// How far the archive was read, or nothing in a new store.
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError>;

    /// Notes how far the archive was read. Give it a seq only when everything up to it has ended, its calls of this
    /// store included: whatever returned before this call is on disk before the checkpoint is. A lower seq of the
    /// same archive is passed over.
    async fn set_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError>;

    /// Notes how far the archive was read, also if that is less than was noted: for an archive that was put back.
    async fn reset_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError>;

    /// Forgets what is older than its retention, in pieces: it looks at about `budget` entries, goes on where it
    /// ended the last time, and says whether there is more.
    async fn expire(&self, retention: &Retention, budget: usize) -> Result<Expired, StoreError>;

    /// How much there is of each kind.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// Whether the store still does what it is asked for. Never waits.
    ///
    /// # Errors
    /// Why nothing is written, or read, until the store is opened again; or [`StoreError::Damaged`], which that
    /// does not help. A store that was closed is healthy.
    fn health(&self) -> Result<(), StoreError>;

    /// Ends when everything handed over is durable. Later changes are refused with [`StoreError::Closed`].
    async fn close(&self) -> Result<(), StoreError>;
}

/// What [`RegistrationStore::look_up`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookedUp {
    /// The request was answered before: the payload of the answer.
    Answer(Vec<u8>),
    /// The registrations of the first devices, in the order asked for.
    Devices(Vec<Option<Registration>>),
}

/// What is forgotten: everything before these times, seconds since 1970. 0 forgets nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Claims that were taken or ended before.
    pub claims_before_unix_s: u64,
    /// Answers that were remembered before.
    pub answers_before_unix_s: u64,
    /// Registrations that were neither registered nor reached since. Their versions are kept.
    pub registrations_before_unix_s: u64,
    /// Versions of registrations that were forgotten before, or, of those forgotten for their age, last registered or
    /// reached before. Without them an old
    /// registration that comes again is taken for a new one, so they must outlive every archive that may still hold its
    /// envelope, by far: a year is a good time.
    pub tombstones_before_unix_s: u64,
}

/// What a piece of expiry did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// How many claims were forgotten.
    pub claims: u64,
    /// How many answers were forgotten.
    pub answers: u64,
    /// The devices whose registrations were forgotten.
    pub registrations: Vec<DeviceId>,
    /// How many devices were forgotten altogether, their versions included.
    pub tombstones: u64,
    /// False while there is more to look at.
    pub is_done: bool,
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Registrations.
    pub registrations: u64,
    /// Devices of which only a version is kept.
    pub tombstones: u64,
    /// Claims that have not ended.
    pub open_claims: u64,
    /// Claims that ended and are remembered.
    pub ended_claims: u64,
    /// Remembered answers.
    pub answers: u64,
    /// How often a registration was met since the store was opened that its key does not open. It is treated as
    /// absent, apart from its version.
    pub unreadable: u64,
    /// Bytes of the store's files.
    pub file_bytes: u64,
}
