//! A disk in memory that fails on purpose: for the tests of the journal and of everything built on it.
//!
//! It keeps, for each file, what the process sees and what would survive a power cut, page by page. A crash
//! keeps everything that was synced; of the rest each page may survive, be lost, or be torn between
//! sectors, and each unsynced name may survive or not. A failed fsync behaves like Linux: pages that could
//! not be written count as clean from then on, so a later fsync that succeeds does not bring them back.
//! All choices come from one seed.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// How often things go wrong, each out of 10,000 calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    /// A write takes only a part of what it was given (which is legal).
    pub short_write: u32,
    /// A write fails with EIO after it took a part.
    pub write_error: u32,
    /// An fsync fails with EIO and loses pages.
    pub sync_error: u32,
    /// A read fails with EIO.
    pub read_error: u32,
}

/// A disk in memory that fails on purpose. Clones share the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").finish_non_exhaustive()
    }
}

impl FaultyDisk {
    /// An empty disk that works, until told otherwise.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random(seed),
            epoch: 0,
            next_inode: 0,
            inodes: HashMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            locked: BTreeSet::new(),
            odds: Odds::default(),
            capacity: None,
            loses_syncs: false,
            broken_syncs: 0,
            broken_removals: 0,
            broken_dir_syncs: 0,
            syncs: 0,
            bad: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on calls fail as often as `odds` say.
    pub fn set_odds(&self, odds: Odds) {
        self.state().odds = odds;
    }

    /// From now on all files together hold at most this many bytes (ENOSPC above), or any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// A disk that lies: fsync returns without making anything durable.
    pub fn lose_syncs(&self) {
        self.state().loses_syncs = true;
    }

    /// The next `count` fsyncs of files fail with EIO.
    pub fn fail_next_syncs(&self, count: u32) {
        self.state().broken_syncs = count;
    }

    /// The next `count` removals of files fail with EIO and remove nothing.
    pub fn fail_next_removals(&self, count: u32) {
        self.state().broken_removals = count;
    }

    /// The next `count` fsyncs of directories fail with EIO and make nothing durable.
    pub fn fail_next_dir_syncs(&self, count: u32) {
        self.state().broken_dir_syncs = count;
    }

    /// How many fsyncs of files have succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Power cut: unsynced pages and names survive or not, open files and locks are dead.
    pub fn crash(&self) {
        self.state().crash();
    }

    /// kill -9: what was written stays, open files and locks are dead.
    pub fn kill(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.locked.clear();
    }

    /// Flips the bits of `mask` in one byte of a file, durably: rot.
    ///
    /// # Errors
    /// `NotFound` when there is no such file or byte.
    pub fn damage(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode(path)?;
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::NotFound)?;
        for content in [&mut inode.current, &mut inode.durable] {
            *content.get_mut(offset).ok_or(io::ErrorKind::NotFound)? ^= mask;
        }
        Ok(())
    }

    /// Cuts a file to `len` bytes, durably.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    pub fn shorten(&self, path: &Path, len: usize) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode(path)?;
        inode.current.truncate(len);
        inode.durable.truncate(len);
        Ok(())
    }

    /// From now on reads that touch these bytes of a file fail with EIO: bad sectors.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    pub fn make_unreadable(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        let mut state = self.state();
        let number = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        state.bad.push((number, bytes));
        Ok(())
    }

    /// Takes back every [`FaultyDisk::make_unreadable`].
    pub fn make_readable(&self) {
        self.state().bad.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: u64, epoch: u64) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { disk: self.clone(), inode, epoch })
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(number, Inode::default());
        state.names.insert(path.to_path_buf(), number);
        Ok(self.handle(number, state.epoch))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let number = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(number, state.epoch))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), number);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.broken_removals > 0 {
            state.broken_removals -= 1;
            return Err(eio());
        }
        state.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.loses_syncs {
            return Ok(());
        }
        if state.broken_dir_syncs > 0 {
            state.broken_dir_syncs -= 1;
            return Err(eio());
        }
        let names = state.names.clone();
        let inside = |path: &Path| path.parent() == Some(dir);
        state.durable_names.retain(|path, _| !inside(path));
        state.durable_names.extend(names.into_iter().filter(|(path, _)| inside(path)));
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut state = self.state();
        if !state.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_path_buf(), epoch: state.epoch }))
    }
}

struct Lock {
    disk: FaultyDisk,
    path: PathBuf,
    epoch: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            state.locked.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    inode: u64,
    epoch: u64,
}

