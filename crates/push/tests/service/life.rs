//! A registration and a notification, and what a stop and a start between them do.

use std::fs;

use crate::client::{Client, publish};
use crate::stack::{Stack, any_port, eventually, url};

#[tokio::test]
async fn a_client_registers_and_its_device_rings() {
    let stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    publish(stack.gateway_address, alice.query(&bob)).await;
    eventually("the answer to a query", async || !alice.found(&stack).await.is_empty()).await;
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    alice.is_told(&stack, 1).await;
    assert_eq!(stack.rings(), 1);
    for check in ["push.archive", "push.gateway", "push.provider", "push.store", "push.intake", "push.feed"] {
        stack.is_fault_free(check).await;
    }
    assert_eq!((stack.feed().await.topics, stack.metric("archive_connections", "")), (4, 1));
    // Deployed clients never recover from the loss of this one.
    eventually("the answer to go out again", async || bob.registered(&stack).await[0].1 == 2).await;
    stack.end().await;
}

#[tokio::test]
async fn answers_to_registrations_go_through_two_gateways() {
    let mut stack = Stack::start().await;
    let other = stack.another_gateway(any_port()).await;
    stack.stop_push().await;
    stack.config.gateways.push(url(other.addresses().grpc.unwrap()));
    stack.start_push().await;
    let bob = Client::of(&stack);
    bob.registers(&stack, 1).await;
    eventually("both gateways to have it", async || stack.metric("published_envelopes", "") >= 2).await;
    assert_eq!(bob.registered(&stack).await[0].1, 1, "the network sees one envelope");
    other.stop(std::time::Duration::from_secs(10)).await.unwrap();
    stack.end().await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_one_ended() {
    let mut stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    stack.stop_push().await;
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    stack.start_push().await;
    alice.is_told(&stack, 1).await;
    assert_eq!(stack.rings(), 1);
    let registrations = "{answer=\"registration\",outcome=\"published\"}";
    assert_eq!(stack.metric("answers", registrations), 0, "what was dealt with is not read again");
    let feed = stack.feed().await;
    assert!(feed.seq >= 3, "{feed:?}");
    stack.end().await;
}

#[tokio::test]
async fn a_lost_store_comes_back_from_the_archive() {
    let mut stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    stack.stop_push().await;
    for file in fs::read_dir(&stack.config.data).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "identity.key" {
            fs::remove_file(file.path()).unwrap();
        }
    }
    stack.start_push().await;
    eventually("the registration to be back", async || {
        stack.metric("registrations", "{outcome=\"success\"}") == 1
    })
    .await;
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    alice.is_told(&stack, 1).await;
    assert_eq!(stack.rings(), 1);
    stack.end().await;
}

#[tokio::test]
async fn while_it_is_paused_nothing_is_taken() {
    let stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    let feed = stack.drain(false).await;
    assert!(feed.paused && feed.in_progress == 0, "{feed:?}");
    assert!(stack.fault("push.intake").unwrap().starts_with("paused by an operator"));
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    // The archive has it by now.
    assert_eq!((stack.rings(), stack.feed().await.in_progress), (0, 0));
    stack.drain(true).await;
    assert_eq!(stack.fault("push.intake"), None);
    alice.is_told(&stack, 1).await;
    assert_eq!(stack.rings(), 1);
    stack.end().await;
}
