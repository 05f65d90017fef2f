//! The promises of [`RegistrationStore`], by name.

use std::sync::Arc;

use super::*;
use crate::store::{ErrorKind, MAX_ANSWER_BYTES, MAX_DEVICE_DATA_BYTES, MAX_FOUND_BYTES};

pub(crate) async fn a_registration_is_found_as_it_was_given<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let [first, second, other] = [device(1, 0), device(1, 1), device(2, 0)];
    assert_eq!(store.version(&first).await.unwrap(), None);
    assert_eq!(store.topic_keys(&first.key).await.unwrap(), None);
    for (device, version, count) in [(&second, 7, 1), (&first, 3, 2), (&other, 1, 1), (&first, 4, 2)] {
        assert_eq!(register(&store, device, version).await, done(count));
        assert_eq!(store.version(device).await.unwrap(), Some(version));
    }
    let expected = [&first, &second]
        .map(|device| found(&registration(device, if *device == first { 4 } else { 7 }), None));
    assert_eq!(store.registrations(&first.key).await.unwrap(), expected);
    let asked = vec![second.clone(), device(9, 0), first.clone()];
    let [first_found, second_found] = expected;
    assert_eq!(store.find(asked).await.unwrap(), [Some(second_found), None, Some(first_found)]);
    assert_eq!(store.topic_keys(&first.key).await.unwrap(), Some(registration(&first, 4).topic_keys));
    for page in [1, 2, 3, 100] {
        assert_eq!(all_owners(&store, page).await, [owner(1), owner(2)]);
    }
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones, counts.unreadable), (3, 0, 0));
}

pub(crate) async fn an_unregistration_is_remembered_of_devices_never_seen<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let device = device(1, 0);
    assert_eq!(store.unregister(&device, 5, START).await.unwrap(), done(0));
    for version in [0, 4, 5] {
        assert_eq!(register(&store, &device, version).await, Registered::VersionMismatch { stored: 5 });
        let again = store.unregister(&device, version, START).await.unwrap();
        assert_eq!(again, Registered::VersionMismatch { stored: 5 });
    }
    assert_eq!(all_owners(&store, 10).await, []);
    assert_eq!(register(&store, &device, 6).await, done(1));
    assert_eq!(store.unregister(&device, u64::MAX, START).await.unwrap(), done(0));
    assert_eq!(register(&store, &device, u64::MAX).await, Registered::VersionMismatch { stored: u64::MAX });
    assert_eq!(store.registrations(&device.key).await.unwrap(), []);
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (0, 1));
}

pub(crate) async fn a_late_failure_never_deletes_a_newer_registration<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let [device, other] = [device(1, 0), device(1, 1)];
    register(&store, &other, 1).await;
    register(&store, &device, 1).await;
    register(&store, &device, 2).await;
    assert_eq!(store.forget(&device, Some(1), START).await.unwrap(), None);
    assert!(store.find(vec![device.clone()]).await.unwrap()[0].is_some());
    let left = Some(OwnerState { registrations: 1 });
    assert_eq!(store.forget(&device, Some(2), START).await.unwrap(), left);
    assert_eq!(store.find(vec![device.clone()]).await.unwrap(), [None]);
    assert_eq!(store.forget(&device, Some(2), START).await.unwrap(), None);
    // Its client registers again with a higher version, as it must.
    assert_eq!(register(&store, &device, 2).await, Registered::VersionMismatch { stored: 2 });
    assert_eq!(register(&store, &device, 3).await, done(2));
    assert_eq!(store.forget(&device, None, START).await.unwrap(), left);
}

fn sized(device: &DeviceId, version: u64, bytes: usize) -> NewRegistration {
    NewRegistration { data: DeviceData::new(vec![1; bytes]), ..registration(device, version) }
}

pub(crate) async fn devices_are_opened_once_and_few_at_a_time<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let caps = Caps { data_bytes: usize::MAX, ..Caps::default() };
    let (store, _alive) = open(caps);
    let bytes = MAX_FOUND_BYTES / 3;
    for number in 0..6 {
        let outcome = store.register(sized(&device(1, number), 1, bytes)).await.unwrap();
        assert!(matches!(outcome, Registered::Done(_)));
    }
    // What a stranger may ask of one device: its bytes are there once.
    let found = store.find(vec![device(1, 0); 1000]).await.unwrap();
    assert_eq!(found.len(), 1000);
    let opened: std::collections::BTreeSet<_> =
        found.iter().flatten().map(|found| found.data.as_bytes().as_ptr()).collect();
    assert_eq!((found.iter().flatten().count(), opened.len()), (1000, 1));
    let asked: Vec<DeviceId> = (0..6).map(|number| device(1, number)).collect();
    assert_eq!(store.find(asked.clone()).await.unwrap().len(), 4);
    assert_eq!(store.find(asked[4..].to_vec()).await.unwrap().len(), 2);
}

