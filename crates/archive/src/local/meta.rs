//! What cannot be derived from the records: the store's identity, the next seq, floors, the writers that are waited
//! for, quarantines. Two slot files, `meta.0` and `meta.1`, are written in turn, each whole in its place: what tears
//! the one leaves the other. Both are made with room to spare, so that a floor can be raised on a full disk.

mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use poste_journal::{DirectoryLock, Disk, DiskFile, JournalError, write_all_at};

use crate::record::Space;
use crate::store::{Lane, Retention, StoreError, StoreId, WriterId, Writers};
use slot::Damage;

const SLOT_NAMES: [&str; 2] = ["meta.0", "meta.1"];
/// Of format 1: one file, replaced whole by way of a second one.
const OLD_NAMES: [&str; 2] = ["meta", "meta.new"];
const JOURNAL_EXTENSION: &str = ".journal";
const IMPORTED_DIR: &str = "imported";
/// A slot is made with this many bytes, and grows by as many: what is written into them later allocates nothing.
const ROOM_BYTES: usize = 64 * 1024;

/// What is kept beside the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    /// Who this store is. It never changes.
    pub(super) store_id: StoreId,
    /// No record that is to come has a lower seq. It never sinks.
    pub(super) next_seq: u64,
    /// The highest seq of a record that is gone for good by retention; 0 when none is. It never sinks.
    pub(super) retired_seq: u64,
    /// Records with an earlier creation time (nanoseconds since 1970) are retired. A floor never sinks.
    pub(super) floors: BTreeMap<Space, i64>,
    /// Writers that may hold something back, each with the creation time from which it may.
    pub(super) writers: BTreeMap<WriterId, i64>,
    /// Damaged places of the segments.
    pub(super) quarantines: BTreeSet<Quarantine>,
    /// How long records are kept, where an operator overrides the configuration.
    pub(super) retention: Option<Retention>,
    min_numbers: [u32; 2],
}

/// A damaged place of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quarantine {
    pub(super) lane: Lane,
    /// Number of the segment in its lane.
    pub(super) segment: u32,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// How long it is.
    pub(super) bytes: u64,
}

impl Meta {
    /// More damaged places than this are not told apart: segments with many are noted as damaged in one piece.
    pub(super) const MAX_QUARANTINES: usize = 10_000;

    /// What a store begins with.
    fn of(store_id: StoreId) -> Self {
        Self {
            store_id,
            next_seq: 1,
            retired_seq: 0,
            floors: BTreeMap::new(),
            writers: BTreeMap::new(),
            quarantines: BTreeSet::new(),
            retention: None,
            min_numbers: [1; 2],
        }
    }

    /// The lowest number that a new segment of a lane may have: numbers of removed ones are not given again.
    pub(super) fn min_number(&self, lane: Lane) -> u32 {
        self.min_numbers[lane as usize]
    }

    /// Raises [`Meta::min_number`]; it never sinks.
    pub(super) fn raise_min_number(&mut self, lane: Lane, number: u32) {
        let min_number = &mut self.min_numbers[lane as usize];
        *min_number = number.max(*min_number);
    }

    /// Notes a damaged place, unless it is part of one that is known.
    pub(super) fn quarantine(&mut self, new: Quarantine) {
        let known = |old: &Quarantine| old.offset <= new.offset && old.end() >= new.end();
        if !self.quarantines_of(new.lane, new.segment).any(known) {
            self.quarantines.insert(new);
        }
    }

    /// The damaged places of one segment, by offset.
    pub(super) fn quarantines_of(&self, lane: Lane, segment: u32) -> impl Iterator<Item = &Quarantine> {
        let at = |offset, bytes| Quarantine { lane, segment, offset, bytes };
        self.quarantines.range(at(0, 0)..=at(u64::MAX, u64::MAX))
    }

    /// Forgets the damaged places of a segment, because the segment is gone.
    pub(super) fn forget_segment(&mut self, lane: Lane, segment: u32) {
        self.quarantines.retain(|place| (place.lane, place.segment) != (lane, segment));
    }

    /// Takes back what must never happen, whatever a change did: a sinking seq or floor, another identity.
    fn keep_promises(&mut self, before: &Self) {
        self.store_id = before.store_id;
        self.next_seq = self.next_seq.max(before.next_seq);
        self.retired_seq = self.retired_seq.max(before.retired_seq);
        for lane in [Lane::Live, Lane::Imported] {
            self.raise_min_number(lane, before.min_number(lane));
        }
        for (space, before_ns) in &before.floors {
            let floor_ns = self.floors.entry(*space).or_insert(*before_ns);
            *floor_ns = (*floor_ns).max(*before_ns);
        }
    }

    /// Brings what is noted below its bounds, or says why it does not fit.
    fn bound(&mut self) -> Result<(), StoreError> {
        if self.writers.len() > Writers::MAX {
            return Err(StoreError::Invalid(format!(
                "the archive waits for {} writers already: forget those that will not come back",
                Writers::MAX
            )));
        }
        if self.quarantines.len() > Self::MAX_QUARANTINES {
            self.join_quarantines();
        }
        if self.quarantines.len() > Self::MAX_QUARANTINES {
            return Err(StoreError::Invalid(format!(
                "more than {} segments are damaged: restore the store from a copy of its directory",
                Self::MAX_QUARANTINES
            )));
        }
        Ok(())
    }

