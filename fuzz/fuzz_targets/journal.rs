//! A segment file whose end is anything: the journal opens, keeps what was durable, and goes on.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use poste_journal::{DirectoryLock, Disk, FaultyDisk, FrameAt, Group, Journal, Options};

const KEPT: &[u8] = b"durable before the damage";

fn open(disk: &Arc<dyn Disk>) -> (Journal, Vec<Vec<u8>>) {
    let lock = DirectoryLock::acquire(Arc::clone(disk), Path::new("/journal")).expect("the lock is free");
    let mut found = Vec::new();
    let mut visit = |_: FrameAt, payload: &[u8]| found.push(payload.to_vec());
    let (journal, _) = Journal::open(lock, Options::new([7; 16]), 0, &mut visit).expect("the disk works");
    (journal, found)
}

fn append(journal: &mut Journal, payload: &[u8]) {
    let mut group = Group::new();
    group.push(&[payload]).expect("a small payload");
    journal.append(&mut group, 0).expect("the disk works");
    journal.sync().expect("the disk works");
}

fuzz_target!(|tail: &[u8]| {
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
    let (mut journal, _) = open(&disk);
    append(&mut journal, KEPT);
    drop(journal);
    let name =
        disk.list(Path::new("/journal")).expect("a list").into_iter().find(|name| name.ends_with(".journal"));
    let file = disk.open(&Path::new("/journal").join(name.expect("a segment"))).expect("it opens");
    let end = file.len().expect("a length");
    file.write_at(tail, end).expect("the disk works");
    let (mut journal, found) = open(&disk);
    assert_eq!(found.first().map(Vec::as_slice), Some(KEPT));
    append(&mut journal, b"after");
    drop(journal);
    let (_, found) = open(&disk);
    assert_eq!(found.last().map(Vec::as_slice), Some(&b"after"[..]));
});
