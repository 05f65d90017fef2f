//! The suite over files, and what only files can show.

mod faults;
mod forgetting;
mod killing;
mod opening;
mod power_cuts;
mod sample;

use tempfile::TempDir;

use super::*;
use crate::identity;

fn options(caps: Caps) -> Options {
    Options { caps, cache_bytes: 4 * 1024 * 1024 }
}

fn open(caps: Caps) -> (RedbStore, (TempDir, Caps)) {
    let dir = tempfile::tempdir().unwrap();
    (open_dir(dir.path(), caps), (dir, caps))
}

async fn reopen(store: RedbStore, (dir, caps): &(TempDir, Caps)) -> RedbStore {
    drop(store);
    open_dir(dir.path(), *caps)
}

fn open_dir(dir: &Path, caps: Caps) -> RedbStore {
    let identity = identity::open(dir).unwrap().public();
    RedbStore::open(dir, &identity, options(caps)).unwrap()
}

/// Fails unless each committed row has its key, each other slot is empty, and each slot belongs to a row or is free.
fn check_slots(store: &RedbStore) {
    let files = &store.0.files;
    let read = files.registrations.begin_read().unwrap();
    let mut used = std::collections::BTreeSet::new();
    for row in read.open_table(registrations::ROWS).unwrap().range::<&[u8]>(..).unwrap() {
        let (key, row) = row.unwrap();
        let row = row::Row::decode(row.value()).unwrap();
        assert!(used.insert(row.slot), "two rows share a slot");
        let seal_key = files.keys.read(row.slot).unwrap();
        assert!(row.open_topic_keys(key.value(), &seal_key).is_some(), "a row lacks its key");
    }
    let slots = slots::count(files.keys.0.len().unwrap());
    for slot in (0..slots).filter(|slot| !used.contains(slot)) {
        assert_eq!(
            *files.keys.read(slot).unwrap().as_bytes(),
            [0; 32],
            "a key lies in slot {slot}, without a row"
        );
    }
    let free = slots::free(&read);
    assert_eq!(free.len() + used.len(), slots as usize);
    assert!(free.iter().all(|slot| !used.contains(slot)));
}

crate::store::conformance::suite!(open, reopen);
