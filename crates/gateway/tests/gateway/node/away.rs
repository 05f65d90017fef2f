//! The archive is away: envelopes wait, within a bound, and are confirmed after its return; nobody is told less or more
//! than is true meanwhile.

use std::time::Duration;

use poste_rlpx::{Closed, DisconnectReason};
use poste_rpc::archive::v1::StatsRequest;
use poste_service::config::ByteSize;
use poste_wire::mail::MailRequestPacket;
use poste_wire::packet::Options;
use poste_wire::{Bloom, Dialect, Packet};

use crate::envelopes::{TOPIC, envelope, everything, sealed};
use crate::panics;
use crate::peer::{Peer, in_order};
use crate::stack::{Stack, eventually};

const FULL: &str = "archive is away and the queue for it is full: send again later";
const UNAVAILABLE: &str = "archive is not available now, ask again later";

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_are_confirmed_from_the_spool_and_archived_after_its_return() {
    let mut stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let wants = Options { bloom: Some(Bloom::of_topics([TOPIC])), ..Options::default() };
    let mut watcher = Peer::wanting(&stack, Dialect::Shh6, wants).await;
    let before = envelope(TOPIC, 100);
    peer.post_confirmed(std::slice::from_ref(&before)).await;
    stack.counted("archive_connected", "", 1).await;
    eventually("the check of the archive", || stack.archive_fault().is_none()).await;
    assert_eq!(stack.metric("held_back_seconds", ""), 0);
    stack.stop_archive().await;
    stack.reaches_archive(false).await;

    let posted: Vec<_> = (0..50).map(|_| envelope(TOPIC, 1000)).collect();
    for batch in posted.chunks(10) {
        peer.post_confirmed(batch).await;
    }
    // Relayed all the same, and what waits is known.
    assert_eq!(watcher.relayed_until(&posted[49]).await.len(), 50);
    let info = stack.node_info().await;
    let bytes: usize = posted.iter().map(|envelope| envelope.rlp().len()).sum();
    assert_eq!((info.pending_envelopes, info.pending_bytes), (50, bytes as u64));
    assert!(!info.archive_reachable);
    assert_eq!((stack.queue_fault(), stack.spool_fault()), (None, None), "there is room");
    assert_eq!((stack.metric("spooled_envelopes", ""), stack.metric("spool_envelopes", "")), (50, 50));
    stack.counted_down("archive_connected", 0).await;
    stack.clock.advance(Duration::from_secs(7));
    stack.counted("held_back_seconds", "", 7).await;
    assert!(stack.archive_fault().unwrap().contains("goes into the spool"));
    assert!(stack.is_ready(), "a gateway works without its archive");

    // Requests end with the error form.
    for request in [everything(), everything().with_topics(vec![TOPIC])] {
        assert_eq!(peer.refusal(MailRequestPacket::Sealed(sealed(&request))).await, UNAVAILABLE);
    }
    assert_eq!(stack.metric("mail_requests", "outcome=\"archive_unavailable\""), 2);
    peer.assert_nothing_else();

    stack.start_archive().await;
    stack.drained().await;
    assert!(stack.node_info().await.archive_reachable);
    let all = [&[before], &posted[..]].concat();
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&all));
    assert_eq!((stack.metric("drained_envelopes", ""), stack.metric("spool_lost_envelopes", "")), (50, 0));
    eventually("the spool's files to go", || stack.spool_files().is_empty()).await;
    stack.counted_down("held_back_seconds", 0).await;
    eventually("the check of the archive", || stack.archive_fault().is_none()).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_bound_they_are_refused_by_name_and_the_gateway_is_not_ready() {
    let mut stack = Stack::with(|config| config.spool_size = ByteSize(12_000)).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let mut whisperer = Peer::quiet(&stack, Dialect::Shh6).await;
    stack.reaches_archive(true).await;
    assert_eq!(stack.spool_fault(), None);
    stack.stop_archive().await;
    stack.reaches_archive(false).await;

    let spooled: Vec<_> = (0..9).map(|_| envelope(TOPIC, 1000)).collect();
    peer.post_confirmed(&spooled).await;
    // This one does not fit: it waits, but not for ever.
    let waiting = vec![envelope(TOPIC, 5000)];
    let batch = peer.post(&waiting).await;
    stack.counted("spool_full_state", "", 1).await;
    let too_much: Vec<_> = (0..5).map(|_| envelope(TOPIC, 1000)).collect();
    // At once: what is refused need not wait for the archive, whoever posts it.
    for (poster, code) in [(&mut peer, 22), (&mut whisperer, 38)] {
        let second = poster.post(&too_much).await;
        let faults = poster.confirmation(second).await;
        assert_eq!(faults.len(), 5);
        for (fault, envelope) in faults.iter().zip(&too_much) {
            assert_eq!((fault.hash, fault.code), (envelope.hash(), code));
            assert_eq!(fault.description, FULL);
        }
    }
    assert!(stack.spool_fault().is_some_and(|reason| reason.contains("is the archive up")));
    let faults = peer.confirmation(batch).await;
    assert_eq!(
        faults.iter().map(|fault| (fault.hash, &fault.description[..])).collect::<Vec<_>>(),
        [(waiting[0].hash(), FULL)]
    );
    let again = peer.post(&waiting).await;
    assert_eq!(peer.confirmation(again).await[0].description, FULL, "still, and at once");
    assert_eq!(stack.metric("refused_envelopes", "reason=\"archive_full\""), 12);
    assert_eq!(stack.node_info().await.pending_envelopes, 9);
    assert!(stack.metric("spool_bytes", "") <= 12_000);
    peer.assert_nothing_else();

    stack.start_archive().await;
    eventually("the spool to have room", || stack.spool_fault().is_none()).await;
    assert_eq!(stack.metric("spool_full_state", ""), 0);
    // Sent again, as the text says.
    peer.post_confirmed(&too_much).await;
    peer.post_confirmed(&waiting).await;
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&[spooled, waiting, too_much].concat()));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_come_and_go_while_peers_post() {
    let mut stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let (mut posted, mut batches) = (Vec::new(), Vec::new());
    for round in 0..5 {
        for _ in 0..20 {
            let batch: Vec<_> = (0..5).map(|_| envelope(TOPIC, 300)).collect();
            batches.push(peer.post(&batch).await);
            posted.extend(batch);
        }
        if round % 2 == 0 {
            stack.stop_archive().await;
        } else {
            stack.start_archive().await;
        }
    }
    stack.start_archive().await;
    for batch in batches {
        assert_eq!(peer.confirmation(batch).await, []);
    }
    stack.drained().await;
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&posted));
    stack.end().await;
}

