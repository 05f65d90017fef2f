//! The local store: the conformance suite, and what only it can do wrong: disks, restarts, crashes, damage.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use poste_journal::{FaultyDisk, Odds};
use poste_service::Clock;
use poste_wire::Topic;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;
use crate::store::conformance::{append, envelope, everything, new_record, walk};
use crate::store::{Direction, ErrorKind, Filter};

mod admin;
mod behind;

fn on_disk(disk: &FaultyDisk) -> LocalOptions {
    let (clock, _) = Clock::manual(Duration::from_secs(1_700_000_000));
    LocalOptions {
        disk: Arc::new(disk.clone()),
        catalogue: false,
        segment_bytes: 32 * 1024,
        ..LocalOptions::new("/archive", clock)
    }
}

/// Segments of some records, so that everything happens in a small store: sealing, indexing, retiring.
fn in_dir(dir: &Path) -> LocalOptions {
    LocalOptions { segment_bytes: 8 * 1024, ..LocalOptions::new(dir, Clock::system()) }
}

fn open() -> (LocalStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (LocalStore::open(in_dir(dir.path())).unwrap(), dir)
}

mod conformance {
    use super::{disturb, open, reopen};

    crate::store::conformance::suite!(open, reopen, disturb);
}

/// Opened again, and whole again: what was done to its files has been noticed and mended.
async fn reopen(store: LocalStore, dir: &tempfile::TempDir) -> LocalStore {
    drop(store);
    let store = LocalStore::open(in_dir(dir.path())).unwrap();
    store.verify(Arc::new(|_| true)).await.unwrap();
    store.writable().wait_for(Writable::is_yes).await.unwrap();
    while store.shared.topics(|_| ()).is_none() {
        let _ = store.shared.nudge.try_send(());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store
}

/// J6: everything but the segments and `meta` can be deleted, cut, or overwritten with noise.
fn disturb(dir: &tempfile::TempDir, random: &mut StdRng) {
    let mut derived = Vec::new();
    let mut dirs = vec![dir.path().to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                dirs.push(path);
            } else if !name.ends_with(".journal") && !name.starts_with("meta.") && name != "LOCK" {
                derived.push(path);
            }
        }
    }
    derived.sort();
    let odds = random.random_range(1..8);
    for path in derived {
        if random.random_range(0..odds) > 0 {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        match random.random_range(0..4) {
            0 => {
                std::fs::remove_file(&path).unwrap();
                continue;
            }
            1 => bytes.truncate(random.random_range(0..=bytes.len())),
            2 => random.fill(&mut bytes[..]),
            _ if bytes.is_empty() => continue,
            _ => {
                let place = random.random_range(0..bytes.len());
                bytes[place] ^= 1 << random.random_range(0..8);
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

fn record(n: u32) -> NewRecord {
    let data = n.to_be_bytes().repeat(1 + n as usize % 60);
    new_record(&envelope(1000 + n % 300, Topic((n % 13).to_be_bytes()), &data))
}

fn records(numbers: impl Iterator<Item = u32>) -> Vec<NewRecord> {
    numbers.map(record).collect()
}

fn segment(disk: &FaultyDisk, number: usize) -> PathBuf {
    let mut names = disk.list(Path::new("/archive")).unwrap();
    names.sort();
    names.retain(|name| name.ends_with(".journal"));
    Path::new("/archive").join(&names[number])
}

#[tokio::test]
async fn a_restart_answers_the_same() {
    let (store, dir) = open();
    for first in (0..3000).step_by(100) {
        append(&store, records(first..first + 100)).await;
    }
    let queries = [
        everything(),
        Query { direction: Direction::Descending, ..everything() },
        Query { filter: Filter::Topics(vec![Topic(5_u32.to_be_bytes())]), ..everything() },
    ];
    let mut before = Vec::new();
    for query in &queries {
        before.push(walk(&store, query.clone()).await);
    }
    let stats = store.stats().await.unwrap();
    store.close().await.unwrap();
    let closed_stats = StoreStats { writable: Some(Writable::Yes), ..stats };
    drop(store);
    let store = LocalStore::open(LocalOptions::new(dir.path(), Clock::system())).unwrap();
    for (query, before) in queries.iter().zip(&before) {
        assert_eq!(&walk(&store, query.clone()).await, before);
    }
    assert_eq!(before[0].len(), 3000);
    assert_eq!(store.stats().await.unwrap(), closed_stats);
    assert_eq!(append(&store, records(0..1)).await, [Outcome::Duplicate]);
    assert_eq!(append(&store, records(3000..3001)).await, [Outcome::Stored]);
    assert_eq!(*store.head().borrow(), 3001, "seq goes on behind what was there");
}

#[tokio::test]
async fn a_second_process_gets_a_clear_error() {
    let (_store, dir) = open();
    let error = LocalStore::open(LocalOptions::new(dir.path(), Clock::system())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

/// Every record that was acknowledged as stored, by what it must come back as.
async fn lost(store: &LocalStore, acknowledged: &HashMap<Hash, Bytes>) -> usize {
    let found: HashMap<Hash, Bytes> =
        walk(store, everything()).await.into_iter().map(|record| (record.position.id, record.body)).collect();
    acknowledged.iter().filter(|(id, body)| found.get(*id) != Some(*body)).count()
}

/// Appends under faults, cuts the power at random moments, and returns how many acknowledged records were
/// missing afterwards.
async fn power_cuts(seed: u64, disk: &FaultyDisk, odds: Odds) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut acknowledged = HashMap::new();
    let mut number = 0;
    let mut missing = 0;
    for _ in 0..5 {
        disk.set_odds(Odds::default());
        let Some(store) = open_again(disk).await else { return missing + acknowledged.len() };
        missing += lost(&store, &acknowledged).await;
        disk.set_odds(odds);
        let mut pending = Vec::new();
        for _ in 0..random.random_range(1..20) {
            let count = random.random_range(1..30);
            let batch = records(number..number + count);
            number += count;
            pending.push((batch.clone(), store.append(batch, Lane::Live).await.unwrap()));
            if random.random_range(0..3) == 0 {
                let (batch, outcomes) = pending.remove(0);
                keep(&mut acknowledged, &batch, &outcomes.await);
            }
        }
        // The rest is in flight: acknowledged before the cut, or not at all.
        disk.crash();
        for (batch, outcomes) in pending {
            keep(&mut acknowledged, &batch, &outcomes.await);
        }
        drop(store);
    }
    disk.set_odds(Odds::default());
    let Some(store) = open_again(disk).await else { return missing + acknowledged.len() };
    assert!(acknowledged.len() > 10, "seed {seed}: the faults left nothing to check");
    missing + lost(&store, &acknowledged).await
}

/// The store once every segment is indexed; nothing when the disk has lost what makes it one.
async fn open_again(disk: &FaultyDisk) -> Option<LocalStore> {
    match LocalStore::open(on_disk(disk)) {
        Ok(store) => {
            store.writable().wait_for(Writable::is_yes).await.unwrap();
            Some(store)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            None
        }
    }
}

fn keep(acknowledged: &mut HashMap<Hash, Bytes>, batch: &[NewRecord], outcomes: &[Outcome]) {
    for (record, outcome) in batch.iter().zip(outcomes) {
        match outcome {
            Outcome::Stored => {
                acknowledged.insert(Hash::of(&record.body), record.body.clone());
            }
            Outcome::Unavailable(_) => {}
            other => panic!("{other:?} for a new record"),
        }
    }
}

fn first_seed() -> u64 {
    let seed = std::env::var("POSTE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(rand::rng().next_u32()));
    println!("POSTE_SEED={seed}");
    seed
}

#[tokio::test]
async fn j1_acknowledged_records_survive_power_cuts() {
    let first = first_seed();
    for seed in first..first + 20 {
        let disk = FaultyDisk::new(seed);
        assert_eq!(power_cuts(seed, &disk, Odds::default()).await, 0, "seed {seed}");
    }
}

#[tokio::test]
async fn j2_acknowledged_records_survive_faults_and_power_cuts() {
    let first = first_seed();
    let odds = Odds { short_write: 1000, write_error: 300, sync_error: 500, read_error: 0 };
    for seed in first..first + 20 {
        let disk = FaultyDisk::new(seed);
        assert_eq!(power_cuts(seed, &disk, odds).await, 0, "seed {seed}");
    }
}

#[tokio::test]
async fn the_power_cut_test_sees_a_disk_that_skips_fsync() {
    let first = first_seed();
    let mut missing = 0;
    for seed in first..first + 20 {
        let disk = FaultyDisk::new(seed);
        // The store's own files are there before the disk begins to lie.
        LocalStore::open(on_disk(&disk)).unwrap().close().await.unwrap();
        disk.lose_syncs();
        missing += power_cuts(seed, &disk, Odds::default()).await;
    }
    assert!(missing > 0, "a disk that skips fsync must lose acknowledged records");
}

/// A store on `disk` at a time that the test moves, full of records of the hours before.
async fn of_some_hours(disk: &FaultyDisk, now: Duration) -> (LocalStore, poste_service::clock::ManualClock) {
    let (clock, hands) = Clock::manual(now);
    let options = LocalOptions { segment_bytes: 8 * 1024, clock, ..on_disk(disk) };
    let store = LocalStore::open(options).unwrap();
    let first = now.as_secs() as u32 - 6 * 3600;
    for n in 0..60_u32 {
        let body = envelope(first + n * 360, Topic([1; 4]), &[n as u8; 900]);
        assert_eq!(append(&store, vec![new_record(&body)]).await, [Outcome::Stored]);
    }
    (store, hands)
}

/// Waits until the keeper has brought the store to where `done` holds of its stats.
async fn until(store: &LocalStore, done: impl Fn(&StoreStats) -> bool) -> StoreStats {
    loop {
        let stats = store.stats().await.unwrap();
        if done(&stats) {
            return stats;
        }
        let _ = store.shared.nudge.try_send(());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn floor_ns(stats: &StoreStats) -> Option<i64> {
    stats.spaces.first().and_then(|space| space.floor_ns)
}

#[tokio::test]
async fn j7_what_is_too_old_is_retired_by_itself_and_its_files_are_given_back() {
    let now = Duration::from_secs(1_700_000_000);
    let (store, hands) = of_some_hours(&FaultyDisk::new(1), now).await;
    let before = store.stats().await.unwrap();
    let hour = Duration::from_secs(3600);
    let retention = Retention { max_age: Some(4 * hour), ..Retention::default() };
    store.set_retention(retention, false).await.unwrap();
    let floor = |hours: u32| i64::try_from((now - hours * hour).as_nanos()).unwrap();
    let stats =
        until(&store, |stats| floor_ns(stats) == Some(floor(4)) && stats.segments < before.segments).await;
    assert!(stats.file_bytes < before.file_bytes);
    let left = walk(&store, everything()).await;
    assert_eq!(left.len(), 40);
    assert!(left.iter().all(|record| record.position.time_ns >= floor(4)));
    assert!(store.retired_seq() >= 20);
    hands.advance(2 * hour);
    until(&store, |stats| floor_ns(stats) == Some(floor(2))).await;
    assert_eq!(walk(&store, everything()).await.len(), 20);
}

#[tokio::test]
async fn j7_a_store_that_is_too_large_retires_the_oldest_but_nothing_young() {
    let now = Duration::from_secs(1_700_000_000);
    let (store, hands) = of_some_hours(&FaultyDisk::new(2), now).await;
    // Index files of small segments are large: once they are there the size stands still.
    until(&store, |_| store.shared.waiting_parts().is_empty()).await;
    let before = store.stats().await.unwrap();
    let hour = Duration::from_secs(3600);
    let max_bytes = Some(before.file_bytes / 2);
    store.set_retention(Retention { max_age: None, max_bytes, min_age: 4 * hour }, false).await.unwrap();
    let full = |stats: &StoreStats| matches!(&stats.writable, Some(Writable::No(reason)) if reason.contains("max_size"));
    let stats = until(&store, full).await;
    assert!(stats.segments < before.segments, "what is old enough went");
    let young = i64::try_from((now - 4 * hour).as_nanos()).unwrap();
    assert!(floor_ns(&stats).is_some_and(|floor| floor <= young), "nobody's young history is flushed");
    let left = walk(&store, everything()).await;
    assert_eq!(left.iter().filter(|record| record.position.time_ns >= young).count(), 40);
    let refused = append(&store, vec![record(7)]).await;
    assert!(
        matches!(&refused[0], Outcome::Unavailable(reason) if reason.contains("max_size")),
        "{refused:?}"
    );
    // Time makes room, without a restart.
    hands.advance(4 * hour);
    until(&store, |stats| stats.writable == Some(Writable::Yes)).await;
    let newer = new_record(&envelope(now.as_secs() as u32 + 4 * 3600, Topic([1; 4]), b"new"));
    assert_eq!(append(&store, vec![newer]).await, [Outcome::Stored]);
}

#[tokio::test]
async fn a_full_disk_is_refused_and_recovered_from_without_a_restart() {
    let disk = FaultyDisk::new(1);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    let mut writable = store.writable();
    assert_eq!(append(&store, records(0..1)).await, [Outcome::Stored]);
    disk.set_capacity(Some(150));
    let refused = append(&store, vec![record(1), record(0), record(1)]).await;
    let reason = Outcome::Unavailable("the archive's disk is full".to_owned());
    assert_eq!(
        refused,
        [reason.clone(), reason.clone(), reason],
        "nothing is promised in a group that failed"
    );
    writable.wait_for(|writable| !writable.is_yes()).await.unwrap();
    assert!(matches!(store.stats().await.unwrap().writable, Some(Writable::No(_))));
    assert_eq!(walk(&store, everything()).await.len(), 1, "what is there is answered meanwhile");
    disk.set_capacity(None);
    writable.wait_for(Writable::is_yes).await.unwrap();
    assert_eq!(append(&store, vec![record(1), record(0)]).await, [Outcome::Stored, Outcome::Duplicate]);
    assert_eq!(*store.head().borrow(), 2, "a group that was refused takes no seq");
    store.close().await.unwrap();
    drop(store);
    disk.crash();
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    assert_eq!(walk(&store, everything()).await.len(), 2);
}

#[tokio::test]
async fn a_disk_with_room_for_little_is_not_ready_and_does_not_flap() {
    let disk = FaultyDisk::new(9);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    assert_eq!(append(&store, records(0..1)).await, [Outcome::Stored]);
    let mut writable = store.writable();
    // Room for the header of the next segment and for a small record, but not for this group.
    disk.set_capacity(Some(10_000));
    let refused = append(&store, records(1..200)).await;
    assert!(matches!(refused[0], Outcome::Unavailable(_)), "{:?}", refused[0]);
    writable.wait_for(|writable| !writable.is_yes()).await.unwrap();
    let syncs = disk.syncs();
    let attempts = async {
        // Each attempt syncs the segment that it leaves and the header of the next one.
        while disk.syncs() < syncs + 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        changed = writable.changed() => panic!("writable changed: {changed:?}"),
        () = attempts => {}
    }
    disk.set_capacity(None);
    writable.wait_for(Writable::is_yes).await.unwrap();
    assert!(append(&store, records(1..200)).await.iter().all(|outcome| *outcome == Outcome::Stored));
}

#[tokio::test]
async fn j2_nothing_is_acknowledged_while_the_disk_is_broken() {
    let disk = FaultyDisk::new(2);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    append(&store, records(0..10)).await;
    disk.set_odds(Odds { sync_error: 10_000, ..Odds::default() });
    for n in 10..20 {
        assert!(matches!(append(&store, records(n..n + 1)).await[0], Outcome::Unavailable(_)));
    }
    assert_eq!(walk(&store, everything()).await.len(), 10, "J1: nothing of it is visible");
    disk.set_odds(Odds::default());
    store.writable().wait_for(Writable::is_yes).await.unwrap();
    assert_eq!(append(&store, records(10..11)).await, [Outcome::Stored]);
}

#[tokio::test]
async fn j3_damage_is_reported_and_everything_else_is_answered() {
    let disk = FaultyDisk::new(3);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    append(&store, records(0..100)).await;
    store.close().await.unwrap();
    drop(store);
    disk.damage(&segment(&disk, 0), 2000, 0x10).unwrap();
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.quarantined, stats.spaces[0].records), (1, 99));
    assert!(stats.quarantined_bytes > 0);
    let stored: Vec<Outcome> = append(&store, records(0..100)).await;
    assert_eq!(
        stored.iter().filter(|outcome| **outcome == Outcome::Stored).count(),
        1,
        "the gap can be filled"
    );
    assert_eq!(walk(&store, everything()).await.len(), 100);
}

#[tokio::test]
async fn j3_damage_that_a_reader_meets_goes_to_quarantine() {
    let disk = FaultyDisk::new(4);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    append(&store, records(0..100)).await;
    disk.damage(&segment(&disk, 0), 2000, 0x10).unwrap();
    assert_eq!(walk(&store, everything()).await.len(), 99);
    assert_eq!(store.stats().await.unwrap().quarantined, 1);
    let again = append(&store, records(0..100)).await;
    assert_eq!(again.iter().filter(|outcome| **outcome == Outcome::Stored).count(), 1);
    assert_eq!(walk(&store, everything()).await.len(), 100);
    let tail = TailQuery {
        space: Space::Waku1,
        after: 0,
        until: None,
        topics: None,
        max_records: 1000,
        max_bytes: usize::MAX,
    };
    assert_eq!(store.tail(tail).await.unwrap().records.len(), 100);
}

#[tokio::test]
async fn j3_a_record_stored_again_behind_its_quarantined_place_is_found_by_an_index_made_anew() {
    let disk = FaultyDisk::new(6);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    append(&store, records(0..100)).await;
    disk.damage(&segment(&disk, 0), 2000, 0x10).unwrap();
    assert_eq!(walk(&store, everything()).await.len(), 99);
    // It was the disk's mood: the same place reads well from now on.
    disk.damage(&segment(&disk, 0), 2000, 0x10).unwrap();
    append(&store, records(0..100)).await;
    // More than the segment takes, so that it is sealed.
    append(&store, records(100..400)).await;
    until(&store, |stats| stats.segments > 1 && store.shared.waiting_parts().is_empty()).await;
    store.close().await.unwrap();
    drop(store);
    let indexes: Vec<String> = disk.list(Path::new("/archive")).unwrap();
    for name in indexes.iter().filter(|name| name.ends_with(".index")) {
        disk.remove(&Path::new("/archive").join(name)).unwrap();
    }
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    until(&store, |stats| stats.indexing.is_none()).await;
    assert_eq!(walk(&store, everything()).await.len(), 400);
}

#[tokio::test]
async fn j3_what_the_disk_does_not_give_at_the_start_is_waited_for() {
    let disk = FaultyDisk::new(7);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    append(&store, records(0..100)).await;
    store.close().await.unwrap();
    drop(store);
    disk.make_unreadable(&segment(&disk, 0), 2000..2001).unwrap();
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.quarantined, stats.indexing.is_some()), (0, true), "nothing is given up for it");
    let page = store.page(everything()).await.unwrap();
    assert_eq!(page.complete_until_ns, Some(i64::MIN), "no answer passes for complete");
    let outcomes = append(&store, records(0..1)).await;
    assert!(matches!(&outcomes[0], Outcome::Unavailable(_)), "nobody knows whether it is new: {outcomes:?}");
    disk.make_readable();
    until(&store, |stats| stats.indexing.is_none()).await;
    assert_eq!(walk(&store, everything()).await.len(), 100);
    assert_eq!(append(&store, records(0..1)).await, [Outcome::Duplicate]);
    assert_eq!(store.stats().await.unwrap().quarantined, 0);
}

#[tokio::test]
async fn a_seq_is_never_given_twice_even_when_the_end_is_lost() {
    let disk = FaultyDisk::new(5);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    append(&store, records(0..10)).await;
    let last = *store.head().borrow();
    drop(store);
    let path = segment(&disk, 0);
    let len = disk.open(&path).unwrap().len().unwrap();
    disk.shorten(&path, len as usize - 1).unwrap();
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    assert!(*store.head().borrow() >= last, "who stands behind the lost record stands where everybody does");
    append(&store, records(20..21)).await;
    assert!(*store.head().borrow() > last, "a reader may have seen the lost record's seq");
}

#[tokio::test]
async fn files_that_are_not_of_this_store_are_refused() {
    let disk = FaultyDisk::new(6);
    let store = LocalStore::open(on_disk(&disk)).unwrap();
    append(&store, records(0..1)).await;
    drop(store);
    for slot in ["/archive/meta.0", "/archive/meta.1"] {
        disk.damage(Path::new(slot), 15, 1).unwrap();
    }
    let error = LocalStore::open(on_disk(&disk)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    for slot in ["/archive/meta.0", "/archive/meta.1"] {
        disk.remove(Path::new(slot)).unwrap();
    }
    let error = LocalStore::open(on_disk(&disk)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_batch_larger_than_the_queue_is_refused_and_smaller_ones_wait() {
    let disk = FaultyDisk::new(7);
    let store = LocalStore::open(LocalOptions { queue_records: 10, ..on_disk(&disk) }).unwrap();
    let error = store.append(records(0..11), Lane::Live).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let mut pending = Vec::new();
    for first in (0..200).step_by(10) {
        pending.push(store.append(records(first..first + 10), Lane::Live).await.unwrap());
    }
    for pending in pending {
        assert!(pending.await.iter().all(|outcome| *outcome == Outcome::Stored));
    }
    assert_eq!(walk(&store, everything()).await.len(), 200);
}

#[tokio::test]
async fn one_fsync_serves_a_group() {
    let disk = FaultyDisk::new(8);
    let options = LocalOptions { segment_bytes: 1 << 30, ..on_disk(&disk) };
    let store = LocalStore::open(options).unwrap();
    let before = disk.syncs();
    assert!(append(&store, records(0..1000)).await.iter().all(|outcome| *outcome == Outcome::Stored));
    assert_eq!(disk.syncs() - before, 1);
}
