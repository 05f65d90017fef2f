use std::sync::atomic::Ordering;

use futures::FutureExt;
use poste_codec::SecretKey;
use poste_provider::{Outcome, PushService, Refused, Unknown};
use poste_wire::status::proto::ApplicationMetadataMessage;
use poste_wire::status::proto::push_notification_registration_response::ErrorType as RegistrationError;
use poste_wire::status::{MessageType, TopicName};
use prost::Message;
use prost::bytes::Bytes;

use super::*;
use crate::answer::AnswerKind;
use crate::server::tests::client::{Client, INSTALLATION, malleated, partitioned, seal};
use crate::server::tests::{NOW, Rig};
use crate::server::{Handled, LimitSettings, Rate, Settings, Unanswered};
use crate::store::{Caps, Claim, MemoryStore, RegistrationStore, TokenType};

const SUCCESS: (bool, i32) = (true, 0);
const UNKNOWN: (bool, i32) = (false, 0);
const WRONG_TOKEN: (bool, i32) = (false, 1);
const INTERNAL_ERROR: (bool, i32) = (false, 2);
const NOT_REGISTERED: (bool, i32) = (false, 3);

/// A server that knows `receiver`, and somebody who asks.
async fn setting() -> (Rig, Client, Client) {
    let rig = Rig::new().await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    (rig, receiver, sender)
}

fn set_outcome(rig: &Rig, outcome: Outcome) {
    *rig.world.outcome.lock() = outcome;
}

#[tokio::test]
async fn the_device_gets_what_its_app_expects() {
    let (rig, receiver, sender) = setting().await;
    assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [SUCCESS]);
    {
        let sent = rig.world.sent.lock();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].token.expose(), "device token");
        assert_eq!(sent[0].service, PushService::Apns { topic: "im.status.ethereum".into() });
        assert_eq!(sent[0].reference.as_bytes(), receiver.hash().as_bytes());
        let names: Vec<_> = sent[0].data.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["encryptedMessage", "chatId", "publicKey"]);
    }
    let row = rig.store.find(vec![receiver.device()]).await.unwrap().remove(0).unwrap();
    assert_eq!(row.reached_unix_s, Some(NOW.as_secs()));
}

