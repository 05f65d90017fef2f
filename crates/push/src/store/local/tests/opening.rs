//! Directories that are not as they should be: each is refused with words that say what to do, or mended.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::super::open::Whose;
use super::*;
use crate::identity::IdentityError;
use crate::store::conformance::{START, device, registration};
use crate::store::{ErrorKind, Registered, is_store};

fn refusal(dir: &Path) -> StoreError {
    let identity = identity::open(dir).unwrap().public();
    RedbStore::open(dir, &identity, options(Caps::default())).unwrap_err()
}

#[test]
fn everything_is_for_its_owner_alone() {
    let (store, (dir, _)) = open(Caps::default());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    drop(store);
    let inner = dir.path().join("push");
    drop(open_dir(&inner, Caps::default()));
    assert_eq!(mode(&inner), 0o700);
}

#[test]
fn a_second_owner_is_refused() {
    let (store, (dir, caps)) = open(Caps::default());
    let error = refusal(dir.path());
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(store);
    open_dir(dir.path(), caps);
}

#[tokio::test]
async fn a_missing_file_is_named_and_never_made_anew() {
    for name in [STORE, REGISTRATIONS, REQUESTS, KEYS] {
        let (store, (dir, caps)) = open(Caps::default());
        store.register(registration(&device(1, 0), 1)).await.unwrap();
        drop(store);
        let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        let error = refusal(dir.path());
        assert!(matches!(&error, StoreError::Missing { path: missing } if *missing == path), "{error}");
        assert!(!path.exists());
        fs::rename(&aside, &path).unwrap();
        let store = open_dir(dir.path(), caps);
        assert_eq!(store.counts().await.unwrap().registrations, 1);
    }
}

#[test]
fn the_registrations_of_another_identity_are_refused() {
    let (store, (dir, _)) = open(Caps::default());
    drop(store);
    fs::remove_file(dir.path().join(identity::FILE_NAME)).unwrap();
    assert!(is_store(dir.path()));
    assert!(matches!(identity::open(dir.path()), Err(IdentityError::Lost(_))));
    let other = tempfile::tempdir().unwrap();
    let other = identity::open(other.path()).unwrap();
    identity::export(&other, &dir.path().join(identity::FILE_NAME)).unwrap();
    assert!(matches!(refusal(dir.path()), StoreError::OtherIdentity { .. }));
}

