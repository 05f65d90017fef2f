//! The file of row keys: a header of 4,096 bytes, then slots of 32 bytes, each a key or zeros. Forgetting a row is
//! overwriting its slot: whatever a database keeps of the row in its freed pages then opens with nothing.
//!
//! Which slots are free is written in the database, in the transactions that use and free them:
//!
//! - A key is written to a free slot and synced before the commit that makes a row use it.
//! - A slot is overwritten and synced after the commit that frees it, and before anybody is told.
//!
//! So whenever the process ends, a row that is committed has its key, and a key without a row is in a free slot or
//! behind the last one that the database knows: opening overwrites those.
//!
//! Overwriting in place is what the file system and the disk make of it. A file system that copies on write, a
//! snapshot or a backup keeps the old bytes for its own time.

use std::sync::Arc;

use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition, WriteTransaction,
};
use zeroize::Zeroizing;

use super::registrations::Tables;
use super::seal::SealKey;
use super::writer::Aside;
use super::{KEYS, META};
use crate::store::StoreError;

/// Slots that hold no key of a committed row.
pub(super) const FREE: TableDefinition<'_, u32, ()> = TableDefinition::new("free_slots");
/// [`FREE`] in a transaction.
pub(super) type FreeSlots<'t> = Table<'t, u32, ()>;
/// [`META`] in a transaction.
pub(super) type Meta<'t> = Table<'t, &'static str, &'static [u8]>;
/// In `META`: how many slots there are, 4 bytes big-endian.
const COUNT: &str = "slots";

const HEADER_BYTES: u64 = 4096;
const MAGIC: &[u8; 16] = b"poste push keys\n";
const FORMAT: u32 = 1;
/// By how many slots the file grows.
const GROWTH: u32 = 256;
/// How many slots are read at once when the file is opened.
const BLOCK: u32 = 8192;

/// Reads keys: what every reader has.
#[derive(Debug, Clone)]
pub(super) struct Keys(pub(super) Arc<dyn StorageBackend>);

impl Keys {
    /// The key in a slot. A slot that was freed meanwhile gives another key or zeros, which open nothing.
    pub(super) fn read(&self, slot: u32) -> Result<SealKey, StoreError> {
        let mut key = Zeroizing::new([0; SealKey::BYTES]);
        self.0.read(offset(slot), key.as_mut()).map_err(StoreError::io("read", KEYS.as_ref()))?;
        Ok(SealKey::new(key))
    }

    fn write(&self, slot: u32, key: &[u8]) -> Result<(), StoreError> {
        self.0.write(offset(slot), key).map_err(StoreError::io("write", KEYS.as_ref()))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync_data().map_err(StoreError::io("sync", KEYS.as_ref()))
    }
}

/// Gives and takes slots: what the writer has.
pub(super) struct Slots {
    keys: Keys,
    /// In order when the file is opened.
    free: Vec<u32>,
    count: u32,
    /// How many there are without the transaction that is being made.
    committed_count: u32,
    /// Taken by that transaction.
    taken: Vec<u32>,
    /// Freed by it.
    freed: Vec<u32>,
    /// Whether a key was written since the last sync.
    is_written: bool,
}

/// Makes an empty file of a store.
pub(super) fn create(file: &dyn StorageBackend, store_id: &[u8; 16]) -> Result<(), StoreError> {
    let written = file
        .set_len(HEADER_BYTES)
        .and_then(|()| file.write(0, &header(store_id)))
        .and_then(|()| file.sync_data());
    written.map_err(StoreError::io("write", KEYS.as_ref()))
}

