//! Peers that breach the protocol after Hello.

use super::*;

/// What a scripted peer sends, and what it gets for it.
async fn refused(bytes: impl FnOnce(&mut Peer) -> BytesMut, reason: DisconnectReason) -> Closed {
    let (mut peer, mut receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
    let bytes = bytes(&mut peer);
    let (closed, ()) = tokio::join!(receiver.next(), async {
        // Our side may stop reading before everything is written.
        let _ = peer.send_bytes(&bytes).await;
        peer.expect_disconnect(reason).await;
        drop(peer);
    });
    let closed = closed.unwrap_err();
    assert_eq!(closed.reason(), Some(reason));
    assert_eq!(sender.closed().await, closed);
    closed
}

fn frame(peer: &mut Peer, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    peer.0.encoder.encode_body(body, &mut out);
    out
}

#[tokio::test]
async fn a_header_of_16_mib_is_refused_before_its_body() {
    let promise = |peer: &mut Peer| {
        let mut out = BytesMut::new();
        peer.0.encoder.encode_promise(MAX_BODY_SIZE, &mut out);
        out
    };
    let closed = refused(promise, DisconnectReason::SubprotocolError).await;
    let limit = Limits::default().frame_body();
    assert_eq!(closed, Breach::TooLarge { size: MAX_BODY_SIZE, limit }.into());
}

#[tokio::test]
async fn a_snappy_bomb_is_refused_by_its_declared_length() {
    let bomb = |peer: &mut Peer| {
        let mut out = BytesMut::new();
        assert!(peer.0.encoder.encode(17, &vec![0; 10 << 20], &mut out));
        assert!(out.len() < Limits::default().frame_body());
        out
    };
    let closed = refused(bomb, DisconnectReason::SubprotocolError).await;
    assert_eq!(closed, Breach::TooLarge { size: 10 << 20, limit: 1 << 20 }.into());
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let (mut peer, mut receiver, _sender) = Peer::connected(&Limits::default(), 4096).await;
    let exact: Bytes = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    tokio::join!(
        async {
            peer.send(17, &exact).await;
            peer.send(17, &[&exact[..], &[0]].concat()).await;
            peer.expect_disconnect(DisconnectReason::SubprotocolError).await;
            drop(peer);
        },
        async {
            assert_eq!(receiver.next().await.unwrap().payload, exact);
            let breach = Breach::TooLarge { size: (1 << 20) + 1, limit: 1 << 20 };
            assert_eq!(receiver.next().await, Err(breach.into()));
        }
    );
}

#[tokio::test]
async fn a_payload_that_is_no_snappy_is_refused() {
    for body in [&[17, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[17, 10, 0, 1], &[17]] {
        let closed = refused(|peer| frame(peer, body), DisconnectReason::BreachOfProtocol).await;
        assert_eq!(closed, Breach::Snappy.into());
    }
}

#[tokio::test]
async fn an_id_beyond_all_ranges_is_refused() {
    for (body, id) in
        [(&[0x81, 144, 0][..], 144), (&[0x82, 1, 15, 0], 271), (&[0x84, 255, 255, 255, 255], u32::MAX)]
    {
        let closed = refused(|peer| frame(peer, body), DisconnectReason::BreachOfProtocol).await;
        assert_eq!(closed, Breach::UnknownMessage { id }.into());
    }
    for body in [&[][..], &[0xc0], &[0x81, 17], &[0x82, 0, 17], &[0x85, 1, 1, 1, 1, 1], &[0xb8]] {
        let closed = refused(|peer| frame(peer, body), DisconnectReason::BreachOfProtocol).await;
        assert_eq!(closed, Breach::MessageId.into(), "{body:02x?}");
    }
}

#[tokio::test]
async fn a_wrong_mac_closes_without_a_word() {
    for at in [0, 5, 16, 31, 32, 47, 48, 63] {
        let (mut peer, mut receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
        let mut bytes = frame(&mut peer, &[17, 1, 0, 7]);
        bytes[at] ^= 0x80;
        peer.send_bytes(&bytes).await.unwrap();
        assert_eq!(receiver.next().await, Err(Breach::WrongMac.into()), "byte {at}");
        assert_eq!(sender.closed().await, Breach::WrongMac.into());
        drop(receiver);
        assert_eq!(peer.receive().await, None);
    }
}

#[tokio::test]
async fn garbage_after_hello_closes_without_a_word() {
    let (mut peer, mut receiver, _sender) = Peer::connected(&Limits::default(), 1 << 16).await;
    peer.send_bytes(&vec![0x55; 10_000]).await.unwrap();
    assert_eq!(receiver.next().await, Err(Breach::WrongMac.into()));
}

#[tokio::test]
async fn a_disconnect_is_read_in_every_form() {
    for (body, code) in [
        (&[1, 2, 4, 0xc1, 8][..], 8),
        (&[1, 1, 0, 8], 8),
        (&[1, 1, 0, 0xc0], 0),
        (&[1], 0),
        (&[1, 0xc1, 4], 4),
        (&[1, 5], 5),
        (&[1, 0xff, 0xff, 0xff], 0),
    ] {
        let (mut peer, mut receiver, _sender) = Peer::connected(&Limits::default(), 4096).await;
        let bytes = frame(&mut peer, body);
        peer.send_bytes(&bytes).await.unwrap();
        let reason = DisconnectReason::from_code(code);
        assert_eq!(receiver.next().await, Err(Closed::Disconnected(reason)), "{body:02x?}");
        peer.expect_disconnect(reason).await;
    }
}
