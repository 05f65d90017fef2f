//! The two handshakes, with peers that fail in them.

use super::*;
use crate::handshake::HandshakeError;

#[tokio::test]
async fn garbage_is_refused() {
    for size in [307, 5000] {
        let (mut near, far) = duplex(8192);
        near.write_all(&vec![0x47; size]).await.unwrap();
        near.shutdown().await.unwrap();
        let error = accept(far, &node(2), &Limits::default()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Eof | ConnectError::Handshake(_)), "{error}");
    }
    let (mut near, far) = duplex(8192);
    near.write_all(&[0; 307]).await.unwrap();
    let error = accept(far, &node(2), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(HandshakeError::NotForUs)));
    assert_eq!((error.label(), error.reason()), ("handshake", None));
}

#[tokio::test]
async fn a_stream_that_ends_early_is_told_apart() {
    let (mut near, far) = duplex(8192);
    near.write_all(&[4; 300]).await.unwrap();
    drop(near);
    assert!(matches!(accept(far, &node(2), &Limits::default()).await.unwrap_err(), ConnectError::Eof));
}

#[tokio::test(start_paused = true)]
async fn both_handshakes_together_have_five_seconds() {
    let start = Instant::now();
    let (near, far) = duplex(8192);
    let error = accept(far, &node(2), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::HandshakeTimeout));
    drop(near);

    let (near, _far) = duplex(8192);
    let error = dial_over(near, &key(2).public(), &node(1), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::HandshakeTimeout));

    let (_peer, incoming) = Peer::dials(&Limits::default(), 8192).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(matches!(incoming.finish().await.unwrap_err(), ConnectError::HandshakeTimeout));
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test]
async fn a_wrong_key_ends_as_eof_for_the_one_who_dialled() {
    let (near, far) = duplex(8192);
    let (remote, dialler, listener, limits) = (key(9).public(), node(1), node(2), Limits::default());
    let (dialled, accepted) =
        tokio::join!(dial_over(near, &remote, &dialler, &limits), accept(far, &listener, &limits));
    assert!(matches!(accepted.unwrap_err(), ConnectError::Handshake(HandshakeError::NotForUs)));
    assert!(matches!(dialled.unwrap_err(), ConnectError::Eof));
}

#[tokio::test]
async fn nobody_connects_to_itself() {
    let (near, far) = duplex(8192);
    let error = dial_over(near, &key(1).public(), &node(1), &Limits::default()).await.unwrap_err();
    assert_eq!(error.reason(), Some(DisconnectReason::ConnectedToSelf));
    drop(far);

    let (near, far) = duplex(8192);
    let (listener, limits) = (node(2), Limits::default());
    let (peer, incoming) = tokio::join!(
        async {
            let mut near = near;
            let secrets = link::initiate(&mut near, &key(2), &key(2).public()).await.unwrap();
            Peer::of(Link::new(near, secrets))
        },
        accept(far, &listener, &limits)
    );
    let (mut peer, incoming) = (peer, incoming.unwrap());
    let (finished, ()) =
        tokio::join!(incoming.finish(), peer.expect_plain_disconnect(DisconnectReason::ConnectedToSelf));
    assert!(matches!(finished.unwrap_err(), ConnectError::Breach(Breach::ConnectedToSelf)));
}

#[tokio::test]
async fn an_unreachable_address_is_named_so() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = dial(("127.0.0.1", port), &key(2).public(), &node(1), &Limits::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)));
}

#[tokio::test]
async fn a_peer_without_common_capability_is_useless() {
    let (mut peer, incoming) = Peer::dials(&Limits::default(), 4096).await;
    let theirs = Hello { capabilities: vec![Capability::new("eth", 63)], ..hello() };
    let (finished, ()) = tokio::join!(incoming.finish(), async {
        peer.send(base_id::HELLO, &theirs.encode()).await;
        assert_eq!(peer.receive().await.unwrap().id, base_id::HELLO);
        peer.expect_disconnect(DisconnectReason::UselessPeer).await;
    });
    assert!(matches!(finished.unwrap_err(), ConnectError::Breach(Breach::UselessPeer)));
}