impl Slots {
    /// Opens the file of a store, and overwrites every key that no row uses.
    pub(super) fn open(
        keys: Keys,
        store_id: &[u8; 16],
        registrations: &Database,
    ) -> Result<Self, StoreError> {
        let corrupt = |reason: &str| StoreError::corrupt(KEYS, reason);
        let read = StoreError::io("read", KEYS.as_ref());
        let length = keys.0.len().map_err(&read)?;
        let mut found = [0; 36];
        if length >= HEADER_BYTES {
            keys.0.read(0, &mut found).map_err(&read)?;
        }
        if found[..16] != *MAGIC {
            return Err(corrupt("not a file of row keys: bring it back together with the registrations"));
        }
        if found[16..20] != FORMAT.to_be_bytes() {
            return Err(corrupt(
                "of a format that this version does not know: use the version that wrote it",
            ));
        }
        if found != header(store_id)[..36] {
            return Err(corrupt(
                "the keys of another store: bring back the file that belongs to the registrations",
            ));
        }
        let read = registrations.begin_read()?;
        let free = read.open_table(FREE)?;
        let free = free.iter()?.map(|slot| Ok(slot?.0.value())).collect::<Result<Vec<u32>, StoreError>>()?;
        let count = read.open_table(META)?.get(COUNT)?.map(|count| count.value().try_into());
        let count = match count {
            None => 0,
            Some(Ok(count)) => u32::from_be_bytes(count),
            Some(Err(_)) => return Err(corrupt("the registrations do not say how many slots there are")),
        };
        if length < offset(count) {
            return Err(corrupt("shorter than its registrations say: bring it back together with them"));
        }
        let mut slots = Self {
            keys,
            free,
            count,
            committed_count: count,
            taken: Vec::new(),
            freed: Vec::new(),
            is_written: false,
        };
        slots.sweep(length)?;
        Ok(slots)
    }

    /// Overwrites the keys that a process left that ended between two steps.
    fn sweep(&mut self, length: u64) -> Result<(), StoreError> {
        let mut left_over = 0_u64;
        let mut block = Zeroizing::new(vec![0; BLOCK as usize * SealKey::BYTES]);
        for free in self.free.chunk_by(|one, next| one / BLOCK == next / BLOCK) {
            let (Some(first), Some(last)) = (free.first(), free.last()) else { continue };
            let keys = &mut block[..(last - first + 1) as usize * SealKey::BYTES];
            self.keys.0.read(offset(*first), keys).map_err(StoreError::io("read", KEYS.as_ref()))?;
            for slot in free {
                let at = (slot - first) as usize * SealKey::BYTES;
                if keys[at..at + SealKey::BYTES] != [0; SealKey::BYTES] {
                    self.keys.write(*slot, &[0; SealKey::BYTES])?;
                    left_over += 1;
                }
            }
        }
        // The file grew, and the transaction that says so was not committed.
        let end = offset(self.count);
        if length > end {
            let write = StoreError::io("write", KEYS.as_ref());
            for at in (end..length).step_by(HEADER_BYTES as usize) {
                let bytes = HEADER_BYTES.min(length - at) as usize;
                self.keys.0.write(at, &[0; HEADER_BYTES as usize][..bytes]).map_err(&write)?;
            }
            self.keys.sync()?;
            self.keys.0.set_len(end).map_err(&write)?;
        }
        if left_over > 0 {
            tracing::info!(count = left_over, "overwrote the row keys that a stop left behind");
        }
        if left_over > 0 || length > end { self.keys.sync() } else { Ok(()) }
    }

    /// A new key in a slot that is the row's own.
    pub(super) fn take(
        &mut self,
        free: &mut FreeSlots<'_>,
        meta: &mut Meta<'_>,
    ) -> Result<(u32, SealKey), StoreError> {
        if self.free.is_empty() {
            self.grow(free, meta)?;
        }
        let slot = self.free.pop().expect("it just grew");
        self.taken.push(slot);
        free.remove(slot)?;
        let key = SealKey::random();
        self.is_written = true;
        self.keys.write(slot, key.as_bytes())?;
        Ok((slot, key))
    }

    /// Gives a slot back that no row uses once the transaction is committed.
    pub(super) fn release(&mut self, free: &mut FreeSlots<'_>, slot: u32) -> Result<(), StoreError> {
        free.insert(slot, ())?;
        self.freed.push(slot);
        Ok(())
    }

