//! Requests for mail that are refused, in the words that clients know, and the ones that look refusable and are not.

use bytes::Bytes;
use poste_codec::rlp::Encoder;
use poste_wire::mail::{DirectRequest, MailRequest, MailRequestPacket};
use poste_wire::packet::{Completion, code};
use poste_wire::payload::{self, seal_asymmetric};
use poste_wire::{Cursor, Dialect, Envelope, Hash, SymKey, Topic};

use crate::bad_input::packets::nested;
use crate::envelopes::{
    TOPIC, envelope, envelope_at, everything, fresh_key, mail_key, request_envelope, seal, seal_plaintext,
    sealed,
};
use crate::peer::{Peer, in_order};
use crate::stack::{NOW, Stack};
use crate::witness::Watched;

/// The request in the sealed form, and in the open.
fn both_forms(request: &MailRequest) -> [MailRequestPacket; 2] {
    let id = sealed(request).hash();
    let direct = DirectRequest { id, request: request.clone() };
    [MailRequestPacket::Sealed(sealed(request)), MailRequestPacket::Direct(direct)]
}

fn sealed_payload(payload: &[u8]) -> MailRequestPacket {
    MailRequestPacket::Sealed(seal(payload, mail_key(), Some(&fresh_key())))
}

fn about(topic: Topic) -> MailRequest {
    MailRequest::between(0, NOW + 100).with_topics(vec![topic])
}

