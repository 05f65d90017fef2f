use std::sync::atomic::Ordering;

use poste_wire::status::{MessageType, TopicName};

use super::*;
use crate::server::tests::client::{Client, INSTALLATION, SERVER, key, seal};
use crate::server::tests::{Event, NOW, Rig};
use crate::server::{Handled, LimitSettings, Rate, Settings, Taken, Unanswered, When};
use crate::store::{Caps, MemoryStore, RegistrationStore};

const MISMATCH: Result<(), ErrorType> = Err(ErrorType::VersionMismatch);
const MALFORMED: Result<(), ErrorType> = Err(ErrorType::MalformedMessage);
const INTERNAL: Result<(), ErrorType> = Err(ErrorType::InternalError);

#[tokio::test]
async fn the_topics_are_joined_before_the_answer_and_left_with_the_last_device() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let topics = vec![client.query_topic().topic(), TopicName::query_as_specified(&client.hash()).topic()];
    let message = client.sealed_registration(&client.registration(1));
    rig.bring_sealed(&message).await;
    {
        let events = rig.world.events.lock();
        assert_eq!(events[0], Event::Joined(topics.clone()));
        assert!(matches!(events[1..], [Event::Published(_)]), "{events:?}");
    }
    let mut second = client.registration(1);
    second.installation_id = "second000-0000-4000-8000-000000000000".replace("second000", "5ec00d00");
    client.read_registration_answers(&rig);
    assert_eq!(client.register(&rig, &second).await, Ok(()));
    assert_eq!(client.register(&rig, &client.unregistration(2)).await, Ok(()));
    assert!(rig.server.wants(topics[0]), "another device is left");
    let mut last = client.unregistration(2);
    last.installation_id = second.installation_id;
    rig.bring_sealed(&client.sealed_registration(&last)).await;
    assert_eq!(rig.world.events.lock()[0], Event::Left(topics.clone()));
    assert!(!rig.server.wants(topics[0]));
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_nothing_else_is() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let first = client.sealed_registration(&client.registration(1));
    assert_eq!(client.send_registration(&rig, &first).await, Ok(()));
    assert_eq!(client.send_registration(&rig, &first).await, Ok(()), "the same bytes");
    // As the deployed client retries: the same version, sealed anew.
    let again = client.sealed(&client.registration(1).write(), [99; 12]);
    assert_eq!(client.send_registration(&rig, &again).await, MISMATCH);

    let rig = rig.restarted().await;
    assert_eq!(client.send_registration(&rig, &first).await, Ok(()));
    let second = client.sealed_registration(&client.registration(2));
    assert_eq!(client.send_registration(&rig, &second).await, Ok(()));
    assert_eq!(client.send_registration(&rig, &first).await, MISMATCH, "it does not stand any more");

    let gone = client.sealed_registration(&client.unregistration(3));
    assert_eq!(client.send_registration(&rig, &gone).await, Ok(()));
    let rig = rig.restarted().await;
    assert_eq!(client.send_registration(&rig, &gone).await, Ok(()));
    assert_eq!(client.send_registration(&rig, &second).await, MISMATCH);
    let gone_again = client.sealed(&client.unregistration(3).write(), [98; 12]);
    assert_eq!(client.send_registration(&rig, &gone_again).await, MISMATCH);
    assert_eq!(client.register(&rig, &client.registration(3)).await, MISMATCH);
    assert_eq!(client.register(&rig, &client.registration(4)).await, Ok(()));
    assert_eq!(client.send_registration(&rig, &gone).await, MISMATCH);
}

/// A crash after the unregistration was remembered, and before it took effect.
#[tokio::test]
async fn an_unregistration_that_did_not_take_effect_is_not_called_done() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    client.register(&rig, &client.registration(1)).await.unwrap();
    let gone = client.sealed_registration(&client.unregistration(2));
    let id = ApplicationMessage::read(gone.clone().into()).unwrap().dedupe_key();
    let remembered = Some((AnswerId(id.0), UNREGISTERED.to_vec()));
    rig.store.finish(Vec::new(), remembered, NOW.as_secs()).await.unwrap();
    let rig = rig.restarted().await;
    assert!(rig.server.wants(client.query_topic().topic()));
    assert_eq!(client.send_registration(&rig, &gone).await, Ok(()));
    assert_eq!(rig.store.find(vec![client.device()]).await.unwrap(), [None]);
}

