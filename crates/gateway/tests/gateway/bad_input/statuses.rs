//! Status twice, never, too late, unreadable.

use std::time::Duration;

use poste_codec::rlp::Encoder;
use poste_rlpx::DisconnectReason;
use poste_wire::packet::{Options, Status, code};
use poste_wire::{Bloom, Dialect, Packet};
use tokio::time::timeout;

use crate::bad_input::packets::nested;
use crate::envelopes::{TOPIC, envelope};
use crate::peer::{Appearance, Peer};
use crate::raw::Raw;
use crate::witness::Watched;

#[tokio::test(flavor = "multi_thread")]
async fn status_twice() {
    let watched = Watched::start().await;
    for (count, dialect) in [(2, Dialect::Waku1), (4, Dialect::Shh6)] {
        let wants = Options { bloom: Some(Bloom::of_topics([TOPIC])), ..Options::default() };
        let mut peer = Peer::wanting(&watched.stack, dialect, wants).await;
        let nothing = Options { bloom: Some(Bloom::EMPTY), ..Options::default() };
        peer.say(&Packet::Status(Status::new(nothing))).await;
        peer.say_raw(code::STATUS, nested(10_000)).await;
        // It is still relayed what the first one asked for, and confirmed what it posts.
        let marker = envelope(TOPIC, 10);
        Peer::quiet(&watched.stack, Dialect::Waku1).await.post_confirmed(std::slice::from_ref(&marker)).await;
        peer.relayed_until(&marker).await;
        peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
        watched.stack.counted("ignored_packets", "", count).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_never() {
    let watched = Watched::start().await;
    // The gateway waits 10 s for it; meanwhile it sends its own Status, and that is all.
    let mut silent = Raw::say_hello(&watched.stack, Dialect::Waku1).await;
    assert_eq!(silent.read_frame().await.unwrap().0, 16);
    let end = timeout(Duration::from_secs(15), silent.read_to_end_at_leisure()).await;
    assert_eq!(end, Ok(Some(DisconnectReason::SubprotocolError)));
    watched.stack.counted("ended_sessions", "reason=\"no_status\"", 1).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_packet_before_status() {
    let watched = Watched::start().await;
    for (count, dialect) in [(1, Dialect::Waku1), (2, Dialect::Shh6)] {
        let mut peer = Peer::before_status(&watched.stack, &Appearance::quiet(dialect)).await;
        peer.post(&[envelope(TOPIC, 10)]).await;
        peer.expect_disconnect(DisconnectReason::SubprotocolError).await;
        watched.stack.counted("ended_sessions", "reason=\"expected_status\"", count).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_cannot_be_read() {
    let watched = Watched::start().await;
    let bloom_of = |length: usize| {
        let mut encoder = Encoder::new();
        encoder.list(1).list(2).uint(1).bytes(&vec![0xff; length]);
        encoder.finish()
    };
    let pow_of = |pow: f64| {
        let mut encoder = Encoder::new();
        encoder.list(1).list(2).uint(0).uint(pow.to_bits());
        encoder.finish()
    };
    let too_many_topics = {
        let mut encoder = Encoder::new();
        encoder.list(1).list(2).uint(5).list(10_001);
        (0..10_001u32).for_each(|topic| _ = encoder.bytes(&topic.to_be_bytes()));
        encoder.finish()
    };
    let mut waku: Vec<Vec<u8>> = [0, 1, 63, 65].map(bloom_of).into();
    waku.extend([f64::NAN, f64::INFINITY, -1.0].map(pow_of));
    waku.extend([too_many_topics, nested(10_000), vec![], b"\xc0\x00".to_vec(), b"\xf8\x00".to_vec()]);
    let bloom_in_shh = |length: usize| {
        let mut encoder = Encoder::new();
        encoder.list(3).uint(6).uint(0).bytes(&vec![0xff; length]);
        encoder.finish()
    };
    let mut shh: Vec<Vec<u8>> = [1, 63, 65].map(bloom_in_shh).into();
    shh.extend([b"\xc1\x05".to_vec(), b"\xc0".to_vec(), nested(10_000)]);

    let mut count = 0;
    for (dialect, payloads) in [(Dialect::Waku1, waku), (Dialect::Shh6, shh)] {
        for payload in payloads {
            let mut peer = Peer::before_status(&watched.stack, &Appearance::quiet(dialect)).await;
            peer.say_raw(code::STATUS, payload).await;
            peer.expect_disconnect(DisconnectReason::SubprotocolError).await;
            count += 1;
            watched.stack.counted("ended_sessions", "reason=\"bad_status\"", count).await;
        }
    }
    watched.end().await;
}
