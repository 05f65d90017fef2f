//! What changes registrations, each within one transaction: versions only rise, owners stay below their caps, and a
//! slot is used by one row or free.

use std::ops;

use poste_wire::status::HashedPublicKey;
use redb::{Range, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};

use super::META;
use super::row::{Row, behind_owner, device_key, sealed_bytes};
use super::slots::{FREE, FreeSlots, Meta, Slots};
use crate::store::{Caps, DeviceId, NewRegistration, OwnerState, Registered, StoreError};

/// By device: the bytes of a [`Row`].
pub(super) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// By device: the sealed device data of a row.
pub(super) const DEVICE_DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("device_data");
/// By device: the version of a forgotten registration. A device is here or in [`ROWS`].
pub(super) const TOMBSTONES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("tombstones");
/// By device: when what a tombstone forgets was last heard of, seconds since 1970. Those of the first days have none.
pub(super) const TOMBSTONE_TIMES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("tombstone_times");

/// Sums that would take long to make. It is made when it is first needed.
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals");
/// In `TOTALS`: bytes of all values of [`DEVICE_DATA`].
const DATA_BYTES: &str = "device_data_bytes";

/// A success is noted again when the last noted one is so old, seconds.
const NOTE_AGAIN_S: u64 = 24 * 60 * 60;

/// Stores a registration, or replaces one.
pub(super) fn put(
    tables: &mut Tables<'_>,
    slots: &mut Slots,
    caps: Caps,
    registration: &NewRegistration,
) -> Result<Registered, StoreError> {
    let key = device_key(&registration.device);
    let stands = tables.stand(&key)?;
    let owner = tables.owner(&registration.device.key)?;
    if let Some(refused) = stands.refuses(registration.version) {
        return Ok(refused);
    }
    let is_new = !stands.is_registered();
    let has_room =
        owner.registrations < caps.registrations && (stands.is_known() || owner.devices < caps.devices);
    if is_new && !has_room {
        return Ok(Registered::TooManyDevices);
    }
    let old_bytes = if is_new { 0 } else { tables.data_bytes_of(&key)? };
    let all_bytes = tables.all_data_bytes()?.saturating_sub(old_bytes);
    let new_bytes = sealed_bytes(registration);
    if new_bytes > old_bytes {
        let others = match owner.registrations {
            0 => 0,
            _ => tables.owner_data_bytes(&registration.device.key)?.saturating_sub(old_bytes),
        };
        if others + new_bytes > caps.data_bytes as u64 {
            return Ok(Registered::TooManyDevices);
        }
        let all_bytes = all_bytes + new_bytes;
        let is_full = match owner.registrations {
            0 => all_bytes > caps.all_data_bytes / 2 || tables.rows.len()? >= caps.all_registrations,
            _ => all_bytes > caps.all_data_bytes,
        };
        if is_full {
            return Ok(Registered::StoreFull);
        }
    }
    if let Some(row) = &stands.row {
        slots.release(&mut tables.free_slots, row.slot)?;
    }
    let (slot, seal_key) = slots.take(&mut tables.free_slots, &mut tables.meta)?;
    let (row, data) = Row::seal(registration, slot, &seal_key);
    tables.rows.insert(key.as_slice(), row.encode().as_slice())?;
    tables.totals.insert(DATA_BYTES, all_bytes.saturating_add(data.len() as u64))?;
    tables.device_data.insert(key.as_slice(), data.as_slice())?;
    if stands.tombstone.is_some() {
        tables.remove_tombstone(&key)?;
    }
    if stands.is_damaged {
        let used = tables.used_slots()?;
        slots.release_lost(&mut tables.free_slots, used)?;
    }
    Ok(Registered::Done(OwnerState { registrations: owner.registrations + usize::from(is_new) }))
}

