//! What nobody should send.

use poste_wire::status::proto::SegmentMessage;
use prost::Message;

use super::*;

#[tokio::test]
async fn data_of_every_length_is_dropped() {
    let rig = Rig::new().await;
    for length in (0..400).chain([1000, 100_000]) {
        for topic in rig.server.topics() {
            let handled = rig.bring(topic, vec![length as u8; length], NOW).await;
            assert_eq!(handled, Ok(Handled::Unanswered(Unanswered::NotForUs)), "{length}");
        }
    }
    assert!(rig.world.events.lock().is_empty());
}

#[tokio::test]
async fn what_is_sealed_and_no_message_is_dropped() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    for length in 0..120 {
        let handled = rig.bring_sealed(&vec![length; length.into()]).await;
        assert_eq!(handled, Handled::Unanswered(Unanswered::NoMessage), "{length}");
    }
    let whole = client.request(b"id", &[]);
    for length in 0..whole.len() {
        let handled = rig.bring_sealed(&whole[..length]).await;
        // Without its last field the message is of no kind.
        let is_of_no_kind = handled == Handled::Unanswered(Unanswered::OtherKind);
        assert!(
            is_of_no_kind || handled == Handled::Unanswered(Unanswered::NoMessage),
            "{length}: {handled:?}"
        );
    }
    assert!(rig.world.events.lock().is_empty());
}

#[tokio::test]
async fn blobs_of_every_length_are_discarded() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    for length in 0..200 {
        let blob = vec![length; length.into()];
        let message = ApplicationMessage::write(MessageType::PushNotificationRegistration, blob, &client.key);
        assert_eq!(rig.bring_sealed(&message).await, Handled::Unanswered(Unanswered::Unsealed), "{length}");
    }
    assert!(rig.world.events.lock().is_empty());
}

#[tokio::test]
async fn segments_that_lie_make_no_message_and_spoil_none() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let pieces = split(client.sealed_registration(&client.registration(1)), 100);
    let lie = |at: usize, alter: fn(&mut SegmentMessage)| {
        let mut segment = SegmentMessage::decode(pieces[at].clone()).unwrap();
        alter(&mut segment);
        segment.encode_to_vec()
    };
    let refused = Handled::Unanswered(Unanswered::BadSegment);
    assert_eq!(rig.bring_sealed(&lie(0, |segment| segment.index = 99)).await, refused);
    assert_eq!(rig.bring_sealed(&lie(0, |segment| segment.segments_count = u32::MAX)).await, refused);
    // Another number of segments is another message.
    let more = lie(0, |segment| segment.segments_count += 1);
    assert_eq!(rig.bring_sealed(&more).await, Handled::Unanswered(Unanswered::Segment));
    for piece in &pieces[..pieces.len() - 1] {
        assert_eq!(rig.bring_sealed(piece).await, Handled::Unanswered(Unanswered::Segment));
    }
    let last = pieces.last().unwrap();
    assert_eq!(rig.bring_sealed(last).await, Handled::Answered(AnswerKind::Registration));

    // All there, but not what was promised.
    for at in 0..pieces.len() {
        let other = lie(at, |segment| segment.entire_message_hash = Bytes::from_static(&[9; 32]));
        let expected = if at + 1 == pieces.len() { Unanswered::BadSegment } else { Unanswered::Segment };
        assert_eq!(rig.bring_sealed(&other).await, Handled::Unanswered(expected));
    }
    // A segment on a query topic is nobody's.
    let data = client::seal_symmetric(&client.query_topic(), &pieces[0]);
    assert_eq!(rig.bring(client.query_topic().topic(), data, NOW).await, Ok(refused));
}

#[tokio::test]
async fn queries_beyond_the_bounds_get_no_answer() {
    let rig = Rig::new().await;
    let (owner, asker) = (Client::new(1), Client::new(2));
    owner.register(&rig, &owner.registration(1)).await.unwrap();
    let topic = owner.query_topic();
    let many: Vec<&Client> = std::iter::repeat_n(&owner, 101).collect();
    assert_eq!(asker.query(&rig, &topic, &many[..100]).await.unwrap().len(), 1);
    let unreadable = Err(Handled::Unanswered(Unanswered::Unreadable));
    assert_eq!(asker.query(&rig, &topic, &many).await, unreadable);
    let nothing = Err(Handled::Unanswered(Unanswered::NothingKnown));
    assert_eq!(asker.query(&rig, &topic, &[]).await, nothing);
    assert_eq!(asker.query(&rig, &topic, &[&asker]).await, nothing);
}

/// Contacts-only lists may be long: an answer is bounded, not the sum of what many devices stored.
#[tokio::test]
async fn devices_that_do_not_fit_are_left_out_of_an_answer() {
    let settings = Settings { max_query_answer_bytes: 10_000, ..Settings::default() };
    let rig = Rig::with(MemoryStore::default(), settings).await;
    let client = Client::new(1);
    for device in 0..3 {
        let mut registration = client.registration(1);
        registration.installation_id = format!("0d4f5d4b-3f39-4c0a-8f1e-64ad6f4a2e{device:02x}");
        registration.allow_from_contacts_only = true;
        registration.allowed_key_list = vec![Bytes::from_static(&[1; 64]); 70];
        client.register(&rig, &registration).await.unwrap();
    }
    let info = client.query(&rig, &client.query_topic(), &[&client]).await.unwrap();
    assert_eq!(info.len(), 2);
    assert!(info.iter().all(|info| info.access_token.is_empty() && info.allowed_key_list.len() == 70));
}
