//! How connections end, and what is said then.

use super::*;
use crate::error::TrySendError;

#[tokio::test]
async fn a_disconnect_is_answered_with_the_same_reason() {
    let (mut peer, mut receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
    peer.send(16, b"last words").await;
    peer.send(base_id::DISCONNECT, &[0xc1, 8]).await;
    assert_eq!(receiver.next().await.unwrap().payload, "last words");
    assert_eq!(receiver.next().await, Err(Closed::Disconnected(DisconnectReason::Quitting)));
    peer.expect_disconnect(DisconnectReason::Quitting).await;
    drop(peer);
    assert_eq!(sender.closed().await, Closed::Disconnected(DisconnectReason::Quitting));
}

#[tokio::test]
async fn a_closed_connection_says_the_same_to_everyone() {
    let (peer, mut receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
    drop(peer);
    assert_eq!(receiver.next().await, Err(Closed::Eof));
    assert_eq!(receiver.next().await, Err(Closed::Eof));
    assert_eq!(sender.closed().await, Closed::Eof);
    assert!(sender.is_closed());
    assert_eq!(sender.send(0, 0, Bytes::new()).await, Err(Closed::Eof));
    assert_eq!(sender.try_send(0, 0, Bytes::new()), Err(TrySendError::Closed(Closed::Eof)));
    sender.disconnect(DisconnectReason::Quitting);
    assert_eq!(sender.closed().await, Closed::Eof);
    sender.flush().await.unwrap();
}

#[tokio::test]
async fn those_who_wait_for_room_hear_of_the_end() {
    let limits = Limits { send_queue_bytes: 1000, ..Limits::default() };
    let (_peer, _receiver, sender) = Peer::connected(&limits, 64).await;
    sender.send(0, 0, Bytes::from(vec![1; 5000])).await.unwrap();
    let waiting = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send(0, 0, Bytes::from(vec![2; 5000])).await }
    });
    let flushing = tokio::spawn({
        let sender = sender.clone();
        async move { sender.flush().await }
    });
    tokio::task::yield_now().await;
    sender.disconnect(DisconnectReason::Requested);
    let ended = Closed::Disconnecting(DisconnectReason::Requested);
    assert_eq!(waiting.await.unwrap(), Err(ended));
    assert_eq!(flushing.await.unwrap(), Err(ended));
}

#[tokio::test]
async fn a_goodbye_waits_for_the_frame_under_way_and_drops_the_rest() {
    let (mut peer, mut receiver, sender) = Peer::connected(&Limits::default(), 512).await;
    let noise: Bytes = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    sender.send(0, 0, noise.clone()).await.unwrap();
    sender.send(0, 1, noise.clone()).await.unwrap();
    // The first frame is under way: a piece of it has arrived.
    let first = tokio::select! {
        frame = peer.receive() => frame.unwrap(),
        _ = receiver.next() => panic!("nothing was sent"),
    };
    assert_eq!(first.id, 16);
    sender.send(0, 2, noise).await.unwrap();
    sender.disconnect(DisconnectReason::TooManyPeers);
    assert_eq!(receiver.next().await, Err(Closed::Disconnecting(DisconnectReason::TooManyPeers)));
    let mut rest = Vec::new();
    while let Some(frame) = peer.receive().await {
        rest.push(frame.id);
    }
    assert!(rest == [17, base_id::DISCONNECT] || rest == [base_id::DISCONNECT], "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_to_a_peer_that_does_not_read_takes_one_second() {
    let (_peer, _receiver, sender) = Peer::connected(&Limits::default(), 64).await;
    sender.send(0, 0, Bytes::from(vec![1; 5000])).await.unwrap();
    let start = Instant::now();
    sender.disconnect(DisconnectReason::Quitting);
    assert_eq!(sender.closed().await, Closed::Disconnecting(DisconnectReason::Quitting));
    assert_eq!(start.elapsed(), FAREWELL_TIMEOUT);
}

#[tokio::test]
async fn a_dropped_receiver_closes_the_connection() {
    let (mut peer, receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
    drop(receiver);
    assert_eq!(sender.closed().await, Closed::Dropped);
    assert_eq!(peer.receive().await, None);
}

#[tokio::test]
async fn a_goodbye_outlives_its_owners() {
    let (mut peer, receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
    sender.disconnect(DisconnectReason::Quitting);
    drop((receiver, sender));
    peer.expect_disconnect(DisconnectReason::Quitting).await;
}

#[tokio::test]
async fn what_no_frame_can_carry_ends_the_connection() {
    for (capability, code, size) in [(1, 0, 0), (0, 128, 0), (0, 1, 16 << 20)] {
        let (mut peer, mut receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
        let sent = sender.send(capability, code, Bytes::from(vec![0; size])).await;
        assert_eq!(sent, Err(Closed::Unsendable));
        assert_eq!(receiver.next().await, Err(Closed::Unsendable));
        peer.expect_disconnect(DisconnectReason::SubprotocolError).await;
    }
}

#[tokio::test]
async fn what_the_peer_sent_before_it_closed_is_read_although_writing_fails() {
    let (dialled, accepted) = pair(&Limits::default()).await;
    let ((from_b, to_b), (mut from_a, to_a)) = (dialled.split(), accepted.split());
    for i in 0..50u8 {
        to_b.send(0, i, payload(&[i])).await.unwrap();
    }
    to_b.flush().await.unwrap();
    to_b.disconnect(DisconnectReason::Quitting);
    drop(from_b);
    to_b.closed().await;
    // Nobody has listened yet, and the peer is gone: writing fails sooner or later.
    while to_a.send(0, 0, payload(&[0; 1000])).await.is_ok() && to_a.flush().await.is_ok() {}
    assert!(matches!(to_a.closed().await, Closed::Io(_)));
    for i in 0..50u8 {
        assert_eq!(from_a.next().await.unwrap().code, i);
    }
    let quitting = Closed::Disconnected(DisconnectReason::Quitting);
    assert_eq!(from_a.next().await, Err(quitting));
    assert_eq!(to_a.closed().await, quitting);
}

#[tokio::test]
async fn the_reason_arrives_over_tcp_although_the_peer_is_still_sending() {
    let (dialled, accepted) = pair(&Limits::default()).await;
    let ((mut from_b, to_b), (mut from_a, to_a)) = (dialled.split(), accepted.split());
    let flood =
        tokio::spawn(async move { while to_b.send(0, 1, Bytes::from(vec![7; 100_000])).await.is_ok() {} });
    from_a.next().await.unwrap();
    to_a.disconnect(DisconnectReason::SubprotocolError);
    assert_eq!(from_a.next().await, Err(Closed::Disconnecting(DisconnectReason::SubprotocolError)));
    assert_eq!(from_b.next().await, Err(Closed::Disconnected(DisconnectReason::SubprotocolError)));
    flood.await.unwrap();
}

#[tokio::test]
async fn tcp_stream_that_vanishes_is_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream.write_all(&[1; 10]).await.unwrap();
    drop(stream);
    let (accepted, _) = listener.accept().await.unwrap();
    assert!(matches!(accept(accepted, &node(2), &Limits::default()).await, Err(ConnectError::Eof)));
}