/// Forgets a registration by a message with a version of its own, which is kept.
pub(super) fn bury(
    tables: &mut Tables<'_>,
    slots: &mut Slots,
    caps: Caps,
    device: &DeviceId,
    version: u64,
    at_unix_s: u64,
) -> Result<Registered, StoreError> {
    let key = device_key(device);
    let stands = tables.stand(&key)?;
    let owner = tables.owner(&device.key)?;
    if let Some(refused) = stands.refuses(version) {
        return Ok(refused);
    }
    if !stands.is_known() && owner.devices >= caps.devices {
        return Ok(Registered::TooManyDevices);
    }
    if owner.devices == 0 && tables.tombstones.len()? >= caps.all_tombstones {
        return Ok(Registered::StoreFull);
    }
    let left = owner.registrations - usize::from(stands.is_registered());
    tables.bury(slots, &key, &stands, (version, at_unix_s))?;
    Ok(Registered::Done(OwnerState { registrations: left }))
}

/// Forgets a registration that `is_meant` tells by its row, and keeps its version: from this time on, or from its last
/// sign if that is later.
pub(super) fn forget(
    tables: &mut Tables<'_>,
    slots: &mut Slots,
    device: &DeviceId,
    at_unix_s: u64,
    is_meant: impl FnOnce(&Row) -> bool,
) -> Result<Option<OwnerState>, StoreError> {
    let key = device_key(device);
    let stands = tables.stand(&key)?;
    let meant = stands.row.as_ref().filter(|row| is_meant(row));
    let Some(kept) = meant.map(|row| (row.version, row.last_sign_unix_s().max(at_unix_s))) else {
        return Ok(None);
    };
    tables.bury(slots, &key, &stands, kept)?;
    Ok(Some(OwnerState { registrations: tables.owner(&device.key)?.registrations }))
}

/// Forgets the version of a device too, if it was last heard of before this time.
pub(super) fn forget_tombstone(
    tables: &mut Tables<'_>,
    device_key: &[u8],
    before_unix_s: u64,
) -> Result<bool, StoreError> {
    let at = tables.tombstone_times.get(device_key)?.map(|at| at.value());
    let is_old = at.is_some_and(|at| at < before_unix_s);
    if is_old {
        tables.remove_tombstone(device_key)?;
    }
    Ok(is_old)
}

/// Notes that devices were reached.
pub(super) fn note_successes(
    tables: &mut Tables<'_>,
    devices: &[DeviceId],
    at_unix_s: u64,
) -> Result<(), StoreError> {
    for device in devices {
        let key = device_key(device);
        if let Some(row) = tables.row(&key)?.filter(|row| is_due_for_a_note(row, at_unix_s)) {
            let row = Row { reached_unix_s: at_unix_s, ..row };
            tables.rows.insert(key.as_slice(), row.encode().as_slice())?;
        }
    }
    Ok(())
}

/// Whether a success of this time is worth a write.
pub(super) fn is_due_for_a_note(row: &Row, at_unix_s: u64) -> bool {
    row.reached_unix_s == 0 || row.reached_unix_s.saturating_add(NOTE_AGAIN_S) <= at_unix_s
}

/// The keys of all devices of an owner.
pub(super) fn all_of(owner: &HashedPublicKey) -> ops::Range<Vec<u8>> {
    owner.as_bytes().to_vec()..behind_owner(owner)
}

fn sum_of_bytes(data: Range<'_, &'static [u8], &'static [u8]>) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for found in data {
        bytes += found?.1.value().len() as u64;
    }
    Ok(bytes)
}

/// The tables of the database.
pub(super) struct Tables<'t> {
    rows: Table<'t, &'static [u8], &'static [u8]>,
    device_data: Table<'t, &'static [u8], &'static [u8]>,
    tombstones: Table<'t, &'static [u8], u64>,
    tombstone_times: Table<'t, &'static [u8], u64>,
    totals: Table<'t, &'static str, u64>,
    free_slots: FreeSlots<'t>,
    pub(super) meta: Meta<'t>,
}

/// What is stored of a device.
struct Stand {
    row: Option<Row>,
    /// Whether there is a row that says nothing any more.
    is_damaged: bool,
    tombstone: Option<u64>,
}