#[test]
fn files_of_another_store_are_refused() {
    for name in [REGISTRATIONS, REQUESTS, KEYS] {
        let [(first, (dir, _)), (second, (other, _))] = [open(Caps::default()), open(Caps::default())];
        drop((first, second));
        fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
        let error = refusal(dir.path());
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[test]
fn unknown_formats_are_refused() {
    let (store, (dir, _)) = open(Caps::default());
    drop(store);
    let keys = OpenOptions::new().write(true).open(dir.path().join(KEYS)).unwrap();
    keys.write_all_at(&[2], 19).unwrap();
    assert!(refusal(dir.path()).to_string().contains("format"));
    keys.write_all_at(b"P", 0).unwrap();
    assert!(refusal(dir.path()).to_string().contains("not a file of row keys"));
    let text = fs::read_to_string(dir.path().join(STORE)).unwrap();
    fs::write(dir.path().join(STORE), text.replace("poste-push 1", "poste-push 2")).unwrap();
    assert!(refusal(dir.path()).to_string().contains("use the version that wrote it"));
    fs::write(dir.path().join(STORE), [0xff; 10]).unwrap();
    assert_eq!(refusal(dir.path()).kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_key_file_that_was_cut_is_refused() {
    let (store, (dir, _)) = open(Caps::default());
    store.register(registration(&device(1, 0), 1)).await.unwrap();
    drop(store);
    let keys = OpenOptions::new().write(true).open(dir.path().join(KEYS)).unwrap();
    keys.set_len(5000).unwrap();
    assert!(refusal(dir.path()).to_string().contains("shorter"));
}

#[tokio::test]
async fn a_row_whose_key_is_lost_is_absent_and_counted_and_heals() {
    let (store, (dir, caps)) = open(Caps::default());
    let [lost, kept] = [device(1, 0), device(2, 0)];
    store.register(registration(&lost, 5)).await.unwrap();
    store.register(registration(&kept, 5)).await.unwrap();
    drop(store);
    let keys = OpenOptions::new().write(true).open(dir.path().join(KEYS)).unwrap();
    keys.write_all_at(&[0; 32], 4096).unwrap();
    let store = open_dir(dir.path(), caps);
    assert_eq!(store.registrations(&lost.key).await.unwrap(), []);
    assert_eq!(store.find(vec![lost.clone(), kept.clone()]).await.unwrap()[0], None);
    assert_eq!(store.topic_keys(&lost.key).await.unwrap(), None);
    assert_eq!(store.counts().await.unwrap().unreadable, 3);
    assert_eq!(store.version(&lost).await.unwrap(), Some(5), "its version still counts");
    store.register(registration(&lost, 6)).await.unwrap();
    assert_eq!(store.registrations(&lost.key).await.unwrap().len(), 1);
    check_slots(&store);
}

#[tokio::test]
async fn a_damaged_row_is_absent_and_counted_and_heals() {
    let (store, _alive) = open(Caps::default());
    let [damaged, kept] = [device(1, 0), device(2, 0)];
    store.register(registration(&damaged, 5)).await.unwrap();
    store.register(registration(&kept, 5)).await.unwrap();
    let transaction = store.0.files.registrations.begin_write().unwrap();
    let key = row::device_key(&damaged);
    transaction.open_table(registrations::ROWS).unwrap().insert(&*key, b"damaged".as_slice()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.registrations(&damaged.key).await.unwrap(), []);
    assert!(store.find(vec![damaged.clone(), kept.clone()]).await.unwrap()[0].is_none());
    assert_eq!(store.topic_keys(&damaged.key).await.unwrap(), None);
    assert_eq!(store.version(&damaged).await.unwrap(), None);
    assert!(store.counts().await.unwrap().unreadable >= 4);
    store.note_successes(vec![damaged.clone(), kept.clone()], 1_800_000_000).await.unwrap();
    let retention = Retention { registrations_before_unix_s: 1, ..Retention::default() };
    assert!(store.expire(&retention, 100).await.unwrap().is_done);
    assert_eq!(store.forget(&damaged, None, START).await.unwrap(), None);
    for device in [&damaged, &kept] {
        let again = store.register(registration(device, 6)).await.unwrap();
        assert_eq!(again, Registered::Done(OwnerState { registrations: 1 }));
        assert_eq!(store.registrations(&device.key).await.unwrap().len(), 1);
    }
    // The key of the damaged row was overwritten, and its slot is free.
    check_slots(&store);
}

#[tokio::test]
async fn a_damaged_row_is_unregistered_like_others() {
    let (store, _alive) = open(Caps::default());
    let [damaged, kept] = [device(1, 0), device(1, 1)];
    for device in [&damaged, &kept] {
        store.register(registration(device, 5)).await.unwrap();
    }
    let transaction = store.0.files.registrations.begin_write().unwrap();
    let key = row::device_key(&damaged);
    transaction.open_table(registrations::ROWS).unwrap().insert(&*key, b"damaged".as_slice()).unwrap();
    transaction.commit().unwrap();
    let left = store.unregister(&damaged, 6, START).await.unwrap();
    assert_eq!(left, Registered::Done(OwnerState { registrations: 1 }));
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (1, 1));
    check_slots(&store);
}

#[test]
fn a_store_that_was_not_made_to_its_end_is_made_anew() {
    for kept in [vec![], vec![KEYS], vec![KEYS, REGISTRATIONS], vec![KEYS, REGISTRATIONS, REQUESTS]] {
        let (store, (dir, caps)) = open(Caps::default());
        drop(store);
        fs::rename(dir.path().join(STORE), dir.path().join("store.draft")).unwrap();
        for name in [REGISTRATIONS, REQUESTS, KEYS].iter().filter(|name| !kept.contains(name)) {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert!(!is_store(dir.path()));
        drop(open_dir(dir.path(), caps));
        assert!(!dir.path().join("store.draft").exists());
    }
}

#[test]
fn whose_a_store_is_stands_in_a_frozen_form() {
    let hex = "0123456789abcdef".repeat(8);
    let identity = {
        let dir = tempfile::tempdir().unwrap();
        identity::open(dir.path()).unwrap().public()
    };
    let whose = Whose { store_id: std::array::from_fn(|at| at as u8), identity };
    let text = format!("poste-push 1\nstore 000102030405060708090a0b0c0d0e0f\nidentity {identity}\n");
    assert_eq!((whose.text(), Whose::parse(&text)), (text.clone(), Some(whose)));
    let identity = identity.to_string();
    for (from, to) in [("push 1", "push 2"), ("0e0f", "0e"), (identity.as_str(), &hex), ("store ", "stor ")] {
        assert_eq!(Whose::parse(&text.replace(from, to)), None, "{to}");
    }
    assert_eq!(Whose::parse(&(text + "more\n")), None);
}
