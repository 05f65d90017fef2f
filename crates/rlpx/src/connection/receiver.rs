//! The receiving side of a connection, and its owner: the connection ends when the Receiver is dropped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::link::{Frames, Link, Reading};
use super::outbox::{Farewell, Outbox};
use super::sender::Sender;
use super::writer::Writer;
use super::{Connection, Limits, is_base};
use crate::base_id;
use crate::capability::{Shared, locate};
use crate::disconnect::DisconnectReason;
use crate::error::{Breach, Closed};
use crate::frame::{Frame, FrameError};
use crate::hello::MAX_HELLO_SIZE;
use crate::snappy;

/// A message of a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which capability: the index in [`Receiver::shared`].
    pub capability: usize,
    /// The message code within the capability.
    pub code: u8,
    /// The payload, decompressed.
    pub payload: Bytes,
}

/// Receives the messages of a peer, and answers what belongs to the base protocol.
///
/// Nothing is read, and no Ping answered, while nobody waits in [`next`](Self::next); that time does not
/// count as the peer's silence. Dropping the Receiver closes the connection.
pub struct Receiver {
    outbox: Arc<Outbox>,
    /// None once the connection has ended.
    frames: Option<Frames>,
    /// Where the reading half goes then: the writer drains it while it says goodbye.
    hand_over: Option<oneshot::Sender<Reading>>,
    snappy: bool,
    limits: Limits,
    /// For how long the peer has been listened to in vain.
    silence: Duration,
}

/// Starts the writing task of a connection.
pub(super) fn start(connection: Connection) -> (Receiver, Sender) {
    let Connection { link: Link { frames, encoder, writing, snappy }, shared, limits, .. } = connection;
    let outbox = Arc::new(Outbox::new(shared, limits.send_queue_bytes));
    let (hand_over, reading) = oneshot::channel();
    let writer = Writer { outbox: Arc::clone(&outbox), writing, encoder, limits: limits.clone(), reading };
    tokio::spawn(writer.run());
    let sender = Sender::new(Arc::clone(&outbox));
    let receiver = Receiver {
        outbox,
        frames: Some(frames),
        hand_over: Some(hand_over),
        snappy,
        limits,
        silence: Duration::ZERO,
    };
    (receiver, sender)
}

/// What happened while the Receiver waited.
enum Event {
    Frame(Option<Result<Frame, FrameError>>),
    Halt,
    Silence,
}

impl Receiver {
    /// The common capabilities of the connection.
    pub fn shared(&self) -> &[Shared] {
        self.outbox.shared()
    }

    /// The next message, or what ended the connection: what the peer said if it said something. Cancel-safe:
    /// dropping the future loses nothing. Once it has failed it fails with the same for ever.
    pub async fn next(&mut self) -> Result<Message, Closed> {
        loop {
            let closed = match self.wait().await {
                Event::Frame(Some(Ok(frame))) => match self.read(frame) {
                    Ok(Some(message)) => return Ok(message),
                    Ok(None) => continue,
                    Err(closed) => closed,
                },
                Event::Frame(Some(Err(FrameError::Breach(breach)))) => breach.into(),
                Event::Frame(Some(Err(FrameError::Io(error)))) => Closed::Io(error.kind()),
                Event::Frame(None) => Closed::Eof,
                Event::Silence => Closed::Idle,
                Event::Halt => self.outbox.closed(),
            };
            return Err(self.finish(closed));
        }
    }

    async fn wait(&mut self) -> Event {
        let Some(frames) = &mut self.frames else { return Event::Halt };
        let left = self.limits.idle_timeout.saturating_sub(self.silence);
        let listening = Listening { since: Instant::now(), silence: &mut self.silence };
        let event = tokio::select! {
            biased;
            () = self.outbox.halt.cancelled() => Event::Halt,
            frame = frames.next() => Event::Frame(frame),
            () = sleep(left) => Event::Silence,
        };
        if let Event::Frame(_) = event {
            listening.heard();
        }
        event
    }

    /// Handles the base protocol; gives a message of a capability.
    fn read(&mut self, frame: Frame) -> Result<Option<Message>, Closed> {
        let Frame { id, payload } = frame;
        match id {
            base_id::DISCONNECT => Err(Closed::Disconnected(self.read_disconnect(&payload))),
            base_id::PING => {
                self.outbox.request_pong();
                Ok(None)
            }
            id if is_base(id) => Ok(None),
            id => {
                let (capability, code) =
                    locate(self.outbox.shared(), id).ok_or(Breach::UnknownMessage { id })?;
                Ok(Some(Message { capability, code, payload: self.decompress(payload)? }))
            }
        }
    }

    fn decompress(&self, payload: Bytes) -> Result<Bytes, Breach> {
        let limit = self.limits.max_message_size;
        if self.snappy {
            return snappy::decompress(&payload, limit);
        }
        let size = payload.len();
        if size > limit {
            return Err(Breach::TooLarge { size, limit });
        }
        // A copy: a small payload must not keep the whole read buffer alive for as long as its owner likes.
        Ok(Bytes::copy_from_slice(&payload))
    }

    /// Some peers do not compress a Disconnect.
    fn read_disconnect(&self, payload: &Bytes) -> DisconnectReason {
        match snappy::decompress(payload, MAX_HELLO_SIZE) {
            Ok(payload) if self.snappy => DisconnectReason::decode(&payload),
            _ => DisconnectReason::decode(payload),
        }
    }

    /// Ends the connection with the protocol's own answer, unless something else has ended it before.
    fn finish(&mut self, closed: Closed) -> Closed {
        let Some(frames) = self.frames.take() else { return self.outbox.closed() };
        let farewell = match closed {
            Closed::Idle => Farewell::Ping,
            closed => closed.reason().map_or(Farewell::Silence, Farewell::Disconnect),
        };
        let closed = self.outbox.end(closed, farewell);
        if let Some(hand_over) = self.hand_over.take() {
            // The writer may have ended; then the half is dropped here.
            let _ = hand_over.send(frames.into_inner());
        }
        closed
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.finish(Closed::Dropped);
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("open", &self.frames.is_some()).finish_non_exhaustive()
    }
}

/// Adds the time for which the peer was listened to, also when the wait is cancelled.
struct Listening<'a> {
    since: Instant,
    silence: &'a mut Duration,
}

impl Listening<'_> {
    fn heard(mut self) {
        *self.silence = Duration::ZERO;
        self.since = Instant::now();
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        *self.silence += self.since.elapsed();
    }
}
