//! What is confirmed from the spool outlives the gateway, and nobody takes history for complete while it is held back.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use poste_journal::{DirectoryLock, RealDisk};
use poste_rpc::archive::v1::ListWritersRequest;
use poste_wire::packet::Completion;
use poste_wire::{Dialect, Envelope};

use crate::envelopes::{TOPIC, envelope, envelope_at, everything};
use crate::peer::{Peer, in_order};
use crate::proxy::Proxy;
use crate::stack::{NOW, Stack, eventually, soon};
use poste_wire::mail::MailRequest;

const INCOMPLETE: &str = "history is not complete yet, ask again later";

/// A gateway that the proxy has cut off from its archive, with one envelope in the archive and 20 in its spool.
async fn cut_off() -> (Stack, Proxy, Vec<Envelope>) {
    let (stack, proxy) = Stack::behind_a_proxy().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let mut all = vec![envelope(TOPIC, 100)];
    peer.post_confirmed(&all).await;
    proxy.cut();
    stack.reaches_archive(false).await;
    let spooled: Vec<_> = (0..20).map(|second| envelope_at(NOW - second, 60, TOPIC, 300)).collect();
    peer.post_confirmed(&spooled).await;
    assert_eq!(stack.metric("spooled_envelopes", ""), 20);
    all.extend(spooled);
    (stack, proxy, all)
}

/// Waits until a page over everything ends with the error form; returns what it had.
async fn incomplete(peer: &mut Peer) -> Vec<Envelope> {
    let asking = async {
        loop {
            if let (delivered, Completion::Failed { error, .. }) = peer.page(&everything()).await {
                assert_eq!(error, INCOMPLETE);
                return delivered;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the archive to miss the gateway", asking).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_comes_back_drains_and_history_waits_for_it() {
    let (mut stack, proxy, all) = cut_off().await;
    let other = stack.sibling(|_| {}).await;
    let mut reader = Peer::quiet(&other, Dialect::Waku1).await;
    assert_eq!(incomplete(&mut reader).await, all[..1], "what there is, and the error form");
    // What nobody holds back is complete.
    let before = MailRequest::between(0, NOW - 25 * 3600);
    assert_eq!(reader.fetch(&before).await, []);

    stack.halt_gateway().await;
    assert_eq!(incomplete(&mut reader).await, all[..1]);
    stack.start_gateway().await;
    let info = stack.node_info().await;
    let bytes: usize = all[1..].iter().map(|envelope| envelope.rlp().len()).sum();
    assert_eq!((info.pending_envelopes, info.pending_bytes), (20, bytes as u64));
    assert_eq!(incomplete(&mut reader).await, all[..1], "it is back, but not heard");

    proxy.mend();
    stack.drained().await;
    assert_eq!(reader.fetch_in_time(&everything()).await, in_order(&all));
    assert_eq!(stack.metric("drained_envelopes", ""), 20);
    eventually("the spool's files to go", || stack.spool_files().is_empty()).await;
    other.end().await;
    stack.end().await;
}

/// What a gateway takes now may have been made a day ago: how long ago, its ttl says, not when its gateway was last heard.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_was_never_called_complete() {
    let (stack, proxy, _) = cut_off().await;
    let other = stack.sibling(|_| {}).await;
    let mut reader = Peer::quiet(&other, Dialect::Waku1).await;
    incomplete(&mut reader).await;
    let long_ago = MailRequest::between(NOW - 7200, NOW - 3600);
    let (delivered, said) = reader.page(&long_ago).await;
    assert_eq!(delivered, []);
    assert!(matches!(&said, Completion::Failed { error, .. } if error == INCOMPLETE), "{said:?}");

    let late = [envelope_at(NOW - 5400, 7200, TOPIC, 300)];
    Peer::quiet(&stack, Dialect::Waku1).await.post_confirmed(&late).await;
    proxy.mend();
    stack.drained().await;
    assert_eq!(reader.fetch_in_time(&long_ago).await, late);
    other.end().await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_peers_are_told_too() {
    let (stack, proxy, all) = cut_off().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    proxy.mend();
    // Until everything is drained each answer is the error form, whichever way the archive knows.
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&all));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_end_nobody_waits() {
    let stack = Stack::start().await;
    let mut reader = Peer::quiet(&stack, Dialect::Waku1).await;
    let other = stack.sibling(|_| {}).await;
    let mut writer = Peer::quiet(&other, Dialect::Waku1).await;
    let posted = [envelope(TOPIC, 100)];
    writer.post_confirmed(&posted).await;
    other.end().await;
    assert_eq!(reader.fetch(&everything()).await, posted, "the archive has heard the goodbye");
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_in_time_is_confirmed_from_the_spool() {
    let (stack, proxy) = Stack::behind_a_proxy().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    proxy.stand_still();
    let posted: Vec<_> = (0..10).map(|_| envelope(TOPIC, 300)).collect();
    peer.post_confirmed(&posted).await;
    assert_eq!(stack.metric("spooled_envelopes", ""), 10);
    let later = envelope(TOPIC, 300);
    peer.post_confirmed(std::slice::from_ref(&later)).await;
    assert_eq!(stack.metric("spooled_envelopes", ""), 11);
    proxy.mend();
    stack.drained().await;
    let all = [posted, vec![later]].concat();
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&all));
    // Acknowledged again: what comes now goes to the archive.
    peer.post_confirmed(&[envelope(TOPIC, 100)]).await;
    assert_eq!(stack.metric("spooled_envelopes", ""), 11);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_loses_what_is_damaged_and_says_so() {
    let (mut stack, proxy, all) = cut_off().await;
    stack.halt_gateway().await;
    let files = stack.spool_files();
    assert_eq!(files.len(), 1);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&files[0]).unwrap();
    // Somewhere in the body of the first envelope, behind the header of 64 bytes.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 64 + 100).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 64 + 100).unwrap();
    stack.start_gateway().await;
    assert_eq!(stack.node_info().await.pending_envelopes, 19);
    proxy.mend();
    stack.drained().await;
    // Once: when the file is set aside.
    stack.counted("spool_lost_envelopes", "", 1).await;
    assert!(stack.spool_files().iter().all(|file| file.extension().is_some_and(|kind| kind == "damaged")));
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let kept = [&all[..1], &all[2..]].concat();
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&kept));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_left_behind_is_adopted() {
    let (mut stack, _proxy, all) = cut_off().await;
    stack.halt_gateway().await;
    let data = stack.data();
    let adopter = stack.sibling(|config| config.adopt_spools = vec![data]).await;
    adopter.counted("drained_envelopes", "", 20).await;
    let mut reader = Peer::quiet(&adopter, Dialect::Waku1).await;
    assert_eq!(reader.fetch_in_time(&everything()).await, in_order(&all), "and nobody waits for its gateway");
    eventually("the spool's files to go", || stack.spool_files().is_empty()).await;
    assert_eq!(adopter.metric("spool_envelopes", ""), 0, "its own");
    adopter.end().await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_who_is_draining_its_spool() {
    let (mut stack, proxy, all) = cut_off().await;
    stack.halt_gateway().await;
    let held = DirectoryLock::acquire(Arc::new(RealDisk), &stack.data().join("spool")).unwrap();
    let giving_back = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        drop(held);
    };
    soon("the start", async { tokio::join!(stack.start_gateway(), giving_back) }).await;
    proxy.mend();
    stack.drained().await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&all));
    stack.end().await;
}

