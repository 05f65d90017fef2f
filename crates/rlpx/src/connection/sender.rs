//! The sending side of a connection.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::outbox::{Farewell, Outbox};
use crate::capability::Shared;
use crate::disconnect::DisconnectReason;
use crate::error::{Closed, TrySendError};

/// Sends messages to a peer. Clones share one queue, in the order of their calls.
#[derive(Clone)]
pub struct Sender {
    outbox: Arc<Outbox>,
}

impl Sender {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }

    /// The common capabilities of the connection.
    pub fn shared(&self) -> &[Shared] {
        self.outbox.shared()
    }

    /// Queues a message under `code` of the capability at index `capability` of [`shared`](Self::shared).
    /// Waits while the queue is full, which is as long as the peer reads too slowly; cancelling the wait
    /// queues nothing. A payload above 14 MiB, or a code that the capability does not have, ends the
    /// connection with [`Closed::Unsendable`].
    pub async fn send(&self, capability: usize, code: u8, payload: Bytes) -> Result<(), Closed> {
        self.outbox.send(capability, code, payload).await
    }

    /// Queues a message if there is room for it now.
    pub fn try_send(&self, capability: usize, code: u8, payload: Bytes) -> Result<(), TrySendError> {
        self.outbox.try_send(capability, code, payload)
    }

    /// Waits until everything queued before this call has been given to the stream.
    pub async fn flush(&self) -> Result<(), Closed> {
        self.outbox.flush().await
    }

    /// Ends the connection with a reason. What is queued is dropped ([`flush`](Self::flush) first to keep
    /// it); the reason is written and the stream closed within one second. Does nothing when the connection
    /// has ended.
    pub fn disconnect(&self, reason: DisconnectReason) {
        self.outbox.end(Closed::Disconnecting(reason), Farewell::Disconnect(reason));
    }

    /// Waits until the connection has ended and its last byte is written, and says why it ended.
    pub async fn closed(&self) -> Closed {
        self.outbox.done.cancelled().await;
        self.outbox.closed()
    }

    /// Whether the connection has ended or is about to.
    pub fn is_closed(&self) -> bool {
        self.outbox.closing.is_cancelled()
    }

    /// How many bytes wait to be written, with a little for each message, up to the bound of the queue.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("queued_bytes", &self.queued_bytes()).finish_non_exhaustive()
    }
}