#[tokio::test]
async fn messages_of_the_past_change_nothing_in_any_order() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    assert_eq!(client.register(&rig, &client.unregistration(3)).await, Ok(()), "of a device never seen");
    for version in [1, 2, 3] {
        assert_eq!(client.register(&rig, &client.registration(version)).await, MISMATCH);
    }
    assert_eq!(rig.store.version(&client.device()).await.unwrap(), Some(3));
    assert!(!rig.server.wants(client.query_topic().topic()));
}

#[tokio::test]
async fn who_passes_on_what_another_sealed_gets_no_answer() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let sealed =
        ApplicationMessage::read(client.sealed_registration(&client.registration(1)).into()).unwrap();
    let passed_on =
        ApplicationMessage::write(MessageType::PushNotificationRegistration, sealed.payload, &key(9));
    assert_eq!(rig.bring_sealed(&passed_on).await, Handled::Unanswered(Unanswered::Unsealed));
    assert!(rig.world.events.lock().is_empty());
}

#[tokio::test]
async fn every_fault_has_its_code() {
    type Alter = fn(&mut PushNotificationRegistration);
    let faults: [(Alter, Result<(), ErrorType>); 15] = [
        (|r| r.version = 0, MALFORMED),
        (|r| r.installation_id.clear(), MALFORMED),
        (|r| r.installation_id = "phone".into(), MALFORMED),
        (|r| r.access_token = "token".into(), MALFORMED),
        (|r| r.grant = Bytes::new(), MALFORMED),
        (|r| r.grant = Bytes::from_static(&[1; 65]), MALFORMED),
        (|r| r.device_token.clear(), MALFORMED),
        (|r| r.device_token = "t".repeat(4097), MALFORMED),
        (|r| r.apn_topic.clear(), MALFORMED),
        (|r| r.muted_chat_list = vec![Bytes::from_static(&[1; 64]); 10_001], MALFORMED),
        (|r| r.token_type = 0, Err(ErrorType::UnsupportedTokenType)),
        (|r| r.token_type = 3, Err(ErrorType::UnsupportedTokenType)),
        (|r| r.token_type = -1, Err(ErrorType::UnsupportedTokenType)),
        (|r| (r.token_type, r.access_token) = (0, String::new()), MALFORMED),
        (|r| (r.version, r.grant) = (1, Bytes::new()), MISMATCH),
    ];
    let rig = Rig::new().await;
    let client = Client::new(1);
    client.register(&rig, &client.registration(1)).await.unwrap();
    for (number, (alter, expected)) in faults.into_iter().enumerate() {
        let mut registration = client.registration(2);
        alter(&mut registration);
        assert_eq!(client.register(&rig, &registration).await, expected, "fault {number}");
    }
    let mut firebase = client.registration(2);
    (firebase.token_type, firebase.apn_topic) = (2, String::new());
    assert_eq!(client.register(&rig, &firebase).await, Ok(()), "only Apple's need a topic");
}

#[tokio::test]
async fn other_texts_name_devices_only_where_that_is_set() {
    let settings = Settings { any_installation_id: true, ..Settings::default() };
    let rig = Rig::with(MemoryStore::default(), settings).await;
    let client = Client::new(1);
    let mut registration = client.registration(1);
    for (text, expected) in
        [("", MALFORMED), (&"p".repeat(129)[..], MALFORMED), (&"p".repeat(128), Ok(())), ("phone", Ok(()))]
    {
        registration.installation_id = text.into();
        assert_eq!(client.register(&rig, &registration).await, expected, "{text}");
    }
}

#[tokio::test]
async fn one_key_has_so_many_devices() {
    let caps = Caps { registrations: 5, devices: 8, ..Caps::default() };
    let limits = LimitSettings { registrations: Rate::UNLIMITED, ..LimitSettings::default() };
    let rig = Rig::with(MemoryStore::new(caps), Settings { limits, ..Settings::default() }).await;
    let client = Client::new(1);
    let mut registration = client.registration(1);
    let mut answers = Vec::new();
    let when = When { made_at: NOW, now: NOW };
    for device in 0..1000 {
        registration.installation_id = format!("{device:08}{}", &INSTALLATION[8..]);
        let message = ApplicationMessage::read(client.sealed_registration(&registration).into()).unwrap();
        let answer = rig.server.registration(message, when, &mut Taken::default()).await.unwrap();
        answers.push(PushNotificationRegistrationResponse::read(answer).unwrap().success);
    }
    assert!(answers[..5].iter().all(|is_success| *is_success));
    assert!(answers[5..].iter().all(|is_success| !is_success));
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (5, 0));
}