    /// Gives back the slots that no row uses and nobody knows as free, because the rows that used them are damaged.
    /// `used` are those of all rows.
    pub(super) fn release_lost(
        &mut self,
        free: &mut FreeSlots<'_>,
        used: impl IntoIterator<Item = u32>,
    ) -> Result<(), StoreError> {
        let mut is_known = vec![false; self.count as usize];
        let known = used.into_iter().chain(self.free.iter().copied()).chain(self.freed.iter().copied());
        for slot in known {
            if let Some(is_known) = is_known.get_mut(slot as usize) {
                *is_known = true;
            }
        }
        for (slot, _) in (0..).zip(is_known).filter(|(_, is_known)| !is_known) {
            self.release(free, slot)?;
        }
        Ok(())
    }

    fn grow(&mut self, free: &mut FreeSlots<'_>, meta: &mut Meta<'_>) -> Result<(), StoreError> {
        let more = self.count..self.count.saturating_add(GROWTH);
        let zeros = vec![0; GROWTH as usize * SealKey::BYTES];
        let grown = self
            .keys
            .0
            .set_len(offset(more.end))
            .and_then(|()| self.keys.0.write(offset(more.start), &zeros));
        grown.map_err(StoreError::io("extend", KEYS.as_ref()))?;
        for slot in more.clone() {
            free.insert(slot, ())?;
        }
        meta.insert(COUNT, more.end.to_be_bytes().as_slice())?;
        self.count = more.end;
        // The last is taken first: the lowest slots are used first.
        self.free.extend(more.rev());
        self.is_written = true;
        Ok(())
    }
}

impl Aside for Slots {
    type Tables<'t> = Tables<'t>;

    fn tables(transaction: &WriteTransaction) -> Result<Tables<'_>, StoreError> {
        Tables::open(transaction)
    }

    fn before_commit(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.is_written) { self.keys.sync() } else { Ok(()) }
    }

    fn after_commit(&mut self) -> Result<(), StoreError> {
        self.taken.clear();
        self.committed_count = self.count;
        if self.freed.is_empty() {
            return Ok(());
        }
        for slot in &self.freed {
            self.keys.write(*slot, &[0; SealKey::BYTES])?;
        }
        self.keys.sync()?;
        self.free.append(&mut self.freed);
        Ok(())
    }

    fn abort(&mut self) -> Result<(), StoreError> {
        self.freed.clear();
        for slot in &self.taken {
            self.keys.write(*slot, &[0; SealKey::BYTES])?;
        }
        self.free.append(&mut self.taken);
        if self.count != self.committed_count {
            self.count = self.committed_count;
            self.free.retain(|slot| *slot < self.committed_count);
            self.keys
                .0
                .set_len(offset(self.committed_count))
                .map_err(StoreError::io("shorten", KEYS.as_ref()))?;
        }
        if std::mem::take(&mut self.is_written) { self.keys.sync() } else { Ok(()) }
    }
}

pub(super) fn offset(slot: u32) -> u64 {
    HEADER_BYTES + u64::from(slot) * SealKey::BYTES as u64
}

/// Magic, format, store: the rest is zeros.
fn header(store_id: &[u8; 16]) -> Vec<u8> {
    let mut header = [MAGIC.as_slice(), &FORMAT.to_be_bytes(), store_id].concat();
    header.resize(HEADER_BYTES as usize, 0);
    header
}

/// How many slots a file of this length has.
#[cfg(test)]
pub(super) fn count(length: u64) -> u32 {
    u32::try_from((length - HEADER_BYTES) / SealKey::BYTES as u64).expect("they are counted so")
}

/// The slots that the database knows as free.
#[cfg(test)]
pub(super) fn free(read: &redb::ReadTransaction) -> Vec<u32> {
    let free = read.open_table(FREE).expect("it is made with the store");
    free.iter().expect("it is readable").map(|slot| slot.expect("it is readable").0.value()).collect()
}
