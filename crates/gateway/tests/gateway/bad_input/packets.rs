//! Packets that cannot be read, or that nobody knows.

use poste_codec::rlp::Encoder;
use poste_rlpx::DisconnectReason;
use poste_wire::packet::{Completion, Options, code};
use poste_wire::{Bloom, Dialect, Envelope, Packet};

use crate::envelopes::{TOPIC, envelope, everything};
use crate::peer::{Appearance, Peer};
use crate::raw::Raw;
use crate::witness::Watched;

/// How many packets a peer may send that cannot be read.
const PATIENCE: u64 = 20;

/// Lists in lists, so deep. (Written from the inside: encoders recurse.)
pub(super) fn nested(depth: usize) -> Vec<u8> {
    let mut reversed = vec![0xc0];
    for _ in 0..depth {
        let content = reversed.len();
        if content < 56 {
            reversed.push(0xc0 + content as u8);
            continue;
        }
        let digits = content.to_be_bytes().into_iter().skip_while(|digit| *digit == 0);
        let digits: Vec<u8> = digits.collect();
        reversed.extend(digits.iter().rev());
        reversed.push(0xf7 + digits.len() as u8);
    }
    reversed.reverse();
    reversed
}

/// Sends payloads under a code: none is answered, each is counted, and the connection stays. At the end it is used.
async fn passed_over(watched: &Watched, dialect: Dialect, packets: &[(u8, Vec<u8>)]) {
    assert!(packets.len() as u64 <= PATIENCE);
    let before = watched.stack.metric("undecodable_packets", "");
    let mut peer = Peer::quiet(&watched.stack, dialect).await;
    for (code, payload) in packets {
        peer.say_raw(*code, payload.clone()).await;
    }
    watched.stack.counted("undecodable_packets", "", before + packets.len() as u64).await;
    peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
    peer.page(&everything().with_limit(1)).await;
    peer.assert_nothing_else();
    peer.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rlp_nested_10_000_deep() {
    assert_eq!(nested(2), [0xc2, 0xc1, 0xc0]);
    assert_eq!(nested(56)[..4], [0xf8, 0x38, 0xf7, 0xf6]);
    let watched = Watched::start().await;
    let codes = [
        code::MESSAGES,
        code::BATCH_ACKNOWLEDGED,
        code::MESSAGE_RESPONSE,
        code::MAIL_COMPLETE,
        code::MAIL_REQUEST,
        code::MAIL_MESSAGES,
    ];
    let of =
        |more: &[u8]| -> Vec<_> { codes.iter().chain(more).map(|code| (*code, nested(10_000))).collect() };
    passed_over(&watched, Dialect::Waku1, &of(&[code::STATUS_UPDATE])).await;
    let whisper = [
        code::POW_REQUIREMENT,
        code::BLOOM_FILTER,
        code::RATE_LIMITS,
        code::SYNC_REQUEST,
        code::SYNC_RESPONSE,
    ];
    passed_over(&watched, Dialect::Shh6, &of(&whisper)).await;
    // A whole packet of it.
    passed_over(&watched, Dialect::Waku1, &[(code::MESSAGES, nested(250_000))]).await;
    assert_eq!(watched.stack.metric("mail_requests", "outcome=\"undecodable\""), 2);
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rlp_that_is_not_canonical() {
    let watched = Watched::start().await;
    let good = envelope(TOPIC, 60);
    let expiry = good.expiry().to_be_bytes();
    // An envelope from its encoded items, in a list in a list.
    let list = |items: &[&[u8]]| -> Vec<u8> {
        let body = items.concat();
        let envelope = [&[0xc0 + u8::try_from(body.len()).unwrap()], &body[..]].concat();
        [&[0xc0 + u8::try_from(envelope.len()).unwrap()], &envelope[..]].concat()
    };
    let expiry = [&[0x84], &expiry[..]].concat();
    let (topic, data) = (b"\x84abcd", b"\x83xyz");
    let envelopes = [
        // A leading zero, a needless prefix, zero as a byte, a long form of a short string, five bytes of expiry.
        list(&[&[&[0x85, 0], &expiry[1..]].concat(), b"\x32", topic, data, b"\x01"]),
        list(&[&expiry, b"\x81\x32", topic, data, b"\x01"]),
        list(&[&expiry, b"\x32", topic, data, b"\x00"]),
        list(&[&expiry, b"\x32", topic, b"\xb8\x03xyz", b"\x01"]),
        list(&[&[&[0x85, 1], &expiry[1..]].concat(), b"\x32", topic, data, b"\x01"]),
        // A topic of three bytes and of five, an item less and one more, a list for the data, a nonce of nine bytes.
        list(&[&expiry, b"\x32", b"\x83abc", data, b"\x01"]),
        list(&[&expiry, b"\x32", b"\x85abcde", data, b"\x01"]),
        list(&[&expiry, b"\x32", topic, data]),
        list(&[&expiry, b"\x32", topic, data, b"\x01", b"\x01"]),
        list(&[&expiry, b"\x32", topic, b"\xc1\x01", b"\x01"]),
        list(&[&expiry, b"\x32", topic, data, b"\x89\x01\x01\x01\x01\x01\x01\x01\x01\x01"]),
        // A list that ends too late or too early, something behind it, a long form of a short list, no list.
        [&[0xf8, 0x80][..], good.rlp()].concat(),
        good.rlp()[..good.rlp().len() - 1].to_vec(),
        b"\xc0\xc0".to_vec(),
        b"\xf8\x00".to_vec(),
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x80".to_vec(),
        b"".to_vec(),
    ];
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let packets = envelopes.clone().map(|payload| (code::MESSAGES, payload));
        passed_over(&watched, dialect, &packets).await;
    }
    // One good and one bad: a packet is read whole or not at all.
    let bad = &envelopes[2][1..];
    let mixed = [&[0xf8, u8::try_from(good.rlp().len() + bad.len()).unwrap()], &good.rlp()[..], bad].concat();
    passed_over(&watched, Dialect::Waku1, &[(code::MESSAGES, mixed)]).await;
    let mut peer = Peer::quiet(&watched.stack, Dialect::Waku1).await;
    assert!(!peer.fetch(&everything()).await.contains(&good));
    peer.post_confirmed(std::slice::from_ref(&good)).await;
    assert!(peer.fetch(&everything()).await.contains(&good));
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_read() {
    let watched = Watched::start().await;
    let bloom_of = |length: usize| {
        let mut encoder = Encoder::new();
        encoder.list(2);
        // What could be read of it does not count either.
        encoder.list(2).uint(0).uint(9.0f64.to_bits());
        encoder.list(2).uint(1).bytes(&vec![0xff; length]);
        (code::STATUS_UPDATE, encoder.finish())
    };
    let bare_bloom_of = |length: usize| {
        let mut encoder = Encoder::new();
        encoder.bytes(&vec![0xff; length]);
        (code::BLOOM_FILTER, encoder.finish())
    };
    let bare_pow_of = |pow: f64| {
        let mut encoder = Encoder::new();
        encoder.uint(pow.to_bits());
        (code::POW_REQUIREMENT, encoder.finish())
    };
    let waku: Vec<_> = [0, 1, 63, 65].map(bloom_of).into();
    let mut shh: Vec<_> = [0, 1, 63, 65].map(bare_bloom_of).into();
    shh.extend([f64::NAN, f64::INFINITY, -0.5].map(bare_pow_of));
    for (dialect, packets) in [(Dialect::Waku1, waku), (Dialect::Shh6, shh)] {
        let wants = Options { bloom: Some(Bloom::of_topics([TOPIC])), ..Options::default() };
        let mut peer = Peer::wanting(&watched.stack, dialect, wants).await;
        let before = watched.stack.metric("undecodable_packets", "");
        for (code, payload) in &packets {
            peer.say_raw(*code, payload.clone()).await;
        }
        watched.stack.counted("undecodable_packets", "", before + packets.len() as u64).await;
        let marker = envelope(TOPIC, 10);
        Peer::quiet(&watched.stack, Dialect::Waku1).await.post_confirmed(std::slice::from_ref(&marker)).await;
        peer.relayed_until(&marker).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_sending_what_cannot_be_read_has_to_go() {
    let watched = Watched::start().await;
    for (count, dialect) in [(1, Dialect::Waku1), (2, Dialect::Shh6)] {
        let mut peer = Peer::quiet(&watched.stack, dialect).await;
        for _ in 0..=PATIENCE {
            peer.say_raw(code::MAIL_REQUEST, &b"\xc1\x01"[..]).await;
        }
        peer.expect_disconnect(DisconnectReason::SubprotocolError).await;
        watched.stack.counted("ended_sessions", "reason=\"too_many_undecodable\"", count).await;
        watched.stack.counted("mail_requests", "outcome=\"undecodable\"", count * (PATIENCE + 1)).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_packet_codes() {
    let watched = Watched::start().await;
    let known = |dialect: Dialect, code: u8| match dialect {
        Dialect::Shh6 => matches!(code, 1..=3 | 11 | 12 | 20 | 123..=127),
        _ => matches!(code, 1 | 11 | 12 | 22 | 125..=127),
    };
    let mut count = 0;
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let mut peer = Peer::quiet(&watched.stack, dialect).await;
        for unknown in (0..128).filter(|code| !known(dialect, *code)) {
            peer.say_raw(unknown, vec![0xff; 1000]).await;
            count += 1;
        }
        watched.stack.counted("ignored_packets", "", count).await;
        peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
        peer.assert_nothing_else();
    }
    // Reserved ids of the base protocol are ignored, ids beyond every range are not.
    for (count, id) in [(1, 16 + 128), (2, 1000), (3, u32::MAX)] {
        let mut raw = Raw::in_session(&watched.stack, Dialect::Waku1).await;
        for reserved in 4..16 {
            raw.write_frame(reserved, &[0xff; 10]).await;
        }
        raw.write_frame(id, &[1, 0, 0xc0]).await;
        assert_eq!(raw.read_to_end().await, Some(DisconnectReason::BreachOfProtocol));
        watched.stack.counted("ended_sessions", "reason=\"unknown_message\"", count).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_only_we_send_are_nothing_to_us() {
    let watched = Watched::start().await;
    let appearance =
        Appearance { dialects: vec![Dialect::Shh6, Dialect::Waku1], ..Appearance::quiet(Dialect::Waku1) };
    let mut peer = Peer::appear(&watched.stack, &appearance).await;
    let mail: Vec<Envelope> = (0..3).map(|_| envelope(TOPIC, 10)).collect();
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        peer.say_on(dialect, &Packet::MailMessages(mail.clone())).await;
        let request_id = mail[0].hash();
        let error = "you are wrong".to_owned();
        let end = Completion::Failed { request_id, error };
        peer.say_on(dialect, &Packet::MailComplete(end)).await;
        peer.say_on(dialect, &Packet::BatchAcknowledged(request_id)).await;
    }
    watched.stack.counted("ignored_packets", "", 4).await;
    peer.dialect = Dialect::Waku1;
    assert!(!peer.fetch(&everything()).await.iter().any(|envelope| mail.contains(envelope)));
    watched.end().await;
}