/// What is stored of an owner.
struct Owner {
    registrations: usize,
    devices: usize,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            rows: transaction.open_table(ROWS)?,
            device_data: transaction.open_table(DEVICE_DATA)?,
            tombstones: transaction.open_table(TOMBSTONES)?,
            tombstone_times: transaction.open_table(TOMBSTONE_TIMES)?,
            totals: transaction.open_table(TOTALS)?,
            free_slots: transaction.open_table(FREE)?,
            meta: transaction.open_table(META)?,
        })
    }

    /// A row. One that is damaged is absent: its device can register again, and nobody else is stopped by it.
    fn row(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let row = self.rows.get(key)?;
        Ok(row.and_then(|row| Row::decode(row.value())))
    }

    fn stand(&self, key: &[u8]) -> Result<Stand, StoreError> {
        let tombstone = self.tombstones.get(key)?.map(|version| version.value());
        let row = self.row(key)?;
        let is_damaged = row.is_none() && self.rows.get(key)?.is_some();
        Ok(Stand { row, is_damaged, tombstone })
    }

    fn owner(&self, owner: &HashedPublicKey) -> Result<Owner, StoreError> {
        let all = all_of(owner);
        let registrations = self.rows.range(all.start.as_slice()..all.end.as_slice())?.count();
        let tombstones = self.tombstones.range(all.start.as_slice()..all.end.as_slice())?.count();
        Ok(Owner { registrations, devices: registrations + tombstones })
    }

    fn data_bytes_of(&self, key: &[u8]) -> Result<u64, StoreError> {
        Ok(self.device_data.get(key)?.map_or(0, |data| data.value().len() as u64))
    }

    fn owner_data_bytes(&self, owner: &HashedPublicKey) -> Result<u64, StoreError> {
        let all = all_of(owner);
        sum_of_bytes(self.device_data.range(all.start.as_slice()..all.end.as_slice())?)
    }

    fn all_data_bytes(&self) -> Result<u64, StoreError> {
        match self.totals.get(DATA_BYTES)? {
            Some(bytes) => Ok(bytes.value()),
            None => sum_of_bytes(self.device_data.iter()?),
        }
    }

    fn bury(
        &mut self,
        slots: &mut Slots,
        key: &[u8],
        stands: &Stand,
        (version, at_unix_s): (u64, u64),
    ) -> Result<(), StoreError> {
        if stands.is_registered() {
            let bytes = self.all_data_bytes()?.saturating_sub(self.data_bytes_of(key)?);
            self.totals.insert(DATA_BYTES, bytes)?;
            self.rows.remove(key)?;
            self.device_data.remove(key)?;
        }
        if let Some(row) = &stands.row {
            slots.release(&mut self.free_slots, row.slot)?;
        }
        if stands.is_damaged {
            {
                let used = self.used_slots()?;
                slots.release_lost(&mut self.free_slots, used)?;
            };
        }
        self.tombstones.insert(key, version)?;
        self.tombstone_times.insert(key, at_unix_s)?;
        Ok(())
    }

    fn remove_tombstone(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.tombstones.remove(key)?;
        self.tombstone_times.remove(key)?;
        Ok(())
    }

    /// The slots of all rows that can be read. It reads them all: that is worth it only after damage.
    fn used_slots(&self) -> Result<Vec<u32>, StoreError> {
        let mut used = Vec::new();
        for found in self.rows.iter()? {
            used.extend(Row::decode(found?.1.value()).map(|row| row.slot));
        }
        Ok(used)
    }
}

impl Stand {
    fn is_registered(&self) -> bool {
        self.row.is_some() || self.is_damaged
    }

    fn is_known(&self) -> bool {
        self.is_registered() || self.tombstone.is_some()
    }

    fn refuses(&self, version: u64) -> Option<Registered> {
        let stored = self.row.as_ref().map(|row| row.version).max(self.tombstone)?;
        (stored >= version).then_some(Registered::VersionMismatch { stored })
    }
}
