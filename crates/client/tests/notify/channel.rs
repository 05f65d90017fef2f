//! Publishing, live messages and history through a real gateway and archive.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use poste_client::notify::{Channel, ChannelError, ChannelOptions, Delivery, Mail};
use poste_wire::Topic;

use crate::stack::{Stack, soon};

const TOPIC: Topic = Topic([1, 2, 3, 4]);
const OTHER: Topic = Topic([5, 6, 7, 8]);

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

#[tokio::test]
async fn what_one_publishes_another_hears_and_history_keeps() {
    let stack = Stack::start().await;
    let (mut alice, mut bob) = (stack.channel().await, stack.channel().await);
    let began = now();
    bob.subscribe([TOPIC]).await.unwrap();
    // 49 kB ask for much more work than 60 kB, which count as large.
    for (topic, length) in [(OTHER, 300), (TOPIC, 49_000), (TOPIC, 60_000), (TOPIC, 1)] {
        let delivery = soon("a confirmation", alice.publish(topic, vec![7; length])).await.unwrap();
        assert_eq!(delivery, Delivery::Confirmed);
    }
    let mut lengths = Vec::new();
    for _ in 0..3 {
        let Mail { topic, data, made_at } = soon("a message", bob.next()).await.unwrap();
        assert_eq!(topic, TOPIC);
        assert!((began..=now()).contains(&made_at));
        lengths.push(data.len());
    }
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 49_000, 60_000]);

    let mut stored = Vec::new();
    let history = bob.history(&[TOPIC, OTHER], began, |message| stored.push(message.data.len()));
    assert_eq!(soon("history", history).await.unwrap(), None, "everything");
    stored.sort_unstable();
    assert_eq!(stored, [1, 300, 49_000, 60_000]);

    let mut stored = 0;
    let later = now() + 600;
    soon("history", bob.history(&[TOPIC], later, |_| stored += 1)).await.unwrap();
    assert_eq!(stored, 0, "nothing is from the future");
    stack.end().await;
}

#[tokio::test]
async fn history_does_not_take_for_ever() {
    let stack = Stack::start().await;
    stack.channel().await.publish(TOPIC, vec![7]).await.unwrap();
    // No node is as quick as that.
    let options = ChannelOptions { history_patience: Duration::ZERO, ..ChannelOptions::new(stack.enode()) };
    let mut bob = soon("a connection", Channel::connect(options)).await.unwrap();
    let incomplete = soon("history", bob.history(&[TOPIC], 0, |_| ())).await.unwrap();
    assert_eq!(incomplete.as_deref(), Some("the node has not come to an end within 0 s"));
    stack.end().await;
}

#[tokio::test]
async fn topics_come_and_go() {
    let stack = Stack::start().await;
    let (mut alice, mut bob) = (stack.channel().await, stack.channel().await);
    alice.publish(TOPIC, vec![1]).await.unwrap();
    // What the node still relays comes when its topic is named.
    bob.subscribe([TOPIC]).await.unwrap();
    assert_eq!(soon("a message", bob.next()).await.unwrap().data[..], [1]);
    bob.subscribe([OTHER]).await.unwrap();
    bob.unsubscribe([TOPIC]).await.unwrap();
    // Bob's own are not sent back to him; a confirmation shows that the node knows of the change.
    bob.publish(OTHER, vec![2]).await.unwrap();
    alice.publish(TOPIC, vec![3]).await.unwrap();
    alice.publish(OTHER, vec![4]).await.unwrap();
    assert_eq!(soon("a message", bob.next()).await.unwrap().data[..], [4]);
    stack.end().await;
}

#[tokio::test]
async fn a_channel_connects_anew_with_its_topics() {
    let stack = Stack::start().await;
    let mut bob = stack.channel().await;
    bob.subscribe([TOPIC]).await.unwrap();
    let stack = stack.restart_gateway().await;
    let error = soon("the end", bob.next()).await.unwrap_err();
    assert!(error.is_connection(), "{error}");
    assert_eq!(soon("a confirmation", bob.publish(OTHER, vec![1])).await.unwrap(), Delivery::Confirmed);
    let mut alice = stack.channel().await;
    alice.publish(TOPIC, vec![5]).await.unwrap();
    assert_eq!(soon("a message", bob.next()).await.unwrap().data[..], [5]);
    stack.end().await;
}

#[tokio::test]
async fn a_connection_that_died_while_idle_does_not_keep_from_subscribing() {
    let stack = Stack::start().await;
    let mut bob = stack.channel().await;
    bob.subscribe([TOPIC]).await.unwrap();
    let stack = stack.restart_gateway().await;
    let mut alice = stack.channel().await;
    soon("a subscription", bob.subscribe([OTHER])).await.unwrap();
    for topic in [TOPIC, OTHER] {
        alice.publish(topic, vec![5]).await.unwrap();
    }
    let mut heard = [soon("a message", bob.next()).await, soon("a message", bob.next()).await]
        .map(|mail| mail.unwrap().topic);
    heard.sort_unstable();
    assert_eq!(heard, [TOPIC, OTHER]);
    stack.end().await;
}

#[tokio::test]
async fn what_no_node_takes_is_refused() {
    let stack = Stack::start().await;
    let mut alice = stack.channel().await;
    let error = alice.publish(TOPIC, vec![0; 1024 * 1024]).await.unwrap_err();
    assert!(matches!(error, ChannelError::TooLong(_)), "{error}");
    let many = (0..=10_000_u32).map(|number| Topic(number.to_be_bytes()));
    let error = alice.subscribe(many).await.unwrap_err();
    assert!(matches!(error, ChannelError::TooManyTopics(10_001)), "{error}");
    assert!(alice.history(&[], 0, |_| ()).await.is_err());
    // And none of that has harmed the connection.
    assert_eq!(alice.publish(TOPIC, vec![1]).await.unwrap(), Delivery::Confirmed);
    stack.end().await;
}
