//! The suite over files, and what only files can show.

use tempfile::TempDir;

use super::*;
use crate::identity;

fn options(caps: Caps) -> Options {
    Options { caps, cache_bytes: 4 * 1024 * 1024 }
}

fn open(caps: Caps) -> (RedbStore, (TempDir, Caps)) {
    let dir = tempfile::tempdir().unwrap();
    let identity = identity::open(dir.path()).unwrap().public();
    (RedbStore::open(dir.path(), &identity, options(caps)).unwrap(), (dir, caps))
}

async fn reopen(store: RedbStore, (dir, caps): &(TempDir, Caps)) -> RedbStore {
    drop(store);
    let identity = identity::open(dir.path()).unwrap().public();
    RedbStore::open(dir.path(), &identity, options(*caps)).unwrap()
}

crate::store::conformance::suite!(open, reopen);