    /// Notes whole segments as damaged, those with the most damaged places first, until there is room for a while.
    fn join_quarantines(&mut self) {
        let mut segments: BTreeMap<(Lane, u32), (usize, u64)> = BTreeMap::new();
        for place in &self.quarantines {
            let (places, end) = segments.entry((place.lane, place.segment)).or_default();
            (*places, *end) = (*places + 1, (*end).max(place.end()));
        }
        let mut segments: Vec<_> = segments.into_iter().filter(|(_, (places, _))| *places > 1).collect();
        segments.sort_unstable_by_key(|(_, (places, _))| std::cmp::Reverse(*places));
        let mut left = self.quarantines.len();
        let mut whole = BTreeMap::new();
        for (of, (places, end)) in segments {
            if left <= Self::MAX_QUARANTINES / 10 * 9 {
                break;
            }
            left -= places - 1;
            whole.insert(of, end);
        }
        self.quarantines.retain(|place| !whole.contains_key(&(place.lane, place.segment)));
        self.quarantines.extend(whole.into_iter().map(|((lane, segment), bytes)| Quarantine {
            lane,
            segment,
            offset: 0,
            bytes,
        }));
    }
}

impl Quarantine {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// The slot files of a store, open. What it answers with is durable.
#[derive(Debug)]
pub(super) struct MetaFile {
    current: RwLock<Meta>,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    files: [Slot; 2],
    /// Which of them is written next: the other one holds what is current.
    next: usize,
    /// Of what is current.
    generation: u64,
    /// Whether a write into the next slot has failed: it may hold anything, also what was to be written.
    failed: bool,
}

#[derive(Debug)]
struct Slot {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Its length, as far as that is durable.
    room: usize,
}

impl MetaFile {
    /// Reads the store's slots; makes them with a random identity in an empty directory, and out of the `meta` of
    /// format 1.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when neither slot is whole though there are journal files, or when a newer program
    /// wrote them; the disk's error when it refuses.
    pub(super) fn open(lock: &DirectoryLock) -> Result<Self, StoreError> {
        let (disk, dir) = (lock.disk().as_ref(), lock.dir());
        let names = disk.list(dir).map_err(refused("list", dir))?;
        let has = |name: &str| names.iter().any(|other| other == name);
        let mut valid: Option<(usize, u64, Meta)> = None;
        let mut damaged = false;
        for (number, name) in SLOT_NAMES.into_iter().enumerate().filter(|(_, name)| has(name)) {
            let path = dir.join(name);
            match slot::decode(&read_settled(disk, &path).map_err(refused("read", &path))?) {
                Ok((generation, meta)) => {
                    if valid.as_ref().is_none_or(|(_, newest, _)| generation > *newest) {
                        valid = Some((number, generation, meta));
                    }
                }
                Err(Damage::Newer) => return Err(newer(&path)),
                Err(Damage::Torn) => damaged = true,
            }
        }
        let (current, generation, meta) = match valid {
            Some(valid) => valid,
            None if has(OLD_NAMES[0]) => (1, 0, read_format_1(disk, &dir.join(OLD_NAMES[0]))?),
            None if has_journal_files(disk, dir, &names)? => return Err(lost(dir, damaged)),
            None => (1, 0, Meta::of(StoreId(rand::random()))),
        };
        if damaged && generation > 0 {
            tracing::warn!(
                dir = %dir.display(),
                "one of the two meta files is damaged, as after a power cut: going on with the other one"
            );
        }
        let slot = |number: usize| Slot::open(disk, dir.join(SLOT_NAMES[number]), has(SLOT_NAMES[number]));
        let files = [slot(0)?, slot(1)?];
        let file = Self {
            current: RwLock::new(meta),
            slots: Mutex::new(Slots { files, next: 1 - current, generation, failed: damaged }),
        };
        if generation == 0 {
            file.write()?;
        }
        disk.sync_dir(dir).map_err(refused("sync", dir))?;
        remove_format_1(disk, dir, &names)?;
        Ok(file)
    }

    /// What is noted, as a copy.
    pub(super) fn get(&self) -> Meta {
        self.current.read().clone()
    }

    /// Looks at what is noted. It never waits for the disk.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Meta) -> T) -> T {
        look(&self.current.read())
    }

    /// Changes what is noted, all or nothing: it is seen only when it is durable. A seq and a floor do not sink,
    /// whatever `change` does. It blocks for one write and one fsync, or for neither when nothing changed.
    ///
    /// # Errors
    /// The disk's error, [`StoreError::Invalid`] beyond the bounds. Nothing has changed then; but a write of which
    /// the disk told an error may still turn up after a power cut, until the next update succeeds.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Meta) -> T) -> Result<T, StoreError> {
        let mut slots = self.slots.lock();
        let before = self.get();
        let mut meta = before.clone();
        let answer = change(&mut meta);
        meta.keep_promises(&before);
        meta.bound()?;
        if meta != before || slots.failed {
            slots.write(&meta)?;
            *self.current.write() = meta;
        }
        Ok(answer)
    }

    /// Writes what is current into both slots.
    fn write(&self) -> Result<(), StoreError> {
        let (mut slots, meta) = (self.slots.lock(), self.get());
        slots.write(&meta)?;
        slots.write(&meta)
    }
}

