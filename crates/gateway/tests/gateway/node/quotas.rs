//! Quotas for each peer: cheap large envelopes must not push out those of others.

use std::time::Duration;

use poste_service::config::ByteSize;
use poste_wire::Dialect;

use crate::envelopes::{TOPIC, envelope};
use crate::peer::Peer;
use crate::stack::Stack;

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_has_used_up_its_day_is_refused_by_name() {
    let stack = Stack::with(|config| {
        config.peer_quota_large = ByteSize(150_000);
        config.peer_quota_medium = ByteSize(10_000);
    })
    .await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let mut other = Peer::quiet(&stack, Dialect::Waku1).await;
    let large: Vec<_> = (0..3).map(|_| envelope(TOPIC, 70_000)).collect();
    peer.post_confirmed(&large[..2]).await;
    let batch = peer.post(&large[2..]).await;
    let faults = peer.confirmation(batch).await;
    let text = "your quota of a day for envelopes of this size is used up: send again later";
    assert_eq!((faults[0].hash, &faults[0].description[..]), (large[2].hash(), text));
    // What is known costs nothing, other sizes have their own quota, and other peers too.
    peer.post_confirmed(&large[..2]).await;
    let small: Vec<_> = (0..50).map(|_| envelope(TOPIC, 1000)).collect();
    peer.post_confirmed(&small).await;
    peer.post_confirmed(&[envelope(TOPIC, 5000)]).await;
    let batch = peer.post(&[envelope(TOPIC, 6000)]).await;
    assert_eq!(peer.confirmation(batch).await.len(), 1);
    other.post_confirmed(&large[2..]).await;
    assert_eq!(stack.metric("refused_envelopes", "reason=\"over_quota\""), 2);
    // The day rolls on.
    stack.clock.advance(Duration::from_secs(24 * 3600));
    let later = crate::envelopes::envelope_at(crate::stack::NOW + 24 * 3600, 50, TOPIC, 70_000);
    peer.post_confirmed(&[later]).await;
    stack.end().await;
}
