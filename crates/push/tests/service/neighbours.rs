//! Neighbours that go away and come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use poste_provider::{Notification, Outcome, PushProvider, Unavailable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

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
async fn an_answer_to_a_message_in_segments_waits_for_a_gateway_too() {
    let away = free_address();
    let stack = Stack::with(|config| config.gateways = vec![url(away)]).await;
    let bob = Client::of(&stack);
    for segment in bob.registration_in_segments(1) {
        publish(stack.gateway_address, segment).await;
    }
    eventually("another attempt", async || stack.metric("messages_retried", "") > 1).await;
    let feed = stack.feed().await;
    assert!(feed.in_progress == 1 && feed.seq < feed.head, "{feed:?}");
    let back = stack.another_gateway(away).await;
    eventually("the answer", async || bob.registered(&stack).await.len() == 1).await;
    assert!(bob.registered(&stack).await[0].0.success);
    eventually("nothing to be in progress", async || {
        let feed = stack.feed().await;
        feed.in_progress == 0 && feed.seq == feed.head
    })
    .await;
    back.stop(std::time::Duration::from_secs(10)).await.unwrap();
    stack.end().await;
}

#[tokio::test]
async fn an_answer_that_gateways_refuse_is_counted_and_shown() {
    let address = free_address();
    let stack = Stack::with(|config| config.gateways = vec![url(address)]).await;
    // More than any nonce reaches by luck.
    let strict = stack.strict_gateway(address, 1000.0).await;
    let (bob, carol) = (Client::of(&stack), Client::of(&stack));
    stack.is_fault_free("push.gateway").await;
    publish(stack.gateway_address, bob.registration(1)).await;
    eventually("it to be tried again", async || stack.metric("answers_refused", "") > 1).await;
    stack.has_fault("push.gateway", "proof of work").await;
    strict.stop(std::time::Duration::from_secs(10)).await.unwrap();
    let lax = stack.another_gateway(address).await;
    eventually("the answer", async || bob.registered(&stack).await.len() == 1).await;
    carol.registers(&stack, 1).await;
    stack.is_fault_free("push.gateway").await;
    lax.stop(std::time::Duration::from_secs(10)).await.unwrap();
    stack.end().await;
}

#[tokio::test]
async fn who_waits_for_the_provider_keeps_nobody_waiting() {
    let mut stack = Stack::with(|config| config.max_in_progress = 4).await;
    let provider = Arc::new(Slow::default());
    stack.stop_push().await;
    stack.provider = Some(provider.clone());
    stack.start_push().await;
    let (alice, bob, carol) = (Client::of(&stack), Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    for message in 1..=6 {
        publish(stack.gateway_address, alice.request(&bob, message)).await;
    }
    eventually("all to be taken", async || stack.feed().await.in_progress == 6).await;
    assert_eq!(provider.asked.load(Ordering::Relaxed), 3, "as many as may ask at a time");
    carol.registers(&stack, 1).await;
    publish(stack.gateway_address, alice.query(&bob)).await;
    eventually("the answer to a query", async || !alice.found(&stack).await.is_empty()).await;
    assert!(alice.reported(&stack).await.is_empty());
    provider.answers.add_permits(6);
    alice.is_told(&stack, 6).await;
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

/// A provider that takes each notification when it may.
#[derive(Debug)]
struct Slow {
    asked: AtomicUsize,
    answers: Semaphore,
}

impl Default for Slow {
    fn default() -> Self {
        Self { asked: AtomicUsize::new(0), answers: Semaphore::new(0) }
    }
}

impl PushProvider for Slow {
    fn send(&self, _: Notification) -> BoxFuture<'_, Outcome> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        async {
            self.answers.acquire().await.unwrap().forget();
            Outcome::Sent
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        async { Ok(()) }.boxed()
    }
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
