use std::collections::BTreeSet;
use std::fs;

use poste_codec::SecretKey;
use poste_wire::status::AccessToken;

use super::*;

fn key(byte: u8) -> PublicKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap().public()
}

fn numbered(number: u32) -> PublicKey {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(&bytes).unwrap().public()
}

fn installation(number: u8) -> InstallationId {
    InstallationId::from_random([number; 16])
}

fn info(device: u8, server: u8, token: u8, version: u64) -> PushInfo {
    let token = AccessToken::from_random([token; 16]);
    PushInfo { installation: installation(device), server: key(server), token, version }
}

fn shown(infos: &[PushInfo]) -> Shown {
    Shown { infos: infos.to_vec(), by_owner: true, ..Shown::default() }
}

/// By a server, of itself.
fn said(infos: &[PushInfo]) -> Shown {
    Shown { by_owner: false, ..shown(infos) }
}

/// (device, server) of what is known, in its order.
fn places(known: &Known, contact: &PublicKey) -> Vec<PushInfo> {
    known.infos(contact).into_iter().map(|row| row.info).collect()
}

#[test]
fn a_new_token_drops_what_has_the_old_one() {
    let (mut known, contact) = (Known::default(), key(1));
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(1, 11, 1, 1), info(2, 10, 9, 1)]), 100);
    assert_eq!(places(&known, &contact).len(), 3);
    known.learn(&contact, &shown(&[info(1, 10, 2, 2)]), 200);
    assert_eq!(
        places(&known, &contact),
        [info(1, 10, 2, 2), info(2, 10, 9, 1)],
        "another device keeps its own"
    );
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(1, 12, 1, 1)]), 300);
    assert_eq!(places(&known, &contact).len(), 2, "old news");
}

#[test]
fn a_registration_that_was_repeated_to_one_server_leaves_the_others() {
    let (mut known, contact) = (Known::default(), key(1));
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(1, 11, 1, 3)]), 100);
    assert_eq!(places(&known, &contact).len(), 2);
    known.learn(&contact, &shown(&[info(1, 12, 1, 2), info(1, 11, 1, 2)]), 200);
    assert_eq!(places(&known, &contact).len(), 2, "old news");
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(1, 11, 1, 3), info(1, 12, 1, 1)]), 300);
    let rows = known.infos(&contact);
    assert!(rows.len() == 3 && rows.iter().all(|row| row.as_of == 3), "all are right: {rows:?}");
}

#[test]
fn an_advertisement_drops_the_servers_that_it_leaves_out() {
    let (mut known, contact) = (Known::default(), key(1));
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(1, 11, 1, 1), info(1, 12, 1, 1)]), 100);
    known.learn(&contact, &shown(&[info(1, 11, 1, 1)]), 200);
    assert_eq!(places(&known, &contact).len(), 3, "the same version adds only");
    known.learn(&contact, &said(&[info(1, 13, 1, 9)]), 200);
    let broken = Some(crate::notify::contact::InfoError::Owner);
    known.learn(&contact, &Shown { stopped: broken, ..shown(&[info(1, 10, 1, 2)]) }, 300);
    assert_eq!(places(&known, &contact).len(), 4, "what breaks off may have named the others");
    known.learn(&contact, &shown(&[info(1, 11, 1, 3), info(1, 12, 1, 3)]), 300);
    let left: Vec<_> = places(&known, &contact).into_iter().map(|info| (info.server, info.version)).collect();
    let mut expected = [(key(11), 3), (key(12), 3), (key(13), 9)];
    expected.sort_unstable();
    assert_eq!(left, expected, "the one with version 9 may be the newest");
    known.learn(&contact, &said(&[info(1, 10, 1, 2)]), 400);
    assert_eq!(places(&known, &contact).len(), 3, "a server's answer does not go below the contact's own");
}

#[test]
fn a_server_speaks_for_itself_only() {
    let (mut known, contact) = (Known::default(), key(1));
    known.learn(&contact, &said(&[info(1, 10, 1, 5)]), 100);
    known.learn(&contact, &said(&[info(1, 11, 2, u64::MAX)]), 100);
    known.learn(&contact, &said(&[info(1, 12, 1, 5)]), 100);
    assert_eq!(places(&known, &contact).len(), 3, "it drops and blocks nobody else");
    let advertised = shown(&[info(1, 10, 1, 6), info(1, 11, 1, 6)]);
    known.learn(&contact, &advertised, 200);
    let place = |known: &Known, server| {
        places(known, &contact).into_iter().find(|info| info.server == key(server)).unwrap()
    };
    assert_eq!((place(&known, 10), place(&known, 11)), (info(1, 10, 1, 6), info(1, 11, 1, 6)));
    known.learn(&contact, &said(&[info(1, 11, 9, 6)]), 300);
    assert_eq!(place(&known, 11), info(1, 11, 1, 6), "of one version the contact's own word counts");
    known.learn(&contact, &said(&[info(1, 10, 3, 7)]), 300);
    known.learn(&contact, &advertised, 400);
    assert_eq!(place(&known, 10), info(1, 10, 3, 7), "an advertisement that comes again is no news");
    assert!(known.infos(&contact).iter().all(|row| row.is_advertised), "the contact has named all of them");
}

