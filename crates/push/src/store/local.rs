//! The store of one server, in one directory with one owner:
//!
//! | file | what it holds |
//! |---|---|
//! | `store` | text: the format, the store's id, the identity that it belongs to |
//! | `registrations.redb` | registrations with sealed texts, versions, free slots (a redb database) |
//! | `keys` | the row keys, in slots that are overwritten when a row is forgotten |
//! | `requests.redb` | claims, sealed answers, the checkpoint (a redb database) |
//! | `LOCK` | held while the store is open |
//!
//! Two databases, because they live differently: the one of requests is written all day, and that of registrations is
//! large and seldom written. Each commit also saves which pages are free, so that a start after a crash does not have
//! to read a whole file.

mod claims;
mod damage;
mod expiry;
mod open;
mod reading;
mod registrations;
mod row;
mod seal;
mod slots;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs::File;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use poste_codec::PublicKey;
use poste_wire::status::HashedPublicKey;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};

use super::{
    AnswerId, Caps, Checkpoint, Claim, ClaimEnd, ClaimKey, Counts, DeviceId, Expired, LookedUp,
    MAX_ANSWER_BYTES, MAX_DEVICE_DATA_BYTES, NewRegistration, OwnerState, Registered, Registration,
    RegistrationStore, Retention, StoreError, TopicKeys,
};
use claims::Requests;
use damage::Damage;
use slots::{Keys, Slots};
use writer::Writer;

pub use open::is_store;

const STORE: &str = "store";
const REGISTRATIONS: &str = "registrations.redb";
const REQUESTS: &str = "requests.redb";
const KEYS: &str = "keys";

/// In both databases: the few values that there is one of.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// How a store is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many rows one owner may have.
    pub caps: Caps,
    /// Bytes that each of the two databases may keep in memory.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { caps: Caps::default(), cache_bytes: 64 * 1024 * 1024 }
    }
}

/// The store of one server, in files of a directory. Cheap to clone; the files are closed with the last clone.
#[derive(Clone)]
pub struct RedbStore(Arc<Inner>);

struct Inner {
    // The writers end before what they write is closed.
    registrations: Writer<Slots>,
    requests: Writer<Requests>,
    files: Arc<Files>,
    caps: Caps,
    expiry: Mutex<expiry::Cursor>,
    /// After which the database reads nothing any more.
    read_failure: Mutex<Option<StoreError>>,
    registrations_damage: Damage,
    requests_damage: Damage,
    _lock: Option<File>,
}

/// What the readers share.
struct Files {
    registrations: Arc<Database>,
    requests: Arc<Database>,
    keys: Keys,
    /// Mixed into what claims and answers are found under.
    salt: [u8; 32],
    unreadable: AtomicU64,
    sizes: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl RedbStore {
    /// Opens the store of a directory, or makes one that belongs to `identity`. It blocks, for a moment: the time
    /// does not grow with the registrations. Every claim that is found open becomes [`Claim::Unknown`], and every row
    /// key that a crash left behind is overwritten.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::OtherIdentity`] when its registrations were
    /// made for another key, [`StoreError::Missing`] or [`StoreError::Corrupt`] when its files do not fit together.
    pub fn open(dir: &Path, identity: &PublicKey, options: Options) -> Result<Self, StoreError> {
        open::open(dir, identity, options)
    }

    /// Runs a question away from the threads that must not wait for a disk.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = Arc::clone(&self.0.files);
        let answer = match tokio::task::spawn_blocking(move || question(&files)).await {
            Ok(answer) => answer,
            // The database met what it never wrote, and the same question would end so again.
            Err(error) if error.is_panic() => {
                Err(StoreError::corrupt("the store", "something in it cannot be read"))
            }
            // It is only cancelled when the whole runtime ends.
            Err(_) => Err(StoreError::Closed),
        };
        if let Err(error @ StoreError::Database(_)) = &answer
            && !error.is_of_one_owner()
        {
            self.0.read_failure.lock().get_or_insert_with(|| error.clone());
        }
        answer
    }

