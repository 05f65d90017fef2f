//! Confirmations: 12, then 11, once the archive has the envelopes.

use poste_rpc::archive::v1::LookupRequest;
use poste_wire::packet::{EnvelopeFault, MessageResponse};
use poste_wire::{Dialect, Envelope, Packet};

use crate::envelopes::{TOPIC, envelope, envelope_at};
use crate::peer::{Appearance, Peer};
use crate::stack::{NOW, Stack};

/// How many of these the archive says that it has.
async fn stored(stack: &Stack, envelopes: &[Envelope]) -> usize {
    let ids = envelopes.iter().map(|envelope| envelope.hash().as_bytes().to_vec().into()).collect();
    let request = LookupRequest { space: "waku1".to_owned(), ids, with_bodies: true };
    let mut archive = poste_rpc::archive::client(stack.archive().channel());
    let records = archive.lookup(request).await.unwrap().into_inner().records;
    assert!(records.iter().zip(envelopes).all(|(record, envelope)| record.body == *envelope.rlp()));
    records.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_11_acknowledges_the_archive_has() {
    let stack = Stack::start().await;
    for dialect in [Dialect::Waku1, Dialect::Shh6] {
        let mut peer = Peer::quiet(&stack, dialect).await;
        for round in 1..20 {
            let batch: Vec<_> = (0..round).map(|_| envelope(TOPIC, 100 * round)).collect();
            let hash = peer.post(&batch).await;
            assert_eq!(peer.confirmation(hash).await, []);
            assert_eq!(stored(&stack, &batch).await, batch.len());
        }
        peer.assert_nothing_else();
    }
    assert_eq!(stack.metric("archived_envelopes", "outcome=\"stored\""), 2 * (1..20).sum::<u64>());
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_by_12_and_then_11_on_the_lane_that_it_came_on() {
    let stack = Stack::start().await;
    let dialects = vec![Dialect::Shh6, Dialect::Waku1];
    let mut peer = Peer::appear(&stack, &Appearance { dialects, ..Appearance::quiet(Dialect::Waku1) }).await;
    let late = envelope_at(NOW - 60, 50, TOPIC, 10);
    for (lane, code) in [(Dialect::Shh6, 37), (Dialect::Waku1, 21)] {
        peer.dialect = lane;
        let hash = peer.post(&[late.clone(), envelope(TOPIC, 10)]).await;
        let description = "envelope has expired".to_owned();
        let faults = vec![EnvelopeFault { hash: late.hash(), code, description }];
        let response = MessageResponse { batch_hash: hash, faults };
        for expected in [Packet::MessageResponse(response), Packet::BatchAcknowledged(hash)] {
            let heard = peer.next("the confirmation").await;
            assert_eq!((heard.dialect, heard.packet), (lane, expected));
        }
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_again_is_confirmed_again_and_stored_once() {
    let stack = Stack::start().await;
    let again = envelope(TOPIC, 100);
    let mut peers = Vec::new();
    for dialect in [Dialect::Waku1, Dialect::Shh6, Dialect::Waku1] {
        peers.push(Peer::quiet(&stack, dialect).await);
    }
    for peer in &mut peers {
        peer.post_confirmed(std::slice::from_ref(&again)).await;
        peer.post_confirmed(std::slice::from_ref(&again)).await;
    }
    assert_eq!(stack.metric("archived_envelopes", "outcome=\"stored\""), 1);
    assert_eq!(stack.metric("received_envelopes", ""), 1);
    assert_eq!(stack.metric("known_envelopes", ""), 5);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_batches_at_once_are_all_confirmed() {
    let stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let batches: Vec<Vec<_>> = (0..300).map(|_| (0..4).map(|_| envelope(TOPIC, 200)).collect()).collect();
    let mut hashes = Vec::new();
    for batch in &batches {
        hashes.push(peer.post(batch).await);
    }
    for hash in hashes {
        assert_eq!(peer.confirmation(hash).await, []);
    }
    peer.assert_nothing_else();
    stack.end().await;
}

/// A packet of 12 must not be above 1 MiB either.
#[tokio::test(flavor = "multi_thread")]
async fn more_faults_than_fit_into_12_go_without_words_and_then_unsaid() {
    let stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let ancient =
        |count: u64| -> Vec<_> { (0..count).map(|nonce| Envelope::new(1, 1, TOPIC, b"", nonce)).collect() };
    let some = ancient(20_000);
    let hash = peer.post(&some).await;
    let faults = peer.confirmation(hash).await;
    assert_eq!(faults.len(), some.len());
    for (fault, envelope) in faults.iter().zip(&some) {
        assert_eq!((fault.hash, fault.code, &fault.description[..]), (envelope.hash(), 21, ""));
    }
    peer.post(&ancient(40_000)).await;
    stack.counted("refused_envelopes", "reason=\"very_old\"", 60_000).await;
    peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
    peer.assert_nothing_else();
    stack.end().await;
}
