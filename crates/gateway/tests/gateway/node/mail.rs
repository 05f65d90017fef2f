//! Mail: pages, their order, their packets in each dialect, and the time between two requests.

use std::time::Duration;

use poste_service::config::HumanDuration;
use poste_wire::mail::{DirectRequest, MailRequest, MailRequestPacket};
use poste_wire::packet::{Completion, code, list_length};
use poste_wire::{Bloom, Cursor, Dialect, Envelope, Hash, Packet, Topic};

use crate::envelopes::{TOPIC, envelope, envelope_at, everything, fresh_key, mail_key, seal, sealed};
use crate::peer::{Appearance, Peer, in_order};
use crate::stack::{NOW, Stack};

const OTHER: Topic = Topic([1, 2, 3, 4]);

fn binary(request: &MailRequest) -> MailRequestPacket {
    MailRequestPacket::Sealed(seal(&request.encode_binary(), mail_key(), Some(&fresh_key())))
}

fn done(completion: &Completion) -> (Hash, Option<Cursor>) {
    match completion {
        Completion::Done { last_hash, cursor, .. } => (*last_hash, *cursor),
        Completion::Failed { error, .. } => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_oldest_first() {
    let stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    // Several a second, posted in no order.
    let posted: Vec<_> = (0..25).map(|n| envelope_at(NOW - (n * 7) % 10, 50, TOPIC, 50)).collect();
    peer.post_confirmed(&posted).await;
    let ordered = in_order(&posted);
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let mut reader = Peer::quiet(&stack, dialect).await;
        let mut request = everything().with_limit(10);
        for (number, expected) in ordered.chunks(10).enumerate() {
            let (page, completion) = reader.page(&request).await;
            assert_eq!(page, expected);
            let (last_hash, cursor) = done(&completion);
            assert_eq!(last_hash, expected.last().unwrap().hash());
            assert_eq!(cursor, (number < 2).then(|| expected.last().unwrap().cursor()));
            request = request.with_cursor(cursor);
        }
    }
    // A last page that is full, and has nothing behind it.
    let (page, completion) = peer.page(&everything().with_limit(25)).await;
    assert_eq!((page.len(), done(&completion).1), (25, None));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_inclusive_and_filters_filter() {
    let stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let posted: Vec<_> =
        (0..20).map(|n| envelope_at(NOW - n, 50, [TOPIC, OTHER][n as usize % 2], 30)).collect();
    peer.post_confirmed(&posted).await;
    let ordered = in_order(&posted);
    let expected = |keep: &dyn Fn(&Envelope) -> bool| -> Vec<_> {
        ordered.iter().filter(|envelope| keep(envelope)).cloned().collect()
    };
    let range = MailRequest::between(NOW - 9, NOW - 3);
    let within = expected(&|e| (NOW - 9..=NOW - 3).contains(&e.sent()));
    assert_eq!((peer.page(&range).await.0, within.len()), (within, 7));
    let one_second = MailRequest::between(NOW - 5, NOW - 5);
    assert_eq!(peer.page(&one_second).await.0, expected(&|e| e.sent() == NOW - 5));

    let of_other = expected(&|e| e.topic() == OTHER);
    assert_eq!(peer.page(&everything().with_topics(vec![OTHER])).await.0, of_other);
    for bloom in [Bloom::of_topics([OTHER]), Bloom::sample(OTHER)] {
        let request = MailRequest { bloom: bloom.as_bytes().to_vec().into(), ..everything() };
        assert_eq!(peer.page(&request).await.0, of_other);
    }
    // Topics win over a bloom filter that holds none of them.
    let both = MailRequest { topics: vec![OTHER], bloom: vec![0; 64].into(), ..everything() };
    assert_eq!(peer.page(&both).await.0, of_other);

    let (page, completion) = peer.page(&MailRequest::between(1, 2)).await;
    assert_eq!((page, done(&completion)), (vec![], (Hash::default(), None)));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_single_envelopes_in_each_dialect() {
    let stack = Stack::start().await;
    let mut poster = Peer::quiet(&stack, Dialect::Waku1).await;
    let posted: Vec<_> = (0..5).map(|_| envelope(TOPIC, 100)).collect();
    poster.post_confirmed(&posted).await;
    let posted = in_order(&posted);
    let list = |envelopes: &[Envelope]| {
        let (_, payload) = Packet::MailMessages(envelopes.to_vec()).encode(Dialect::Waku1).unwrap();
        payload
    };
    let bare = |envelope: &Envelope| envelope.rlp().clone();
    let one_by_one = MailRequest { batch: false, ..everything() };
    let id = Hash([b'f'; 32]);
    let direct = |request| MailRequestPacket::Direct(DirectRequest { id, request });
    let sealed = |request| MailRequestPacket::Sealed(sealed(&request));
    let day = MailRequest::between(NOW - 3600, NOW);
    for (dialect, request, payloads) in [
        (Dialect::Waku1, sealed(everything()), vec![list(&posted)]),
        (Dialect::Shh6, sealed(everything()), vec![list(&posted)]),
        (Dialect::Waku1, direct(everything()), vec![list(&posted)]),
        (Dialect::Shh6, direct(everything()), vec![list(&posted)]),
        (Dialect::Waku1, sealed(one_by_one.clone()), posted.chunks(1).map(list).collect()),
        (Dialect::Shh6, sealed(one_by_one), posted.iter().map(bare).collect()),
        // A batch of one: a list in Waku, the bare envelope in shh/6.
        (Dialect::Waku1, sealed(everything().with_limit(1)), vec![list(&posted[..1])]),
        (Dialect::Shh6, sealed(everything().with_limit(1)), vec![bare(&posted[0])]),
        // go-ethereum's layout: bare envelopes, one a packet, and 125 all the same.
        (Dialect::Shh6, binary(&day), posted.iter().map(bare).collect()),
        (Dialect::Shh6, binary(&day.clone().with_limit(2)), posted[..2].iter().map(bare).collect()),
        (Dialect::Shh6, binary(&day.with_topics(vec![OTHER])), vec![]),
    ] {
        let mut reader = Peer::quiet(&stack, dialect).await;
        let id = reader.ask(request.clone()).await;
        let (packets, completion) = reader.answer(id).await;
        assert!(packets.iter().all(|heard| heard.code == code::MAIL_MESSAGES));
        let came: Vec<_> = packets.into_iter().map(|heard| heard.payload).collect();
        assert_eq!(came, payloads, "{request:?} in {dialect}");
        done(&completion);
        reader.assert_nothing_else();
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_one_string_of_64_or_100_bytes() {
    let stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let posted = in_order(&[envelope(TOPIC, 10), envelope(TOPIC, 10)]);
    peer.post_confirmed(&posted).await;
    let id = Hash(*b"5f0d7c2e9a4b4f1e8d3c6b7a90e1f2d3");
    let direct = |limit| {
        let request = everything().with_limit(limit);
        MailRequestPacket::Direct(DirectRequest { id, request })
    };
    for (limit, cursor) in [(2, None), (1, Some(posted[0].cursor()))] {
        peer.ask(direct(limit)).await;
        let payload = peer
            .hear("packet 125", |heard| (heard.code == code::MAIL_COMPLETE).then(|| heard.payload.clone()))
            .await;
        let last = posted[limit as usize - 1].hash();
        let mut content = [id.0, last.0].concat();
        content.extend(cursor.iter().flat_map(Cursor::to_bytes));
        assert_eq!(payload, [&[0xb8, content.len() as u8][..], &content].concat());
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_larger_than_a_packet_or_a_page_of_the_archive_comes_whole() {
    let stack = Stack::start().await;
    let mut poster = Peer::quiet(&stack, Dialect::Waku1).await;
    let mut posted: Vec<_> = (0..60).map(|_| envelope(TOPIC, 100_000)).collect();
    posted.extend([envelope(TOPIC, 1_000_000), envelope(TOPIC, 1_048_000)]);
    for one in &posted {
        poster.post_confirmed(std::slice::from_ref(one)).await;
    }
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let mut reader = Peer::quiet(&stack, dialect).await;
        let id = reader.ask(MailRequestPacket::Sealed(sealed(&everything()))).await;
        let (packets, completion) = reader.answer(id).await;
        assert_eq!(done(&completion).1, None);
        let mut came = Vec::new();
        for heard in packets {
            let Packet::MailMessages(envelopes) = heard.packet else { panic!("not mail") };
            let bytes = envelopes.iter().map(|envelope| envelope.rlp().len()).sum();
            assert!(list_length(bytes) <= 1 << 20 && heard.payload.len() <= 1 << 20);
            came.extend(envelopes);
        }
        assert_eq!(came, in_order(&posted));
    }
    assert_eq!(stack.metric("mail_envelopes", ""), 2 * posted.len() as u64);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_peer_are_answered_one_after_another() {
    let stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let posted: Vec<_> = (0..10).map(|_| envelope(TOPIC, 1000)).collect();
    peer.post_confirmed(&posted).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(peer.ask(MailRequestPacket::Sealed(sealed(&everything()))).await);
    }
    for id in ids {
        let (packets, completion) = peer.answer(id).await;
        assert_eq!((packets.len(), done(&completion).1), (1, None));
    }
    // The same request again is answered again: nothing in it says that it is old.
    let request = MailRequestPacket::Sealed(sealed(&everything()));
    assert_eq!(peer.page_of(request.clone()).await, peer.page_of(request).await);
    assert_eq!(stack.metric("mail_requests", "outcome=\"delivered\""), 12);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seconds_between_two_requests_of_one_peer() {
    let stack = Stack::with(|config| {
        config.mail_interval = HumanDuration::from_secs(10);
    })
    .await;
    let appearance = Appearance::quiet(Dialect::Waku1);
    let mut peer = Peer::appear(&stack, &appearance).await;
    let ask = || MailRequestPacket::Sealed(sealed(&everything()));
    // What is refused for another reason does not count.
    let wrong = MailRequestPacket::Sealed(sealed(&everything().with_limit(1001)));
    peer.refusal(wrong).await;
    done(&peer.page_of(ask()).await.1);
    assert_eq!(peer.refusal(ask()).await, "rate limit exceeded");
    stack.clock.advance(Duration::from_secs(9));
    assert_eq!(peer.refusal(ask()).await, "rate limit exceeded");
    // Coming back does not help, and others are not concerned.
    peer.leave().await;
    stack.counted_down("peers", 0).await;
    let mut peer = Peer::appear(&stack, &appearance).await;
    assert_eq!(peer.refusal(ask()).await, "rate limit exceeded");
    done(&Peer::quiet(&stack, Dialect::Shh6).await.page_of(ask()).await.1);
    stack.clock.advance(Duration::from_secs(1));
    done(&peer.page_of(ask()).await.1);
    assert_eq!(stack.metric("mail_requests", "outcome=\"rate_limited\""), 3);
    stack.end().await;
}