    /// [`Self::read`] of what one owner has: whether only that one is concerned by damage.
    async fn read_of<T: Send + 'static>(
        &self,
        owner: &HashedPublicKey,
        question: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.registrations_damage.judge(owner, self.read(question).await)
    }

    /// [`Self::read`] about one request: whether only that one is concerned by damage.
    async fn read_about<T: Send + 'static>(
        &self,
        request: impl Hash,
        question: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.requests_damage.judge(&request, self.read(question).await)
    }

    /// Notes whose registrations were read to their ends, their keys included. Versions tell nothing of the keys.
    fn are_well<'r>(&self, read: impl IntoIterator<Item = &'r Registration>) {
        read.into_iter().for_each(|found| self.0.registrations_damage.well(&found.device.key));
    }
}

#[tonic::async_trait]
impl RegistrationStore for RedbStore {
    async fn register(&self, registration: NewRegistration) -> Result<Registered, StoreError> {
        let bytes = registration.data.as_bytes().len();
        check_size("device data", bytes, MAX_DEVICE_DATA_BYTES)?;
        let (caps, owner) = (self.0.caps, registration.device.key);
        let registered = self
            .0
            .registrations
            .write(move |tables, slots| registrations::put(tables, slots, caps, &registration))
            .await;
        self.0.registrations_damage.judge(&owner, registered)
    }

    async fn unregister(
        &self,
        device: &DeviceId,
        version: u64,
        at_unix_s: u64,
    ) -> Result<Registered, StoreError> {
        let (device, caps, owner) = (device.clone(), self.0.caps, device.key);
        let unregistered = self
            .0
            .registrations
            .write(move |tables, slots| registrations::bury(tables, slots, caps, &device, version, at_unix_s))
            .await;
        self.0.registrations_damage.judge(&owner, unregistered)
    }

    async fn forget(
        &self,
        device: &DeviceId,
        only_version: Option<u64>,
        at_unix_s: u64,
    ) -> Result<Option<OwnerState>, StoreError> {
        let device = device.clone();
        self.0
            .registrations
            .write(move |tables, slots| {
                registrations::forget(tables, slots, &device, at_unix_s, |row| {
                    only_version.is_none_or(|version| row.version == version)
                })
            })
            .await
    }

    async fn version(&self, device: &DeviceId) -> Result<Option<u64>, StoreError> {
        let device = device.clone();
        let owner = device.key;
        self.read_of(&owner, move |files| files.version(&device)).await
    }

    async fn registrations(&self, key: &HashedPublicKey) -> Result<Vec<Registration>, StoreError> {
        let owner = *key;
        let found = self.read_of(key, move |files| files.registrations_of(&owner)).await?;
        self.are_well(&found);
        Ok(found)
    }

    async fn find(&self, devices: Vec<DeviceId>) -> Result<Vec<Option<Registration>>, StoreError> {
        let found = match &devices[..] {
            [device] => {
                let owner = device.key;
                self.read_of(&owner, move |files| files.find(&devices)).await?
            }
            // Whose is damaged is found when they are asked for one by one.
            _ => self.read(move |files| files.find(&devices)).await?,
        };
        self.are_well(found.iter().flatten());
        Ok(found)
    }

    async fn look_up(&self, answer: &AnswerId, devices: Vec<DeviceId>) -> Result<LookedUp, StoreError> {
        let answer = *answer;
        let look = move |files: &Files| match files.answer(&answer)? {
            Some(answer) => Ok(LookedUp::Answer(answer)),
            None => files.find(&devices).map(LookedUp::Devices),
        };
        let looked_up = self.read(look).await?;
        if let LookedUp::Devices(found) = &looked_up {
            self.are_well(found.iter().flatten());
        }
        Ok(looked_up)
    }

    async fn topic_keys(&self, key: &HashedPublicKey) -> Result<Option<TopicKeys>, StoreError> {
        let owner = *key;
        let found = self.read_of(key, move |files| files.topic_keys_of(&owner)).await?;
        if found.is_some() {
            self.0.registrations_damage.well(key);
        }
        Ok(found)
    }

    async fn keys(
        &self,
        after: Option<&HashedPublicKey>,
        max: usize,
    ) -> Result<Vec<HashedPublicKey>, StoreError> {
        let after = after.copied();
        self.read(move |files| files.owners(after.as_ref(), max)).await
    }