pub(crate) async fn an_owner_has_so_many_bytes<S: RegistrationStore, A>(open: impl Fn(Caps) -> (S, A)) {
    let (store, _alive) = open(Caps { data_bytes: 3000, ..Caps::default() });
    let [first, second] = [device(1, 0), device(1, 1)];
    assert_eq!(store.register(sized(&first, 1, 2000)).await.unwrap(), done(1));
    assert_eq!(store.register(sized(&second, 1, 2000)).await.unwrap(), Registered::TooManyDevices);
    assert_eq!(store.register(sized(&second, 1, 900)).await.unwrap(), done(2));
    assert_eq!(store.register(sized(&first, 2, 2500)).await.unwrap(), Registered::TooManyDevices);
    assert_eq!(store.register(sized(&first, 2, 1000)).await.unwrap(), done(2));
    assert_eq!(store.register(sized(&second, 2, 1900)).await.unwrap(), done(2));
    assert_eq!(store.register(sized(&device(2, 0), 1, 2000)).await.unwrap(), done(1), "another owner");
}

pub(crate) async fn a_full_store_takes_no_new_owners<S: RegistrationStore, A>(open: impl Fn(Caps) -> (S, A)) {
    let caps = Caps { all_registrations: 3, all_tombstones: 2, all_data_bytes: 8000, ..Caps::default() };
    let (store, _alive) = open(caps);
    assert_eq!(store.register(sized(&device(1, 0), 1, 3000)).await.unwrap(), done(1));
    assert_eq!(store.register(sized(&device(2, 0), 1, 1500)).await.unwrap(), Registered::StoreFull);
    assert_eq!(store.register(sized(&device(1, 0), 2, 6000)).await.unwrap(), done(1), "it is known");
    assert_eq!(store.register(sized(&device(1, 1), 1, 3000)).await.unwrap(), Registered::StoreFull);
    assert!(store.forget(&device(1, 0), None, START).await.unwrap().is_some());
    for number in [2, 3, 4] {
        assert_eq!(store.register(sized(&device(number, 0), 1, 100)).await.unwrap(), done(1));
    }
    assert_eq!(store.register(sized(&device(5, 0), 1, 100)).await.unwrap(), Registered::StoreFull);
    let only_a_version = store.register(sized(&device(1, 1), 1, 100)).await.unwrap();
    assert_eq!(only_a_version, Registered::StoreFull, "nothing else is kept of the owner");
    assert_eq!(store.register(sized(&device(4, 1), 1, 100)).await.unwrap(), done(2));
    assert_eq!(store.unregister(&device(2, 0), 2, START).await.unwrap(), done(0));
    assert_eq!(store.unregister(&device(5, 0), 1, START).await.unwrap(), Registered::StoreFull);
    assert_eq!(store.unregister(&device(3, 0), 2, START).await.unwrap(), done(0), "it is known");
}

pub(crate) async fn an_owner_has_so_many_devices<S: RegistrationStore, A>(open: impl Fn(Caps) -> (S, A)) {
    let (store, _alive) = open(Caps { registrations: 3, devices: 5, ..Caps::default() });
    for number in 0..3 {
        assert_eq!(register(&store, &device(1, number), 1).await, done(number as usize + 1));
    }
    assert_eq!(register(&store, &device(1, 3), 1).await, Registered::TooManyDevices);
    assert_eq!(register(&store, &device(1, 0), 2).await, done(3), "a known device may change");
    assert_eq!(store.unregister(&device(1, 0), 3, START).await.unwrap(), done(2));
    assert_eq!(register(&store, &device(1, 3), 1).await, done(3));
    assert_eq!(register(&store, &device(1, 0), 4).await, Registered::TooManyDevices);
    assert_eq!(store.unregister(&device(1, 4), 1, START).await.unwrap(), done(3), "that is the fifth");
    assert_eq!(store.unregister(&device(1, 5), 1, START).await.unwrap(), Registered::TooManyDevices);
    assert_eq!(
        store.unregister(&device(1, 4), 1, START).await.unwrap(),
        Registered::VersionMismatch { stored: 1 }
    );
    assert_eq!(
        store.unregister(&device(1, 3), 2, START).await.unwrap(),
        done(2),
        "what is known can always be forgotten"
    );
    assert_eq!(register(&store, &device(1, 6), 1).await, Registered::TooManyDevices);
    assert_eq!(register(&store, &device(2, 6), 1).await, done(1), "other owners do not count");
}

