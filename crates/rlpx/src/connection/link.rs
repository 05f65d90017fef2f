//! A stream with its frame codecs, while one owner both reads and writes: the handshake packets, the first
//! frame of each side, and the goodbye to a peer that is turned away.

use bytes::BytesMut;
use futures::StreamExt;
use poste_codec::{PublicKey, SecretKey};
use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::FramedRead;

use super::FAREWELL_TIMEOUT;
use crate::base_id;
use crate::disconnect::DisconnectReason;
use crate::error::{Breach, ConnectError};
use crate::frame::{self, Frame, FrameDecoder, FrameEncoder, FrameError, MAX_ID_SIZE};
use crate::handshake::{Fresh, Initiator, Packet, PacketKind, Secrets, Step, answer};
use crate::hello::MAX_HELLO_SIZE;

/// Any stream that RLPx can run over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) type Reading = ReadHalf<Box<dyn Stream>>;
pub(super) type Writing = WriteHalf<Box<dyn Stream>>;
pub(super) type Frames = FramedRead<Reading, FrameDecoder>;

/// The most that a goodbye reads and drops while it waits for the peer to have read it, in bytes.
const MAX_DRAINED: usize = 32 << 20;

pub(super) struct Link {
    pub(super) frames: Frames,
    pub(super) encoder: FrameEncoder,
    pub(super) writing: Writing,
    pub(super) snappy: bool,
}

impl Link {
    /// Nothing but a Hello is read at first.
    pub(super) fn new(stream: impl Stream + 'static, secrets: Secrets) -> Self {
        let (reading, writing) = tokio::io::split(Box::new(stream) as Box<dyn Stream>);
        let (encoder, mut decoder) = frame::codec(secrets);
        decoder.set_limit(MAX_ID_SIZE + MAX_HELLO_SIZE);
        Self { frames: FramedRead::new(reading, decoder), encoder, writing, snappy: false }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.frames.decoder_mut().set_limit(limit);
    }

    pub(super) fn enable_snappy(&mut self) {
        self.encoder.enable_snappy();
        self.snappy = true;
    }

    /// Writes our Hello and reads the peer's first frame, both at once as both sides do.
    pub(super) async fn exchange_first(&mut self, hello: &[u8]) -> Result<Frame, ConnectError> {
        let mut out = BytesMut::new();
        assert!(self.encoder.encode(base_id::HELLO, hello, &mut out), "a Hello fits into a frame");
        let (written, read) = tokio::join!(self.writing.write_all(&out), self.frames.next());
        match read {
            // A peer that says goodbye may have closed before our Hello was written.
            Some(Ok(frame)) => Ok(frame),
            Some(Err(FrameError::Breach(Breach::TooLarge { size, .. }))) => {
                Err(Breach::HelloTooLarge { size }.into())
            }
            Some(Err(FrameError::Breach(breach))) => Err(breach.into()),
            Some(Err(FrameError::Io(error))) => Err(broken(error)),
            None => written.map_err(broken).and(Err(ConnectError::Eof)),
        }
    }

    /// Says goodbye and closes: within one second writes the reason and waits until the peer has closed, so
    /// that it reads the reason before anything tears the stream down.
    pub(super) async fn farewell(&mut self, reason: DisconnectReason) {
        let mut out = BytesMut::new();
        if !self.encoder.encode(base_id::DISCONNECT, &reason.encode(), &mut out) {
            return;
        }
        let deadline = Instant::now() + FAREWELL_TIMEOUT;
        let said = timeout_at(deadline, async {
            self.writing.write_all(&out).await?;
            self.writing.shutdown().await
        });
        if matches!(said.await, Ok(Ok(()))) {
            drain(self.frames.get_mut(), deadline).await;
        }
    }
}

/// Reads and drops what the peer still sends, until it closes or the deadline comes. Closing a socket that
/// holds unread bytes would reset it, and the peer would lose the reason that it was sent.
pub(super) async fn drain(reading: &mut Reading, deadline: Instant) {
    let mut dropped = [0; 4096];
    let mut left = MAX_DRAINED;
    while left > 0 {
        match timeout_at(deadline, reading.read(&mut dropped)).await {
            Ok(Ok(length)) if length > 0 => left = left.saturating_sub(length),
            _ => return,
        }
    }
}

/// The handshake of the side that dials.
pub(super) async fn initiate(
    stream: &mut impl Stream,
    key: &SecretKey,
    remote: &PublicKey,
) -> Result<Secrets, ConnectError> {
    let initiator = Initiator::new(key, remote, draw());
    stream.write_all(initiator.auth()).await.map_err(broken)?;
    let ack = read_packet(stream, PacketKind::Ack, key).await?;
    Ok(initiator.finish(&ack)?)
}

/// The handshake of the side that listens; gives the key that the peer claims.
pub(super) async fn respond(
    stream: &mut impl Stream,
    key: &SecretKey,
) -> Result<(PublicKey, Secrets), ConnectError> {
    let auth = read_packet(stream, PacketKind::Auth, key).await?;
    let answer = answer(key, &auth, draw())?;
    stream.write_all(&answer.ack).await.map_err(broken)?;
    Ok((answer.remote, answer.secrets))
}

async fn read_packet(
    stream: &mut impl Stream,
    kind: PacketKind,
    key: &SecretKey,
) -> Result<Packet, ConnectError> {
    let mut wire = vec![0; kind.plain_size()];
    stream.read_exact(&mut wire).await.map_err(broken)?;
    let total = match Packet::open(kind, key, wire.clone())? {
        Step::Complete(packet) => return Ok(packet),
        Step::NeedTotal(total) => total,
    };
    let read = wire.len();
    wire.resize(total, 0);
    stream.read_exact(&mut wire[read..]).await.map_err(broken)?;
    match Packet::open(kind, key, wire)? {
        Step::Complete(packet) => Ok(packet),
        Step::NeedTotal(_) => unreachable!("a packet longer than the plain form is in the EIP-8 form"),
    }
}

fn draw() -> Fresh {
    let mut rng = rand::rng();
    Fresh::draw(|bytes| rng.fill_bytes(bytes))
}

fn broken(error: std::io::Error) -> ConnectError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::BrokenPipe => ConnectError::Eof,
        _ => ConnectError::Io(error),
    }
}
