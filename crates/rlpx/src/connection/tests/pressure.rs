//! Peers that do not read, or do not speak, and consumers that do not listen.

use futures::FutureExt;

use super::*;
use crate::error::TrySendError;

fn limits(send_queue_bytes: usize) -> Limits {
    Limits { send_queue_bytes, ..Limits::default() }
}

/// A message that compresses to about its size.
fn noise(size: u32, seed: u32) -> Bytes {
    (0..size).map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test]
async fn a_peer_that_does_not_read_bounds_the_queue_and_is_still_answered_first() {
    let bound = 100_000;
    let (mut peer, mut receiver, sender) = Peer::connected(&limits(bound), 4096).await;
    // Fill the queue until it refuses for good: the writer is stuck in a write then.
    let mut sent = 0;
    let mut refused = 0;
    while refused < 100 {
        match sender.try_send(0, 1, noise(5000, sent)) {
            Ok(()) => (sent, refused) = (sent + 1, 0),
            Err(TrySendError::Full) => refused += 1,
            Err(TrySendError::Closed(closed)) => panic!("{closed}"),
        }
        assert!(sender.queued_bytes() <= bound);
        tokio::task::yield_now().await;
    }
    assert!((15..=20).contains(&sent), "{sent}");
    assert!(sender.send(0, 1, noise(5000, 0)).now_or_never().is_none(), "send waits");

    // A Ping arrives, then the peer begins to read.
    peer.send(base_id::PING, &[0xc0]).await;
    peer.send(16, b"after ping").await;
    assert_eq!(receiver.next().await.unwrap().payload, "after ping");
    let mut before_pong = 0;
    let mut waiting = std::pin::pin!(sender.send(0, 2, noise(5000, 7)));
    let mut read = 0;
    let mut pong = false;
    let mut last = None;
    while read < sent + 1 || !pong {
        let frame = tokio::select! {
            frame = peer.receive() => frame.unwrap(),
            queued = &mut waiting, if last.is_none() => {
                queued.unwrap();
                last = Some(read);
                continue;
            }
        };
        match frame.id {
            base_id::PONG => pong = true,
            17 | 18 => read += 1,
            id => panic!("message id {id}"),
        }
        before_pong += usize::from(!pong);
    }
    assert!(last.is_some(), "send went on when there was room");
    // Only what was written together before the Ping came goes before its Pong: 64 KiB.
    assert!(before_pong <= 14, "{before_pong} of {sent} messages went before the Pong");
    sender.flush().await.unwrap();
    assert_eq!(sender.queued_bytes(), 0);
}

#[tokio::test]
async fn one_message_above_the_bound_goes_when_the_queue_is_empty() {
    let (mut peer, _receiver, sender) = Peer::connected(&limits(1000), 512).await;
    let big = noise(50_000, 1);
    assert_eq!(sender.try_send(0, 1, big.clone()), Ok(()));
    assert_eq!(sender.queued_bytes(), 1000);
    assert_eq!(sender.try_send(0, 1, Bytes::new()), Err(TrySendError::Full));
    let frame = peer.receive().await.unwrap();
    assert_eq!(crate::snappy::decompress(&frame.payload, 1 << 20).unwrap(), big);
    sender.flush().await.unwrap();
    assert_eq!(sender.try_send(0, 1, Bytes::new()), Ok(()));
}

#[tokio::test]
async fn empty_messages_are_bounded_too() {
    let (_peer, _receiver, sender) = Peer::connected(&limits(16_000), 512).await;
    let queued = (0..1000).take_while(|_| sender.try_send(0, 1, Bytes::new()).is_ok()).count();
    assert_eq!(queued, 100);
}

