//! What is forgotten cannot be read back: whoever kept a row's sealed bytes from before finds nothing in the files that
//! opens them.

use std::fs;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use redb::ReadableDatabase;

use super::super::registrations::{DEVICE_DATA, ROWS};
use super::super::row::{Row, device_key};
use super::*;
use crate::store::conformance::{START, device, registration};
use crate::store::{DeviceData, Registered};

const TOKEN: &[u8] = b"the token of a telephone that is to be forgotten";

#[tokio::test]
async fn an_unregistered_device_leaves_no_key_and_no_token() {
    let (store, alive) = kept().await;
    let sealed = sealed(&store);
    forgets(store, &alive, sealed, async |store| {
        let outcome = store.unregister(&device(1, 7), 2, START).await.unwrap();
        assert_eq!(outcome, Registered::Done(OwnerState { registrations: 20 }));
    })
    .await;
}

#[tokio::test]
async fn a_device_that_an_operator_forgets_leaves_no_key_and_no_token() {
    let (store, alive) = kept().await;
    let sealed = sealed(&store);
    forgets(store, &alive, sealed, async |store| {
        assert!(store.forget(&device(1, 7), None, START).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_replaced_registration_leaves_no_key_and_no_token() {
    let (store, alive) = kept().await;
    let sealed = sealed(&store);
    forgets(store, &alive, sealed, async |store| {
        let newer = registration(&device(1, 7), 2);
        assert!(matches!(store.register(newer).await.unwrap(), Registered::Done(_)));
    })
    .await;
}

#[tokio::test]
async fn an_expired_registration_leaves_no_key_and_no_token() {
    let (store, alive) = kept().await;
    let sealed = sealed(&store);
    forgets(store, &alive, sealed, async |store| {
        let retention = Retention { registrations_before_unix_s: u64::MAX, ..Retention::default() };
        assert_eq!(store.expire(&retention, 1000).await.unwrap().registrations.len(), 21);
    })
    .await;
}

/// A store with the token, among other registrations.
async fn kept() -> (RedbStore, (TempDir, Caps)) {
    let (store, alive) = open(Caps { registrations: 100, devices: 100, ..Caps::default() });
    for number in 10..30 {
        store.register(registration(&device(1, number), 1)).await.unwrap();
    }
    let data = DeviceData::new(TOKEN.to_vec());
    let kept = crate::store::NewRegistration { data, ..registration(&device(1, 7), 1) };
    store.register(kept).await.unwrap();
    (store, alive)
}

/// The sealed device data of the token's row.
fn sealed(store: &RedbStore) -> Vec<u8> {
    let read = store.0.files.registrations.begin_read().unwrap();
    let key = device_key(&device(1, 7));
    let row = read.open_table(ROWS).unwrap().get(key.as_slice()).unwrap().unwrap();
    let sealed = read.open_table(DEVICE_DATA).unwrap().get(key.as_slice()).unwrap().unwrap().value().to_vec();
    // What is tried below is what really opens it.
    let seal_key = store.0.files.keys.read(Row::decode(row.value()).unwrap().slot).unwrap();
    assert!(opens(&Aes256::new(seal_key.as_bytes().into()), &sealed));
    sealed
}

async fn forgets(
    store: RedbStore,
    (dir, _): &(TempDir, Caps),
    sealed: Vec<u8>,
    forget: impl AsyncFnOnce(&RedbStore),
) {
    assert_eq!(windows_that_open(dir.path(), &sealed), 1, "before, its slot opens it");
    forget(&store).await;
    // At once, long before the minute is over.
    assert_eq!(windows_that_open(dir.path(), &sealed), 0);
    check_slots(&store);
    drop(store);
    let store = open_dir(dir.path(), Caps::default());
    assert_eq!(windows_that_open(dir.path(), &sealed), 0);
    check_slots(&store);
}

/// How many 32-byte windows of the files open it. Also fails when the token lies in any of them.
fn windows_that_open(dir: &Path, sealed: &[u8]) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(TOKEN.len()).any(|window| window == TOKEN), "the token lies open");
        let mut last: &[u8] = &[];
        for window in bytes.windows(32) {
            // Runs of zeros are tried once.
            if window != last {
                count += usize::from(opens(&Aes256::new(window.try_into().unwrap()), sealed));
            }
            last = window;
        }
    }
    count
}

/// Whether a key opens it: the first block of the key stream is enough, because the text is known.
fn opens(key: &Aes256, sealed: &[u8]) -> bool {
    // AES-GCM: the nonce of device data, and the counter of the first block.
    let mut block = [0_u8; 16];
    (block[11], block[15]) = (1, 2);
    let mut block = block.into();
    key.encrypt_block(&mut block);
    block.iter().zip(sealed).zip(TOKEN).all(|((stream, sealed), text)| stream ^ sealed == *text)
}
