//! Below the packets: handshakes, frames, snappy.

use std::time::Duration;

use poste_rlpx::DisconnectReason;
use poste_rlpx::frame::MAX_BODY_SIZE;
use poste_wire::Dialect;
use poste_wire::packet::code;
use rand::Rng;
use tokio::io::AsyncWriteExt;

use crate::raw::{self, Raw, compress};
use crate::stack::soon;
use crate::witness::Watched;

/// The gateway gives a handshake 5 s.
const HANDSHAKE: Duration = Duration::from_secs(9);
const MESSAGES: u32 = 16 + code::MESSAGES as u32;

/// Writes bytes in place of a handshake: the gateway closes without a word.
async fn closes_on(watched: &Watched, bytes: &[u8], then_leave: bool) {
    let mut stream = raw::connect(&watched.stack).await;
    // The gateway may close before it has read all.
    let _ = soon("the gateway to read", stream.write_all(bytes)).await;
    if then_leave {
        let _ = stream.shutdown().await;
    }
    assert_eq!(raw::read_to_end(stream, HANDSHAKE).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_before_the_handshake() {
    let watched = Watched::start().await;
    let mut random = vec![0; 70_000];
    rand::rng().fill_bytes(&mut random);
    // A size that is too small for EIP-8, one that is the largest, and ECIES that is none behind either.
    let mut largest = random.clone();
    largest[..3].copy_from_slice(&[0xff, 0xff, 0x04]);
    let http = [b"GET / HTTP/1.1\r\nHost: ".as_slice(), &[b'x'; 400], b"\r\n\r\n"].concat();
    let garbage =
        [&[0; 307][..], &[0xff; 307], &largest, &http[..], &[&[1, 100, 4][..], &random[..400]].concat()];
    for bytes in garbage {
        closes_on(&watched, bytes, true).await;
    }
    // Two of them promise more than they send.
    watched.stack.counted("failed_handshakes", "reason=\"handshake\"", 3).await;
    watched.stack.counted("failed_handshakes", "reason=\"eof\"", 2).await;

    closes_on(&watched, &[4; 10], true).await;
    closes_on(&watched, &[], true).await;
    watched.stack.counted("failed_handshakes", "reason=\"eof\"", 4).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_comes_is_not_waited_for() {
    let watched = Watched::start().await;
    tokio::join!(closes_on(&watched, &[], false), closes_on(&watched, &[4; 306], false), async {
        // The handshake of RLPx and no Hello.
        let raw = Raw::shake_hands(&watched.stack).await;
        assert_eq!(raw.read_to_end().await, None);
    });
    watched.stack.counted("failed_handshakes", "reason=\"handshake_timeout\"", 3).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_place_of_hello() {
    let watched = Watched::start().await;
    let mut raw = Raw::shake_hands(&watched.stack).await;
    raw.write(&[0x55; 1000]).await;
    assert_eq!(raw.read_to_end().await, None);
    watched.stack.counted("failed_handshakes", "reason=\"wrong_mac\"", 1).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_mac() {
    let watched = Watched::start().await;
    // A bit of the header, of its MAC, of the body, of its MAC.
    for (count, byte) in [(1, 2), (2, 20), (3, 40), (4, 60)] {
        let mut raw = Raw::in_session(&watched.stack, Dialect::Waku1).await;
        let mut frame = raw.packet(code::MESSAGES, &[0xc0]);
        frame[byte] ^= 1;
        raw.write(&frame).await;
        assert_eq!(raw.read_to_end().await, None, "byte {byte}");
        watched.stack.counted("ended_sessions", "reason=\"wrong_mac\"", count).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_header_that_promises_16_mib() {
    let watched = Watched::start().await;
    let mut raw = Raw::in_session(&watched.stack, Dialect::Waku1).await;
    // The id takes one byte of the body.
    let frame = raw.frame(MESSAGES, &vec![0; MAX_BODY_SIZE - 1]);
    raw.write(&frame[..32]).await;
    assert_eq!(raw.read_to_end().await, Some(DisconnectReason::SubprotocolError));
    watched.stack.counted("ended_sessions", "reason=\"too_large\"", 1).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snappy_bomb() {
    let watched = Watched::start().await;
    let bomb = compress(&vec![0; 15 << 20]);
    assert!(bomb.len() < 1 << 20);
    let promises_4_gib = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let one_byte_more = compress(&vec![0; (1 << 20) + 1]);
    for (count, payload) in [(1, &bomb[..]), (2, &promises_4_gib), (3, &one_byte_more)] {
        let mut raw = Raw::in_session(&watched.stack, Dialect::Waku1).await;
        raw.write_frame(MESSAGES, payload).await;
        assert_eq!(raw.read_to_end().await, Some(DisconnectReason::SubprotocolError));
        watched.stack.counted("ended_sessions", "reason=\"too_large\"", count).await;
    }
    // A length that the rest does not make up, an endless varint, nothing at all.
    for (count, payload) in [(1, &[0xff, 0xff, 0x03, 0, 0x61][..]), (2, &[0xff; 11]), (3, &[])] {
        let mut raw = Raw::in_session(&watched.stack, Dialect::Waku1).await;
        raw.write_frame(MESSAGES, payload).await;
        assert_eq!(raw.read_to_end().await, Some(DisconnectReason::BreachOfProtocol), "{payload:02x?}");
        watched.stack.counted("ended_sessions", "reason=\"snappy\"", count).await;
    }
    watched.end().await;
}