#[tokio::test]
async fn nothing_is_stored_where_the_topics_cannot_be_joined() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    rig.world.is_feed_away.store(true, Ordering::Relaxed);
    assert_eq!(client.register(&rig, &client.registration(1)).await, INTERNAL);
    assert_eq!(rig.store.version(&client.device()).await.unwrap(), None);
    rig.world.is_feed_away.store(false, Ordering::Relaxed);
    assert_eq!(client.register(&rig, &client.registration(1)).await, Ok(()), "the same message, later");
}

#[tokio::test]
async fn a_registration_waits_for_a_store_that_is_away_and_leaves_no_topic() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let message = client.sealed_registration(&client.registration(1));
    rig.store.close().await.unwrap();
    assert_eq!(rig.bring_sealed(&message).await, Handled::Unanswered(Unanswered::StoreFailed));
    assert!(!rig.server.wants(client.query_topic().topic()));
    rig.store.restart();
    assert_eq!(client.send_registration(&rig, &message).await, Ok(()));
}

#[tokio::test]
async fn a_crowd_of_new_owners_is_turned_away_in_part() {
    let settings = Settings { derivations: 1, waiting_derivations: 1, ..Settings::default() };
    let rig = Rig::with(MemoryStore::default(), settings).await;
    let messages: Vec<_> =
        // Keys that no other test has derived: that takes its time.
        (150..155).map(Client::new).map(|client| client.sealed_registration(&client.registration(1))).collect();
    futures::future::join_all(messages.iter().map(|message| rig.bring_sealed(message))).await;
    assert_eq!(rig.world.take_answers().len(), 5, "all of them are told");
    assert_eq!(rig.store.counts().await.unwrap().registrations, 2);
    // A device more of a known owner derives nothing.
    let known = Client::new(150);
    let mut second = known.registration(1);
    second.installation_id = format!("00000000{}", &INSTALLATION[8..]);
    assert_eq!(known.register(&rig, &second).await, Ok(()));
}

/// Two devices of one owner, and the owner's last leave, side by side.
#[tokio::test]
async fn changes_of_one_owner_do_not_overtake_each_other() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    for round in 0..4 {
        let mut other = client.registration(round + 1);
        other.installation_id = format!("00000000{}", &INSTALLATION[8..]);
        let mut other_gone = client.unregistration(round + 1);
        other_gone.installation_id = format!("00000001{}", &INSTALLATION[8..]);
        let messages =
            [client.registration(2 * round + 1), other, other_gone, client.unregistration(2 * round + 2)];
        let messages = messages.map(|registration| seal(&client.sealed_registration(&registration)));
        let topic = TopicName::partitioned(&SERVER.public()).topic();
        let handled = futures::future::join_all(messages.map(|data| rig.bring(topic, data, NOW))).await;
        assert!(handled.iter().all(Result::is_ok));
        let is_registered = rig.store.counts().await.unwrap().registrations > 0;
        assert_eq!(rig.server.wants(client.query_topic().topic()), is_registered);
    }
}

#[tokio::test]
async fn an_owner_is_forgotten_and_stays_so() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    client.register(&rig, &client.registration(5)).await.unwrap();
    assert_eq!(rig.server.forget_owner(&client.hash(), NOW).await.unwrap(), 1);
    assert!(!rig.server.wants(client.query_topic().topic()));
    assert_eq!(client.register(&rig, &client.registration(5)).await, MISMATCH, "not even the same message");
    assert_eq!(client.register(&rig, &client.registration(6)).await, Ok(()));
    assert!(rig.server.forget_device(&client.device(), NOW).await.unwrap());
    assert!(!rig.server.forget_device(&client.device(), NOW).await.unwrap());

    client.register(&rig, &client.registration(7)).await.unwrap();
    let retention =
        crate::store::Retention { registrations_before_unix_s: NOW.as_secs() + 1, ..Default::default() };
    assert_eq!(rig.server.expire(&retention, 100).await.unwrap().registrations, [client.device()]);
    assert!(!rig.server.wants(client.query_topic().topic()));
}

/// Of what nobody knows: only what is stored is remembered, or anybody could fill the disk with it.
#[tokio::test]
async fn an_unregistration_for_which_there_is_no_room_leaves_nothing() {
    let caps = Caps { all_tombstones: 1, ..Caps::default() };
    let rig = Rig::with(MemoryStore::new(caps), Settings::default()).await;
    let (first, second) = (Client::new(1), Client::new(2));
    for _ in 0..2 {
        assert_eq!(first.register(&rig, &first.unregistration(1)).await, Ok(()), "also when it comes again");
        assert_eq!(second.register(&rig, &second.unregistration(1)).await, Err(ErrorType::InternalError));
    }
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.tombstones, counts.answers), (1, 1));
}