#[tokio::test]
async fn each_entry_has_its_own_report_in_its_place() {
    let (rig, receiver, sender) = setting().await;
    let altered = |alter: fn(&mut PushNotification)| {
        let mut asked = receiver.notification();
        alter(&mut asked);
        asked
    };
    let requests = [
        altered(|asked| asked.installation_id = INSTALLATION.to_uppercase()),
        altered(|asked| asked.r#type = 0),
        altered(|asked| asked.access_token = asked.access_token.to_uppercase()),
        altered(|asked| asked.r#type = 2),
        altered(|asked| (asked.r#type, asked.access_token) = (2, String::new())),
        altered(|asked| asked.r#type = 4),
        altered(|asked| asked.public_key = Bytes::from_static(b"short")),
        altered(|asked| asked.installation_id.clear()),
        receiver.notification(),
        altered(|asked| asked.r#type = 3),
    ];
    let reports = sender.notify(&rig, b"id", &requests).await;
    let filtered = SUCCESS;
    let expected = [
        NOT_REGISTERED,
        WRONG_TOKEN,
        filtered,
        WRONG_TOKEN,
        NOT_REGISTERED,
        NOT_REGISTERED,
        SUCCESS,
        SUCCESS,
    ];
    assert_eq!(reports, expected);
    assert_eq!(rig.world.sent_count(), 1, "one device and one message: one notification");
}

#[tokio::test]
async fn a_request_without_entries_is_answered_and_one_without_an_id_is_not() {
    let (rig, receiver, sender) = setting().await;
    assert_eq!(sender.notify(&rig, b"id", &[]).await, []);
    let without = sender.request(b"", &[receiver.notification()]);
    assert_eq!(rig.bring_sealed(&without).await, Handled::Unanswered(Unanswered::NoMessageId));
    let too_many = sender.request(b"id", &vec![PushNotification::default(); 1001]);
    assert_eq!(rig.bring_sealed(&too_many).await, Handled::Unanswered(Unanswered::Unreadable));
    assert_eq!(rig.world.sent_count(), 0);
}

#[tokio::test]
async fn a_request_is_served_once_however_it_is_sent_again() {
    let (rig, receiver, sender) = setting().await;
    let request = sender.request(b"id", &[receiver.notification()]);
    let with_unknown_field = [&request[..], b"\x7a\x01x"].concat();
    for message in [&request, &request, &malleated(&request), &with_unknown_field] {
        assert_eq!(rig.bring_sealed(message).await, Handled::Answered(AnswerKind::Request));
        let reports = sender.read_reports(&rig, b"id");
        assert!(reports.iter().all(|report| report.success) && reports.len() == 1);
    }
    // Another throw-away key, other contents: still the same message to the same device.
    let mut other = receiver.notification();
    other.chat_id = Bytes::new();
    assert_eq!(Client::new(3).notify(&rig, b"id", &[other]).await, [SUCCESS]);
    assert_eq!(rig.world.sent_count(), 1);
    assert_eq!(Client::new(3).notify(&rig, b"other id", &[receiver.notification()]).await, [SUCCESS]);
    assert_eq!(rig.world.sent_count(), 2);
}

/// The token is compared before anything is claimed: a stranger cannot use up a message's notification.
#[tokio::test]
async fn who_has_no_token_claims_nothing() {
    let (rig, receiver, sender) = setting().await;
    let mut guess = receiver.notification();
    guess.access_token = "00000000-0000-4000-8000-000000000000".into();
    assert_eq!(Client::new(3).notify(&rig, b"id", &[guess]).await, [WRONG_TOKEN]);
    let mut filtered = receiver.notification();
    filtered.r#type = 2;
    assert_eq!(Client::new(3).notify(&rig, b"id", &[filtered]).await, [SUCCESS]);
    assert_eq!(rig.world.sent_count(), 0);
    assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [SUCCESS]);
    assert_eq!(rig.world.sent_count(), 1);
}

#[tokio::test]
async fn what_was_refused_is_sent_once_when_it_is_asked_for_again() {
    let (rig, receiver, sender) = setting().await;
    set_outcome(&rig, Outcome::Refused(Refused::Unreachable));
    let requests = [receiver.notification()];
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [INTERNAL_ERROR]);
    set_outcome(&rig, Outcome::Sent);
    for _ in 0..3 {
        assert_eq!(sender.notify(&rig, b"id", &requests).await, [SUCCESS]);
    }
    assert_eq!(rig.world.sent_count(), 2, "the one that was refused, and the one that was sent");
}

#[tokio::test]
async fn what_may_have_been_sent_is_never_tried_again() {
    let (rig, receiver, sender) = setting().await;
    set_outcome(&rig, Outcome::Unknown(Unknown::Timeout));
    let requests = [receiver.notification()];
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [UNKNOWN]);
    set_outcome(&rig, Outcome::Sent);
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [UNKNOWN]);
    assert_eq!(Client::new(3).notify(&rig, b"id", &requests).await, [UNKNOWN]);
    assert_eq!(rig.world.sent_count(), 1);
}

#[tokio::test]
async fn only_the_winner_of_a_claim_answers() {
    let (rig, receiver, sender) = setting().await;
    rig.world.gate.forget_permits(usize::MAX);
    let request = sender.request(b"id", &[receiver.notification()]);
    let mut winner = Box::pin(rig.bring_sealed(&request));
    assert!((&mut winner).now_or_never().is_none());
    while rig.world.sent_count() == 0 {
        assert!(winner.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let in_progress = Handled::Unanswered(Unanswered::InProgress);
    assert_eq!(rig.bring_sealed(&request).await, in_progress);
    assert_eq!(rig.bring_sealed(&malleated(&request)).await, in_progress);
    let other = Client::new(3).request(b"id", &[receiver.notification()]);
    assert_eq!(rig.bring_sealed(&other).await, in_progress);
    rig.world.gate.add_permits(1);
    assert_eq!(winner.await, Handled::Answered(AnswerKind::Request));
    assert_eq!(sender.read_reports(&rig, b"id").len(), 1);
    assert_eq!(rig.bring_sealed(&other).await, Handled::Answered(AnswerKind::Request));
    assert!(Client::new(3).read_reports(&rig, b"id")[0].success, "asked again, it gets the truth");
    assert_eq!(rig.world.sent_count(), 1);
}

/// Of a request for two devices one is being notified for another request.
#[tokio::test]
async fn what_is_in_progress_elsewhere_is_left_out_of_the_answer() {
    let (rig, receiver, sender) = setting().await;
    let other = Client::new(3);
    other.register(&rig, &other.registration(1)).await.unwrap();
    let elsewhere = ClaimKey { message_id: b"id".to_vec(), device: other.device() };
    assert_eq!(rig.store.claim(vec![elsewhere.clone()], NOW.as_secs()).await.unwrap(), [Claim::Won]);
    let requests = [receiver.notification(), other.notification()];
    let request = sender.request(b"id", &requests);
    assert_eq!(rig.bring_sealed(&request).await, Handled::Answered(AnswerKind::Request));
    let reports = sender.read_reports(&rig, b"id");
    assert_eq!((reports.len(), &reports[0].public_key), (1, &requests[0].public_key));
    rig.store.finish(vec![(elsewhere, ClaimEnd::Sent)], None, NOW.as_secs()).await.unwrap();
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [SUCCESS, SUCCESS]);
    assert_eq!(rig.world.sent_count(), 1);
}

/// kill -9 between claim and send, and between send and the end of the claim.
#[tokio::test]
async fn what_a_crash_left_open_is_called_unknown() {
    let (rig, receiver, sender) = setting().await;
    rig.world.gate.forget_permits(usize::MAX);
    let requests = [receiver.notification()];
    let request = sender.request(b"sending", &requests);
    let mut crashed = Box::pin(rig.bring_sealed(&request));
    while rig.world.sent_count() == 0 {
        assert!(crashed.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(crashed);
    let claimed = ClaimKey { message_id: b"claimed".to_vec(), device: receiver.device() };
    assert_eq!(rig.store.claim(vec![claimed], NOW.as_secs()).await.unwrap(), [Claim::Won]);

    let rig = rig.restarted().await;
    assert_eq!(sender.notify(&rig, b"sending", &requests).await, [UNKNOWN]);
    assert_eq!(sender.notify(&rig, b"claimed", &requests).await, [UNKNOWN]);
    assert_eq!(rig.world.sent_count(), 0);
}

/// kill -9, or a gateway that is away, between send and answer.
#[tokio::test]
async fn an_answer_that_was_lost_is_given_again() {
    let (rig, receiver, sender) = setting().await;
    rig.world.is_gateway_away.store(true, Ordering::Relaxed);
    let request = sender.request(b"id", &[receiver.notification()]);
    assert!(rig.bring(partitioned(), seal(&request), NOW).await.is_err());
    assert_eq!(rig.world.sent_count(), 1);
    let rig = rig.restarted().await;
    assert_eq!(rig.bring_sealed(&request).await, Handled::Answered(AnswerKind::Request));
    assert!(sender.read_reports(&rig, b"id")[0].success);
    assert_eq!(rig.world.sent_count(), 0, "not again");
}

#[tokio::test]
async fn requests_of_the_past_are_answered_and_ring_nowhere() {
    let (rig, receiver, sender) = setting().await;
    let requests = [receiver.notification()];
    let bring = |message: Vec<u8>, age_s: u64| {
        let incoming = crate::server::Incoming {
            topic: partitioned(),
            data: seal(&message).into(),
            made_at: NOW - Duration::from_secs(age_s),
            position: 1,
        };
        rig.server.handle(incoming, NOW)
    };
    let old = sender.request(b"id", &requests);
    assert_eq!(bring(old.clone(), 301).await, Ok(Handled::Answered(AnswerKind::Request)));
    let report = sender.read_reports(&rig, b"id").remove(0);
    assert_eq!((report.success, report.error), INTERNAL_ERROR);
    assert_eq!(rig.world.sent_count(), 0);

    // It was surely not sent, so another request for it is as good as any.
    assert_eq!(Client::new(3).notify(&rig, b"id", &requests).await, [SUCCESS]);
    assert_eq!(bring(old, 301).await, Ok(Handled::Answered(AnswerKind::Request)));
    assert!(sender.read_reports(&rig, b"id")[0].success, "it tells what is known");
    assert_eq!(
        bring(sender.request(b"new", &requests), 300).await,
        Ok(Handled::Answered(AnswerKind::Request))
    );
    assert_eq!(rig.world.sent_count(), 2);
}

#[tokio::test]
async fn a_request_waits_for_a_store_that_is_away() {
    let (rig, receiver, sender) = setting().await;
    rig.store.close().await.unwrap();
    let request = sender.request(b"id", &[receiver.notification()]);
    assert_eq!(rig.bring_sealed(&request).await, Handled::Unanswered(Unanswered::StoreFailed));
    assert_eq!(rig.world.sent_count(), 0);
    let rig = rig.restarted().await;
    assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [SUCCESS]);
}

/// What is true of a stranger's request changes; what is not worth a place on disk takes none.
#[tokio::test]
async fn answers_about_unknown_devices_are_not_remembered() {
    let rig = Rig::new().await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    let requests = [receiver.notification()];
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [NOT_REGISTERED]);
    assert_eq!(rig.store.counts().await.unwrap().answers, 0);
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [SUCCESS]);
    assert_eq!(rig.store.counts().await.unwrap().answers, 1);
}

/// The envelope may be signed by anybody; the answer goes to who signed the message inside.
#[tokio::test]
async fn the_answer_goes_to_the_inner_signer() {
    let (rig, receiver, sender) = setting().await;
    let request = sender.request(b"id", &[receiver.notification()]);
    let signed_by = |key: &SecretKey| {
        poste_wire::status::frame::seal_asymmetric(
            &crate::server::tests::client::SERVER.public(),
            &request,
            key,
            |bytes| bytes.fill(1),
        )
    };
    for key in [&sender.key, &Client::new(77).key] {
        rig.bring(partitioned(), signed_by(key).unwrap(), NOW).await.unwrap();
        let answers = rig.world.take_answers();
        assert_eq!(answers[0].topic, TopicName::partitioned(&sender.key.public()).topic());
    }
    let unsigned = ApplicationMetadataMessage {
        signature: Bytes::new(),
        payload: ApplicationMessage::read(request.clone().into()).unwrap().payload,
        r#type: MessageType::PushNotificationRequest.into(),
    };
    let handled = rig.bring_sealed(&unsigned.encode_to_vec()).await;
    assert_eq!(handled, Handled::Unanswered(Unanswered::NoMessage));
}

/// Of what is stored of one owner something is damaged: the others are served, and the request ends.
#[tokio::test]
async fn a_damaged_owner_costs_no_other_anything() {
    let (rig, receiver, sender) = setting().await;
    let damaged = Client::new(3);
    damaged.register(&rig, &damaged.registration(1)).await.unwrap();
    rig.store.damage(damaged.hash());
    let requests = [damaged.notification(), receiver.notification()];
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [UNKNOWN, SUCCESS]);
    assert_eq!(damaged.register(&rig, &damaged.registration(2)).await, Err(RegistrationError::InternalError));
    let outcome = sender.query(&rig, &damaged.query_topic(), &[&damaged]).await;
    assert_eq!(outcome, Err(Handled::Unanswered(Unanswered::Damaged)));
    assert!(Handled::Unanswered(Unanswered::Damaged).is_final());
}

/// One who is blocked and one who is not ask for the same, in every way that tells anything.
#[tokio::test]
async fn nothing_tells_who_is_blocked() {
    let limits = LimitSettings {
        notifications: Rate { burst: 2, every: Duration::from_secs(10) },
        ..LimitSettings::default()
    };
    let settings = || Settings { limits, ..Settings::default() };
    let mut told = Vec::new();
    for is_blocked in [false, true] {
        let rig = Rig::with(MemoryStore::new(Caps::default()), settings()).await;
        let receiver = Client::new(1);
        let mut registration = receiver.registration(1);
        let asked = receiver.notification();
        if is_blocked {
            registration.blocked_chat_list = vec![asked.author.clone()];
        }
        receiver.register(&rig, &registration).await.unwrap();
        let mut reports = Vec::new();
        let ages_s = [0, 301, 0, 0, 0, 301, 400];
        for (number, (id, age_s)) in
            [b"a", b"b", b"a", b"c", b"d", b"a", b"d"].into_iter().zip(ages_s).enumerate()
        {
            let sender = Client::new(10 + number as u8);
            let incoming = crate::server::Incoming {
                topic: partitioned(),
                data: seal(&sender.request(id, std::slice::from_ref(&asked))).into(),
                made_at: NOW - Duration::from_secs(age_s),
                position: 1,
            };
            rig.server.handle(incoming, NOW).await.unwrap();
            let report = sender.read_reports(&rig, id).remove(0);
            let counts = rig.store.counts().await.unwrap();
            // What is held back is claimed twice.
            let ended = if is_blocked { counts.ended_claims / 2 } else { counts.ended_claims };
            reports.push(((report.success, report.error), counts.open_claims, ended));
        }
        assert_eq!(rig.world.sent_count(), if is_blocked { 0 } else { 2 });
        told.push(reports);
    }
    let of_others: Vec<_> = told[0].iter().map(|(report, ..)| *report).collect();
    let expected = [SUCCESS, INTERNAL_ERROR, SUCCESS, SUCCESS, INTERNAL_ERROR, SUCCESS, INTERNAL_ERROR];
    assert_eq!(of_others, expected);
    assert_eq!(told[0], told[1]);
}

/// Nor does it tell when somebody first uses up what may be held back, or has the same message held back for another chat.
#[tokio::test]
async fn what_is_held_back_for_one_chat_tells_nothing_of_another() {
    let limits = LimitSettings {
        notifications: Rate { burst: 2, every: Duration::from_secs(10) },
        ..LimitSettings::default()
    };
    for is_blocked in [false, true] {
        let settings = Settings { limits, ..Settings::default() };
        let rig = Rig::with(MemoryStore::new(Caps::default()), settings).await;
        let (receiver, sender) = (Client::new(1), Client::new(2));
        let mut registration = receiver.registration(1);
        let asked = receiver.notification();
        if is_blocked {
            registration.blocked_chat_list = vec![asked.author.clone()];
        }
        receiver.register(&rig, &registration).await.unwrap();
        for number in 0..9 {
            let mut mention = asked.clone();
            mention.r#type = 2;
            mention.chat_id = vec![number; 64].into();
            assert_eq!(sender.notify(&rig, &[number], &[mention]).await, [SUCCESS]);
        }
        // The last of them were not claimed any more.
        assert_eq!(rig.store.counts().await.unwrap().ended_claims, 4);
        assert_eq!(sender.notify(&rig, &[0], std::slice::from_ref(&asked)).await, [SUCCESS]);
        let later = crate::server::Incoming {
            topic: partitioned(),
            data: seal(&Client::new(8).request(&[0], std::slice::from_ref(&asked))).into(),
            made_at: NOW - Duration::from_secs(400),
            position: 1,
        };
        rig.server.handle(later, NOW).await.unwrap();
        assert!(Client::new(8).read_reports(&rig, &[0]).remove(0).success);
        for (number, expected) in [(20, SUCCESS), (21, INTERNAL_ERROR)] {
            let mut elsewhere = asked.clone();
            elsewhere.chat_id = vec![number; 64].into();
            assert_eq!(sender.notify(&rig, &[number], &[elsewhere]).await, [expected]);
        }
        assert_eq!(rig.world.sent_count(), if is_blocked { 0 } else { 2 });
    }
}

/// Nor does it tell when the provider is away, or when somebody asks again in the name of an author who is not blocked.
#[tokio::test]
async fn neither_outages_nor_other_authors_tell_who_is_blocked() {
    let mut told = Vec::new();
    for is_blocked in [false, true] {
        let (rig, other, sender) = setting().await;
        let receiver = Client::new(7);
        let mut registration = receiver.registration(1);
        let asked = receiver.notification();
        if is_blocked {
            registration.blocked_chat_list = vec![asked.author.clone()];
        }
        receiver.register(&rig, &registration).await.unwrap();
        let mut reports = vec![sender.notify(&rig, b"a", std::slice::from_ref(&asked)).await];
        for outcome in [Outcome::Refused(Refused::Unreachable), Outcome::Unknown(Unknown::Timeout)] {
            set_outcome(&rig, outcome);
            let id = format!("{outcome:?}");
            // His own device tells the sender how the provider does.
            sender.notify(&rig, id.as_bytes(), &[other.notification()]).await;
            reports.push(sender.notify(&rig, id.as_bytes(), std::slice::from_ref(&asked)).await);
        }
        set_outcome(&rig, Outcome::Sent);
        let mut by_another = asked.clone();
        by_another.author = Bytes::from_static(&[9; 64]);
        let incoming = crate::server::Incoming {
            topic: partitioned(),
            data: seal(&Client::new(8).request(b"a", &[by_another])).into(),
            made_at: NOW - Duration::from_secs(400),
            position: 1,
        };
        rig.server.handle(incoming, NOW).await.unwrap();
        let report = Client::new(8).read_reports(&rig, b"a").remove(0);
        reports.push(vec![(report.success, report.error)]);
        told.push(reports);
    }
    assert_eq!(told[0], [[SUCCESS], [INTERNAL_ERROR], [UNKNOWN], [SUCCESS]]);
    assert_eq!(told[0], told[1]);
}

/// Whoever asks again for what was sent does not make the provider look fast.
#[tokio::test]
async fn only_what_the_provider_was_asked_for_tells_how_long_it_takes() {
    let (rig, receiver, _) = setting().await;
    for number in 0..20 {
        let sender = Client::new(10 + number);
        assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [SUCCESS]);
    }
    assert_eq!((rig.world.sent_count(), rig.server.pace.samples(TokenType::Apn)), (1, 1));
}

