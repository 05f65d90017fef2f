//! Every step of a change interrupted in turn, by a kill and by a power cut: afterwards the change is whole or was not
//! made, what was acknowledged is there, and no key is left without its row.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicI64;

use futures::future::join_all;
use poste_journal::{Disk, DiskFile, FaultyDisk, read_exact_at, write_all_at};
use rand::{Rng, RngExt, SeedableRng};
use redb::StorageBackend;

use super::super::open::{create_files, open_files};
use super::*;
use crate::store::conformance::{START, claim_key, device, found, registration};
use crate::store::{AnswerId, ErrorKind, Registered};

#[tokio::test]
async fn an_interrupted_registration_is_whole_or_not_made() {
    let device = device(1, 0);
    let [old, new] = [registration(&device, 1), registration(&device, 2)];
    each_step(
        async |store| assert!(matches!(store.register(old.clone()).await, Ok(Registered::Done(_)))),
        async |store| store.register(new.clone()).await.map(drop),
        async |store, is_acknowledged| {
            let registrations = store.registrations(&device.key).await.unwrap();
            let is_new = registrations == [found(&new, None)];
            assert!(is_new || !is_acknowledged && registrations == [found(&old, None)], "{registrations:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn the_first_registration_is_whole_or_not_made() {
    let new = registration(&device(1, 0), 1);
    each_step(
        async |_| {},
        async |store| store.register(new.clone()).await.map(drop),
        async |store, is_acknowledged| {
            let registrations = store.registrations(&new.device.key).await.unwrap();
            assert!(registrations == [found(&new, None)] || !is_acknowledged && registrations.is_empty());
        },
    )
    .await;
}

#[tokio::test]
async fn an_interrupted_unregistration_is_whole_or_not_made() {
    let device = device(1, 0);
    each_step(
        async |store| {
            let outcome = store.register(registration(&device, 1)).await;
            assert!(matches!(outcome, Ok(Registered::Done(_))));
        },
        async |store| store.unregister(&device, 2, START).await.map(drop),
        async |store, is_acknowledged| {
            let registrations = store.registrations(&device.key).await.unwrap();
            let version = store.version(&device).await.unwrap();
            let is_gone = registrations.is_empty() && version == Some(2);
            assert!(is_gone || !is_acknowledged && registrations.len() == 1 && version == Some(1));
        },
    )
    .await;
}

#[tokio::test]
async fn a_claim_is_never_won_again_after_an_interruption() {
    let [first, second] = [claim_key(b"first", &device(1, 0)), claim_key(b"second", &device(1, 0))];
    let id = AnswerId([1; 32]);
    each_step(
        async |store| drop(store.claim(vec![first.clone()], 1).await.unwrap()),
        async |store| {
            let end = vec![(first.clone(), ClaimEnd::Sent)];
            store.finish(end, Some((id, b"answer".to_vec())), 2).await?;
            store.claim(vec![second.clone()], 2).await.map(drop)
        },
        async |store, is_acknowledged| {
            let met = store.claim(vec![first.clone(), second.clone()], 3).await.unwrap();
            let is_remembered = store.answer(&id).await.unwrap().is_some();
            assert_eq!(is_remembered, met[0] == Claim::Sent, "an answer comes with the ends of its claims");
            match is_acknowledged {
                true => assert_eq!(met, [Claim::Sent, Claim::Unknown]),
                false => assert!(matches!(met[0], Claim::Sent | Claim::Unknown), "{met:?}"),
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_forgotten_key_is_gone_from_the_disk_when_that_is_acknowledged() {
    let device = device(1, 0);
    for seed in 0..8 {
        for way in 0..3 {
            let (disk, fuse) = (FaultyDisk::new(seed), Fuse::default());
            let store = make(&disk, &fuse);
            assert!(matches!(store.register(registration(&device, 1)).await, Ok(Registered::Done(_))));
            let keys = row_keys(&store);
            assert!(lies_in(&keys[0], &bytes_of(&disk, KEYS)));
            match way {
                0 => drop(store.unregister(&device, 2, START).await.unwrap()),
                1 => assert!(store.forget(&device, None, START).await.unwrap().is_some()),
                _ => drop(store.register(registration(&device, 2)).await.unwrap()),
            }
            // Nothing that comes later makes it durable: no other write, no closing, no opening.
            fuse.burn();
            disk.crash();
            assert!(!lies_in(&keys[0], &bytes_of(&disk, KEYS)), "seed {seed}, way {way}");
            drop(store);
        }
    }
}

#[tokio::test]
async fn a_start_after_a_crash_reads_no_database_whole() {
    // Once after many changes, and once right after an opening, which makes a change too.
    for is_opened_again in [false, true] {
        let disk = FaultyDisk::new(1);
        let mut fuse = Fuse::default();
        let mut store = make(&disk, &fuse);
        for number in 0..4 {
            let device = device(1, number);
            store.register(registration(&device, 1)).await.unwrap();
            let claim = claim_key(b"message", &device);
            store.claim(vec![claim.clone()], 1).await.unwrap();
            store.finish(vec![(claim, ClaimEnd::Sent)], None, 1).await.unwrap();
        }
        if is_opened_again {
            drop(store);
            fuse = Fuse::default();
            store = opened(&disk, [&fuse; 3]);
        }
        fuse.burn();
        disk.crash();
        drop(store);
        for name in [REGISTRATIONS, REQUESTS] {
            let file = disk.open(Path::new(name)).unwrap();
            let mut builder = redb::Builder::new();
            builder.set_repair_callback(move |_| panic!("{name} is read whole"));
            builder.create_with_backend(TestFile { file, fuse: Fuse::default() }).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_power_cut_under_load() {
    let first_seed = match std::env::var("POSTE_SEED") {
        Ok(seed) => seed.parse().expect("POSTE_SEED is a number"),
        Err(_) => u64::from(rand::rng().next_u32()),
    };
    for seed in first_seed..first_seed + 4 {
        println!("POSTE_SEED={seed}");
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let disk = FaultyDisk::new(seed);
        let fuse = Fuse::default();
        let store = make(&disk, &fuse);
        let workers: Vec<_> = (0..6).map(|owner| tokio::spawn(work(store.clone(), owner))).collect();
        let wanted = random.random_range(5..60);
        while store.version(&device(0, 0)).await.unwrap() < Some(wanted) {
            tokio::task::yield_now().await;
        }
        fuse.burn();
        disk.crash();
        drop(store);
        let mut acknowledged = Vec::new();
        for worker in workers {
            acknowledged.push(worker.await.unwrap());
        }
        let store = reopened(&disk);
        for (owner, (version, claimed)) in acknowledged.into_iter().enumerate() {
            let device = device(owner as u8, 0);
            let stored = store.version(&device).await.unwrap().unwrap_or(0);
            assert!(stored == version || stored == version + 1, "{version} was acknowledged, not {stored}");
            let registrations = store.registrations(&device.key).await.unwrap();
            assert_eq!(registrations.len(), usize::from(stored > 0));
            let keys: Vec<ClaimKey> =
                claimed.keys().map(|id| claim_key(&id.to_be_bytes(), &device)).collect();
            let met = store.claim(keys, 9).await.unwrap();
            for (met, (message, is_ended)) in met.iter().zip(&claimed) {
                let is_kept = *met == Claim::Sent || !is_ended && *met == Claim::Unknown;
                assert!(is_kept, "{met:?} for message {message}, ended: {is_ended}");
            }
        }
        check_slots(&store);
    }
}

/// Registers and claims until the disk fails. Gives the acknowledged version, and which claims were acknowledged, with
/// whether their ends were.
async fn work(store: RedbStore, owner: u8) -> (u64, BTreeMap<u64, bool>) {
    let device = device(owner, 0);
    let (mut version, mut claimed) = (0, BTreeMap::new());
    loop {
        match store.register(registration(&device, version + 1)).await {
            Ok(outcome) => assert!(matches!(outcome, Registered::Done(_)), "{outcome:?}"),
            Err(_) => return (version, claimed),
        }
        version += 1;
        let key = claim_key(&version.to_be_bytes(), &device);
        match store.claim(vec![key.clone()], 1).await {
            Ok(met) => assert_eq!(met, [Claim::Won]),
            Err(_) => return (version, claimed),
        }
        let ended = store.finish(vec![(key, ClaimEnd::Sent)], None, 1).await.is_ok();
        claimed.insert(version, ended);
        if !ended {
            return (version, claimed);
        }
    }
}

/// A change that is refused or cannot be made leaves the others of its group, and the store, as they are.
#[tokio::test]
async fn an_error_of_one_change_is_nobody_elses() {
    let (store, (dir, caps)) = open(Caps::default());
    let checkpoint = Checkpoint { archive_store_id: [1; 16], seq: 5 };
    store.set_checkpoint(checkpoint).await.unwrap();
    let transaction = store.0.files.requests.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("checkpoint", b"damaged".as_slice()).unwrap();
    transaction.commit().unwrap();
    for round in 0..3_u8 {
        let [first, second] = [0, 1].map(|number| claim_key(&[round], &device(1, number)));
        let (claimed, refused, also_claimed) = tokio::join!(
            store.claim(vec![first.clone()], START),
            store.set_checkpoint(checkpoint),
            store.claim(vec![second, first.clone()], START),
        );
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(claimed.unwrap(), [Claim::Won], "made once, though its transaction may be made twice");
        assert_eq!(also_claimed.unwrap(), [Claim::Won, Claim::Open]);
    }
    let store = reopen(store, &(dir, caps)).await;
    let met = store.claim(vec![claim_key(&[0], &device(1, 0))], START).await.unwrap();
    assert_eq!(met, [Claim::Unknown]);
}

/// The database panics where it meets what it never wrote.
#[tokio::test]
async fn what_the_database_cannot_read_is_nobody_elses() {
    let (store, _alive) = open(Caps::default());
    let read = store.read(|_| -> Result<(), StoreError> { panic!("a page of no kind") }).await;
    let write = store.0.requests.write(|_, _| -> Result<(), StoreError> { panic!("a page of no kind") });
    let claimed = store.claim(vec![claim_key(b"id", &device(1, 0))], START);
    let (written, claimed) = tokio::join!(write, claimed);
    for error in [read.unwrap_err(), written.unwrap_err()] {
        assert!(error.is_of_one_owner(), "{error}");
    }
    assert_eq!(claimed.unwrap(), [Claim::Won]);
    store.health().unwrap();
}

/// Every page of a database is damaged, under a store that has not read them.
#[tokio::test]
async fn damage_of_much_of_the_store_is_nobodys_own() {
    for name in [REGISTRATIONS, REQUESTS] {
        let disk = FaultyDisk::new(1);
        let store = make(&disk, &Fuse::default());
        let devices: Vec<_> = (0..=255).map(|owner| device(owner, 0)).collect();
        let registered = join_all(devices.iter().map(|device| store.register(registration(device, 1)))).await;
        assert!(registered.iter().all(|outcome| matches!(outcome, Ok(Registered::Done(_)))));
        let claims = devices.iter().map(|device| claim_key(b"id", device)).collect();
        store.claim(claims, START).await.unwrap();
        store.close().await.unwrap();
        drop(store);

        let uncached = Options { cache_bytes: 0, ..options(Caps::default()) };
        let files = backends(&disk, [&Fuse::default(); 3]);
        let store = open_files(files, &STORE_ID, uncached, Box::new(|| 0), None).unwrap();
        let whole = bytes_of(&disk, name);
        let file = disk.open(Path::new(name)).unwrap();
        write_all_at(file.as_ref(), &vec![0xff; whole.len() - 4096], 4096).unwrap();
        let mut finals = 0;
        for device in &devices {
            let told = match name {
                REGISTRATIONS => store.registrations(&device.key).await.map(drop),
                _ => store.claims(vec![claim_key(b"id", device)]).await.map(drop),
            };
            let error = told.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            finals += u32::from(error.is_of_one_owner());
        }
        assert_eq!(finals, 8, "as many as may be told so before it is known how far it goes");
        assert!(matches!(store.health(), Err(StoreError::Damaged)));
        // It ends as it began.
        write_all_at(file.as_ref(), &whole, 0).unwrap();
    }
}

/// The pages that say where the tables are cannot be read, which a restart does not help: the writer stays, and writes when
/// they can be read again.
#[tokio::test]
async fn tables_that_cannot_be_read_end_no_writer() {
    for (name, bytes) in [(REGISTRATIONS, 0xff), (REQUESTS, 0xff), (REGISTRATIONS, 1), (REQUESTS, 1)] {
        let disk = FaultyDisk::new(1);
        drop(make(&disk, &Fuse::default()));
        let uncached = Options { cache_bytes: 0, ..options(Caps::default()) };
        let files = backends(&disk, [&Fuse::default(); 3]);
        let store = open_files(files, &STORE_ID, uncached, Box::new(|| 0), None).unwrap();
        let whole = bytes_of(&disk, name);
        let file = disk.open(Path::new(name)).unwrap();
        write_all_at(file.as_ref(), &vec![bytes; whole.len() - 4096], 4096).unwrap();
        let change = async |store: &RedbStore| match name {
            REGISTRATIONS => store.register(registration(&device(1, 0), 1)).await.map(drop),
            _ => store.claim(vec![claim_key(b"id", &device(1, 0))], START).await.map(drop),
        };
        for _ in 0..3 {
            assert!(matches!(change(&store).await, Err(StoreError::Damaged)), "{name}, {bytes}");
            assert!(matches!(store.health(), Err(StoreError::Damaged)));
        }
        write_all_at(file.as_ref(), &whole, 0).unwrap();
        change(&store).await.unwrap();
        store.health().unwrap();
    }
}

/// A place of the file of keys that cannot be read: the others are served, and who registers again is, too.
#[tokio::test]
async fn a_key_that_cannot_be_read_is_of_one_owner() {
    let disk = FaultyDisk::new(1);
    let store = make(&disk, &Fuse::default());
    let devices = [device(1, 0), device(2, 0)];
    for device in &devices {
        assert!(matches!(store.register(registration(device, 1)).await, Ok(Registered::Done(_))));
    }
    disk.open(Path::new(KEYS)).unwrap().truncate(slots::offset(1)).unwrap();
    assert_eq!(store.registrations(&devices[0].key).await.unwrap().len(), 1);
    for told in [
        store.registrations(&devices[1].key).await.map(drop),
        store.find(vec![devices[1].clone()]).await.map(drop),
        store.topic_keys(&devices[1].key).await.map(drop),
    ] {
        let error = told.unwrap_err();
        assert!(error.is_of_one_owner(), "{error}");
    }
    store.health().unwrap();
    assert_eq!(store.counts().await.unwrap().unreadable, 3);
    assert!(matches!(store.register(registration(&devices[1], 2)).await, Ok(Registered::Done(_))));
    assert_eq!(store.registrations(&devices[1].key).await.unwrap().len(), 1);
}

/// The disk does not read the keys for a while: that passes, and meanwhile nothing is said of other files.
#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_read_for_a_while_are_believed_later() {
    let disk = FaultyDisk::new(1);
    let store = make(&disk, &Fuse::default());
    let devices: Vec<_> = (0..16).map(|owner| device(owner, 0)).collect();
    let registered = join_all(devices.iter().map(|device| store.register(registration(device, 1)))).await;
    assert!(registered.iter().all(|outcome| matches!(outcome, Ok(Registered::Done(_)))));
    let keys = bytes_of(&disk, KEYS);
    let file = disk.open(Path::new(KEYS)).unwrap();
    file.truncate(slots::offset(0)).unwrap();
    let mut finals = 0;
    for device in &devices {
        // Versions and claims are read from other files, as often as one likes.
        for number in 0..100_u64 {
            assert_eq!(store.version(device).await.unwrap(), Some(1));
            let claimed = store.claim(vec![claim_key(&number.to_be_bytes(), device)], START).await;
            assert_eq!(claimed.unwrap(), [Claim::Won]);
        }
        let told = store.registrations(&device.key).await.unwrap_err();
        finals += u32::from(told.is_of_one_owner());
    }
    assert_eq!(finals, 8);
    assert!(matches!(store.health(), Err(StoreError::Damaged)));

    write_all_at(file.as_ref(), &keys, 0).unwrap();
    for device in &devices {
        assert_eq!(store.registrations(&device.key).await.unwrap().len(), 1);
    }
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    store.health().unwrap();
}

/// The file of keys cannot grow for a while: whoever needs no new slot is served, and everybody is later.
#[tokio::test]
async fn a_key_file_that_cannot_grow_refuses_and_goes_on() {
    let (disk, fuse) = (FaultyDisk::new(1), Fuse::default());
    let keys_fuse = Fuse::default();
    let store = make_with(&disk, [&fuse, &fuse, &keys_fuse]);
    let devices: Vec<_> = (0..8).flat_map(|owner| (0..32).map(move |number| device(owner, number))).collect();
    let registered = join_all(devices.iter().map(|device| store.register(registration(device, 1)))).await;
    assert!(registered.iter().all(|outcome| matches!(outcome, Ok(Registered::Done(_)))));
    // All 256 slots are used. The first step that fails is the change of length, then the writing behind it.
    for steps in 0..2 {
        let new = registration(&device(9, 0), 1);
        keys_fuse.light(steps);
        assert!(matches!(store.register(new.clone()).await.unwrap_err(), StoreError::Io { .. }));
        keys_fuse.light(i64::MAX);
        assert_eq!(store.version(&new.device).await.unwrap(), None);
    }
    assert!(matches!(store.unregister(&devices[0], 2, START).await, Ok(Registered::Done(_))));
    for device in [device(9, 0), device(9, 1)] {
        assert!(matches!(store.register(registration(&device, 1)).await, Ok(Registered::Done(_))));
    }
    check_slots(&store);
    drop(store);
    let store = reopened(&disk);
    check_slots(&store);
    assert_eq!(store.counts().await.unwrap().registrations, 257);
}

/// The disk fails after rows were forgotten for their age and before old versions are: whoever asked has to leave the
/// topics of those rows' owners.
#[tokio::test]
async fn what_expired_is_told_though_not_all_could() {
    let old = device(1, 0);
    let retention = Retention {
        registrations_before_unix_s: START + 10,
        tombstones_before_unix_s: START + 10,
        ..Retention::default()
    };
    let mut was_told = false;
    for steps in 0.. {
        let (disk, fuse) = (FaultyDisk::new(1), Fuse::default());
        let store = make(&disk, &fuse);
        assert!(matches!(store.register(registration(&old, 1)).await, Ok(Registered::Done(_))));
        store.unregister(&device(2, 0), 1, START).await.unwrap();
        fuse.light(steps);
        let expired = store.expire(&retention, 10).await;
        if !fuse.is_burnt() {
            break;
        }
        if let Ok(expired) = expired {
            assert_eq!((expired.registrations, expired.is_done), (vec![old.clone()], false));
            assert!(store.expire(&retention, 10).await.is_err(), "the next one says why");
            was_told = true;
        }
    }
    assert!(was_told);
}

/// Prepares a store, lets the disk fail from the first, the second, … step of a change on, opens what is left, and
/// checks it.
async fn each_step(
    prepare: impl AsyncFn(&RedbStore),
    change: impl AsyncFn(&RedbStore) -> Result<(), StoreError>,
    check: impl AsyncFn(&RedbStore, bool),
) {
    for is_power_cut in [false, true] {
        for steps in 0.. {
            let disk = FaultyDisk::new(steps as u64);
            let fuse = Fuse::default();
            let store = make(&disk, &fuse);
            prepare(&store).await;
            let old_keys = row_keys(&store);
            fuse.light(steps);
            let outcome = change(&store).await;
            let is_interrupted = fuse.is_burnt();
            if let Err(error) = &outcome {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(says_why(error), "{error}");
                let again = change(&store).await.expect_err("it takes nothing more");
                assert!(says_why(&again), "{again}");
                let health = store.health();
                assert!(
                    health.is_err() || matches!(error, StoreError::Io { .. }),
                    "it has to be opened again"
                );
            } else {
                store.health().unwrap();
            }
            assert!(is_interrupted || outcome.is_ok());
            drop(store);
            if is_power_cut {
                disk.crash();
            } else {
                disk.kill();
            }
            // Before it is opened again, which overwrites what is left over.
            let raw_keys = bytes_of(&disk, KEYS);
            let store = reopened(&disk);
            if outcome.is_ok() {
                let used = row_keys(&store);
                let forgotten = old_keys.iter().filter(|key| !used.contains(key));
                assert!(
                    forgotten.into_iter().all(|key| !lies_in(key, &raw_keys)),
                    "a forgotten key is there"
                );
            }
            check(&store, outcome.is_ok()).await;
            check_slots(&store);
            assert_eq!(store.counts().await.unwrap().unreadable, 0);
            if !is_interrupted {
                assert!(steps > 5, "a change has that many steps at least");
                break;
            }
        }
    }
}

/// Whether an error is the disk's, and not only that somebody closed the store.
fn says_why(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { .. } | StoreError::Database(_))
}

/// The keys of all rows.
fn row_keys(store: &RedbStore) -> Vec<[u8; 32]> {
    let files = &store.0.files;
    let read = files.registrations.begin_read().unwrap();
    let rows = read.open_table(registrations::ROWS).unwrap();
    let key = |row: &[u8]| *files.keys.read(row::Row::decode(row).unwrap().slot).unwrap().as_bytes();
    rows.range::<&[u8]>(..).unwrap().map(|row| key(row.unwrap().1.value())).collect()
}

fn bytes_of(disk: &FaultyDisk, name: &str) -> Vec<u8> {
    let file = disk.open(Path::new(name)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    read_exact_at(file.as_ref(), &mut bytes, 0).unwrap();
    bytes
}

fn lies_in(key: &[u8; 32], bytes: &[u8]) -> bool {
    bytes.windows(key.len()).any(|window| window == key)
}

const STORE_ID: [u8; 16] = [7; 16];

pub(super) fn make(disk: &FaultyDisk, fuse: &Fuse) -> RedbStore {
    make_with(disk, [fuse; 3])
}

/// With a fuse for each file: the registrations, the requests, the keys.
fn make_with(disk: &FaultyDisk, fuses: [&Fuse; 3]) -> RedbStore {
    for name in [REGISTRATIONS, REQUESTS, KEYS] {
        disk.create(Path::new(name)).unwrap();
    }
    disk.sync_dir(Path::new("")).unwrap();
    create_files(backends(disk, fuses), &STORE_ID, options(Caps::default())).unwrap();
    opened(disk, fuses)
}

pub(super) fn reopened(disk: &FaultyDisk) -> RedbStore {
    opened(disk, [&Fuse::default(); 3])
}

fn opened(disk: &FaultyDisk, fuses: [&Fuse; 3]) -> RedbStore {
    open_files(backends(disk, fuses), &STORE_ID, options(Caps::default()), Box::new(|| 0), None).unwrap()
}

fn backends(disk: &FaultyDisk, [registrations, requests, keys]: [&Fuse; 3]) -> Backends<TestFile> {
    let file = |name, fuse: &Fuse| TestFile { file: disk.open(Path::new(name)).unwrap(), fuse: fuse.clone() };
    Backends {
        registrations: file(REGISTRATIONS, registrations),
        requests: file(REQUESTS, requests),
        keys: file(KEYS, keys),
    }
}

/// How many more steps a disk does before it fails: writes, changes of length, syncs.
#[derive(Debug, Clone)]
pub(super) struct Fuse(Arc<AtomicI64>);

impl Default for Fuse {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MAX)))
    }
}

impl Fuse {
    fn light(&self, steps: i64) {
        self.0.store(steps, Ordering::SeqCst);
    }

    pub(super) fn burn(&self) {
        self.light(0);
    }

    fn is_burnt(&self) -> bool {
        self.0.load(Ordering::SeqCst) < 0
    }

    fn step(&self) -> io::Result<()> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            ..=0 => Err(io::Error::other("the disk is gone")),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct TestFile {
    file: Arc<dyn DiskFile>,
    fuse: Fuse,
}

impl StorageBackend for TestFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_exact_at(self.file.as_ref(), out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fuse.step()?;
        self.file.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fuse.step()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fuse.step()?;
        write_all_at(self.file.as_ref(), data, offset)
    }
}
