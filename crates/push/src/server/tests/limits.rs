//! Rates: what is refused for them is told, costs nothing, and goes another time.

use poste_wire::status::proto::push_notification_registration_response::ErrorType;

use super::*;
use crate::server::{LimitSettings, Rate};

const INTERNAL: Result<(), ErrorType> = Err(ErrorType::InternalError);
const SUCCESS: (bool, i32) = (true, 0);
const INTERNAL_ERROR: (bool, i32) = (false, 2);

pub(super) const fn rate(burst: u32) -> Rate {
    Rate { burst, every: Duration::from_secs(10) }
}

pub(super) const UNLIMITED: LimitSettings = LimitSettings {
    registrations: Rate::UNLIMITED,
    new_owners: Rate::UNLIMITED,
    queries: Rate::UNLIMITED,
    notifications: Rate::UNLIMITED,
};

async fn rig(limits: LimitSettings) -> Rig {
    Rig::with(MemoryStore::default(), Settings { limits, ..Settings::default() }).await
}

/// The registration's answer when it is brought at this time.
async fn register_at(rig: &Rig, client: &Client, version: u64, now: Duration) -> Result<(), ErrorType> {
    let message = client.sealed_registration(&client.registration(version));
    rig.bring(client::partitioned(), client::seal(&message), now).await.unwrap();
    client.read_registration_answers(rig).remove(0)
}

#[tokio::test]
async fn who_registers_too_often_is_told_to_come_later() {
    let rig = rig(LimitSettings { registrations: rate(2), ..UNLIMITED }).await;
    let (hasty, other) = (Client::new(1), Client::new(2));
    for version in [1, 2] {
        assert_eq!(register_at(&rig, &hasty, version, NOW).await, Ok(()));
    }
    assert_eq!(register_at(&rig, &hasty, 3, NOW).await, INTERNAL);
    assert_eq!(rig.store.version(&hasty.device()).await.unwrap(), Some(2), "nothing is stored");
    assert_eq!(register_at(&rig, &other, 1, NOW).await, Ok(()), "others do not wait");
    // What changes nothing takes nothing: a stranger cannot use up the owner's by sending old messages.
    for _ in 0..5 {
        assert_eq!(register_at(&rig, &hasty, 2, NOW).await, Ok(()), "the answer that it had");
        assert_eq!(register_at(&rig, &hasty, 1, NOW).await, Err(ErrorType::VersionMismatch));
    }
    assert_eq!(register_at(&rig, &hasty, 3, NOW + Duration::from_secs(10)).await, Ok(()), "the same message");
    assert_eq!(hasty.register(&rig, &hasty.unregistration(4)).await, INTERNAL);
}

#[tokio::test]
async fn a_crowd_of_new_owners_is_let_in_slowly() {
    let rig = rig(LimitSettings { new_owners: rate(2), ..UNLIMITED }).await;
    let [first, second, third] = [1, 2, 3].map(Client::new);
    assert_eq!(register_at(&rig, &first, 1, NOW).await, Ok(()));
    assert_eq!(register_at(&rig, &second, 1, NOW).await, Ok(()));
    assert_eq!(register_at(&rig, &third, 1, NOW).await, INTERNAL);
    assert!(!rig.server.wants(third.query_topic().topic()), "nothing is joined");
    assert_eq!(register_at(&rig, &first, 2, NOW).await, Ok(()), "who is known does not wait");
    assert_eq!(register_at(&rig, &third, 1, NOW + Duration::from_secs(10)).await, Ok(()));
}

/// Whoever takes back what never came with many keys keeps nobody's old registration from staying away.
#[tokio::test]
async fn strangers_take_back_as_much_as_the_store_keeps() {
    let rig = rig(LimitSettings { new_owners: rate(1), ..UNLIMITED }).await;
    for number in 1..=50 {
        let stranger = Client::new(number);
        assert_eq!(stranger.register(&rig, &stranger.unregistration(2)).await, Ok(()), "{number}");
        let late = stranger.registration(1);
        assert_eq!(stranger.register(&rig, &late).await, Err(ErrorType::VersionMismatch), "{number}");
    }
    assert_eq!(rig.store.counts().await.unwrap().tombstones, 50);
}