impl Slots {
    /// Writes into the older slot. When that fails the newer one stays the newer one: the next write goes to the
    /// same slot again, over whatever is there now.
    fn write(&mut self, meta: &Meta) -> Result<(), StoreError> {
        let generation = self.generation + 1;
        let bytes = slot::encode(generation, meta);
        self.failed = true;
        // Both grow together, or a full disk might find only one of two slots large enough.
        for slot in &mut self.files {
            slot.grow(bytes.len())?;
        }
        let slot = &self.files[self.next];
        slot.put(&bytes, 0)?;
        self.generation = generation;
        self.next = 1 - self.next;
        self.failed = false;
        Ok(())
    }
}

impl Slot {
    fn open(disk: &dyn Disk, path: PathBuf, exists: bool) -> Result<Self, StoreError> {
        let file = if exists { disk.open(&path) } else { disk.create(&path) };
        let file = file.map_err(refused("open", &path))?;
        let room = file.len().map_err(refused("read", &path))?;
        // What is longer than any slot of ours is not needed to be known.
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut slot = Self { path, file, room };
        slot.grow(ROOM_BYTES)?;
        Ok(slot)
    }

    /// Sees to it that so many bytes can be written without the disk having to find room for them.
    fn grow(&mut self, bytes: usize) -> Result<(), StoreError> {
        if bytes <= self.room {
            return Ok(());
        }
        let room = bytes.next_multiple_of(ROOM_BYTES);
        self.put(&vec![0; room - self.room], self.room)?;
        self.room = room;
        Ok(())
    }

    /// Writes and syncs.
    fn put(&self, bytes: &[u8], offset: usize) -> Result<(), StoreError> {
        write_all_at(self.file.as_ref(), bytes, offset as u64).map_err(refused("write", &self.path))?;
        self.file.sync_data().map_err(refused("sync", &self.path))
    }
}

/// Reads a file as it is on disk: what a process that was killed had not synced is made durable before it is
/// believed, and what a failed fsync had left in the cache alone is not seen.
fn read_settled(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    file.sync_data()?;
    file.forget_cached()?;
    // One byte more than a good one can have, so that a longer one is seen.
    let length = file.len()?.min(slot::MAX_BYTES as u64 + 1);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let mut come = 0;
    while come < bytes.len() {
        match file.read_at(&mut bytes[come..], come as u64) {
            Ok(0) => break,
            Ok(more) => come += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(come);
    Ok(bytes)
}

fn read_format_1(disk: &dyn Disk, path: &Path) -> Result<Meta, StoreError> {
    let bytes = read_settled(disk, path).map_err(refused("read", path))?;
    match slot::decode_format_1(&bytes) {
        Ok(store_id) => Ok(Meta::of(store_id)),
        Err(Damage::Newer) => Err(newer(path)),
        Err(Damage::Torn) => Err(StoreError::Corrupt(format!(
            "{} is damaged: restore it from a copy of the directory",
            path.display()
        ))),
    }
}

/// Removes what the slots replace, once these are durable.
fn remove_format_1(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<(), StoreError> {
    let mut removed = false;
    for name in OLD_NAMES.into_iter().filter(|name| names.iter().any(|other| other == name)) {
        let path = dir.join(name);
        disk.remove(&path).map_err(refused("remove", &path))?;
        removed = true;
    }
    if removed {
        disk.sync_dir(dir).map_err(refused("sync", dir))?;
    }
    Ok(())
}

/// Whether records were ever taken here, on either lane.
fn has_journal_files(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<bool, StoreError> {
    let is_journal = |name: &String| name.ends_with(JOURNAL_EXTENSION);
    if names.iter().any(is_journal) {
        return Ok(true);
    }
    let imported = dir.join(IMPORTED_DIR);
    match disk.list(&imported) {
        Ok(names) => Ok(names.iter().any(is_journal)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused("list", &imported)(error)),
    }
}

fn lost(dir: &Path, damaged: bool) -> StoreError {
    let [first, second] = SLOT_NAMES;
    StoreError::Corrupt(if damaged {
        format!(
            "{}: neither {first} nor {second} is whole: restore both from a copy of the directory",
            dir.display()
        )
    } else {
        format!(
            "{} holds journal files but neither {first} nor {second}: restore both from a copy of the directory",
            dir.display()
        )
    })
}

fn newer(path: &Path) -> StoreError {
    StoreError::Corrupt(format!(
        "{} has a format that this program does not know: a newer program wrote it",
        path.display()
    ))
}

/// For `map_err`: the disk refused to do `action` on `path`.
fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Journal(JournalError::Io { action, path: path.to_path_buf(), source })
}
