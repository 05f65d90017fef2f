//! The task that writes a connection: control packets first, then messages, small ones together. It ends with
//! the connection, after at most one second for the goodbye.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::link::{Reading, Writing, drain};
use super::outbox::{Batch, Farewell, Outbox};
use super::{FAREWELL_TIMEOUT, Limits};
use crate::base_id;
use crate::error::Closed;
use crate::frame::FrameEncoder;

/// Messages are written together up to this many bytes; a control packet waits for no more than that, or one
/// frame.
const BATCH_BYTES: usize = 64 * 1024;

/// The payload of Ping and Pong: an empty list.
const EMPTY: &[u8] = &[0xc0];

pub(super) struct Writer {
    pub(super) outbox: Arc<Outbox>,
    pub(super) writing: Writing,
    pub(super) encoder: FrameEncoder,
    pub(super) limits: Limits,
    /// The Receiver hands the reading half over when it stops reading.
    pub(super) reading: oneshot::Receiver<Reading>,
}

impl Writer {
    pub(super) async fn run(mut self) {
        let outbox = Arc::clone(&self.outbox);
        let _done = outbox.done.clone().drop_guard();
        let mut out = BytesMut::with_capacity(4096);
        let mut next_ping = Instant::now() + self.limits.ping_interval;
        while !outbox.closing.is_cancelled() {
            if Instant::now() >= next_ping {
                next_ping = Instant::now() + self.limits.ping_interval;
                outbox.request_ping();
            }
            let batch = outbox.take(BATCH_BYTES);
            if !self.encode(&batch, &mut out) {
                break;
            }
            if out.is_empty() {
                tokio::select! {
                    () = outbox.wake.notified() => {}
                    () = outbox.closing.cancelled() => {}
                    () = sleep_until(next_ping) => {}
                }
                continue;
            }
            let written = out.len();
            if let Err(closed) = self.write(&mut out).await {
                outbox.end(closed, Farewell::Silence);
                return;
            }
            if out.is_empty() {
                outbox.wrote(batch.messages);
                if written > 2 * BATCH_BYTES {
                    out = BytesMut::new();
                }
            }
        }
        self.say_farewell(out).await;
    }

    /// Appends the frames of a batch. False when the connection has ended over a message that no frame can
    /// carry.
    fn encode(&mut self, batch: &Batch, out: &mut BytesMut) -> bool {
        let control = [(batch.pong, base_id::PONG), (batch.ping, base_id::PING)];
        let control = control.iter().filter(|(due, _)| *due).map(|(_, id)| (*id, EMPTY));
        let messages = batch.messages.iter().map(|message| (message.id, &message.payload[..]));
        for (id, payload) in control.chain(messages) {
            if !self.encoder.encode(id, payload, out) {
                self.outbox.end(Closed::Unsendable, Farewell::Silence);
                return false;
            }
        }
        true
    }

    /// Writes all of `out`, or stops early, leaving the rest in it, when the connection is ending.
    async fn write(&mut self, out: &mut BytesMut) -> Result<(), Closed> {
        let deadline = Instant::now() + self.limits.write_timeout;
        while !out.is_empty() {
            let written = tokio::select! {
                biased;
                () = self.outbox.closing.cancelled() => return Ok(()),
                written = self.writing.write_buf(out) => written,
                () = sleep_until(deadline) => return Err(Closed::WriteTimeout),
            };
            match written {
                Ok(0) => return Err(Closed::Io(std::io::ErrorKind::WriteZero)),
                Ok(_) => {}
                Err(error) => return Err(Closed::Io(error.kind())),
            }
        }
        Ok(())
    }

    /// Finishes the frame that is under way, says the last word, and closes, all within one second.
    async fn say_farewell(mut self, mut out: BytesMut) {
        let deadline = Instant::now() + FAREWELL_TIMEOUT;
        let farewell = self.outbox.farewell();
        let encoded = match farewell {
            Farewell::Silence => return,
            Farewell::Ping => self.encoder.encode(base_id::PING, EMPTY, &mut out),
            Farewell::Disconnect(reason) => {
                self.encoder.encode(base_id::DISCONNECT, &reason.encode(), &mut out)
            }
        };
        let said = timeout_at(deadline, async {
            self.writing.write_all(&out).await?;
            self.writing.shutdown().await
        });
        if !encoded || !matches!(said.await, Ok(Ok(()))) || farewell == Farewell::Ping {
            return;
        }
        if let Ok(Ok(mut reading)) = timeout_at(deadline, self.reading).await {
            drain(&mut reading, deadline).await;
        }
    }
}