pub(crate) async fn of_many_registrations_at_once_the_highest_version_stays<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let (store, device) = (Arc::new(store), device(1, 0));
    let callers = (1..=40).map(|version| {
        let (store, device) = (Arc::clone(&store), device.clone());
        tokio::spawn(async move {
            let outcome = register(store.as_ref(), &device, version).await;
            // Whatever it was, what is read then is whole, and at least as new.
            let found_now =
                store.find(vec![device.clone()]).await.unwrap().remove(0).expect("it is registered");
            assert!(found_now.version >= version, "{outcome:?}");
            assert_eq!(found_now, found(&registration(&device, found_now.version), None));
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(store.version(&device).await.unwrap(), Some(40));
    assert_eq!(store.counts().await.unwrap().unreadable, 0);
}

pub(crate) async fn successes_are_noted_once_a_day<S: RegistrationStore, A>(open: impl Fn(Caps) -> (S, A)) {
    const DAY_S: u64 = 24 * 60 * 60;
    let (store, _alive) = open(Caps::default());
    let device = device(1, 0);
    register(&store, &device, 1).await;
    let unknown = super::device(9, 9);
    for (at, noted) in [(0, 0), (1, 0), (DAY_S - 1, 0), (DAY_S, DAY_S), (2 * DAY_S + 5, 2 * DAY_S + 5)] {
        store
            .note_successes(vec![device.clone(), unknown.clone(), device.clone()], START + at)
            .await
            .unwrap();
        let expected = found(&registration(&device, 1), Some(START + noted));
        assert_eq!(store.find(vec![device.clone()]).await.unwrap(), [Some(expected)]);
    }
    register(&store, &device, 2).await;
    assert_eq!(store.find(vec![device.clone()]).await.unwrap()[0].as_ref().unwrap().reached_unix_s, None);
}

pub(crate) async fn a_claim_is_won_once_by_many_callers<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let store = Arc::new(store);
    // Each key twice in each call.
    let keys: Vec<ClaimKey> = (0..20).map(|number| claim_key(b"message", &device(1, number % 10))).collect();
    let callers = (0..8).map(|_| {
        let (store, keys) = (Arc::clone(&store), keys.clone());
        tokio::spawn(async move { store.claim(keys, START).await.unwrap() })
    });
    let mut won = 0;
    for caller in callers.collect::<Vec<_>>() {
        let met = caller.await.unwrap();
        assert!(met.iter().all(|claim| matches!(claim, Claim::Won | Claim::Open)), "{met:?}");
        won += met.iter().filter(|claim| **claim == Claim::Won).count();
    }
    assert_eq!(won, 10);
    assert_eq!(store.counts().await.unwrap().open_claims, 10);
}

pub(crate) async fn a_refused_claim_is_free_again<S: RegistrationStore, A>(open: impl Fn(Caps) -> (S, A)) {
    let (store, _alive) = open(Caps::default());
    let key = claim_key(b"message", &device(1, 0));
    let claim = async |expected| {
        assert_eq!(store.claim(vec![key.clone()], START).await.unwrap(), [expected]);
    };
    let finish = async |end| store.finish(vec![(key.clone(), end)], None, START).await.unwrap();
    finish(ClaimEnd::Sent).await;
    claim(Claim::Won).await;
    finish(ClaimEnd::Refused).await;
    claim(Claim::Won).await;
    claim(Claim::Open).await;
    finish(ClaimEnd::Sent).await;
    claim(Claim::Sent).await;
    // It has ended: nothing can change it any more.
    finish(ClaimEnd::Refused).await;
    finish(ClaimEnd::Unknown).await;
    claim(Claim::Sent).await;
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.open_claims, counts.ended_claims), (0, 1));
}

