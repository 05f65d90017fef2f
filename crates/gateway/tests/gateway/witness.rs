//! The peer that notices nothing: connected all the while, it posts, is confirmed, and is served, whatever a bad peer
//! does meanwhile.

use std::time::Duration;

use poste_rlpx::DisconnectReason;
use poste_wire::mail::MailRequest;
use poste_wire::{Dialect, Envelope, Topic};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::envelopes::envelope;
use crate::panics;
use crate::peer::{Peer, in_order};
use crate::stack::{NOW, Stack, soon};

/// The witness' own topic.
const WITNESSED: Topic = Topic(*b"seen");
/// Between two posts.
const PACE: Duration = Duration::from_millis(20);

/// A stack that is watched by a witness while a test does its worst.
pub(crate) struct Watched {
    pub(crate) stack: Stack,
    stop: CancellationToken,
    witness: JoinHandle<(Peer, Vec<Envelope>)>,
}

impl Watched {
    /// Starts a stack and its witness.
    pub(crate) async fn start() -> Self {
        Self::over(Stack::start().await).await
    }

    /// Watches a stack.
    pub(crate) async fn over(stack: Stack) -> Self {
        let peer = Peer::quiet(&stack, Dialect::Waku1).await;
        let stop = CancellationToken::new();
        let witness = tokio::spawn(post(peer, stop.clone()));
        Self { stack, stop, witness }
    }

    /// The witness was confirmed all the while, and is served all of it; then the gateway says goodbye to it. Nothing
    /// panicked.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let (mut peer, posted) =
            soon("the witness", self.witness).await.expect("it was confirmed all the while");
        assert!(!posted.is_empty());
        let request = MailRequest::between(NOW - 1, NOW + 1).with_topics(vec![WITNESSED]);
        assert_eq!(peer.fetch(&request).await, in_order(&posted));
        peer.assert_nothing_else();
        let ((), ()) = tokio::join!(self.stack.end(), peer.expect_disconnect(DisconnectReason::Quitting));
        panics::assert_none();
    }
}

async fn post(mut peer: Peer, stop: CancellationToken) -> (Peer, Vec<Envelope>) {
    let mut posted = Vec::new();
    loop {
        let next = envelope(WITNESSED, 100);
        peer.post_confirmed(std::slice::from_ref(&next)).await;
        posted.push(next);
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            () = stop.cancelled() => return (peer, posted),
        }
    }
}