#[test]
fn made_up_devices_give_way() {
    let (mut known, contact) = (Known::default(), key(1));
    known.learn(&contact, &shown(&[info(1, 10, 1, 1)]), 100);
    let made_up: Vec<_> = (2..=200).map(|device| info(device, 10, 1, u64::MAX)).collect();
    known.learn(&contact, &said(&made_up), 100);
    let honest: Vec<_> = (201..=205).map(|device| info(device, 11, 1, 1)).collect();
    known.learn(&contact, &said(&honest), 200);
    let left = places(&known, &contact);
    assert!(honest.iter().chain([&info(1, 10, 1, 1)]).all(|info| left.contains(info)), "{left:?}");
    assert_eq!(left.len(), MAX_DEVICES);
    // Abandoned servers of one device, too.
    let servers: Vec<_> = (10..30).map(|server| info(1, server, 1, 1)).collect();
    servers.iter().for_each(|info| known.learn(&contact, &said(std::slice::from_ref(info)), 300));
    known.learn(&contact, &shown(&[info(1, 40, 2, 2)]), 400);
    let left = places(&known, &contact);
    assert!(left.contains(&info(1, 40, 2, 2)), "{left:?}");
}

#[test]
fn the_most_recently_active_device_comes_first() {
    let (mut known, contact) = (Known::default(), key(1));
    let order = |known: &Known| -> Vec<_> {
        known.infos(&contact).iter().map(|row| row.info.installation.clone()).collect()
    };
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(2, 10, 2, 5)]), 100);
    assert_eq!(
        order(&known),
        [2, 1].map(installation),
        "of the same time the one that has registered more often"
    );
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(1, 11, 1, 2)]), 200);
    assert_eq!(order(&known), [1, 1, 2].map(installation), "with all its servers");
    known.learn(&contact, &shown(&[info(2, 10, 2, 5)]), 300);
    assert_eq!(order(&known), [1, 1, 2].map(installation), "saying the same again is no activity");
}

#[test]
fn servers_are_asked_again_after_a_day() {
    let (mut known, contact) = (Known::default(), key(1));
    assert!(known.is_query_due(&contact, 100));
    known.note_asked(&contact, 100);
    assert!(!known.is_query_due(&contact, 100 + 86_400));
    assert!(known.is_query_due(&contact, 101 + 86_400));
    known.note_asked(&contact, 50);
    assert!(!known.is_query_due(&contact, 100 + 86_400), "the latest counts");
    assert!(known.is_query_due(&contact, 99), "the clock was put back");

    let stopped = Some(crate::notify::contact::InfoError::Owner);
    for (said, counts) in [
        (shown(&[]), true),
        (Shown { stopped, ..shown(&[]) }, false),
        (Shown { by_owner: false, ..shown(&[info(1, 10, 1, 1)]) }, false),
    ] {
        let mut known = Known::default();
        known.learn(&contact, &said, 100);
        assert_eq!(known.is_query_due(&contact, 100), !counts, "{said:?}");
    }
}

#[test]
fn what_a_server_does_not_know_is_forgotten_there_only() {
    let (mut known, contact) = (Known::default(), key(1));
    known.learn(&contact, &shown(&[info(1, 10, 1, 1), info(1, 11, 1, 1), info(2, 10, 2, 1)]), 100);
    known.forget(&contact, &installation(1), &key(10));
    known.forget(&key(9), &installation(1), &key(11));
    let left = places(&known, &contact);
    assert_eq!(left.len(), 2);
    assert!(!left.contains(&info(1, 10, 1, 1)));
}

#[test]
fn what_is_known_is_bounded() {
    let (mut known, contact) = (Known::default(), key(1));
    for server in 10..30 {
        known.learn(&contact, &shown(&[info(1, server, 1, 1)]), 100);
    }
    assert_eq!(places(&known, &contact).len(), MAX_SERVERS);
    for device in 2..=200 {
        let info = info(device, 10, device, 1);
        known.learn(&contact, &Shown { by_owner: false, ..shown(&[info]) }, 100 + u64::from(device));
    }
    let devices = |known: &Known| -> BTreeSet<_> {
        known.infos(&contact).into_iter().map(|row| row.info.installation).collect()
    };
    assert_eq!(devices(&known).len(), MAX_DEVICES);
    assert!(devices(&known).contains(&installation(1)), "a server pushes nothing away");
    known.learn(&contact, &shown(&[info(250, 10, 9, 1)]), 1000);
    assert_eq!(devices(&known).len(), MAX_DEVICES);
    assert!(devices(&known).contains(&installation(250)) && devices(&known).contains(&installation(1)));
    assert!(!devices(&known).contains(&installation(2)), "what only servers say goes first");

    for number in 0..MAX_CONTACTS as u32 {
        known.note_asked(&numbered(number), 2000 + u64::from(number));
    }
    assert_eq!((known.contacts.len(), known.infos(&contact).len()), (MAX_CONTACTS, 0));
}