pub(crate) async fn claims_are_of_one_message_one_owner_and_one_installation<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let keys = vec![
        claim_key(b"message", &device(1, 0)),
        claim_key(b"messag", &device(1, 0)),
        claim_key(b"", &device(1, 0)),
        claim_key(b"message", &device(1, 1)),
        claim_key(b"message", &device(2, 0)),
        claim_key(&[owner(1).as_bytes().as_slice(), b"m"].concat(), &device(1, 0)),
    ];
    assert_eq!(store.claim(keys, START).await.unwrap(), [Claim::Won; 6]);
}

pub(crate) async fn answers_are_repeated_until_they_expire<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let [id, other] = [AnswerId([1; 32]), AnswerId([2; 32])];
    let finish = async |id, text: &[u8], at| {
        store.finish(Vec::new(), Some((id, text.to_vec())), START + at).await.unwrap();
    };
    assert_eq!(store.answer(&id).await.unwrap(), None);
    finish(id, b"first", 0).await;
    finish(other, b"", 1).await;
    assert_eq!(store.answer(&id).await.unwrap().as_deref(), Some(b"first".as_slice()));
    assert_eq!(store.answer(&other).await.unwrap().as_deref(), Some(b"".as_slice()));
    finish(id, b"second", 2).await;
    assert_eq!(store.answer(&id).await.unwrap().as_deref(), Some(b"second".as_slice()));
    let retention = |at| Retention { answers_before_unix_s: START + at, ..Retention::default() };
    assert_eq!(
        store.expire(&retention(1), 100).await.unwrap().answers,
        0,
        "the first text of the id is gone"
    );
    assert_eq!(store.expire(&retention(2), 100).await.unwrap().answers, 1);
    assert_eq!(store.answer(&other).await.unwrap(), None);
    assert!(store.answer(&id).await.unwrap().is_some());
    assert_eq!(store.expire(&retention(3), 100).await.unwrap().answers, 1);
    assert_eq!(store.counts().await.unwrap().answers, 0);
}

pub(crate) async fn expiry_goes_on_in_pieces<S: RegistrationStore, A>(open: impl Fn(Caps) -> (S, A)) {
    let (store, _alive) = open(Caps::default());
    for number in 0..12 {
        // Registered at START + 1, START + 2, …
        register(&store, &device(number, 0), u64::from(number) + 1).await;
        let at = START + u64::from(number);
        let key = claim_key(b"message", &device(number, 0));
        store.claim(vec![key.clone()], at).await.unwrap();
        let answer = Some((AnswerId([number; 32]), vec![number]));
        store.finish(vec![(key, ClaimEnd::Sent)], answer, at).await.unwrap();
    }
    store.claim(vec![claim_key(b"another", &device(0, 0))], START).await.unwrap();
    store.note_successes(vec![device(2, 0)], START + 100).await.unwrap();
    assert!(store.expire(&Retention::default(), 5).await.unwrap().is_done, "0 forgets nothing");
    let retention = Retention {
        claims_before_unix_s: START + 9,
        answers_before_unix_s: START + 10,
        registrations_before_unix_s: START + 7,
        ..Retention::default()
    };
    let (mut claims, mut answers, mut registrations, mut pieces) = (0, 0, Vec::new(), 0);
    loop {
        let expired = store.expire(&retention, 5).await.unwrap();
        claims += expired.claims;
        answers += expired.answers;
        registrations.extend(expired.registrations);
        pieces += 1;
        assert!(pieces < 10, "it comes to an end");
        if expired.is_done {
            break;
        }
    }
    registrations.sort();
    let mut expected: Vec<_> = [0, 1, 3, 4, 5].map(|number| device(number, 0)).to_vec();
    expected.sort();
    assert_eq!((claims, answers, registrations), (10, 10, expected));
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (7, 5));
    assert_eq!((counts.open_claims, counts.ended_claims, counts.answers), (0, 3, 2));
    // Their versions stay.
    assert_eq!(register(&store, &device(5, 0), 6).await, Registered::VersionMismatch { stored: 6 });
}