/// Each of these is refused with these words, and counted under this outcome; then the same peer is served.
async fn refused(
    watched: &Watched,
    dialect: Dialect,
    outcome: &str,
    requests: impl IntoIterator<Item = (MailRequestPacket, String)>,
) {
    let label = format!("outcome=\"{outcome}\"");
    let mut count = watched.stack.metric("mail_requests", &label);
    let mut peer = Peer::quiet(&watched.stack, dialect).await;
    for (request, text) in requests {
        assert_eq!(peer.refusal(request.clone()).await, text, "{request:?}");
        count += 1;
        assert_eq!(watched.stack.metric("mail_requests", &label), count, "{outcome}");
    }
    let one = envelope(Topic(*b"goes"), 10);
    peer.post_confirmed(std::slice::from_ref(&one)).await;
    assert!(peer.fetch(&about(Topic(*b"goes"))).await.contains(&one));
    peer.assert_nothing_else();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_undecryptable() {
    let watched = Watched::start().await;
    let key = fresh_key();
    let request = everything().encode();
    let other = SymKey::from_bytes([9; 32]).unwrap();
    let good = sealed(&everything());
    let mut altered = good.data().to_vec();
    altered[3] ^= 1;
    let plaintext = payload::build(&request, &[0; 30], Some(&key)).unwrap();
    let to_node = seal_asymmetric(&watched.stack.enode().key, &key, [1; 16], &plaintext);
    let mut envelopes = vec![
        seal(&request, &other, Some(&key)),
        request_envelope(&altered),
        request_envelope(&good.data()[1..]),
        // Deployed waku mailservers do not open these either.
        request_envelope(&to_node),
    ];
    envelopes.extend([0, 1, 12, 27, 28, 1000].map(|length| request_envelope(&vec![7; length])));
    // Opened, but no payload: empty, a size of which the end is missing, a signature that is none.
    envelopes.extend(
        [&[][..], &[3], &[3, 1], &[1, 200, 1, 2], &[4; 60], &[4; 100], &[0xff; 500]]
            .map(|plaintext| seal_plaintext(plaintext, mail_key())),
    );
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let requests = envelopes.iter().map(|envelope| {
            (MailRequestPacket::Sealed(envelope.clone()), "failed to decrypt p2p request".to_owned())
        });
        refused(&watched, dialect, "undecryptable", requests).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_unsigned() {
    let watched = Watched::start().await;
    let text = "check message signature failed: wrong signature of p2p request".to_owned();
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let unsigned = MailRequestPacket::Sealed(seal(&everything().encode(), mail_key(), None));
        refused(&watched, dialect, "unsigned", [(unsigned, text.clone())]).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_the_pow() {
    const MIN_POW: f64 = 0.000_1;
    let watched = Watched::over(Stack::with(|config| config.min_pow = MIN_POW).await).await;
    let weak = (0..)
        .map(|_| sealed(&everything()))
        .map(|good| Envelope::new(good.expiry(), good.ttl(), good.topic(), good.data(), 1))
        .find(|envelope| envelope.pow() < MIN_POW)
        .unwrap();
    let weak = (MailRequestPacket::Sealed(weak), "PoW too low".to_owned());
    refused(&watched, Dialect::Waku1, "low_pow", [weak]).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none() {
    let watched = Watched::start().await;
    let failed = |reason: &str| format!("failed to decode data: {reason}");
    let items = |count: usize| {
        let mut encoder = Encoder::new();
        encoder.list(count);
        (0..count).for_each(|_| _ = encoder.uint(1));
        encoder.finish()
    };
    let mut requests = Vec::new();
    for count in [0, 1, 2, 3, 8, 9, 100] {
        let text = failed(&format!("a request has 4 to 7 items, not {count}"));
        requests.push((sealed_payload(&items(count)), text));
    }
    for length in [0, 1, 7, 9, 71, 73, 75, 77, 112, 115, 117] {
        let text = failed(&format!("a request is an RLP list, or has 8, 72, 76 or 116 bytes, not {length}"));
        requests.push((sealed_payload(&vec![1; length]), text));
    }
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        refused(&watched, dialect, "undecodable", requests.clone()).await;
    }
    // Lists with a list or a string in the wrong place, numbers of five bytes, nested deep, cut off.
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let mut five_bytes = Encoder::new();
    five_bytes.list(7).uint(0).uint(1 << 32).bytes(&[0xff; 64]).list(0).uint(0).bytes(b"").bool(true);
    let mut huge_limit = Encoder::new();
    huge_limit.list(7).uint(0).uint(0).bytes(&[0xff; 64]).list(0).uint(u64::MAX).bytes(b"").bool(true);
    let cut = everything().encode();
    let payloads = [
        items(7),
        five_bytes.finish(),
        huge_limit.finish(),
        nested(10_000),
        cut[..cut.len() - 1].to_vec(),
        [&cut[..], &[0]].concat(),
    ];
    for payload in payloads {
        let text = peer.refusal(sealed_payload(&payload)).await;
        assert!(text.starts_with("failed to decode data: "), "{text}");
    }
    let refusals = watched.stack.metric("mail_requests", "outcome=\"undecodable\"");
    assert_eq!(refusals, 2 * requests.len() as u64 + 6);
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_read_are_not_answered() {
    let watched = Watched::start().await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let payloads: [&[u8]; 5] = [b"", b"\x80", b"\xc0", b"\xc3\x01\x02\x03", b"\xff\xff"];
    for payload in payloads {
        peer.say_raw(code::MAIL_REQUEST, payload.to_vec()).await;
    }
    watched.stack.counted("mail_requests", "outcome=\"undecodable\"", 5).await;
    peer.page(&about(TOPIC)).await;
    peer.assert_nothing_else();
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blooms_of_0_1_63_64_and_65_bytes() {
    let watched = Watched::start().await;
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let of = |length: usize| MailRequest { bloom: vec![0xff; length].into(), ..everything() };
        let wrong = [1, 63, 65, 128].into_iter().flat_map(|length| {
            let text = format!("request is invalid: bloom filter has {length} bytes, not 64");
            both_forms(&of(length)).map(|request| (request, text.clone()))
        });
        refused(&watched, dialect, "bloom_length", wrong).await;
        let text = "request is invalid: bloom filter and topics is empty".to_owned();
        refused(&watched, dialect, "no_filter", both_forms(&of(0)).map(|request| (request, text.clone())))
            .await;

        // 64 bytes are right, and with topics none are needed; a bloom of no bit matches nothing.
        let one = envelope(TOPIC, 10);
        let mut peer = Peer::quiet(&watched.stack, dialect).await;
        peer.post_confirmed(std::slice::from_ref(&one)).await;
        for form in both_forms(&of(64)) {
            assert!(peer.page_of(form).await.0.contains(&one));
        }
        let by_topic = MailRequest { topics: vec![TOPIC], ..of(0) };
        assert!(peer.page(&by_topic).await.0.contains(&one));
        let of_nothing = MailRequest { bloom: vec![0; 64].into(), ..everything() };
        assert_eq!(peer.page(&of_nothing).await.0, []);
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_0_and_huge() {
    let watched = Watched::start().await;
    let text = "request is invalid: limit exceeds the maximum allowed value".to_owned();
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let huge = [1001, 65_536, u32::MAX].into_iter().flat_map(|limit| {
            both_forms(&everything().with_limit(limit)).map(|request| (request, text.clone()))
        });
        refused(&watched, dialect, "limit", huge).await;
    }
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let posted: Vec<_> = (0..1002).map(|_| envelope(TOPIC, 20)).collect();
    peer.post_confirmed(&posted).await;
    let ordered = in_order(&posted);
    for form in both_forms(&about(TOPIC).with_limit(0)) {
        let (page, completion) = peer.page_of(form).await;
        assert_eq!(page, ordered[..1000]);
        let Completion::Done { cursor, last_hash, .. } = completion else { panic!("{completion:?}") };
        assert_eq!((cursor, last_hash), (Some(ordered[999].cursor()), ordered[999].hash()));
        let (rest, completion) = peer.page(&about(TOPIC).with_limit(0).with_cursor(cursor)).await;
        assert_eq!(rest, ordered[1000..]);
        assert!(matches!(completion, Completion::Done { cursor: None, .. }));
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_after_to() {
    let watched = Watched::start().await;
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        for (lower, upper) in [(NOW, NOW - 1), (u32::MAX, 1), (NOW + 61, 0)] {
            let request = MailRequest { lower, upper, ..everything() };
            let [sealed, direct] = both_forms(&request);
            let text = "query range is invalid: lower > upper".to_owned();
            let words = [(sealed, text.clone()), (direct, format!("request is invalid: {text}"))];
            refused(&watched, dialect, "range_inverted", words).await;
        }
        let binary = MailRequest { lower: NOW, upper: NOW - 1, ..everything() }.encode_binary();
        let text = "query range is invalid: lower > upper".to_owned();
        refused(&watched, dialect, "range_inverted", [(sealed_payload(&binary), text)]).await;
        let long = MailRequest::between(NOW - 86_401, NOW).encode_binary();
        let text = "request is invalid: query range is longer than 24 hours".to_owned();
        refused(&watched, dialect, "range_too_long", [(sealed_payload(&long), text)]).await;
    }
    // A range without end reaches a minute beyond now.
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let one = envelope(TOPIC, 10);
    peer.post_confirmed(std::slice::from_ref(&one)).await;
    let open = MailRequest { lower: NOW, upper: 0, ..about(TOPIC) };
    assert_eq!(peer.page(&open).await.0, [one]);
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_every_length() {
    let watched = Watched::start().await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let one = envelope(TOPIC, 10);
    peer.post_confirmed(std::slice::from_ref(&one)).await;
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let of = |length: usize| MailRequest { cursor: vec![1; length].into(), ..everything() };
        let wrong = (0..=100).filter(|length| ![0, 36].contains(length)).flat_map(|length| {
            let text = format!("request is invalid: cursor has {length} bytes, not 36");
            both_forms(&of(length)).map(|request| (request, text.clone()))
        });
        refused(&watched, dialect, "cursor_length", wrong).await;
        for right in [0, 36] {
            for form in both_forms(&of(right)) {
                assert!(peer.page_of(form).await.0.contains(&one), "{right}");
            }
        }
    }
    let long = MailRequest { cursor: vec![1; 100_000].into(), ..everything() };
    for form in both_forms(&long) {
        let text = "request is invalid: cursor has 100000 bytes, not 36";
        assert_eq!(peer.refusal(form).await, text);
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_larger_than_any_has_to_be() {
    let watched = Watched::start().await;
    let text = "request is invalid: it is too large".to_owned();
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let cursor = MailRequest { cursor: vec![1; 500_000].into(), ..everything() };
        let bloom = MailRequest { bloom: vec![1; 500_000].into(), ..everything() };
        let requests = [cursor, bloom];
        let large = requests.iter().flat_map(both_forms).map(|request| (request, text.clone()));
        refused(&watched, dialect, "too_large", large.collect::<Vec<_>>()).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_from_nowhere() {
    let watched = Watched::start().await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let posted: Vec<_> =
        (0..10).map(|number| envelope_at(NOW - 20 + 2 * (number / 2), 50, TOPIC, 10)).collect();
    peer.post_confirmed(&posted).await;
    let ordered = in_order(&posted);
    let mut places = vec![[0; 36], [0xff; 36]];
    for stored in &ordered {
        // Behind it, before it by the hash, and a second that holds nothing.
        for (sent, hash) in [
            (stored.sent(), [0xff; 32]),
            (stored.sent(), [0; 32]),
            (stored.sent() + 1, [7; 32]),
            (stored.sent(), stored.hash().0),
        ] {
            places.push(Cursor { sent, hash: Hash(hash) }.to_bytes());
        }
    }
    for place in places {
        let cursor = Cursor::from(place);
        let behind: Vec<_> = ordered.iter().filter(|stored| stored.cursor() > cursor).cloned().collect();
        let request = MailRequest { cursor: Bytes::copy_from_slice(&place), ..about(TOPIC) };
        for form in both_forms(&request) {
            let (page, completion) = peer.page_of(form).await;
            assert_eq!(page, behind, "{cursor:?}");
            assert!(matches!(completion, Completion::Done { cursor: None, .. }), "{completion:?}");
        }
    }
    // Before the range and behind it: the range counts too.
    let late = about(TOPIC);
    let late = MailRequest { lower: NOW - 15, upper: NOW - 13, ..late };
    let within: Vec<_> =
        ordered.iter().filter(|e| (NOW - 15..=NOW - 13).contains(&e.sent())).cloned().collect();
    assert!(!within.is_empty());
    let from = |sent| late.clone().with_cursor(Some(Cursor { sent, hash: Hash([0; 32]) }));
    assert_eq!(peer.page(&from(0)).await.0, within);
    assert_eq!(peer.page(&from(NOW)).await.0, []);
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_topics() {
    let watched = Watched::start().await;
    let of = |count: u32| {
        let topics: Vec<_> = (0..count).map(|topic| Topic(topic.to_be_bytes())).collect();
        MailRequest { topics, ..everything() }
    };
    let text = "request is invalid: 10001 topics exceed the maximum of 10000".to_owned();
    refused(
        &watched,
        Dialect::Waku1,
        "too_many_topics",
        both_forms(&of(10_001)).map(|request| (request, text.clone())),
    )
    .await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    let one = envelope(Topic(9_999u32.to_be_bytes()), 10);
    peer.post_confirmed(std::slice::from_ref(&one)).await;
    assert_eq!(peer.page(&of(10_000)).await.0, [one]);
    // status-go 0.83 puts zero topics in front and repeats others.
    let repeated = MailRequest { topics: vec![Topic::default(); 10_000], ..everything() };
    assert_eq!(peer.page(&repeated).await.0, []);
    watched.end().await;
}