#[tokio::test]
async fn a_hello_that_lies_about_its_sender_is_refused() {
    for (node_id, reason) in [
        (vec![0; 64], DisconnectReason::InvalidIdentity),
        (vec![1; 10], DisconnectReason::InvalidIdentity),
        (key(3).public().as_bytes().to_vec(), DisconnectReason::UnexpectedIdentity),
    ] {
        let (mut peer, incoming) = Peer::dials(&Limits::default(), 4096).await;
        let (finished, ()) = tokio::join!(incoming.finish(), async {
            peer.send(base_id::HELLO, &Hello { node_id, ..hello() }.encode()).await;
            assert_eq!(peer.receive().await.unwrap().id, base_id::HELLO);
            peer.expect_disconnect(reason).await;
        });
        assert_eq!(finished.unwrap_err().reason(), Some(reason));
    }
}

#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let hello_body = |bytes: &[u8]| [&[0x80][..], bytes].concat();
    for (body, label) in [
        (hello_body(&[0xc0]), "hello"),
        (hello_body(&[0xff; 30]), "hello"),
        (hello_body(&[]), "hello"),
        (vec![0x10, 0xc0], "hello"),
        (vec![2, 0xc0], "hello"),
        (vec![0xc0], "message_id"),
        (vec![], "message_id"),
    ] {
        let (mut peer, incoming) = Peer::dials(&Limits::default(), 4096).await;
        let (finished, ()) = tokio::join!(incoming.finish(), async {
            let mut out = BytesMut::new();
            peer.0.encoder.encode_body(&body, &mut out);
            peer.send_bytes(&out).await.unwrap();
            assert_eq!(peer.receive().await.unwrap().id, base_id::HELLO);
            peer.expect_plain_disconnect(DisconnectReason::BreachOfProtocol).await;
        });
        assert_eq!(finished.unwrap_err().label(), label, "{body:02x?}");
    }
}

#[tokio::test]
async fn a_hello_above_2048_bytes_is_refused_from_its_header() {
    let (mut peer, incoming) = Peer::dials(&Limits::default(), 4096).await;
    let (finished, ()) = tokio::join!(incoming.finish(), async {
        let mut out = BytesMut::new();
        peer.0.encoder.encode_promise(2054, &mut out);
        peer.send_bytes(&out).await.unwrap();
        assert_eq!(peer.receive().await.unwrap().id, base_id::HELLO);
        peer.expect_plain_disconnect(DisconnectReason::BreachOfProtocol).await;
    });
    assert!(matches!(finished.unwrap_err(), ConnectError::Breach(Breach::HelloTooLarge { size: 2054 })));
}

#[tokio::test]
async fn a_disconnect_in_place_of_hello_is_answered_uncompressed() {
    let (near, far) = duplex(4096);
    let (remote, dialler, limits) = (key(1).public(), node(2), Limits::default());
    let (dialled, ()) = tokio::join!(dial_over(near, &remote, &dialler, &limits), async {
        let mut peer = Peer::respond(far).await;
        peer.send(base_id::DISCONNECT, &[0xc1, 4]).await;
        assert_eq!(peer.receive().await.unwrap().id, base_id::HELLO);
        peer.expect_plain_disconnect(DisconnectReason::TooManyPeers).await;
    });
    assert!(matches!(dialled.unwrap_err(), ConnectError::Disconnected(DisconnectReason::TooManyPeers)));
}

#[tokio::test]
async fn a_peer_is_turned_away_before_hello() {
    let (mut peer, incoming) = Peer::dials(&Limits::default(), 4096).await;
    assert_eq!(incoming.remote(), &key(1).public());
    tokio::join!(incoming.reject(DisconnectReason::AlreadyConnected), async {
        peer.send(base_id::HELLO, &hello().encode()).await;
        peer.expect_plain_disconnect(DisconnectReason::AlreadyConnected).await;
        drop(peer);
    });
}

#[tokio::test]
async fn the_reason_of_a_refusal_arrives_over_tcp_although_more_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let incoming = accept(stream, &node(2), &Limits::default()).await.unwrap();
        incoming.reject(DisconnectReason::TooManyPeers).await;
    };
    let client = async {
        let error = dial(address, &key(2).public(), &node(1), &Limits::default()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Disconnected(DisconnectReason::TooManyPeers)), "{error}");
    };
    tokio::join!(server, client);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ignores_a_refusal_costs_one_second() {
    let (_peer, incoming) = Peer::dials(&Limits::default(), 4096).await;
    let start = Instant::now();
    incoming.reject(DisconnectReason::TooManyPeers).await;
    assert_eq!(start.elapsed(), FAREWELL_TIMEOUT);
}