/// Each from when its device was last heard of, and no registration's version goes before the registration.
pub(crate) async fn versions_of_the_forgotten_expire_in_pieces<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps { devices: 8, ..Caps::default() });
    for number in 0..8 {
        let at = START + 10 * u64::from(number);
        assert_eq!(store.unregister(&device(1, number), 5, at).await.unwrap(), done(0));
    }
    assert_eq!(store.unregister(&device(1, 8), 5, START).await.unwrap(), Registered::TooManyDevices);
    // It comes back, and is forgotten by an operator later than it was heard of.
    let again = NewRegistration { at_unix_s: START + 15, ..registration(&device(1, 0), 6) };
    assert_eq!(store.register(again).await.unwrap(), done(1));
    assert_eq!(
        store.forget(&device(1, 0), None, START + 15).await.unwrap(),
        Some(OwnerState { registrations: 0 })
    );
    let kept = NewRegistration { at_unix_s: START + 1, ..registration(&device(2, 0), 1) };
    assert_eq!(store.register(kept).await.unwrap(), done(1));
    let expire = async |before| {
        let retention = Retention { tombstones_before_unix_s: before, ..Retention::default() };
        let (mut tombstones, mut pieces) = (0, 0);
        loop {
            let expired = store.expire(&retention, 3).await.unwrap();
            assert!(expired.registrations.is_empty());
            tombstones += expired.tombstones;
            pieces += 1;
            assert!(pieces < 10, "it comes to an end");
            if expired.is_done {
                return tombstones;
            }
        }
    };
    assert_eq!((expire(0).await, expire(START + 15).await, expire(START + 15).await), (0, 1, 0));
    assert_eq!(store.version(&device(1, 1)).await.unwrap(), None);
    assert_eq!(store.version(&device(1, 0)).await.unwrap(), Some(6));
    assert_eq!(expire(START + 40).await, 3, "of the first, the third and the fourth");
    assert_eq!(store.version(&device(1, 4)).await.unwrap(), Some(5));
    assert_eq!(register(&store, &device(1, 0), 1).await, done(1), "nothing is known of it any more");
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (2, 4));
}

pub(crate) async fn only_what_is_too_large_is_refused<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let device = device(1, 0);
    let large = |bytes| NewRegistration { data: DeviceData::new(vec![7; bytes]), ..registration(&device, 1) };
    let error = store.register(large(MAX_DEVICE_DATA_BYTES + 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(store.register(large(MAX_DEVICE_DATA_BYTES)).await.unwrap(), done(1));
    let stored = store.registrations(&device.key).await.unwrap();
    assert_eq!(stored[0].data.as_bytes().len(), MAX_DEVICE_DATA_BYTES);
    let id = AnswerId([1; 32]);
    let error = store.finish(Vec::new(), Some((id, vec![7; MAX_ANSWER_BYTES + 1])), START).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(store.answer(&id).await.unwrap(), None);
}

pub(crate) async fn a_closed_store_takes_nothing<S: RegistrationStore, A>(open: impl Fn(Caps) -> (S, A)) {
    let (store, _alive) = open(Caps::default());
    let device = device(1, 0);
    register(&store, &device, 1).await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    let checkpoint = Checkpoint { archive_store_id: [1; 16], seq: 1 };
    let errors = [
        store.register(registration(&device, 2)).await.unwrap_err(),
        store.unregister(&device, 2, START).await.unwrap_err(),
        store.forget(&device, None, START).await.unwrap_err(),
        store.claim(vec![claim_key(b"message", &device)], START).await.unwrap_err(),
        store.finish(Vec::new(), None, START).await.unwrap_err(),
        store.set_checkpoint(checkpoint).await.unwrap_err(),
        store.reset_checkpoint(checkpoint).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| matches!(error, StoreError::Closed)), "{errors:?}");
    store.health().unwrap();
}

pub(crate) async fn a_checkpoint_never_sinks<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
    reopen: impl AsyncFn(S, &A) -> S,
) {
    let (mut store, alive) = open(Caps::default());
    assert_eq!(store.checkpoint().await.unwrap(), None);
    let at = |archive, seq| Checkpoint { archive_store_id: [archive; 16], seq };
    for (given, expected) in
        [((1, 5), (1, 5)), ((1, 4), (1, 5)), ((1, 9), (1, 9)), ((2, 3), (2, 3)), ((2, 0), (2, 3))]
    {
        store.set_checkpoint(at(given.0, given.1)).await.unwrap();
        assert_eq!(store.checkpoint().await.unwrap(), Some(at(expected.0, expected.1)));
        store = reopen(store, &alive).await;
        assert_eq!(store.checkpoint().await.unwrap(), Some(at(expected.0, expected.1)));
    }
    // Unless somebody says so.
    store.reset_checkpoint(at(2, 0)).await.unwrap();
    store = reopen(store, &alive).await;
    assert_eq!(store.checkpoint().await.unwrap(), Some(at(2, 0)));
    store.set_checkpoint(at(2, 1)).await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap(), Some(at(2, 1)));
}