impl FaultyFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return Err(eio());
        }
        act(&mut state, self.inode)
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|state, number| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let fails = state.happens(state.odds.write_error);
            let mut take = bytes.len();
            if fails {
                take = state.random.below(bytes.len() as u64 + 1) as usize;
            } else if state.happens(state.odds.short_write) {
                // To take nothing and report no error is not legal.
                take = 1.max(state.random.below(bytes.len() as u64 + 1) as usize).min(bytes.len());
            }
            let full = state.room_for(number, offset, &mut take);
            let inode = state.inodes.get_mut(&number).ok_or_else(eio)?;
            inode.write(offset, &bytes[..take]);
            match () {
                () if fails => Err(eio()),
                () if full && take == 0 => {
                    Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()))
                }
                () => Ok(take),
            }
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, number| {
            let asked = offset..offset + buffer.len() as u64;
            let overlaps = |bytes: &Range<u64>| bytes.start < asked.end && asked.start < bytes.end;
            let is_bad = state.bad.iter().any(|(inode, bytes)| *inode == number && overlaps(bytes));
            if is_bad || state.happens(state.odds.read_error) {
                return Err(eio());
            }
            let inode = state.inodes.get_mut(&number).ok_or_else(eio)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.current.len());
            let len = buffer.len().min(inode.current.len() - start);
            buffer[..len].copy_from_slice(&inode.current[start..start + len]);
            Ok(len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, number| {
            if state.loses_syncs {
                return Ok(());
            }
            let fails = state.broken_syncs > 0 || state.happens(state.odds.sync_error);
            state.broken_syncs = state.broken_syncs.saturating_sub(u32::from(fails));
            let inode = state.inodes.get_mut(&number).ok_or_else(eio)?;
            inode.durable.resize(inode.current.len(), 0);
            for page in std::mem::take(&mut inode.dirty) {
                if !fails || state.random.below(2) == 0 {
                    inode.keep_page(page);
                }
            }
            if fails {
                return Err(eio());
            }
            state.syncs += 1;
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|state, number| {
            let inode = state.inodes.get_mut(&number).ok_or_else(eio)?;
            let len = usize::try_from(len).map_err(io::Error::other)?;
            inode.current.resize(len, 0);
            if !len.is_multiple_of(PAGE) {
                inode.dirty.insert(len / PAGE);
            }
            inode.dirty.retain(|page| page * PAGE < len);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, number| Ok(state.inodes.get(&number).ok_or_else(eio)?.current.len() as u64))
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.with(|state, number| {
            let inode = state.inodes.get_mut(&number).ok_or_else(eio)?;
            for page in 0..inode.current.len().div_ceil(PAGE) {
                if !inode.dirty.contains(&page) {
                    inode.reload_page(page);
                }
            }
            Ok(())
        })
    }
}

struct State {
    random: Random,
    /// Counts crashes and kills: handles of an earlier epoch are dead.
    epoch: u64,
    next_inode: u64,
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    locked: BTreeSet<PathBuf>,
    odds: Odds,
    capacity: Option<u64>,
    loses_syncs: bool,
    broken_syncs: u32,
    broken_removals: u32,
    broken_dir_syncs: u32,
    syncs: u64,
    /// Bytes that cannot be read, by inode.
    bad: Vec<(u64, Range<u64>)>,
}

impl State {
    fn happens(&mut self, of_ten_thousand: u32) -> bool {
        of_ten_thousand > 0 && self.random.below(10_000) < u64::from(of_ten_thousand)
    }

    fn inode(&mut self, path: &Path) -> io::Result<&mut Inode> {
        let number = self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        self.inodes.get_mut(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Bytes of all files.
    fn used(&self) -> u64 {
        self.names.values().filter_map(|number| Some(self.inodes.get(number)?.current.len() as u64)).sum()
    }

    /// Lowers `take` to what the capacity leaves; true when it had to.
    fn room_for(&self, number: u64, offset: usize, take: &mut usize) -> bool {
        let Some(capacity) = self.capacity else { return false };
        let own = self.inodes.get(&number).map_or(0, |inode| inode.current.len());
        let free = usize::try_from(capacity.saturating_sub(self.used())).unwrap_or(usize::MAX);
        let fits = own.saturating_sub(offset).saturating_add(free);
        let full = *take > fits;
        *take = (*take).min(fits);
        full
    }

    fn crash(&mut self) {
        self.epoch += 1;
        self.locked.clear();
        let paths: BTreeSet<PathBuf> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        let mut names = BTreeMap::new();
        for path in paths {
            let (seen, durable) = (self.names.get(&path), self.durable_names.get(&path));
            let kept = if seen == durable || self.random.below(2) == 0 { durable } else { seen };
            if let Some(number) = kept {
                names.insert(path, *number);
            }
        }
        self.durable_names = names.clone();
        self.names = names;
        let mut numbers: Vec<u64> = self.inodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(inode) = self.inodes.get_mut(&number) {
                inode.crash(&mut self.random);
            }
        }
    }
}

#[derive(Default)]
struct Inode {
    /// What the process sees.
    current: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// Pages of `current` that an fsync would still write.
    dirty: BTreeSet<usize>,
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        let from = offset.min(self.current.len());
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[offset..end].copy_from_slice(bytes);
        self.dirty.extend(from / PAGE..end.div_ceil(PAGE));
    }

    fn keep_page(&mut self, page: usize) {
        let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(self.current.len()));
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.current[start..end]);
    }

    fn reload_page(&mut self, page: usize) {
        let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(self.current.len()));
        for at in start..end {
            self.current[at] = self.durable.get(at).copied().unwrap_or(0);
        }
    }

    fn crash(&mut self, random: &mut Random) {
        let (seen, safe) = (self.current.len(), self.durable.len());
        let len = match random.below(3) {
            0 => seen,
            1 => safe,
            _ => seen.min(safe) + random.below(seen.abs_diff(safe) as u64 + 1) as usize,
        };
        self.durable.resize(len, 0);
        for page in std::mem::take(&mut self.dirty) {
            let fate = random.below(3);
            for sector in page * PAGE / SECTOR..(page + 1) * PAGE / SECTOR {
                let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(len).min(seen));
                let kept = fate == 0 || (fate == 1 && random.below(2) == 0);
                if kept && start < end {
                    self.durable[start..end].copy_from_slice(&self.current[start..end]);
                }
            }
        }
        self.current = self.durable.clone();
    }
}

/// SplitMix64: a few lines, and the same numbers for the same seed for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}
