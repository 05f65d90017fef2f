//! Neighbours that go away and come back.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, publish};
use crate::stack::{Stack, eventually, free_address, soon, url};

#[tokio::test]
async fn an_archive_that_was_away_is_read_on() {
    let mut stack = Stack::start().await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    stack.stop_archive().await;
    stack.has_fault("push.archive", &stack.archive_address.to_string()).await;
    let feed = stack.feed().await;
    assert!(!feed.connected && !feed.last_error.is_empty(), "{feed:?}");
    // The gateway keeps it for the archive.
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    stack.start_archive("archive").await;
    stack.is_fault_free("push.archive").await;
    alice.is_told(&stack, 1).await;
    assert_eq!(stack.rings(), 1);
    assert_eq!(stack.metric("archive_disconnections", ""), 1);
    stack.end().await;
}

#[tokio::test]
async fn an_answer_waits_for_a_gateway_and_the_device_rings_once() {
    let away = free_address();
    let mut stack = Stack::with(|config| {
        config.gateways = vec![url(away)];
        // The second message does not wait for the first one.
        config.max_in_progress = 1;
    })
    .await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    stack.has_fault("push.gateway", &away.to_string()).await;
    publish(stack.gateway_address, bob.registration(1)).await;
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    eventually("the device to ring", async || stack.rings() == 1).await;
    eventually("another attempt", async || stack.metric("messages_retried", "") > 3).await;
    let feed = stack.feed().await;
    assert!(feed.in_progress == 2 && feed.seq < feed.head, "{feed:?}");
    assert!(alice.reported(&stack).await.is_empty());
    // A restart does not lose it either.
    stack.stop_push().await;
    stack.start_push().await;
    let back = stack.another_gateway(away).await;
    alice.is_told(&stack, 1).await;
    eventually("the other answer", async || bob.registered(&stack).await.len() == 1).await;
    assert_eq!(stack.rings(), 1);
    stack.is_fault_free("push.gateway").await;
    back.stop(std::time::Duration::from_secs(10)).await.unwrap();
    stack.end().await;
}

#[tokio::test]
async fn another_gateway_takes_the_place_of_one_that_is_away() {
    let stack = Stack::with(|config| config.gateways.insert(0, url(free_address()))).await;
    let (alice, bob) = (Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    alice.is_told(&stack, 1).await;
    let failures = stack.metric("publish_failures", "");
    assert_eq!(
        (failures, stack.metric("messages_retried", "")),
        (1, 0),
        "the one that is there is asked first"
    );
    stack.is_fault_free("push.gateway").await;
    stack.end().await;
}

#[tokio::test]
async fn without_a_gateway_a_stop_waits_for_nobody() {
    let mut stack = Stack::start().await;
    let bob = Client::of(&stack);
    publish(stack.gateway_address, bob.registration(1)).await;
    stack.stop_gateway().await;
    stack.has_fault("push.gateway", "no gateway takes answers").await;
    stack.stop_push().await;
    stack.end().await;
}

#[tokio::test]
async fn what_nobody_marked_is_no_feedback() {
    let stack = Stack::start().await;
    let body = r#"{"type":"failed-push","notif_id":"forged","error":"BadDeviceToken"}"#;
    let answer = soon("an answer", post(stack.feedback(), body)).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    stack.end().await;
}

async fn post(address: SocketAddr, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST /feedback HTTP/1.1\r\nHost: push\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