/// An operator forgets what was last heard of long ago: its version is kept as long as any that is forgotten now.
pub(crate) async fn what_is_forgotten_now_is_no_old_version<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    const YEAR_S: u64 = 365 * 24 * 60 * 60;
    let (store, _alive) = open(Caps::default());
    let device = device(1, 0);
    register(&store, &device, 7).await;
    let now = START + 2 * YEAR_S;
    assert_eq!(store.forget(&device, None, now).await.unwrap(), Some(OwnerState { registrations: 0 }));
    let retention = Retention { tombstones_before_unix_s: now - YEAR_S, ..Retention::default() };
    assert_eq!(store.expire(&retention, 10).await.unwrap().tombstones, 0);
    assert_eq!(register(&store, &device, 7).await, Registered::VersionMismatch { stored: 7 });
}

pub(crate) async fn claims_are_looked_at_without_being_taken<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
) {
    let (store, _alive) = open(Caps::default());
    let keys = [b"a", b"b", b"c", b"d"].map(|message| claim_key(message, &device(1, 0))).to_vec();
    assert_eq!(store.claims(keys.clone()).await.unwrap(), [None; 4]);
    store.claim(keys[..3].to_vec(), START).await.unwrap();
    let ends = vec![(keys[0].clone(), ClaimEnd::Sent), (keys[1].clone(), ClaimEnd::Unknown)];
    store.finish(ends, None, START).await.unwrap();
    let expected = [Some(Claim::Sent), Some(Claim::Unknown), Some(Claim::Open), None];
    assert_eq!(store.claims(keys.clone()).await.unwrap(), expected);
    assert_eq!(store.claim(keys[3..].to_vec(), START).await.unwrap(), [Claim::Won]);
}

pub(crate) async fn open_claims_are_unknown_after_a_restart<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
    reopen: impl AsyncFn(S, &A) -> S,
) {
    let (store, alive) = open(Caps::default());
    let [sent, refused, left] = [0, 1, 2].map(|number| claim_key(b"message", &device(1, number)));
    let keys = vec![sent.clone(), refused.clone(), left.clone()];
    store.claim(keys.clone(), START).await.unwrap();
    let ends = vec![(sent, ClaimEnd::Sent), (refused, ClaimEnd::Refused)];
    store.finish(ends, None, START).await.unwrap();
    let store = reopen(store, &alive).await;
    assert_eq!(store.claim(keys, START + 1).await.unwrap(), [Claim::Sent, Claim::Won, Claim::Unknown]);
    store.finish(vec![(left.clone(), ClaimEnd::Sent)], None, START + 1).await.unwrap();
    assert_eq!(store.claim(vec![left], START + 1).await.unwrap(), [Claim::Unknown]);
}

pub(crate) async fn what_was_stored_outlives_the_store<S: RegistrationStore, A>(
    open: impl Fn(Caps) -> (S, A),
    reopen: impl AsyncFn(S, &A) -> S,
) {
    let (store, alive) = open(Caps::default());
    let [kept, gone] = [device(1, 0), device(1, 1)];
    register(&store, &kept, 1).await;
    register(&store, &gone, 1).await;
    store.unregister(&gone, 2, START).await.unwrap();
    store.finish(Vec::new(), Some((AnswerId([1; 32]), b"answer".to_vec())), START).await.unwrap();
    let before = store.counts().await.unwrap();
    let store = reopen(store, &alive).await;
    assert_eq!(store.registrations(&kept.key).await.unwrap(), [found(&registration(&kept, 1), None)]);
    assert_eq!(store.topic_keys(&kept.key).await.unwrap(), Some(registration(&kept, 1).topic_keys));
    assert_eq!(store.version(&gone).await.unwrap(), Some(2));
    assert_eq!(store.answer(&AnswerId([1; 32])).await.unwrap().as_deref(), Some(b"answer".as_slice()));
    let after = store.counts().await.unwrap();
    assert_eq!(
        (after.registrations, after.tombstones, after.answers),
        (before.registrations, before.tombstones, before.answers)
    );
    store.close().await.unwrap();
    let store = reopen(store, &alive).await;
    assert_eq!(register(&store, &gone, 3).await, done(2));
}