/// While another device of the same request is being notified, a crash makes nothing unknown that was not sent.
#[tokio::test]
async fn what_is_not_sent_is_not_claimed() {
    let limits = LimitSettings {
        notifications: Rate { burst: 1, every: Duration::from_secs(10) },
        ..LimitSettings::default()
    };
    let store = MemoryStore::new(Caps::default());
    let rig = Rig::with(store, Settings { limits, ..Settings::default() }).await;
    let (first, second, sender) = (Client::new(1), Client::new(2), Client::new(3));
    for client in [&first, &second] {
        client.register(&rig, &client.registration(1)).await.unwrap();
    }
    assert_eq!(sender.notify(&rig, b"one", &[first.notification()]).await, [SUCCESS]);
    rig.world.gate.forget_permits(usize::MAX);
    let request = sender.request(b"two", &[first.notification(), second.notification()]);
    let mut handling = Box::pin(rig.bring_sealed(&request));
    assert!((&mut handling).now_or_never().is_none());
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.open_claims, counts.ended_claims), (1, 1));
}

/// A provider that is away uses up nothing of what a receiver may be notified of.
#[tokio::test]
async fn what_the_provider_refuses_does_not_count() {
    let limits = LimitSettings {
        notifications: Rate { burst: 1, every: Duration::from_secs(10) },
        ..LimitSettings::default()
    };
    let store = MemoryStore::new(Caps::default());
    let rig = Rig::with(store, Settings { limits, ..Settings::default() }).await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    set_outcome(&rig, Outcome::Refused(Refused::Unreachable));
    for _ in 0..5 {
        assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [INTERNAL_ERROR]);
    }
    set_outcome(&rig, Outcome::Sent);
    assert_eq!(sender.notify(&rig, b"id", &[receiver.notification()]).await, [SUCCESS]);
    assert_eq!(rig.world.sent_count(), 6);
    assert_eq!(sender.notify(&rig, b"other", &[receiver.notification()]).await, [INTERNAL_ERROR]);
}
