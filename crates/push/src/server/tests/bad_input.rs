//! What nobody should send.

use poste_wire::status::PushMessage;
use poste_wire::status::proto::SegmentMessage;
use poste_wire::status::proto::push_notification_registration_response::ErrorType;
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

/// What opens and is cut anywhere, or is anything else: answered, since its signer sealed it, and nothing is stored.
#[tokio::test]
async fn sealed_plaintexts_of_every_length_store_nothing() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let whole = client.registration(1).write();
    for length in 0..whole.len() {
        let cut = client.sealed(&whole[..length], [1; 12]);
        assert!(client.send_registration(&rig, &cut).await.is_err(), "cut at {length}");
        if length % 8 == 0 {
            let other = client.sealed(&vec![length as u8; length], [2; 12]);
            assert!(client.send_registration(&rig, &other).await.is_err(), "{length} times {}", length as u8);
        }
    }
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (0, 0));
    assert!(!rig.server.wants(client.query_topic().topic()));
}

/// The pieces of a registration of 165 kB.
fn long_registration(client: &Client) -> Vec<Bytes> {
    let mut registration = client.registration(1);
    registration.blocked_chat_list = (0..2500).map(|n: u32| n.to_be_bytes().repeat(16).into()).collect();
    let message = client.sealed_registration(&registration);
    assert!(message.len() > 165_000);
    split(message, 40_000)
}

#[tokio::test]
async fn a_long_registration_waits_for_its_last_segment_and_not_for_ever() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let pieces = long_registration(&client);
    for piece in &pieces[1..] {
        assert_eq!(rig.bring_sealed(piece).await, Handled::Unanswered(Unanswered::Segment));
    }
    let later = NOW + Duration::from_secs(3600);
    assert_eq!(rig.server.checkpoint(100, later), 0, "nothing was read since");
    rig.bring(client::partitioned(), &b"anything"[..], later).await.unwrap();
    assert_eq!(rig.server.checkpoint(100, later), 100, "it is given up, and holds up nothing");
    let first = rig.bring(client::partitioned(), client::seal(&pieces[0]), later).await;
    assert_eq!(first, Ok(Handled::Unanswered(Unanswered::Segment)), "the others are gone");
    for piece in &pieces[1..] {
        rig.bring(client::partitioned(), client::seal(piece), later).await.unwrap();
    }
    assert_eq!(client.read_registration_answers(&rig), [Ok(())], "all of them again, and it is whole");
}

/// Segments whose numbers or contents lie, before the honest ones: at worst the message has to come twice.
#[tokio::test]
async fn a_long_registration_outlives_segments_that_lie() {
    let lies: [fn(&mut SegmentMessage); 6] = [
        |segment| segment.index = 4,
        |segment| segment.index = u32::MAX,
        |segment| segment.segments_count = 0,
        |segment| segment.segments_count = 4,
        |segment| segment.segments_count = u32::MAX,
        |segment| segment.payload = Bytes::from(vec![0; 40_000]),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let rig = Rig::new().await;
        let client = Client::new(1);
        let pieces = long_registration(&client);
        let mut segment = SegmentMessage::decode(pieces[0].clone()).unwrap();
        lie(&mut segment);
        rig.bring_sealed(&segment.encode_to_vec()).await;
        for piece in pieces.iter().chain(&pieces) {
            rig.bring_sealed(piece).await;
        }
        let answers = client.read_registration_answers(&rig);
        assert!(!answers.is_empty() && answers.iter().all(Result::is_ok), "lie {number}: {answers:?}");
        assert_eq!(rig.store.counts().await.unwrap().registrations, 1);
    }
}

/// The same message with another signature of the same signer's is the same message.
#[tokio::test]
async fn a_malleated_registration_gets_the_same_answer() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let message = client.sealed_registration(&client.registration(1));
    assert_eq!(client.send_registration(&rig, &message).await, Ok(()));
    assert_eq!(client.send_registration(&rig, &client::malleated(&message)).await, Ok(()), "no mismatch");
    let gone = client.sealed_registration(&client.unregistration(2));
    assert_eq!(client.send_registration(&rig, &client::malleated(&gone)).await, Ok(()));
    assert_eq!(client.send_registration(&rig, &gone).await, Ok(()));
    assert_eq!(rig.store.version(&client.device()).await.unwrap(), Some(2));
}

/// What one signed, signed by another: it is the other's then, who gets the answer and cannot open the registration.
#[tokio::test]
async fn what_is_signed_again_is_the_new_signers() {
    let rig = Rig::new().await;
    let (owner, thief) = (Client::new(1), Client::new(9));
    owner.register(&rig, &owner.registration(1)).await.unwrap();
    let sign_again = |message: Vec<u8>, kind| {
        let payload = ApplicationMessage::read(message.into()).unwrap().payload;
        ApplicationMessage::write(kind, payload, &thief.key)
    };
    let registration = owner.sealed_registration(&owner.registration(2));
    let stolen = sign_again(registration, MessageType::PushNotificationRegistration);
    assert_eq!(rig.bring_sealed(&stolen).await, Handled::Unanswered(Unanswered::Unsealed));
    // Opened and sealed anew: the grant inside is still the owner's.
    let own = thief.sealed(&owner.registration(2).write(), [1; 12]);
    assert_eq!(thief.send_registration(&rig, &own).await, Err(ErrorType::MalformedMessage));
    let request = Client::new(2).request(b"id", &[owner.notification()]);
    let stolen = sign_again(request.clone(), MessageType::PushNotificationRequest);
    assert_eq!(rig.bring_sealed(&request).await, Handled::Answered(AnswerKind::Request));
    Client::new(2).read_reports(&rig, b"id");
    assert_eq!(rig.bring_sealed(&stolen).await, Handled::Answered(AnswerKind::Request));
    assert_eq!(thief.read_reports(&rig, b"id").len(), 1);
    assert_eq!(rig.world.sent_count(), 1, "the message is known all the same");
}

/// Registrations, a query and requests in an order that nobody sent them in, each twice.
#[tokio::test]
async fn what_comes_twice_and_in_any_order_ends_the_same() {
    let client = Client::new(1);
    let registrations: Vec<_> =
        (1..=4).map(|version| client.sealed_registration(&client.registration(version))).collect();
    let gone = client.sealed_registration(&client.unregistration(5));
    let request = Client::new(2).request(b"id", &[client.notification()]);
    let messages: Vec<&Vec<u8>> = registrations.iter().chain([&gone, &request]).collect();
    for turn in 0..messages.len() {
        let rig = Rig::new().await;
        let mut order = messages.clone();
        order.rotate_left(turn);
        for message in order.iter().chain(order.iter().rev()) {
            rig.bring_sealed(message).await;
        }
        assert_eq!(rig.store.version(&client.device()).await.unwrap(), Some(5));
        assert_eq!(rig.store.registrations(&client.hash()).await.unwrap(), []);
        assert!(!rig.server.wants(client.query_topic().topic()));
        assert!(rig.world.sent_count() <= 1);
    }
}