    async fn note_successes(&self, devices: Vec<DeviceId>, at_unix_s: u64) -> Result<(), StoreError> {
        let due = self.read(move |files| files.due_for_a_note(devices, at_unix_s)).await?;
        if due.is_empty() {
            return Ok(());
        }
        self.0
            .registrations
            .write(move |tables, _| registrations::note_successes(tables, &due, at_unix_s))
            .await
    }

    async fn claims(&self, keys: Vec<ClaimKey>) -> Result<Vec<Option<Claim>>, StoreError> {
        self.read_about(keys.clone(), move |files| files.claims(&keys)).await
    }

    async fn claim(&self, claims: Vec<ClaimKey>, at_unix_s: u64) -> Result<Vec<Claim>, StoreError> {
        let ids = self.0.files.claim_ids(&claims);
        let claimed = self.0.requests.write(move |tables, _| claims::claim(tables, &ids, at_unix_s)).await;
        let claimed = self.0.requests_damage.judge(&claims, claimed)?;
        self.0.requests_damage.well(&claims);
        Ok(claimed)
    }

    async fn finish(
        &self,
        ends: Vec<(ClaimKey, ClaimEnd)>,
        answer: Option<(AnswerId, Vec<u8>)>,
        at_unix_s: u64,
    ) -> Result<(), StoreError> {
        check_size("an answer", answer.as_ref().map_or(0, |(_, text)| text.len()), MAX_ANSWER_BYTES)?;
        let ends: Vec<_> = ends.iter().map(|(key, end)| (self.0.files.claim_id(key), *end)).collect();
        let answer = answer.map(|(id, text)| self.0.files.seal_answer(&id, &text));
        self.0
            .requests
            .write(move |tables, _| claims::finish(tables, &ends, answer.as_ref(), at_unix_s))
            .await
    }

    async fn answer(&self, id: &AnswerId) -> Result<Option<Vec<u8>>, StoreError> {
        let id = *id;
        self.read_about(id, move |files| files.answer(&id)).await
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.read(Files::checkpoint).await
    }

    async fn set_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.0.requests.write(move |tables, _| claims::set_checkpoint(tables, &checkpoint)).await
    }

    async fn reset_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.0.requests.write(move |tables, _| claims::reset_checkpoint(tables, &checkpoint)).await
    }

    fn health(&self) -> Result<(), StoreError> {
        let failures = [
            self.0.registrations.failure(),
            self.0.requests.failure(),
            self.0.read_failure.lock().clone(),
            self.0.registrations_damage.health(),
            self.0.requests_damage.health(),
        ];
        // First what a restart helps.
        let failure = failures.into_iter().flatten().min_by_key(|error| matches!(error, StoreError::Damaged));
        failure.map_or(Ok(()), Err)
    }

    async fn expire(&self, retention: &Retention, budget: usize) -> Result<Expired, StoreError> {
        expiry::expire(self, *retention, budget).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.read(Files::counts).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.0);
        let closing =
            tokio::task::spawn_blocking(move || inner.registrations.close().and(inner.requests.close()));
        closing.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Files {
    fn counts(&self) -> Result<Counts, StoreError> {
        let read = self.registrations.begin_read()?;
        let rows = read.open_table(registrations::ROWS)?;
        let tombstones = read.open_table(registrations::TOMBSTONES)?;
        let read = self.requests.begin_read()?;
        let open = read.open_table(claims::OPEN)?;
        let ended = read.open_table(claims::ENDED)?;
        let answers = read.open_table(claims::ANSWERS)?;
        Ok(Counts {
            registrations: rows.len()?,
            tombstones: tombstones.len()?,
            open_claims: open.len()?,
            ended_claims: ended.len()?,
            answers: answers.len()?,
            unreadable: self.unreadable.load(Ordering::Relaxed),
            file_bytes: (self.sizes)(),
        })
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").finish_non_exhaustive()
    }
}

/// The files of a store, of whatever they are made.
struct Backends<B> {
    registrations: B,
    requests: B,
    keys: B,
}

fn check_size(what: &'static str, bytes: usize, max: usize) -> Result<(), StoreError> {
    if bytes <= max { Ok(()) } else { Err(StoreError::TooLarge { what, bytes, max }) }
}
