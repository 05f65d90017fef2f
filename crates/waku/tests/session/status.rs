//! The exchange of Status: in time, late, never, unreadable, twice.

use std::time::Duration;

use bytes::Bytes;
use poste_codec::rlp::Encoder;
use poste_rlpx::{Closed, DisconnectReason};
use poste_waku::{Event, SessionError, mail};
use poste_wire::packet::{Messages, Options, Settings, Status, code};
use poste_wire::{Bloom, Dialect, Packet};
use tokio::time::{Instant, sleep};

use crate::meeting::{PATIENCE, Scripted, envelope, open, options, packet};

const TOLD: Closed = Closed::Disconnected(DisconnectReason::SubprotocolError);

#[tokio::test(start_paused = true)]
async fn without_a_status_the_session_ends_when_patience_does() {
    let (mut peer, connection) = Scripted::sharing(&[Dialect::Waku1]).await;
    let began = Instant::now();
    let error = open(connection).await.unwrap_err();
    assert!(matches!(error, SessionError::Silent), "{error:?}");
    assert_eq!(error.label(), "no_status");
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    assert_eq!(peer.hear_the_end().await, TOLD);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_comes_late_but_within_patience_counts() {
    let (peer, connection) = Scripted::sharing(&[Dialect::Waku1]).await;
    let late = async {
        sleep(PATIENCE - Duration::from_millis(1)).await;
        peer.say(Dialect::Waku1, &Packet::Status(Status::new(options()))).await;
    };
    let (session, ()) = tokio::join!(open(connection), late);
    assert_eq!(session.unwrap().best().unwrap().0, Dialect::Waku1);
}

#[tokio::test(start_paused = true)]
async fn ours_is_said_without_waiting_for_theirs() {
    let (mut peer, connection) = Scripted::sharing(&[Dialect::Waku1]).await;
    let (_, packet) = tokio::join!(open(connection), peer.hear(Dialect::Waku1));
    assert!(matches!(packet, Packet::Status(_)), "{packet:?}");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_cannot_be_read_ends_the_session() {
    let nested = [vec![0xc1; 20], vec![0xc0]].concat();
    let bloom_of_63 = {
        let mut encoder = Encoder::new();
        encoder.list(1).list(2).uint(1).bytes(&[0xff; 63]);
        encoder.finish()
    };
    let waku: [&[u8]; 7] = [
        b"",
        b"\xc1",
        b"\x80",
        &nested,
        &bloom_of_63,
        // [[0, the bits of -1.0]]
        b"\xcb\xca\x80\x88\xbf\xf0\x00\x00\x00\x00\x00\x00",
        // [[2, 2]]
        b"\xc3\xc2\x02\x02",
    ];
    for payload in waku {
        refused(Dialect::Waku1, payload).await;
    }
    // No version, version 5, a filter of one byte, something behind the list, an endless list.
    for payload in [&b"\xc0"[..], b"\xc1\x05", b"\xc3\x06\x80\x01", b"\xc1\x06\x00", b"\xff\xff"] {
        refused(Dialect::Shh6, payload).await;
    }
}

async fn refused(dialect: Dialect, payload: &[u8]) {
    let (mut peer, connection) = Scripted::sharing(&[dialect]).await;
    peer.say_raw(dialect, code::STATUS, Bytes::copy_from_slice(payload)).await;
    let error = open(connection).await.unwrap_err();
    let expected = matches!(error, SessionError::Status { dialect: lane, .. } if lane == dialect);
    assert!(expected, "{payload:02x?}: {error:?}");
    assert_eq!(error.label(), "bad_status");
    assert_eq!(peer.hear_the_end().await, TOLD, "{payload:02x?}");
}

#[tokio::test(start_paused = true)]
async fn any_other_packet_before_status_ends_the_session() {
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let (mut peer, connection) = Scripted::sharing(&[dialect]).await;
        peer.say(dialect, &Packet::Messages(Messages::new(vec![envelope(1)]))).await;
        let error = open(connection).await.unwrap_err();
        let expected =
            matches!(error, SessionError::ExpectedStatus { dialect: lane, code: 1 } if lane == dialect);
        assert!(expected, "{error:?}");
        assert_eq!(error.label(), "expected_status");
        assert_eq!(peer.hear_the_end().await, TOLD);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_status_is_ignored() {
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let (peer, mut session) = Scripted::in_session(dialect).await;
        let before = session.peer(dialect).unwrap().clone();
        let second = Options { bloom: Some(Bloom::EMPTY), pow_requirement: Some(9.0), ..Options::default() };
        peer.say(dialect, &Packet::Status(Status::new(second))).await;
        peer.say_raw(dialect, code::STATUS, &b"\xff"[..]).await;
        for _ in 0..2 {
            let event = session.next().await.unwrap();
            let ignored = matches!(event, Event::Ignored { dialect: lane, code: 0 } if lane == dialect);
            assert!(ignored, "{event:?}");
        }
        assert_eq!(session.peer(dialect).unwrap(), &before);
        let messages = Packet::Messages(Messages::new(vec![envelope(1)]));
        peer.say(dialect, &messages).await;
        assert_eq!(packet(&mut session).await, (dialect, messages));
    }
}

#[tokio::test(start_paused = true)]
async fn four_items_tell_a_plain_go_ethereum() {
    let pow = 0.2f64.to_bits();
    for (items, plain) in [(1, false), (3, false), (4, true), (5, false), (6, false)] {
        let (peer, connection) = Scripted::sharing(&[Dialect::Shh6]).await;
        let mut encoder = Encoder::new();
        encoder.list(items).uint(6);
        for item in 1..items {
            _ = match item {
                1 => encoder.uint(pow),
                2 => encoder.bytes(&[0xff; 64]),
                5 => encoder.list(3).uint(0).uint(0).uint(0),
                _ => encoder.bool(false),
            };
        }
        peer.say_raw(Dialect::Shh6, code::STATUS, encoder.finish()).await;
        let session = open(connection).await.unwrap();
        assert_eq!(session.peer(Dialect::Shh6).unwrap().plain_go_ethereum, plain, "{items} items");
        assert_eq!(mail::ends_by_silence(&session), plain, "{items} items");
        assert_eq!(session.peer(Dialect::Waku1), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_says_nothing_stands_for_the_defaults() {
    let (peer, connection) = Scripted::sharing(&[Dialect::Waku1]).await;
    peer.say_raw(Dialect::Waku1, code::STATUS, &b"\xc0"[..]).await;
    let session = open(connection).await.unwrap();
    let settings = &session.peer(Dialect::Waku1).unwrap().settings;
    assert_eq!(settings, &Settings::of_status(Dialect::Waku1, &Status::default()));
    assert_eq!(settings.pow_requirement, 0.001);
}
