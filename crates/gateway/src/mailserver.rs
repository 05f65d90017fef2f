//! The seam between the node and its mailserver: the two calls that the Whisper mailserver specification names,
//! `archive(envelope)` and `deliver_mail(peer, request)`. The node knows nothing of what is behind them.

mod adoption;
mod archive;
mod outbox;

use std::fmt;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use poste_wire::mail::ValidRequest;
use poste_wire::{Cursor, Envelope, Hash};
use thiserror::Error;
use tokio::sync::oneshot;

pub(crate) use adoption::Adoption;
pub(crate) use archive::ArchiveMailServer;
pub(crate) use outbox::{KnownStore, Outbox, OutboxSize, Spooling};

/// Keeps envelopes, and delivers them to peers that ask.
pub(crate) trait MailServer: fmt::Debug + Send + Sync + 'static {
    /// Takes an envelope into safe keeping. Returns at once; the receipt resolves when it is safe: in the archive, or on
    /// this gateway's disk on its way there.
    /// `learn` is told what became of it as soon as that is known, and dropped where it never is.
    fn archive(&self, envelope: &Envelope, learn: Option<Learn>) -> Result<Receipt, QueueFull>;

    /// Sends the page that was asked for to a peer, oldest envelopes first. When this returns without error,
    /// everything has been handed to the peer's connection; what completes the request is sent by the caller.
    fn deliver_mail<'a>(
        &'a self,
        peer: &'a dyn Mailbox,
        request: &'a ValidRequest,
    ) -> BoxFuture<'a, Result<Delivered, DeliveryError>>;

    /// What waits to be archived.
    fn waiting(&self) -> OutboxSize;
}

/// A peer that gets mail.
pub(crate) trait Mailbox: Send + Sync {
    /// Hands envelopes to the peer's connection, waiting for room. An error: the peer has gone or reads too slowly.
    fn send<'a>(&'a self, envelopes: &'a [Envelope]) -> BoxFuture<'a, Result<(), PeerGone>>;
}

/// What was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Delivered {
    /// How many envelopes.
    pub count: usize,
    /// The last of them.
    pub last: Option<Hash>,
    /// Where the next page begins, if there is one.
    pub cursor: Option<Cursor>,
}

/// Why a page was not delivered, or not whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum DeliveryError {
    /// The archive cannot be asked now; the peer is told so, and asks again.
    #[error("archive is not available now, ask again later")]
    Unavailable,
    /// All that there is was delivered, but something is still held back from the archive that may belong to it; the
    /// peer is told so, and asks again.
    #[error("history is not complete yet, ask again later")]
    Incomplete,
    /// The archive does not take this question.
    #[error("request is invalid: {0}")]
    Refused(String),
    /// There is nobody to tell.
    #[error(transparent)]
    PeerGone(#[from] PeerGone),
}

/// The peer's connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer has gone")]
pub(crate) struct PeerGone;

/// More envelopes wait for the archive than the queue may hold, or the archive is away and the spool takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the queue for the archive is full")]
pub(crate) struct QueueFull;

/// Whether an envelope is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stored {
    /// It is durable: in the archive, or in the spool.
    Yes,
    /// The archive will never take it.
    Refused,
    /// The archive takes no more of this size today.
    OverQuota,
    /// The archive is away, and the spool takes nothing.
    NoRoom,
    /// This process stopped before the archive answered.
    Unknown,
}

impl Stored {
    /// Whether it was not taken, and may be when it is sent again.
    pub(crate) fn may_come_again(self) -> bool {
        matches!(self, Self::OverQuota | Self::NoRoom)
    }
}

/// Is told what became of an envelope. It must not wait.
pub(crate) type Learn = Box<dyn FnOnce(Stored) + Send>;

/// A promise to say whether an envelope is stored. Cheap to clone; every clone learns it.
#[derive(Clone)]
pub(crate) struct Receipt(Shared<BoxFuture<'static, Stored>>);

impl Receipt {
    /// One that is resolved already.
    #[cfg(test)]
    pub(crate) fn ready(stored: Stored) -> Self {
        Self(futures::future::ready(stored).boxed().shared())
    }

    /// One that resolves when the other end says so; unknown when the other end is dropped.
    fn pending(done: oneshot::Receiver<Stored>) -> Self {
        Self(done.map(|stored| stored.unwrap_or(Stored::Unknown)).boxed().shared())
    }

    /// What became of it, if that is known.
    pub(crate) fn known(&self) -> Option<Stored> {
        self.0.clone().now_or_never()
    }

    /// Waits until it is known.
    pub(crate) async fn stored(&self) -> Stored {
        self.0.clone().await
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({:?})", self.0.peek())
    }
}
