//! Questions about registrations. A question reads the database as it was at one moment, and the row keys as they are:
//! when a row was replaced in between, its old key is gone, and the row is read again. A row that is
//! damaged, or that its key does not open although nothing changed, is treated as absent, and counted.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::Ordering;

use poste_wire::status::HashedPublicKey;
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::registrations::{DEVICE_DATA, ROWS, TOMBSTONES, all_of, is_due_for_a_note};
use super::row::{Row, behind_owner, device_key, owner_of};
use super::seal::SealKey;
use super::{Files, KEYS};
use crate::store::{DeviceId, MAX_FOUND_BYTES, Registration, StoreError, TopicKeys};

/// The registrations as they were at one moment.
struct Snapshot {
    read: ReadTransaction,
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    device_data: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Files {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let read = self.registrations.begin_read()?;
        let (rows, device_data) = (read.open_table(ROWS)?, read.open_table(DEVICE_DATA)?);
        Ok(Snapshot { read, rows, device_data })
    }

    /// The highest version of a device.
    pub(super) fn version(&self, device: &DeviceId) -> Result<Option<u64>, StoreError> {
        let snapshot = self.snapshot()?;
        let key = device_key(device);
        if let Some(row) = self.row(&snapshot, &key)? {
            return Ok(Some(row.version));
        }
        let version = snapshot.read.open_table(TOMBSTONES)?.get(key.as_slice())?;
        Ok(version.map(|version| version.value()))
    }

    /// All registrations of an owner.
    pub(super) fn registrations_of(&self, owner: &HashedPublicKey) -> Result<Vec<Registration>, StoreError> {
        let snapshot = self.snapshot()?;
        let all = all_of(owner);
        let mut registrations = Vec::new();
        for found in snapshot.rows.range(all.start.as_slice()..all.end.as_slice())? {
            registrations.extend(self.registration(&snapshot, found?.0.value())?);
        }
        Ok(registrations)
    }

    /// The registrations of the first devices, in their order, each opened once.
    pub(super) fn find(&self, devices: &[DeviceId]) -> Result<Vec<Option<Registration>>, StoreError> {
        let snapshot = self.snapshot()?;
        let mut opened: HashMap<&DeviceId, Option<Registration>> = HashMap::new();
        let mut opened_bytes = 0;
        let mut found = Vec::new();
        for device in devices {
            let registration = match opened.entry(device) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(_) if opened_bytes >= MAX_FOUND_BYTES => break,
                Entry::Vacant(new) => {
                    let registration = self.registration(&snapshot, &device_key(device))?;
                    opened_bytes += registration.as_ref().map_or(0, |found| found.data.as_bytes().len());
                    new.insert(registration).clone()
                }
            };
            found.push(registration);
        }
        Ok(found)
    }

    /// The topic keys of an owner.
    pub(super) fn topic_keys_of(&self, owner: &HashedPublicKey) -> Result<Option<TopicKeys>, StoreError> {
        let all = all_of(owner);
        for found in self.snapshot()?.rows.range(all.start.as_slice()..all.end.as_slice())? {
            let (key, row) = found?;
            if let Some(topic_keys) = self.topic_keys(key.value(), row.value())? {
                return Ok(Some(topic_keys));
            }
        }
        Ok(None)
    }

    /// The next owners behind one.
    pub(super) fn owners(
        &self,
        after: Option<&HashedPublicKey>,
        max: usize,
    ) -> Result<Vec<HashedPublicKey>, StoreError> {
        let behind = after.map(behind_owner);
        let from = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut owners: Vec<HashedPublicKey> = Vec::new();
        for found in self.snapshot()?.rows.range::<&[u8]>((from, Bound::Unbounded))? {
            let Some(owner) = self.readable(owner_of(found?.0.value())) else { continue };
            if owners.last() == Some(&owner) {
                continue;
            }
            if owners.len() == max {
                break;
            }
            owners.push(owner);
        }
        Ok(owners)
    }

    /// Those of some devices whose last success is old enough to be replaced, each once.
    pub(super) fn due_for_a_note(
        &self,
        devices: Vec<DeviceId>,
        at_unix_s: u64,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let snapshot = self.snapshot()?;
        let mut due = HashSet::new();
        for device in devices {
            if self
                .row(&snapshot, &device_key(&device))?
                .is_some_and(|row| is_due_for_a_note(&row, at_unix_s))
            {
                due.insert(device);
            }
        }
        Ok(due.into_iter().collect())
    }

    fn registration(&self, snapshot: &Snapshot, key: &[u8]) -> Result<Option<Registration>, StoreError> {
        let open = |snapshot: &Snapshot, row: &Row, seal_key: &SealKey| {
            let sealed = snapshot.device_data.get(key)?;
            Ok(sealed.and_then(|sealed| row.open(key, sealed.value(), seal_key)))
        };
        match self.row(snapshot, key)? {
            Some(row) => self.opened(snapshot, key, row, open),
            None => Ok(None),
        }
    }

    /// The key of a row. If it cannot be read, that concerns this row alone.
    fn seal_key(&self, slot: u32) -> Result<SealKey, StoreError> {
        self.keys.read(slot).map_err(|error| {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
            StoreError::corrupt(KEYS, &format!("a key cannot be read: {error}"))
        })
    }

    fn topic_keys(&self, key: &[u8], row: &[u8]) -> Result<Option<TopicKeys>, StoreError> {
        let Some(row) = self.readable(Row::decode(row)) else { return Ok(None) };
        let first = row.open_topic_keys(key, &self.seal_key(row.slot)?);
        if first.is_some() {
            return Ok(first);
        }
        let open = |_: &Snapshot, row: &Row, seal_key: &SealKey| Ok(row.open_topic_keys(key, seal_key));
        self.opened(&self.snapshot()?, key, row, open)
    }

    /// A row, absent if it is damaged.
    fn row(&self, snapshot: &Snapshot, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let row = snapshot.rows.get(key)?;
        Ok(row.and_then(|row| self.readable(Row::decode(row.value()))))
    }

    /// Counts what is damaged.
    pub(super) fn readable<T>(&self, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// Opens a text of a row, that of a newer row if it was replaced meanwhile.
    fn opened<T>(
        &self,
        snapshot: &Snapshot,
        key: &[u8],
        mut found: Row,
        open: impl Fn(&Snapshot, &Row, &SealKey) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if let Some(text) = open(snapshot, &found, &self.seal_key(found.slot)?)? {
            return Ok(Some(text));
        }
        loop {
            let now = self.snapshot()?;
            let Some(newer) = self.row(&now, key)? else { return Ok(None) };
            if let Some(text) = open(&now, &newer, &self.seal_key(newer.slot)?)? {
                return Ok(Some(text));
            }
            if (newer.slot, newer.version) == (found.slot, found.version) {
                self.unreadable.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            found = newer;
        }
    }
}
