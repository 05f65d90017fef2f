//! Another archive than before.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use poste_rpc::archive::v1::append_request::Kind;
use poste_rpc::archive::v1::{
    AppendBatch, AppendOpen, AppendOutcome, AppendRequest, NewRecord, PruneRequest, StatsRequest,
    append_response,
};
use poste_wire::{Envelope, Topic};

use crate::client::{Client, now_s, publish};
use crate::stack::{Stack, eventually, soon, target};

const HOUR_S: u32 = 3600;

#[tokio::test]
async fn another_archive_needs_consent_and_its_old_messages_are_no_news() {
    let mut stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    let noted = stack.config.data.join("caught-up");
    eventually("the note that everything was read", async || noted.exists()).await;
    stack.stop_gateway().await;
    stack.stop_archive().await;
    stack.start_archive("another archive").await;
    stack.has_fault("push.archive", "set push.archive_store to").await;
    let store = store_id(stack.archive_address).await;
    assert!(stack.fault("push.archive").unwrap().contains(&store));

    // Nothing was read of it until now.
    let now_s = now_s();
    append(stack.archive_address, alice.request(&bob, 1), now_s - 2 * HOUR_S).await;
    append(stack.archive_address, alice.request(&bob, 2), now_s).await;
    assert_eq!(stack.rings(), 0);
    stack.stop_push().await;
    stack.config.archive_store = Some(store.clone());
    stack.start_push().await;
    stack.is_fault_free("push.archive").await;
    eventually("the device to ring", async || stack.rings() == 1).await;
    assert_eq!(stack.metric("messages_skipped", ""), 1);
    let feed = stack.feed().await;
    assert_eq!(hex::encode(&feed.archive_store_id), store);

    // From now on it is the one that is read, without the setting too.
    eventually("the checkpoint", async || {
        let feed = stack.feed().await;
        feed.in_progress > 0 || feed.seq >= 2
    })
    .await;
    stack.end().await;
}

#[tokio::test]
async fn an_archive_that_was_put_back_needs_consent() {
    let mut stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    stack.stop_archive().await;
    copy(&stack.directory.path().join("archive"), &stack.directory.path().join("backup"));
    stack.start_archive("archive").await;
    stack.is_fault_free("push.archive").await;
    for message in 1..=3 {
        publish(stack.gateway_address, alice.request(&bob, message)).await;
    }
    alice.is_told(&stack, 3).await;
    stack.stop_archive().await;
    stack.start_archive("backup").await;
    stack.has_fault("push.archive", "was put back to an earlier state").await;

    stack.stop_push().await;
    stack.start_push().await;
    stack.has_fault("push.archive", "was put back to an earlier state").await;
    stack.config.archive_store = Some(store_id(stack.archive_address).await);
    for message in 4..=5 {
        stack.stop_push().await;
        publish(stack.gateway_address, alice.request(&bob, message)).await;
        stack.start_push().await;
        stack.is_fault_free("push.archive").await;
        eventually("the device to ring", async || stack.rings() == usize::from(message)).await;
        // The second time there is a checkpoint of it.
        stack.config.archive_store = None;
    }
    stack.end().await;
}

#[tokio::test]
async fn a_setting_that_names_another_archive_is_told() {
    let mut stack = Stack::start().await;
    stack.stop_push().await;
    stack.config.archive_store = Some("0b".repeat(16));
    stack.start_push().await;
    stack.has_fault("push.archive", "than push.archive_store names").await;
    let bob = Client::of(&stack);
    publish(stack.gateway_address, bob.registration(1)).await;
    assert_eq!(stack.metric("archive_connections", ""), 0);
    stack.end().await;
}

#[tokio::test]
async fn what_was_retired_before_it_was_read_is_told() {
    let mut stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    stack.stop_push().await;
    let made_at_s = now_s() - 2 * HOUR_S;
    for message in 1..=2 {
        append(stack.archive_address, alice.request(&bob, message), made_at_s).await;
    }
    let before_ns = i64::from(now_s() - HOUR_S) * 1_000_000_000;
    let prune = PruneRequest { space: "waku1".into(), before_ns, dry_run: false };
    let mut admin = poste_rpc::archive::admin_client(stack.archive_admin().channel());
    soon("Prune", admin.prune(prune)).await.unwrap();
    publish(stack.gateway_address, alice.request(&bob, 3)).await;
    stack.start_push().await;
    alice.is_told(&stack, 1).await;
    assert_eq!((stack.metric("gaps", ""), stack.fault("push.archive")), (1, None));
    assert!(stack.metric("gap_records", "") >= 2);
    stack.stop_archive().await;
    stack.start_archive("archive").await;
    publish(stack.gateway_address, alice.request(&bob, 4)).await;
    alice.is_told(&stack, 2).await;
    assert_eq!(stack.metric("gaps", ""), 1, "it is told once");
    stack.end().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
}

async fn store_id(archive: SocketAddr) -> String {
    let mut client = poste_rpc::archive::client(target(archive).channel());
    let stats = soon("Stats", client.stats(StatsRequest {})).await.unwrap();
    hex::encode(&stats.into_inner().store_id)
}

/// Writes an envelope that was made then into an archive.
async fn append(archive: SocketAddr, (topic, data): (Topic, Vec<u8>), made_at_s: u32) {
    let body = Envelope::new(made_at_s + 15, 15, topic, &data, 0).rlp().clone();
    let records = vec![NewRecord { space: "waku1".into(), body }];
    let requests = [
        Kind::Open(AppendOpen { writer_id: "test".into(), ..AppendOpen::default() }),
        Kind::Batch(AppendBatch { batch_id: 1, records, confirmed: false }),
    ];
    let requests = requests.map(|kind| AppendRequest { kind: Some(kind) });
    let mut client = poste_rpc::archive::client(target(archive).channel());
    let appending = async {
        let mut answers = client.append(futures::stream::iter(requests)).await.unwrap().into_inner();
        loop {
            match answers.message().await.unwrap().unwrap().kind {
                Some(append_response::Kind::Ack(ack)) => return ack.results[0].outcome(),
                _ => continue,
            }
        }
    };
    assert_eq!(soon("the acknowledgement", appending).await, AppendOutcome::Stored);
}