/// Messages that waited in an archive for weeks are no flood when they are read.
#[tokio::test]
async fn what_was_made_slowly_may_be_read_fast() {
    let rig = rig(LimitSettings { registrations: rate(1), new_owners: rate(1), ..UNLIMITED }).await;
    for number in 1..=4 {
        let client = Client::new(number);
        let message = client.sealed_registration(&client.registration(1));
        let made_at = NOW - Duration::from_secs(600 - 20 * u64::from(number));
        let data = client::seal(&message).into();
        let incoming = Incoming { topic: client::partitioned(), data, made_at, position: number.into() };
        rig.server.handle(incoming, NOW).await.unwrap();
        assert_eq!(client.read_registration_answers(&rig), [Ok(())]);
    }
}

/// Everybody can ask about everybody: whoever does it all day must not keep others from an answer.
#[tokio::test]
async fn who_asks_all_day_silences_nobody() {
    let rig = rig(LimitSettings { queries: rate(1), ..UNLIMITED }).await;
    let (owner, asker) = (Client::new(1), Client::new(2));
    owner.register(&rig, &owner.registration(1)).await.unwrap();
    let topic = owner.query_topic();
    let flood = client::seal_symmetric(&topic, &Client::new(3).query_message(&[&owner]));
    for _ in 0..500 {
        let handled = rig.bring(topic.topic(), flood.clone(), NOW).await;
        assert_eq!(handled, Ok(Handled::Answered(AnswerKind::Query)));
    }
    rig.world.take_answers();
    assert_eq!(asker.query(&rig, &topic, &[&owner]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn so_many_answers_about_an_owner_may_be_long() {
    let rig = rig(LimitSettings { queries: rate(2), ..UNLIMITED }).await;
    let (owner, other, asker) = (Client::new(1), Client::new(2), Client::new(3));
    for client in [&owner, &other] {
        client.register(&rig, &client.long_registration(1)).await.unwrap();
    }
    let topic = owner.query_topic();
    for _ in 0..2 {
        assert_eq!(asker.query(&rig, &topic, &[&owner]).await.unwrap()[0].allowed_key_list.len(), 1100);
    }
    let too_fast = Err(Handled::Unanswered(Unanswered::TooFast));
    assert_eq!(Client::new(4).query(&rig, &topic, &[&owner]).await, too_fast, "whoever asks");
    let info = asker.query(&rig, &other.query_topic(), &[&other]).await.unwrap();
    assert_eq!(info.len(), 1, "others are named");
    let mut short = owner.registration(1);
    short.installation_id = short.installation_id.replace('e', "f");
    owner.register(&rig, &short).await.unwrap();
    let info = asker.query(&rig, &topic, &[&owner]).await.unwrap();
    assert_eq!(info.len(), 1, "the device that takes little room is named all the same");
    assert_eq!(info[0].installation_id, short.installation_id);
    let nobody = Err(Handled::Unanswered(Unanswered::NothingKnown));
    assert_eq!(asker.query(&rig, &topic, &[&asker]).await, nobody);
}

/// One query about a hundred people, on a topic of the asker's own, takes nothing from what they may be asked about.
#[tokio::test]
async fn queries_are_about_owners_of_their_topic() {
    let rig = rig(LimitSettings { queries: rate(1), ..UNLIMITED }).await;
    let (victim, stranger) = (Client::new(1), Client::new(2));
    for client in [&victim, &stranger] {
        client.register(&rig, &client.long_registration(1)).await.unwrap();
    }
    let info = stranger.query(&rig, &stranger.query_topic(), &[&stranger, &victim]).await.unwrap();
    assert_eq!(
        info.iter().map(|info| &info.public_key[..]).collect::<Vec<_>>(),
        [stranger.hash().as_bytes()]
    );
    let nobody = Err(Handled::Unanswered(Unanswered::NothingKnown));
    assert_eq!(stranger.query(&rig, &stranger.query_topic(), &[&victim]).await, nobody);
    assert_eq!(stranger.query(&rig, &victim.query_topic(), &[&victim]).await.unwrap().len(), 1);
}

/// What is sealed to the server may be of every kind, as the specification has it, and is limited by who asks as well.
#[tokio::test]
async fn a_query_that_is_sealed_to_the_server_is_answered() {
    let rig = rig(LimitSettings { queries: rate(1), ..UNLIMITED }).await;
    let (owner, other, asker) = (Client::new(1), Client::new(2), Client::new(3));
    owner.register(&rig, &owner.long_registration(1)).await.unwrap();
    other.register(&rig, &other.registration(1)).await.unwrap();
    let nobody = Client::new(4).query_message(&[&asker]);
    assert_eq!(rig.bring_sealed(&nobody).await, Handled::Unanswered(Unanswered::NothingKnown));
    let query = asker.query_message(&[&owner, &asker, &other]);
    assert_eq!(rig.bring_sealed(&query).await, Handled::Answered(AnswerKind::Query));
    let mut named: Vec<_> =
        asker.read_query_answer(&rig, &query).into_iter().map(|info| info.public_key).collect();
    named.sort();
    let mut expected = [&owner, &other].map(|client| Bytes::copy_from_slice(client.hash().as_bytes()));
    expected.sort();
    assert_eq!(named, expected);
    assert_eq!(rig.bring_sealed(&query).await, Handled::Unanswered(Unanswered::TooFast));
    let query = Client::new(5).query_message(&[&other]);
    assert_eq!(rig.bring_sealed(&query).await, Handled::Answered(AnswerKind::Query), "others may ask");
}

/// A new key costs nothing: who asks with one each time gets no more long answers than all others together.
#[tokio::test]
async fn new_keys_bring_no_more_long_answers() {
    let rig = rig(LimitSettings { queries: rate(2), ..UNLIMITED }).await;
    let owner = Client::new(1);
    owner.register(&rig, &owner.long_registration(1)).await.unwrap();
    let mut handled = Vec::new();
    for number in 10..15 {
        handled.push(rig.bring_sealed(&Client::new(number).query_message(&[&owner])).await);
    }
    let (answered, too_fast) =
        (Handled::Answered(AnswerKind::Query), Handled::Unanswered(Unanswered::TooFast));
    assert_eq!(handled, [answered, answered, too_fast, too_fast, too_fast]);
}

/// Whoever asks for what the receiver does not want, which rings nowhere, uses up nothing that others may send.
#[tokio::test]
async fn who_is_filtered_uses_up_no_notification() {
    let rig = rig(LimitSettings { notifications: rate(2), ..UNLIMITED }).await;
    let receiver = Client::new(1);
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    let mut mention = receiver.notification();
    mention.r#type = 2;
    for (number, id) in [&b"a"[..], b"b", b"c"].into_iter().enumerate() {
        let expected = if number < 2 { SUCCESS } else { INTERNAL_ERROR };
        let sender = Client::new(10 + number as u8);
        assert_eq!(sender.notify(&rig, id, std::slice::from_ref(&mention)).await, [expected], "{number}");
    }
    assert_eq!(rig.world.sent_count(), 0);
    for id in [b"d", b"e"] {
        assert_eq!(Client::new(20).notify(&rig, id, &[receiver.notification()]).await, [SUCCESS]);
    }
    assert_eq!(rig.world.sent_count(), 2);
}

/// Whoever may notify cannot make a telephone ring all day, and the claim stays free.
#[tokio::test]
async fn a_receiver_is_notified_so_often() {
    let rig = rig(LimitSettings { notifications: rate(2), ..UNLIMITED }).await;
    let (receiver, other) = (Client::new(1), Client::new(2));
    for client in [&receiver, &other] {
        client.register(&rig, &client.registration(1)).await.unwrap();
    }
    let requests = [receiver.notification(), other.notification()];
    for (number, id) in [&b"a"[..], b"b", b"c"].into_iter().enumerate() {
        let sender = Client::new(10 + number as u8);
        let expected = if number < 2 { SUCCESS } else { INTERNAL_ERROR };
        assert_eq!(sender.notify(&rig, id, &requests[..1]).await, [expected], "{number}");
    }
    let sender = Client::new(20);
    assert_eq!(sender.notify(&rig, b"d", &requests).await, [INTERNAL_ERROR, SUCCESS], "others are");
    assert_eq!(rig.world.sent_count(), 3);
    // What was sent is still told, and what was not is sent when it is asked for again.
    assert_eq!(Client::new(21).notify(&rig, b"a", &requests[..1]).await, [SUCCESS]);
    let later = NOW + Duration::from_secs(10);
    let again = sender.request(b"c", &requests[..1]);
    rig.bring(client::partitioned(), client::seal(&again), later).await.unwrap();
    assert!(sender.read_reports(&rig, b"c")[0].success);
    assert_eq!(rig.world.sent_count(), 4);
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.open_claims, counts.ended_claims), (0, 4));
}
