//! Relaying: to whom, when, and in packets of which size.

use std::collections::HashSet;
use std::time::Duration;

use poste_service::config::ByteSize;
use poste_wire::packet::{Options, list_length};
use poste_wire::{Bloom, Dialect, Envelope, Packet, Topic};

use crate::envelopes::{TOPIC, envelope, envelope_at, everything, mined};
use crate::peer::Peer;
use crate::stack::{NOW, Stack};

const A: Topic = Topic([1, 2, 3, 4]);
const B: Topic = Topic([0x10, 0x80, 0xf0, 0]);
const DIALECTS: [Dialect; 2] = [Dialect::Waku1, Dialect::Shh6];

fn by_bloom(bloom: Bloom) -> Options {
    Options { bloom: Some(bloom), ..Options::default() }
}

fn by_topics(topics: &[Topic]) -> Options {
    Options { topic_interest: Some(topics.to_vec()), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_bloom_filter_in_both_of_its_forms_and_by_topic_interest() {
    let stack = Stack::start().await;
    let mut watchers = Vec::new();
    for (dialect, wants, what) in [
        (Dialect::Waku1, by_bloom(Bloom::FULL), vec![A, B]),
        (Dialect::Shh6, by_bloom(Bloom::FULL), vec![A, B]),
        // Topic A is one of those that the two ways of making a filter treat differently.
        (Dialect::Waku1, by_bloom(Bloom::of_topics([A])), vec![A]),
        (Dialect::Shh6, by_bloom(Bloom::of_topics([A])), vec![A]),
        (Dialect::Waku1, by_bloom(Bloom::sample(A)), vec![A]),
        (Dialect::Shh6, by_bloom(Bloom::sample(A)), vec![A]),
        (Dialect::Waku1, by_topics(&[B]), vec![B]),
        (Dialect::Waku1, by_topics(&[]), vec![]),
        (Dialect::Waku1, by_bloom(Bloom::EMPTY), vec![]),
        (Dialect::Shh6, by_bloom(Bloom::EMPTY), vec![]),
        // With both, the topic interest counts; with neither, everything.
        (Dialect::Waku1, Options { bloom: Some(Bloom::FULL), ..by_topics(&[A]) }, vec![A]),
        (Dialect::Waku1, Options::default(), vec![A, B]),
        (Dialect::Shh6, Options::default(), vec![A, B]),
    ] {
        watchers.push((Peer::wanting(&stack, dialect, wants).await, what));
    }
    let mut poster = Peer::quiet(&stack, Dialect::Waku1).await;
    let posted: Vec<_> = (0..20).map(|number| envelope([A, B][number % 2], 50)).collect();
    for one in &posted {
        poster.post_confirmed(std::slice::from_ref(one)).await;
    }
    // Who wanted nothing so far wants the marker.
    for (watcher, what) in &mut watchers {
        let topics = [&what[..], &[TOPIC]].concat();
        match watcher.dialect {
            Dialect::Shh6 => watcher.say(&Packet::BloomFilter(Bloom::of_topics(topics))).await,
            _ => watcher.say(&Packet::StatusUpdate(by_topics(&topics))).await,
        }
    }
    let marker = envelope(TOPIC, 10);
    poster.post_confirmed(std::slice::from_ref(&marker)).await;
    for (watcher, what) in &mut watchers {
        let relayed = watcher.relayed_until(&marker).await;
        let expected: Vec<_> = posted.iter().filter(|e| what.contains(&e.topic())).cloned().collect();
        assert_eq!(relayed, expected, "{what:?} in {}", watcher.dialect);
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_proof_of_work() {
    let stack = Stack::start().await;
    let mut poster = Peer::quiet(&stack, Dialect::Shh6).await;
    let of = |pow: f64| mined(NOW + 50, 50, A, 100, pow);
    let weak: Vec<_> = (0..200).map(|_| of(0.0)).filter(|envelope| envelope.pow() < 0.002).take(3).collect();
    let strong: Vec<_> = (0..3).map(|_| of(0.002)).collect();
    let marker = of(0.01);
    for dialect in DIALECTS {
        let wants = Options { pow_requirement: Some(0.002), ..by_bloom(Bloom::FULL) };
        let mut picky = Peer::wanting(&stack, dialect, wants).await;
        let posted = [&weak[..], &strong[..], std::slice::from_ref(&marker)].concat();
        poster.post_confirmed(&posted).await;
        assert_eq!(picky.relayed_until(&marker).await, strong);
        // Less picky from now on: what it did not get before comes now, and the rest not again.
        match dialect {
            Dialect::Shh6 => picky.say(&Packet::PowRequirement(0.0)).await,
            _ => {
                let less = Options { pow_requirement: Some(0.0), ..Options::default() };
                picky.say(&Packet::StatusUpdate(less)).await;
            }
        }
        assert_eq!(picky.relayed_until(&weak[2]).await, weak[..2]);
        picky.assert_nothing_else();
        picky.leave().await;
        // Out of the pool again, for the next round.
        stack.clock.advance(Duration::from_secs(51));
        stack.pool_holds(0).await;
        stack.clock.set(Duration::from_secs(NOW.into()));
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matches_by_new_settings_goes_out_then() {
    let stack = Stack::start().await;
    let mut poster = Peer::quiet(&stack, Dialect::Waku1).await;
    let (of_a, of_b) = (envelope(A, 10), envelope(B, 10));
    poster.post_confirmed(&[of_a.clone(), of_b.clone()]).await;
    for dialect in DIALECTS {
        let mut watcher = Peer::wanting(&stack, dialect, by_bloom(Bloom::of_topics([A]))).await;
        assert_eq!(watcher.relayed_until(&of_a).await, []);
        let both = Bloom::of_topics([A, B]);
        match dialect {
            Dialect::Shh6 => watcher.say(&Packet::BloomFilter(both)).await,
            _ => watcher.say(&Packet::StatusUpdate(by_bloom(both))).await,
        }
        assert_eq!(watcher.relayed_until(&of_b).await, []);
        watcher.assert_nothing_else();
    }
    // From a filter to topics, and back.
    let mut watcher = Peer::wanting(&stack, Dialect::Waku1, by_bloom(Bloom::EMPTY)).await;
    watcher.say(&Packet::StatusUpdate(by_topics(&[B]))).await;
    assert_eq!(watcher.relayed_until(&of_b).await, []);
    watcher.say(&Packet::StatusUpdate(by_bloom(Bloom::of_topics([A])))).await;
    assert_eq!(watcher.relayed_until(&of_a).await, []);
    watcher.assert_nothing_else();
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_back_to_the_sender_and_never_twice() {
    let stack = Stack::start().await;
    let mut peers = Vec::new();
    for dialect in [Dialect::Waku1, Dialect::Shh6, Dialect::Waku1] {
        peers.push(Peer::wanting(&stack, dialect, by_bloom(Bloom::FULL)).await);
    }
    // Everybody posts its own, and after that what everybody has.
    let own: Vec<Vec<_>> = (0..3).map(|_| (0..30).map(|_| envelope(A, 50)).collect()).collect();
    for (peer, own) in peers.iter_mut().zip(&own) {
        for one in own {
            peer.post_confirmed(std::slice::from_ref(one)).await;
        }
    }
    let shared = envelope(B, 50);
    let (mut marker_poster, marker) = (Peer::quiet(&stack, Dialect::Waku1).await, envelope(TOPIC, 10));
    for peer in &mut peers {
        peer.post_confirmed(std::slice::from_ref(&shared)).await;
    }
    marker_poster.post_confirmed(std::slice::from_ref(&marker)).await;
    for (index, peer) in peers.iter_mut().enumerate() {
        let relayed = peer.relayed_until(&marker).await;
        let distinct: HashSet<_> = relayed.iter().map(Envelope::hash).collect();
        assert_eq!(distinct.len(), relayed.len(), "something came twice");
        let others: HashSet<_> = own
            .iter()
            .enumerate()
            .filter(|(poster, _)| *poster != index)
            .flat_map(|(_, own)| own.iter().map(Envelope::hash))
            .collect();
        // The first poster of the shared one never gets it; the others may have posted before they got it.
        assert!(index > 0 || !distinct.contains(&shared.hash()));
        assert_eq!(&distinct - &HashSet::from([shared.hash()]), others);
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_gets_what_is_still_alive() {
    let stack = Stack::start().await;
    let mut poster = Peer::quiet(&stack, Dialect::Waku1).await;
    let (short, long) = (envelope_at(NOW, 10, A, 10), envelope_at(NOW, 100, A, 10));
    poster.post_confirmed(&[short.clone(), long.clone()]).await;
    let mut first = Peer::wanting(&stack, Dialect::Shh6, by_bloom(Bloom::FULL)).await;
    assert_eq!(first.relayed_until(&long).await, [short]);
    stack.clock.advance(Duration::from_secs(11));
    stack.pool_holds(1).await;
    let mut second = Peer::wanting(&stack, Dialect::Waku1, by_bloom(Bloom::FULL)).await;
    assert_eq!(second.relayed_until(&long).await, []);
    // The slot of a peer that left is used again, and its marks are not.
    first.leave().await;
    second.leave().await;
    stack.counted_down("peers", 1).await;
    let mut third = Peer::wanting(&stack, Dialect::Waku1, by_bloom(Bloom::FULL)).await;
    assert_eq!(third.relayed_until(&long).await, []);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_above_1_mib_is_split() {
    let stack = Stack::start().await;
    let mut poster = Peer::quiet(&stack, Dialect::Waku1).await;
    // Many that fill packets, one that takes a packet alone, and many small ones.
    let mut posted: Vec<_> = (0..30).map(|_| envelope(A, 100_000)).collect();
    posted.push(envelope(A, 1_000_000));
    posted.extend((0..2000).map(|_| envelope(A, 200)));
    for packet in posted[..30].chunks(8).chain(posted[30..].chunk_by(|a, b| a.size() == b.size())) {
        poster.post(packet).await;
    }
    stack.counted("received_envelopes", "", posted.len() as u64).await;
    for dialect in DIALECTS {
        let mut watcher = Peer::wanting(&stack, dialect, by_bloom(Bloom::FULL)).await;
        let mut relayed = Vec::new();
        while relayed.len() < posted.len() {
            let heard = watcher.next("relayed envelopes").await;
            let Packet::Messages(messages) = &heard.packet else { panic!("{heard:?}") };
            assert!(heard.payload.len() <= 1 << 20, "{}", heard.payload.len());
            let bytes = messages.envelopes.iter().map(|envelope| envelope.rlp().len()).sum();
            assert_eq!(heard.payload.len(), list_length(bytes));
            relayed.extend(messages.envelopes.clone());
        }
        assert_eq!(relayed, posted);
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dialects_are_bridged() {
    let stack = Stack::start().await;
    for (from, to) in [(Dialect::Waku1, Dialect::Shh6), (Dialect::Shh6, Dialect::Waku1)] {
        let mut reader = Peer::wanting(&stack, to, by_bloom(Bloom::of_topics([A]))).await;
        let mut poster = Peer::quiet(&stack, from).await;
        let posted: Vec<_> = (0..3).map(|_| envelope(A, 100)).collect();
        poster.post_confirmed(&posted).await;
        let relayed = reader.relayed_until(&posted[2]).await;
        assert!(relayed.ends_with(&posted[..2]), "{relayed:?}");
        let fetched = reader.fetch(&everything()).await;
        assert!(posted.iter().all(|posted| fetched.contains(posted)));
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_makes_room_and_loses_nothing_that_was_confirmed() {
    let stack = Stack::with(|config| {
        config.pool_bytes = ByteSize(100_000);
    })
    .await;
    let mut poster = Peer::quiet(&stack, Dialect::Waku1).await;
    let posted: Vec<_> = (0..300).map(|_| envelope(A, 1000)).collect();
    poster.post_confirmed(&posted).await;
    // Keeping them takes something too.
    let info = stack.node_info().await;
    assert!(info.pool_bytes <= 100_000 && info.pool_envelopes > 60, "{info:?}");
    assert_eq!(poster.fetch(&everything()).await.len(), 300);
    stack.end().await;
}
