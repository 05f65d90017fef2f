use std::collections::BTreeSet;
use std::fs;

use poste_codec::SecretKey;

use super::*;
use crate::notify::profile::Device;

fn public(byte: u8) -> PublicKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap().public()
}

fn state() -> ReceiverState {
    let device = Device::Apn { token: "secret-token".into(), topic: "app".into() };
    let profile = Profile {
        contacts_only: true,
        contacts: BTreeSet::from([public(1), public(2)]),
        blocked: BTreeSet::from([public(3)]),
        muted: BTreeSet::from(["chat".to_owned()]),
        joined: BTreeSet::from(["other".to_owned()]),
        block_mentions: true,
        ..Profile::open_to_all(device)
    };
    let token = AccessToken::from_random([9; 16]);
    ReceiverState {
        version: u64::MAX,
        registration: Some(Registration { profile, token }),
        servers: BTreeMap::from([
            (public(4), Standing::Registering),
            (public(5), Standing::Registered { version: 7 }),
            (public(6), Standing::Leaving),
        ]),
        ..ReceiverState::new(InstallationId::from_random([8; 16]))
    }
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::new(&dir.path().join("new"), public(9));
    assert_eq!(file.read().unwrap(), None);
    let unregistered = ReceiverState::new(InstallationId::from_random([8; 16]));
    let firebase = Profile::open_to_all(Device::Firebase { token: "t".into() });
    let token = AccessToken::from_random([9; 16]);
    let other = ReceiverState {
        registration: Some(Registration { profile: firebase, token }),
        ..unregistered.clone()
    };
    for state in [unregistered, other, state()] {
        file.write(&state).unwrap();
        assert_eq!(file.read().unwrap(), Some(state));
    }
}

#[test]
fn the_file_is_for_one_key() {
    let dir = tempfile::tempdir().unwrap();
    StateFile::new(dir.path(), public(9)).write(&state()).unwrap();
    let error = StateFile::new(dir.path(), public(8)).read().unwrap_err();
    assert!(matches!(error, StateError::OtherKey(_)), "{error}");
}

#[test]
fn another_format_is_named_and_damage_tells_nothing_of_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::new(dir.path(), public(9));
    file.write(&state()).unwrap();
    let path = dir.path().join(StateFile::NAME);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        ("\"format\": 1", "\"format\": 2, \"new\": 3", "format 2"),
        ("\"version\"", "\"veersion\"", "line "),
        ("secret-token", "", "the device token is empty"),
        ("{", "", "line "),
        ("\"owner\": \"0", "\"owner\": \"9", "a key"),
    ] {
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{from}: {error}");
    }
    assert!(!format!("{:?}", state()).contains("secret"));
}

#[test]
fn one_at_a_time_holds_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::new(&dir.path().join("new"), public(9));
    let lock = file.lock().unwrap();
    let error = file.lock().unwrap_err();
    assert!(matches!(error, StateError::InUse(_)), "{error}");
    drop(lock);
    file.lock().unwrap();
}
