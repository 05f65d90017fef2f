//! Who may connect, who is turned away with which reason, and how the gateway leaves.

use std::time::Duration;

use poste_rlpx::{ConnectError, DisconnectReason};
use poste_wire::packet::Options;
use poste_wire::{Bloom, Dialect};

use crate::envelopes::{TOPIC, envelope, everything};
use crate::panics;
use crate::peer::{Appearance, Peer};
use crate::stack::{Stack, soon};

async fn turned_away(stack: &Stack, appearance: &Appearance) -> DisconnectReason {
    match appearance.connect(&stack.enode()).await {
        Err(ConnectError::Disconnected(reason)) => reason,
        other => panic!("not turned away: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_for_each_key() {
    let stack = Stack::start().await;
    let appearance = Appearance::quiet(Dialect::Waku1);
    let mut first = Peer::appear(&stack, &appearance).await;
    let again = Appearance { dialects: vec![Dialect::Shh6], ..appearance.clone() };
    assert_eq!(turned_away(&stack, &again).await, DisconnectReason::AlreadyConnected);
    stack.counted("refused_connections", "reason=\"no_seat\"", 1).await;
    // The first one does not notice.
    first.post_confirmed(&[envelope(TOPIC, 10)]).await;
    first.leave().await;
    stack.counted_down("peers", 0).await;
    Peer::appear(&stack, &again).await.post_confirmed(&[envelope(TOPIC, 10)]).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_peers_than_there_may_be() {
    let stack = Stack::with(|config| config.max_peers = 2).await;
    let first = Peer::quiet(&stack, Dialect::Waku1).await;
    let mut second = Peer::quiet(&stack, Dialect::Shh6).await;
    let third = Appearance::quiet(Dialect::Waku1);
    assert_eq!(turned_away(&stack, &third).await, DisconnectReason::TooManyPeers);
    stack.counted("refused_connections", "reason=\"no_seat\"", 1).await;
    second.post_confirmed(&[envelope(TOPIC, 10)]).await;
    first.leave().await;
    stack.counted_down("peers", 1).await;
    Peer::appear(&stack, &third).await.post_confirmed(&[envelope(TOPIC, 10)]).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_no_dialect_is_useless() {
    let stack = Stack::start().await;
    let stranger = Appearance { dialects: vec![Dialect::Waku0], ..Appearance::quiet(Dialect::Waku0) };
    let refused = stranger.connect(&stack.enode()).await.unwrap_err();
    assert_eq!(refused.reason(), Some(DisconnectReason::UselessPeer));
    stack.counted("failed_handshakes", "reason=\"useless_peer\"", 1).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_peers_are_dialled_beyond_the_limit_and_relay() {
    let far = Stack::start().await;
    let near = Stack::with(|config| {
        config.static_peers = vec![far.enode().to_string()];
        config.max_peers = 1;
    })
    .await;
    far.counted("peers", "", 1).await;
    let wants = Options { bloom: Some(Bloom::FULL), ..Options::default() };
    let mut reader = Peer::wanting(&near, Dialect::Waku1, wants).await;
    let mut poster = Peer::quiet(&far, Dialect::Shh6).await;
    let posted = envelope(TOPIC, 100);
    poster.post_confirmed(std::slice::from_ref(&posted)).await;
    assert_eq!(reader.relayed_until(&posted).await, []);
    // Each has it in its own archive.
    let fetched = reader.fetch(&everything()).await;
    assert_eq!(fetched, [posted]);
    near.end().await;
    far.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_leaves_with_a_word_and_at_once() {
    let stack = Stack::start().await;
    let mut peers = Vec::new();
    for number in 0..10 {
        let dialect = [Dialect::Waku1, Dialect::Shh6][number % 2];
        let mut peer = Peer::quiet(&stack, dialect).await;
        peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
        peers.push(tokio::spawn(peer.expect_disconnect(DisconnectReason::Quitting)));
    }
    // One that is still silent, and one that does not read.
    let _silent = Peer::before_status(&stack, &Appearance::quiet(Dialect::Waku1)).await;
    let deaf = Peer::quiet(&stack, Dialect::Waku1).await;
    let (took, archive, _directory) = stack.stop_gateway().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    for peer in peers {
        soon("the goodbye", peer).await.unwrap();
    }
    drop(deaf);
    archive.unwrap().stop(Duration::from_secs(10)).await.unwrap();
    panics::assert_none();
}