/// Two archives behind one address would split the history in silence.
#[tokio::test(flavor = "multi_thread")]
async fn another_store_in_its_place_is_neither_written_to_nor_believed() {
    let mut stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let first = envelope(TOPIC, 100);
    peer.post_confirmed(std::slice::from_ref(&first)).await;
    stack.stop_archive().await;
    stack.start_archive_in("another archive").await;
    eventually("the gateway to notice", || {
        stack.store_fault().is_some_and(|reason| reason.starts_with("the archive has another store"))
    })
    .await;
    let second = envelope(TOPIC, 100);
    peer.post_confirmed(std::slice::from_ref(&second)).await;
    assert_eq!(stack.metric("drained_envelopes", ""), 0, "the spool keeps it");
    assert_eq!(peer.refusal(MailRequestPacket::Sealed(sealed(&everything()))).await, UNAVAILABLE);
    peer.assert_nothing_else();
    assert_eq!(stack.queue_fault(), None, "it has room");

    // Somebody restarts it, who may know nothing of stores.
    stack.halt_gateway().await;
    stack.start_gateway().await;
    eventually("the gateway to notice again", || stack.store_fault().is_some()).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    assert_eq!(peer.refusal(MailRequestPacket::Sealed(sealed(&everything()))).await, UNAVAILABLE);
    assert_eq!(stack.node_info().await.pending_envelopes, 1);

    stack.stop_archive().await;
    stack.start_archive().await;
    stack.drained().await;
    assert_eq!(stack.store_fault(), None);
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&[first, second]));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_store_is_gone_on_with_when_a_setting_names_it() {
    let mut stack = Stack::start().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    peer.post_confirmed(&[envelope(TOPIC, 100)]).await;
    stack.stop_archive().await;
    stack.start_archive_in("another archive").await;
    eventually("the gateway to notice", || stack.store_fault().is_some()).await;
    let posted = envelope(TOPIC, 100);
    peer.post_confirmed(std::slice::from_ref(&posted)).await;
    stack.halt_gateway().await;

    let stats = poste_rpc::archive::client(stack.archive().channel()).stats(StatsRequest {}).await.unwrap();
    let store: String = stats.into_inner().store_id.iter().map(|byte| format!("{byte:02x}")).collect();
    stack.start_gateway_with(|config| config.archive_store = Some(store)).await;
    stack.drained().await;
    assert_eq!(stack.store_fault(), None);
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    assert_eq!(peer.fetch_in_time(&everything()).await, std::slice::from_ref(&posted));
    stack.halt_gateway().await;
    // From now on it is the known one.
    stack.start_gateway_with(|config| config.archive_store = None).await;
    stack.reaches_archive(true).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    assert_eq!(peer.fetch_in_time(&everything()).await, [posted]);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_neither_takes_was_never_confirmed() {
    let mut stack = Stack::with(|config| config.spool_size = ByteSize(500)).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    stack.reaches_archive(true).await;
    stack.stop_archive().await;
    stack.reaches_archive(false).await;
    let batch = peer.post(&[envelope(TOPIC, 1000)]).await;
    stack.counted("received_envelopes", "", 1).await;
    let (took, archive, _directory) = stack.stop_gateway().await;
    // The drain of 5 s is given to the archive to come back.
    assert!(archive.is_none() && took < Duration::from_secs(8), "{took:?}");
    let (heard, closed) = peer.hear_everything().await;
    let confirms = |packet: &Packet| match packet {
        Packet::BatchAcknowledged(hash) => *hash == batch,
        Packet::MessageResponse(_) => true,
        _ => false,
    };
    assert!(!heard.iter().any(|heard| confirms(&heard.packet)), "{heard:?}");
    assert_eq!(closed, Closed::Disconnected(DisconnectReason::Quitting));
    panics::assert_none();
}
