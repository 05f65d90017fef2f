//! Topics by name, or everything.

use crate::client::{Client, publish};
use crate::stack::{Stack, eventually};

#[tokio::test]
async fn with_many_topics_everything_is_read_and_with_few_again_not() {
    let stack = Stack::with(|config| config.tail_topics = 4).await;
    let (alice, bob, carol) = (Client::of(&stack), Client::of(&stack), Client::of(&stack));
    bob.registers(&stack, 1).await;
    assert!(!stack.feed().await.everything);
    carol.registers(&stack, 1).await;
    eventually("everything to be read", async || {
        let feed = stack.feed().await;
        feed.connected && feed.everything
    })
    .await;
    for (number, target) in [(1, &bob), (2, &carol)] {
        publish(stack.gateway_address, alice.query(target)).await;
        eventually("the answer to a query", async || alice.found(&stack).await.len() == number).await;
    }
    // A stranger's: read, and left out.
    let nobody = Client::of(&stack);
    publish(stack.gateway_address, alice.query(&nobody)).await;
    for client in [&bob, &carol] {
        publish(stack.gateway_address, client.unregistration(2)).await;
    }
    eventually("few topics", async || {
        let feed = stack.feed().await;
        feed.connected && !feed.everything && feed.topics == 2
    })
    .await;
    bob.registers(&stack, 3).await;
    publish(stack.gateway_address, alice.request(&bob, 1)).await;
    alice.is_told(&stack, 1).await;
    assert_eq!(stack.rings(), 1);
    stack.end().await;
}
