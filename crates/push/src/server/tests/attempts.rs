//! Messages that take several attempts, because a gateway or the store is away for a while.

use poste_provider::Refused;
use poste_wire::status::proto::PushNotification;
use poste_wire::status::{Reassembly, Segment, frame};

use super::client::key;
use super::limits::{UNLIMITED, rate};
use super::*;

/// Opens what was brought, which has to be the last segment if there are several.
async fn open(rig: &Rig, pieces: &[Vec<u8>]) -> Opened {
    let mut last = Err(Unanswered::NoMessage);
    for piece in pieces {
        let position = rig.position.fetch_add(1, Ordering::Relaxed);
        let data = client::seal(piece).into();
        let incoming = Incoming { topic: client::partitioned(), data, made_at: NOW, position };
        last = rig.server.open(incoming, NOW).await;
    }
    last.unwrap()
}

fn gateway_is_away(rig: &Rig, is_away: bool) {
    rig.world.is_gateway_away.store(is_away, Ordering::Relaxed);
}

fn pieces_of(message: Vec<u8>) -> Vec<Vec<u8>> {
    split(message, 100).into_iter().map(|piece| piece.to_vec()).collect()
}

#[tokio::test]
async fn a_message_in_segments_whose_answer_was_not_published_is_answered_later() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let pieces = pieces_of(client.sealed_registration(&client.registration(1)));
    assert!(pieces.len() > 2);
    let mut opened = open(&rig, &pieces).await;
    assert_eq!(opened.kind(), Some(AnswerKind::Registration));
    gateway_is_away(&rig, true);
    for _ in 0..3 {
        assert!(rig.server.answer(&mut opened, NOW).await.is_err());
        assert_eq!(rig.server.checkpoint(100, NOW), 0, "a restart needs all segments");
    }
    gateway_is_away(&rig, false);
    assert_eq!(rig.server.answer(&mut opened, NOW).await, Ok(Handled::Answered(AnswerKind::Registration)));
    assert_eq!(client.read_registration_answers(&rig), [Ok(())]);
    assert_eq!(rig.server.checkpoint(100, NOW), 100);
}

#[tokio::test]
async fn what_is_in_segments_and_no_message_holds_up_nothing() {
    let rig = Rig::new().await;
    let mut handled = Vec::new();
    for piece in pieces_of(vec![0xff; 250]) {
        handled.push(rig.bring_sealed(&piece).await);
    }
    assert_eq!(handled.last(), Some(&Handled::Unanswered(Unanswered::NoMessage)));
    assert_eq!(rig.server.checkpoint(100, NOW), 100);
}

/// A device rings once, and the sender hears what was true when it did.
#[tokio::test]
async fn a_request_is_carried_out_by_the_first_attempt_only() {
    let rig = Rig::new().await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    *rig.world.outcome.lock() = Outcome::Refused(Refused::Unreachable);
    let mut opened = open(&rig, &[sender.request(b"id", &[receiver.notification()])]).await;
    gateway_is_away(&rig, true);
    for _ in 0..3 {
        assert!(rig.server.answer(&mut opened, NOW).await.is_err());
    }
    gateway_is_away(&rig, false);
    assert_eq!(rig.server.answer(&mut opened, NOW).await, Ok(Handled::Answered(AnswerKind::Request)));
    assert!(!sender.read_reports(&rig, b"id")[0].success);
    assert_eq!(rig.world.sent_count(), 1);
}

/// A gateway that is away for an hour: the answer is owed all the same, and who comes after is served.
#[tokio::test]
async fn a_query_takes_one_token_however_often_it_is_tried() {
    let limits = LimitSettings { queries: rate(2), ..UNLIMITED };
    let rig = Rig::with(MemoryStore::default(), Settings { limits, ..Settings::default() }).await;
    let (owner, asker) = (Client::new(1), Client::new(2));
    owner.register(&rig, &owner.long_registration(1)).await.unwrap();
    let topic = owner.query_topic();
    let data = client::seal_symmetric(&topic, &asker.query_message(&[&owner])).into();
    let incoming = Incoming { topic: topic.topic(), data, made_at: NOW, position: 1 };
    let mut opened = rig.server.open(incoming, NOW).await.unwrap();
    gateway_is_away(&rig, true);
    for _ in 0..10 {
        assert!(rig.server.answer(&mut opened, NOW).await.is_err());
    }
    gateway_is_away(&rig, false);
    assert_eq!(rig.server.answer(&mut opened, NOW).await, Ok(Handled::Answered(AnswerKind::Query)));
    rig.world.take_answers();
    assert_eq!(asker.query(&rig, &topic, &[&owner]).await.unwrap().len(), 1);
    let too_fast = Err(Handled::Unanswered(Unanswered::TooFast));
    assert_eq!(asker.query(&rig, &topic, &[&owner]).await, too_fast);
}

/// So does a registration while the store is away.
#[tokio::test]
async fn a_registration_takes_one_token_however_often_it_is_tried() {
    let limits = LimitSettings { registrations: rate(1), new_owners: rate(1), ..UNLIMITED };
    let rig = Rig::with(MemoryStore::default(), Settings { limits, ..Settings::default() }).await;
    let client = Client::new(1);
    let mut opened = open(&rig, &[client.sealed_registration(&client.registration(1))]).await;
    rig.store.close().await.unwrap();
    for _ in 0..10 {
        let handled = rig.server.answer(&mut opened, NOW).await.unwrap();
        assert!(!handled.is_final());
    }
    rig.store.restart();
    assert_eq!(rig.server.answer(&mut opened, NOW).await, Ok(Handled::Answered(AnswerKind::Registration)));
    assert_eq!(client.read_registration_answers(&rig), [Ok(())]);
}

/// A gateway takes the first frame and no other for a while.
#[tokio::test]
async fn a_frame_that_went_out_does_not_go_out_again() {
    let rig = Rig::new().await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    let nobodys = PushNotification { public_key: vec![7; 128].into(), ..receiver.notification() };
    let requests = vec![nobodys; 1000];
    let pieces = split(sender.request(b"id", &requests), segment::SEGMENT_LENGTH);
    let mut opened = open(&rig, &pieces.iter().map(|piece| piece.to_vec()).collect::<Vec<_>>()).await;
    rig.world.takes_frames.store(1, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(rig.server.answer(&mut opened, NOW).await.is_err());
    }
    rig.world.takes_frames.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(rig.server.answer(&mut opened, NOW).await, Ok(Handled::Answered(AnswerKind::Request)));

    let mut reassembly = Reassembly::new(ReassemblyBounds::default());
    let mut accepted = Vec::new();
    for data in rig.world.take_answers().iter().flat_map(|answer| &answer.frames) {
        let piece = frame::open_asymmetric(&key(2), data).unwrap();
        accepted.push(reassembly.accept(Segment::read(&piece).unwrap(), 0, 0));
    }
    let [segment::Accepted::Kept, segment::Accepted::Complete(whole)] = &accepted[..] else {
        panic!("each piece once: {accepted:?}");
    };
    assert!(ApplicationMessage::read(whole.clone()).is_ok());
}