#[test]
fn a_file_keeps_everything_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let file = KnownFile::new(dir.path(), key(5));
    assert_eq!(file.read().unwrap(), Known::default());
    let mut known = Known::default();
    known.learn(&key(1), &shown(&[info(1, 10, 1, u64::MAX), info(2, 11, 2, 0)]), 100);
    known.note_asked(&key(2), 200);
    file.write(&known).unwrap();
    assert_eq!(file.read().unwrap(), known);
    let other = KnownFile::new(dir.path(), key(6)).read().unwrap_err();
    assert!(matches!(other, KnownError::OtherKey(_)), "{other}");
}

#[test]
fn a_file_keeps_what_servers_were_asked_and_may_be_of_before_that() {
    let dir = tempfile::tempdir().unwrap();
    let file = KnownFile::new(dir.path(), key(5));
    let path = dir.path().join(KnownFile::NAME);
    let mut known = Known::default();
    known.note_asked(&key(1), 200);
    file.write(&known).unwrap();
    // As versions of this program have it that remember nothing else.
    let before = fs::read_to_string(&path).unwrap();
    assert!(!before.contains("attempts"), "{before}");

    let mut later = known.clone();
    let open = Attempt::Open(vec![key(10), key(11)]);
    later.note_attempt(&key(1), &MessageId([6; 32]), installation(1), open.clone(), 300);
    later.note_attempt(&key(1), &MessageId([6; 32]), installation(2), Attempt::Notified(key(10)), 300);
    later.note_attempt(&key(2), &MessageId([7; 32]), installation(1), open.clone(), 300);
    assert_eq!(file.update(&known, later.clone()).unwrap(), later);
    assert_eq!(file.read().unwrap(), later);
    let mut attempts = later.attempts(&key(1), &MessageId([6; 32]));
    attempts.sort_by_key(|(device, _)| *device == installation(2));
    assert_eq!(attempts, [(installation(1), open), (installation(2), Attempt::Notified(key(10)))]);

    // What changes nothing is not written.
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    file.update(&later, later.clone()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    let good = fs::read_to_string(&path).unwrap();
    for bad in [good.replace(&"06".repeat(32), "06"), good.replace("\"at\"", "\"on\"")] {
        assert_ne!(bad, good);
        fs::write(&path, bad).unwrap();
        assert!(matches!(file.read(), Err(KnownError::Form { .. })));
    }
}

#[test]
fn two_who_write_keep_what_the_other_has_learned() {
    let dir = tempfile::tempdir().unwrap();
    let file = KnownFile::new(dir.path(), key(5));
    let mut base = Known::default();
    for contact in [1, 2, 3] {
        base.learn(&key(contact), &shown(&[info(contact, 10, 1, 1)]), 100);
    }
    file.write(&base).unwrap();
    let (mut first, mut second) = (base.clone(), base.clone());
    first.learn(&key(1), &shown(&[info(1, 11, 2, 2)]), 200);
    first.forget(&key(2), &installation(2), &key(10));
    second.learn(&key(4), &shown(&[info(4, 10, 1, 1)]), 200);
    file.update(&base, first).unwrap();
    let merged = file.update(&base, second).unwrap();
    assert_eq!(file.read().unwrap(), merged);
    assert_eq!(places(&merged, &key(1)), [info(1, 11, 2, 2)]);
    assert_eq!(places(&merged, &key(2)), []);
    assert_eq!(places(&merged, &key(3)).len() + places(&merged, &key(4)).len(), 2);
    let mut fewer = merged.clone();
    fewer.contacts.remove(&key(3));
    assert_eq!(file.update(&merged, fewer.clone()).unwrap(), fewer);
}

#[test]
fn a_damaged_file_is_named_but_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let file = KnownFile::new(dir.path(), key(5));
    let mut known = Known::default();
    known.learn(&key(1), &shown(&[info(1, 10, 1, 1)]), 100);
    file.write(&known).unwrap();
    let path = dir.path().join(KnownFile::NAME);
    let good = fs::read_to_string(&path).unwrap();
    let token = info(1, 10, 1, 1).token;
    let server = hex::encode(key(10).to_compressed());
    for bad in [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"format\": 1", "\"format\": 2"),
        good.replace("\"version\": 1", "\"version\": -1"),
        good.replace("\"since\"", "\"until\""),
        good.replace(token.as_str(), "secret"),
        good.replace(&server, "02"),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, &bad).unwrap();
        let error = file.read().unwrap_err();
        assert!(matches!(error, KnownError::Form { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(KnownFile::NAME) && text.contains("move it away"), "{text}");
        assert!(!text.contains("secret") && !text.contains(token.as_str()), "{text}");
    }
}