/// The id under which the archive knows a gateway's spool.
fn writer_id(stack: &Stack) -> String {
    let text = std::fs::read_to_string(stack.data().join("spool/writer")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("writer ")).unwrap().to_owned()
}

/// A key that was brought back from a backup into a new directory: the old one may hold envelopes, and what one says must
/// not be taken for the other's word.
#[tokio::test(flavor = "multi_thread")]
async fn two_directories_with_one_key_are_two_writers() {
    let (mut stack, _proxy, all) = cut_off().await;
    stack.halt_gateway().await;
    let old = stack.data();
    let adopted = old.clone();
    let heir = stack
        .sibling(move |config| {
            std::fs::create_dir_all(&config.data).unwrap();
            std::fs::copy(old.join("node.key"), config.data.join("node.key")).unwrap();
        })
        .await;
    let (of_old, of_heir) = (writer_id(&stack), writer_id(&heir));
    assert_ne!(of_old, of_heir);
    assert_eq!(of_old[..64], of_heir[..64], "people see whose they are");
    let mut reader = Peer::quiet(&heir, Dialect::Waku1).await;
    assert_eq!(
        incomplete(&mut reader).await,
        all[..1],
        "the old one is waited for, although the heir is there"
    );

    let adopter = heir.sibling(|config| config.adopt_spools = vec![adopted]).await;
    adopter.counted("drained_envelopes", "", 20).await;
    assert_eq!(reader.fetch_in_time(&everything()).await, in_order(&all));
    // The goodbye was the old one's: the heir is still known, and waited for when it is gone without one.
    let mut admin = poste_rpc::archive::admin_client(stack.archive_admin().channel());
    let writers = admin.list_writers(ListWritersRequest {}).await.unwrap().into_inner().writers;
    let connected = |id: &str| writers.iter().any(|writer| writer.writer_id == id && writer.connected);
    assert_eq!((connected(&of_heir), connected(&of_old)), (true, false), "{writers:?}");
    adopter.end().await;
    heir.end().await;
    stack.end().await;
}