#[tokio::test]
async fn a_cancelled_send_queues_nothing() {
    let (mut peer, _receiver, sender) = Peer::connected(&limits(10_000), 64).await;
    sender.send(0, 1, noise(20_000, 0)).await.unwrap();
    assert!(sender.send(0, 2, noise(20_000, 0)).now_or_never().is_none());
    let last = sender.clone();
    let third = tokio::spawn(async move { last.send(0, 3, Bytes::new()).await });
    assert_eq!(peer.receive().await.unwrap().id, 17);
    assert_eq!(peer.receive().await.unwrap().id, 19);
    third.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_flood_of_pings_from_a_peer_that_does_not_read_leaves_one_pong_waiting() {
    let (mut peer, mut receiver, sender) = Peer::connected(&Limits::default(), 1024).await;
    tokio::join!(
        async {
            for _ in 0..20_000 {
                peer.send(base_id::PING, &[0xc0]).await;
            }
            peer.send(16, b"end").await;
        },
        async { assert_eq!(receiver.next().await.unwrap().payload, "end") }
    );
    assert_eq!(sender.queued_bytes(), 0);
    // What the stream holds, what is being written, and one more.
    sender.send(0, 5, Bytes::new()).await.unwrap();
    let mut pongs = 0;
    while peer.receive().await.unwrap().id == base_id::PONG {
        pongs += 1;
    }
    assert!((1..=1024 / 64 + 3).contains(&pongs), "{pongs}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_not_taken_in_time_closes() {
    let (mut peer, mut receiver, sender) = Peer::connected(&limits(1 << 20), 512).await;
    let start = Instant::now();
    sender.send(0, 1, noise(100_000, 1)).await.unwrap();
    let speak = async {
        loop {
            tokio::time::sleep(Duration::from_secs(7)).await;
            if peer.try_send(16, b"I speak but do not read").await.is_err() {
                return;
            }
        }
    };
    let listen = async {
        while receiver.next().await.is_ok() {}
        receiver.next().await.unwrap_err()
    };
    let (closed, flushed) = tokio::select! {
        () = speak => panic!("the stream closed before the connection"),
        ended = async { tokio::join!(listen, sender.flush()) } => ended,
    };
    assert_eq!(closed, Closed::WriteTimeout);
    assert_eq!(flushed, Err(Closed::WriteTimeout));
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(sender.try_send(0, 1, Bytes::new()), Err(TrySendError::Closed(Closed::WriteTimeout)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_closed_without_a_word() {
    let (mut peer, mut receiver, sender) = Peer::connected(&Limits::default(), 4096).await;
    let start = Instant::now();
    let (closed, pings) = tokio::join!(receiver.next(), async {
        let mut pings = Vec::new();
        while let Some(frame) = peer.receive().await {
            assert_eq!(frame, Frame { id: base_id::PING, payload: payload(&[1, 0, 0xc0]) });
            pings.push(start.elapsed().as_secs());
        }
        pings
    });
    assert_eq!(closed, Err(Closed::Idle));
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!((pings.first(), pings.last()), (Some(&15), Some(&30)));
    assert_eq!(sender.closed().await, Closed::Idle);
}

#[tokio::test(start_paused = true)]
async fn any_message_keeps_a_connection_alive() {
    let (mut peer, mut receiver, _sender) = Peer::connected(&Limits::default(), 1 << 16).await;
    let start = Instant::now();
    let (closed, ()) = tokio::join!(receiver.next(), async {
        for id in [base_id::PONG, 9, base_id::PING, base_id::PONG] {
            tokio::time::sleep(Duration::from_secs(29)).await;
            peer.send(id, &[0xc0]).await;
        }
    });
    assert_eq!(closed, Err(Closed::Idle));
    assert_eq!(start.elapsed().as_secs(), 4 * 29 + 30);
}

#[tokio::test(start_paused = true)]
async fn silence_counts_through_cancelled_waits_but_not_while_nobody_listens() {
    // Room for the Pings that nobody reads.
    let (_peer, mut receiver, _sender) = Peer::connected(&Limits::default(), 1 << 16).await;
    let start = Instant::now();
    for _ in 0..5 {
        assert!(timeout(Duration::from_secs(5), receiver.next()).await.is_err());
    }
    assert_eq!(start.elapsed().as_secs(), 25);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let listening = Instant::now();
    assert_eq!(receiver.next().await, Err(Closed::Idle));
    assert_eq!(listening.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_came_while_nobody_listened_is_not_lost() {
    let (mut peer, mut receiver, _sender) = Peer::connected(&Limits::default(), 1 << 16).await;
    peer.send(16, b"early").await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(receiver.next().await.unwrap().payload, "early");
}

#[tokio::test(start_paused = true)]
async fn pings_go_out_during_a_long_delivery() {
    let (mut peer, _receiver, sender) = Peer::connected(&Limits::default(), 8192).await;
    let start = Instant::now();
    let deliver = async {
        for seed in 0..600 {
            sender.send(0, 1, noise(10_000, seed)).await.unwrap();
        }
    };
    let read = async {
        let mut pings = Vec::new();
        while start.elapsed() < Duration::from_secs(55) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if peer.receive().await.unwrap().id == base_id::PING {
                pings.push(start.elapsed().as_secs());
            }
        }
        pings
    };
    let (_, pings) = tokio::join!(deliver, read);
    assert_eq!(pings.len(), 3, "{pings:?}");
    assert!(pings.iter().zip([15, 30, 45]).all(|(at, due)| (due..due + 2).contains(at)), "{pings:?}");
}
