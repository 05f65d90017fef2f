//! Peers that read slowly or not at all: what waits for them is bounded, and nobody else waits.

use std::collections::HashMap;
use std::time::Duration;

use poste_wire::mail::MailRequestPacket;
use poste_wire::packet::{Completion, Options};
use poste_wire::{Bloom, Dialect, Envelope, Packet, Topic};

use crate::envelopes::{TOPIC, envelope, everything, sealed};
use crate::panics;
use crate::peer::{Appearance, Peer, in_order};
use crate::stack::{Stack, eventually};
use crate::witness::Watched;

/// 24 MB of mail.
const COUNT: usize = 24;
const SIZE: usize = 1_000_000;

/// What moves no more for so long stands still.
const STILL: Duration = Duration::from_millis(700);

async fn post(stack: &Stack) -> Vec<Envelope> {
    let mut poster = Peer::quiet(stack, Dialect::Waku1).await;
    let posted: Vec<_> = (0..COUNT).map(|_| envelope(TOPIC, SIZE)).collect();
    for one in &posted {
        poster.post_confirmed(std::slice::from_ref(one)).await;
    }
    posted
}

fn slow(wants: Options) -> Appearance {
    Appearance { receive_buffer: Some(16 * 1024), ..Appearance::wanting(Dialect::Waku1, wants) }
}

/// Waits until a counter stands still, which is when everything between the gateway and the peer is full.
async fn stands_still(stack: &Stack, name: &str) -> u64 {
    settled(name, || stack.metric(name, "")).await
}

/// However long it takes until then on a busy machine: as long as the counter moves, something is going on.
async fn settled(name: &str, count: impl Fn() -> u64) -> u64 {
    let mut last = 0;
    loop {
        eventually(&format!("{name} to begin"), || count() > 0).await;
        tokio::time::sleep(STILL).await;
        match count() {
            now if now == last => return now,
            now => last = now,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_for_who_never_reads_does_not_pile_up() {
    let watched = Watched::start().await;
    let stack = &watched.stack;
    let posted = post(stack).await;
    let mut reader =
        Peer::appear(stack, &slow(Options { bloom: Some(Bloom::EMPTY), ..Options::default() })).await;
    let id = reader.ask(MailRequestPacket::Sealed(sealed(&everything().with_topics(vec![TOPIC])))).await;
    // The queue of the connection holds 4 MiB, and what lies in sockets is bounded by the system.
    let delivered = stands_still(stack, "mail_envelopes").await;
    assert!(delivered < COUNT as u64 / 2, "{delivered} of {COUNT}");

    // Others are served meanwhile, and the slow one too as soon as it reads.
    let mut other = Peer::quiet(stack, Dialect::Shh6).await;
    other.post_confirmed(&[envelope(Topic([5; 4]), 10)]).await;
    let (packets, completion) = reader.answer(id).await;
    let read = packets.into_iter().flat_map(|heard| match heard.packet {
        Packet::MailMessages(envelopes) => envelopes,
        _ => Vec::new(),
    });
    assert_eq!(read.collect::<Vec<_>>(), in_order(&posted));
    assert!(matches!(completion, Completion::Done { cursor: None, .. }));

    // One that leaves in the middle of it is given up.
    reader.ask(MailRequestPacket::Sealed(sealed(&everything()))).await;
    stands_still(stack, "mail_envelopes").await;
    drop(reader);
    stack.counted("mail_requests", "outcome=\"delivered\"", 1).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relaying_to_who_never_reads_does_not_pile_up() {
    let watched = Watched::start().await;
    let stack = &watched.stack;
    let posted = post(stack).await;
    // Who is deaf answers no Ping either, and has to go in time: it comes when everything is posted, and gets the pool.
    let mut deaf =
        Peer::appear(stack, &slow(Options { bloom: Some(Bloom::of_topics([TOPIC])), ..Options::default() }))
            .await;
    let relayed = stands_still(stack, "relayed_envelopes").await;
    assert!(relayed < COUNT as u64 / 2, "{relayed} of {COUNT}");
    // It gets all of it when it reads.
    let last = posted.last().unwrap();
    assert_eq!(deaf.relayed_until(last).await, posted[..COUNT - 1]);
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_those_that_may_wait_are_turned_away() {
    let watched = Watched::start().await;
    let stack = &watched.stack;
    post(stack).await;
    let nothing = Options { bloom: Some(Bloom::EMPTY), ..Options::default() };
    let mut reader = Peer::appear(stack, &slow(nothing)).await;
    let first = reader.ask(MailRequestPacket::Sealed(sealed(&everything().with_topics(vec![TOPIC])))).await;
    stands_still(stack, "mail_envelopes").await;
    // While the first is being answered 16 may wait.
    let mut ids = Vec::new();
    let small = everything().with_limit(1);
    for _ in 0..20 {
        ids.push(reader.ask(MailRequestPacket::Sealed(sealed(&small))).await);
    }
    let mut answers = HashMap::new();
    while answers.len() < 21 {
        let completion = reader.hear("an end", |heard| match &heard.packet {
            Packet::MailComplete(completion) => Some(completion.clone()),
            _ => None,
        });
        let completion = completion.await;
        answers.insert(completion.request_id(), completion);
    }
    assert!(matches!(answers[&first], Completion::Done { .. }));
    for (number, id) in ids.iter().enumerate() {
        match &answers[id] {
            Completion::Done { .. } => assert!(number < 16, "{number}"),
            Completion::Failed { error, .. } => {
                assert!(number >= 16, "{number}: {error}");
                assert_eq!(error, "too many requests wait for an answer");
            }
        }
    }
    stack.counted("mail_requests", "outcome=\"too_many\"", 4).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmations_for_who_never_reads_do_not_pile_up() {
    const PACKETS: usize = 100;
    const EACH: u64 = 10_000;
    let watched = Watched::start().await;
    let stack = &watched.stack;
    let nothing = Options { bloom: Some(Bloom::EMPTY), ..Options::default() };
    let mut deaf = Peer::appear(stack, &slow(nothing)).await;
    // Small on the wire, and each is worth a line in 12.
    let posting = tokio::spawn(async move {
        for number in 0..PACKETS as u64 {
            let nonces = number * EACH..(number + 1) * EACH;
            let bad: Vec<_> = nonces.map(|nonce| Envelope::new(1, 1, TOPIC, b"", nonce)).collect();
            if deaf.press_on(&bad).await.is_err() {
                return;
            }
        }
    });
    let refused = || stack.metric("refused_envelopes", "reason=\"very_old\"");
    let stuck = settled("refused envelopes", refused).await;
    assert!(stuck < PACKETS as u64 * EACH / 2, "{stuck}");
    posting.abort();
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_never_reads_does_not_hold_up_the_end() {
    let stack = Stack::start().await;
    post(&stack).await;
    let nothing = Options { bloom: Some(Bloom::EMPTY), ..Options::default() };
    let mut deaf = Peer::appear(&stack, &slow(nothing)).await;
    deaf.ask(MailRequestPacket::Sealed(sealed(&everything()))).await;
    stands_still(&stack, "mail_envelopes").await;
    // One more than may wait: the gateway's reader itself has to answer it, and finds no room.
    for _ in 0..17 {
        deaf.ask(MailRequestPacket::Sealed(sealed(&everything()))).await;
    }
    stack.counted("mail_requests", "outcome=\"too_many\"", 1).await;
    let (took, archive, _directory) = stack.stop_gateway().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    archive.unwrap().stop(Duration::from_secs(10)).await.unwrap();
    panics::assert_none();
}
