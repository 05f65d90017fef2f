//! What waits to be written on one connection, and how the connection ends: shared by its Receiver, its
//! Senders and the task that writes.
//!
//! Two lanes. The control lane holds at most one Ping, one Pong and one Disconnect, and goes first. The data
//! lane is bounded in bytes by permits that a message holds from before it is queued until it is written.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::sync::CancellationToken;

use crate::capability::Shared;
use crate::disconnect::DisconnectReason;
use crate::error::{Closed, TrySendError};
use crate::frame::{MAX_BODY_SIZE, MAX_ID_SIZE};
use crate::snappy;

/// What a queued message costs besides its payload: its place in the queue, and header, MACs and padding of
/// its frame.
const MESSAGE_COST: usize = 160;

pub(super) struct Outbox {
    state: Mutex<State>,
    /// Something was queued for the writer.
    pub(super) wake: Notify,
    /// Something was written, or the connection ended.
    written: Notify,
    /// One permit for each byte that may wait.
    room: Arc<Semaphore>,
    capacity: usize,
    shared: Vec<Shared>,
    /// The connection is ending: nothing more is queued.
    pub(super) closing: CancellationToken,
    /// Nothing more is read either.
    pub(super) halt: CancellationToken,
    /// The writer is done.
    pub(super) done: CancellationToken,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Queued>,
    ping: bool,
    pong: bool,
    queued: u64,
    written: u64,
    end: Option<(Closed, Farewell)>,
}

/// A message that waits, with the permits for its bytes.
pub(super) struct Queued {
    pub(super) id: u32,
    pub(super) payload: Bytes,
    permit: OwnedSemaphorePermit,
}

/// What is written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nothing.
    Silence,
    /// A last Ping.
    Ping,
    /// Disconnect.
    Disconnect(DisconnectReason),
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) ping: bool,
    pub(super) pong: bool,
    pub(super) messages: Vec<Queued>,
}

impl Outbox {
    pub(super) fn new(shared: Vec<Shared>, capacity: usize) -> Self {
        let capacity = capacity.clamp(1, u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            written: Notify::new(),
            room: Arc::new(Semaphore::new(capacity)),
            capacity,
            shared,
            closing: CancellationToken::new(),
            halt: CancellationToken::new(),
            done: CancellationToken::new(),
        }
    }

    pub(super) fn shared(&self) -> &[Shared] {
        &self.shared
    }

    /// Queues a message; waits, first come first served, while there is no room.
    pub(super) async fn send(&self, capability: usize, code: u8, payload: Bytes) -> Result<(), Closed> {
        let id = self.id(capability, code, &payload)?;
        let permit = Arc::clone(&self.room).acquire_many_owned(self.cost(&payload)).await;
        match permit {
            Ok(permit) => self.push(Queued { id, payload, permit }),
            Err(_) => Err(self.closed()),
        }
    }

    /// Queues a message if there is room.
    pub(super) fn try_send(&self, capability: usize, code: u8, payload: Bytes) -> Result<(), TrySendError> {
        let id = self.id(capability, code, &payload)?;
        match Arc::clone(&self.room).try_acquire_many_owned(self.cost(&payload)) {
            Ok(permit) => Ok(self.push(Queued { id, payload, permit })?),
            Err(TryAcquireError::NoPermits) => Err(TrySendError::Full),
            Err(TryAcquireError::Closed) => Err(self.closed().into()),
        }
    }

    /// Waits until everything queued before this call is written to the stream.
    pub(super) async fn flush(&self) -> Result<(), Closed> {
        let target = self.state.lock().queued;
        loop {
            let progress = self.written.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            {
                let state = self.state.lock();
                if state.written >= target {
                    return Ok(());
                }
                if let Some((closed, _)) = state.end {
                    return Err(closed);
                }
            }
            progress.await;
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.capacity.saturating_sub(self.room.available_permits())
    }

    pub(super) fn request_ping(&self) {
        self.state.lock().ping = true;
        self.wake.notify_one();
    }

    pub(super) fn request_pong(&self) {
        self.state.lock().pong = true;
        self.wake.notify_one();
    }

    /// Takes the control lane, and messages up to `bytes` (at least one).
    pub(super) fn take(&self, bytes: usize) -> Batch {
        let mut state = self.state.lock();
        let mut batch = Batch {
            ping: std::mem::take(&mut state.ping),
            pong: std::mem::take(&mut state.pong),
            messages: Vec::new(),
        };
        let mut size = 0;
        while let Some(next) = state.messages.front() {
            size += next.payload.len() + MESSAGE_COST;
            if size > bytes && !batch.messages.is_empty() {
                break;
            }
            batch.messages.extend(state.messages.pop_front());
        }
        batch
    }

    /// Gives back the room of written messages.
    pub(super) fn wrote(&self, messages: Vec<Queued>) {
        self.state.lock().written += messages.len() as u64;
        messages.into_iter().for_each(|message| drop(message.permit));
        self.written.notify_waiters();
    }

    /// Ends the connection, unless it is ending already; gives what it ended with. What is queued is dropped.
    pub(super) fn end(&self, closed: Closed, farewell: Farewell) -> Closed {
        let dropped = {
            let mut state = self.state.lock();
            match &mut state.end {
                // A write that failed says less than the Disconnect that is read after it.
                Some((earlier @ Closed::Io(_), _)) if matches!(closed, Closed::Disconnected(_)) => {
                    *earlier = closed;
                    return closed;
                }
                Some((earlier, _)) => return *earlier,
                end => *end = Some((closed, farewell)),
            }
            std::mem::take(&mut state.messages)
        };
        drop(dropped);
        self.room.close();
        self.closing.cancel();
        // After a write has failed there may still be messages to read, the peer's reason among them.
        if !matches!(closed, Closed::Io(_)) {
            self.halt.cancel();
        }
        self.written.notify_waiters();
        closed
    }

    /// What the connection ended with; asked only once it is ending.
    pub(super) fn closed(&self) -> Closed {
        self.state.lock().end.map_or(Closed::Dropped, |(closed, _)| closed)
    }

    pub(super) fn farewell(&self) -> Farewell {
        self.state.lock().end.map_or(Farewell::Silence, |(_, farewell)| farewell)
    }

    fn push(&self, message: Queued) -> Result<(), Closed> {
        let mut state = self.state.lock();
        if let Some((closed, _)) = state.end {
            return Err(closed);
        }
        state.messages.push_back(message);
        state.queued += 1;
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// The id on the wire. A message that cannot be sent ends the connection: it is a defect of the caller.
    fn id(&self, capability: usize, code: u8, payload: &Bytes) -> Result<u32, Closed> {
        let largest = (MAX_BODY_SIZE - MAX_ID_SIZE).min(snappy::MAX_MESSAGE_SIZE);
        self.shared
            .get(capability)
            .filter(|range| u16::from(code) < range.length)
            .filter(|_| snappy::max_compressed_len(payload.len()) <= largest)
            .map(|range| range.offset + u32::from(code))
            .ok_or_else(|| {
                self.end(Closed::Unsendable, Farewell::Disconnect(DisconnectReason::SubprotocolError))
            })
    }

    fn cost(&self, payload: &Bytes) -> u32 {
        u32::try_from((payload.len() + MESSAGE_COST).min(self.capacity)).unwrap_or(u32::MAX)
    }
}
