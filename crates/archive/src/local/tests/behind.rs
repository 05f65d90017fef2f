//! Index files that come later than the segments they are of: a slow disk makes records wait, a disk that refuses makes
//! them be refused, and either way nothing is lost.

use std::any::Any;
use std::io;

use parking_lot::{Condvar, Mutex};
use poste_journal::{Disk, DiskFile};

use super::*;

/// What happens to whoever makes an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// The call does not return.
    Closed,
    /// The call fails.
    Refusing,
}

/// A disk on which everything goes well but the making of index files.
#[derive(Debug)]
struct GatedDisk {
    disk: FaultyDisk,
    gate: Mutex<Gate>,
    changed: Condvar,
}

impl GatedDisk {
    fn new() -> Arc<Self> {
        Arc::new(Self { disk: FaultyDisk::new(1), gate: Mutex::new(Gate::Closed), changed: Condvar::new() })
    }

    fn set(&self, gate: Gate) {
        *self.gate.lock() = gate;
        self.changed.notify_all();
    }
}

impl Disk for GatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if path.to_string_lossy().contains(".index") {
            let mut gate = self.gate.lock();
            self.changed.wait_while(&mut gate, |gate| *gate == Gate::Closed);
            if *gate == Gate::Refusing {
                return Err(io::Error::other("refused by the test"));
            }
        }
        self.disk.create(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock(path)
    }
}

fn open_on(disk: &Arc<GatedDisk>) -> LocalStore {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    LocalStore::open(LocalOptions { disk, ..on_disk(&FaultyDisk::new(1)) }).unwrap()
}

/// Hands in batches that each fill a segment, until the store is behind with its index files.
async fn fall_behind(store: &LocalStore) -> (Vec<crate::store::Pending>, usize) {
    let mut pending = Vec::new();
    let mut number = 0;
    while !store.shared.has_many_waiting() {
        let batch = records(number..number + 200);
        number += 200;
        let outcomes = append(store, batch).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    }
    let mut stored = number as usize;
    for _ in 0..3 {
        pending.push(store.append(records(number..number + 200), Lane::Live).await.unwrap());
        number += 200;
        stored += 200;
    }
    (pending, stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_wait_for_index_files_that_are_slow() {
    let disk = GatedDisk::new();
    let store = open_on(&disk);
    let (pending, stored) = fall_behind(&store).await;
    assert!(store.shared.is_behind());
    assert!(store.writable().borrow().is_yes(), "slow is not broken");
    disk.set(Gate::Open);
    for pending in pending {
        let outcomes = pending.await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    }
    assert_eq!(walk(&store, everything()).await.len(), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_refused_while_index_files_cannot_be_written() {
    let disk = GatedDisk::new();
    let store = open_on(&disk);
    let mut writable = store.writable();
    let (pending, _) = fall_behind(&store).await;
    disk.set(Gate::Refusing);
    for pending in pending {
        let outcomes = pending.await;
        let told =
            |outcome: &Outcome| matches!(outcome, Outcome::Unavailable(reason) if reason.contains("index"));
        assert!(outcomes.iter().all(told), "{outcomes:?}");
    }
    disk.set(Gate::Open);
    writable.wait_for(Writable::is_yes).await.unwrap();
    assert_eq!(append(&store, records(0..1)).await, [Outcome::Duplicate]);
    let batch = append(&store, records(1_000_000..1_000_001)).await;
    assert_eq!(batch, [Outcome::Stored]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_index_files_is_stored_when_the_store_closes() {
    let disk = GatedDisk::new();
    let store = open_on(&disk);
    let (pending, stored) = fall_behind(&store).await;
    let closing = tokio::spawn(async move { store.close().await });
    disk.set(Gate::Open);
    for pending in pending {
        let outcomes = pending.await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    }
    closing.await.unwrap().unwrap();
    let store = open_on(&disk);
    until(&store, |stats| stats.indexing.is_none()).await;
    assert_eq!(walk(&store, everything()).await.len(), stored);
}
