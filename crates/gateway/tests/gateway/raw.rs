//! A peer that writes bytes: it makes the RLPx handshake, and then any frame, right or wrong.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use poste_rlpx::frame::{self, FrameDecoder, FrameEncoder};
use poste_rlpx::handshake::{Fresh, Initiator, Packet, PacketKind, Secrets, Step};
use poste_rlpx::snappy::{self, Compressor};
use poste_rlpx::{DisconnectReason, Enode, Hello, base_id};
use poste_wire::Dialect;
use poste_wire::packet::{Options, Status};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

use crate::envelopes::fresh_key;
use crate::stack::{Stack, soon};

/// The id on the wire of code 0 when one dialect is shared.
const OFFSET: u32 = 16;

/// A TCP connection to the gateway, and nothing more.
pub(crate) async fn connect(stack: &Stack) -> TcpStream {
    let enode = stack.enode();
    let (host, port) = enode.endpoint.as_ref().unwrap().address();
    TcpStream::connect((host, port)).await.unwrap()
}

/// Reads to the end of a stream: everything that the gateway wrote, and no more than `patience` for it.
pub(crate) async fn read_to_end(mut stream: TcpStream, patience: Duration) -> Vec<u8> {
    let mut read = Vec::new();
    let reading = tokio::time::timeout(patience, stream.read_to_end(&mut read)).await;
    // A reset instead of an end: the gateway left bytes of ours unread.
    let _ = reading.expect("the gateway closes the connection");
    read
}

/// A peer behind the RLPx handshake.
pub(crate) struct Raw {
    frames: FramedRead<OwnedReadHalf, FrameDecoder>,
    writing: OwnedWriteHalf,
    /// Without compression: payloads are compressed here, or not.
    encoder: FrameEncoder,
    node_id: Vec<u8>,
}

impl Raw {
    /// The handshake of RLPx, before Hello.
    pub(crate) async fn shake_hands(stack: &Stack) -> Self {
        let mut stream = connect(stack).await;
        let key = fresh_key();
        let Enode { key: remote, .. } = stack.enode();
        let fresh = Fresh::draw(|bytes| rand::rng().fill_bytes(bytes));
        let initiator = Initiator::new(&key, &remote, fresh);
        stream.write_all(initiator.auth()).await.unwrap();
        let mut wire = vec![0; PacketKind::Ack.plain_size()];
        soon("the ack", stream.read_exact(&mut wire)).await.unwrap();
        let Step::NeedTotal(total) = Packet::open(PacketKind::Ack, &key, wire.clone()).unwrap() else {
            panic!("an EIP-8 auth is answered in kind")
        };
        let read = wire.len();
        wire.resize(total, 0);
        soon("all of the ack", stream.read_exact(&mut wire[read..])).await.unwrap();
        let Step::Complete(ack) = Packet::open(PacketKind::Ack, &key, wire).unwrap() else {
            panic!("the ack is complete")
        };
        Self::over(stream, initiator.finish(&ack).unwrap(), key.public().as_bytes().to_vec())
    }

    fn over(stream: TcpStream, secrets: Secrets, node_id: Vec<u8>) -> Self {
        let (reading, writing) = stream.into_split();
        let (encoder, decoder) = frame::codec(secrets);
        Self { frames: FramedRead::new(reading, decoder), writing, encoder, node_id }
    }

    /// Behind both Hellos: this dialect is shared.
    pub(crate) async fn say_hello(stack: &Stack, dialect: Dialect) -> Self {
        let mut raw = Self::shake_hands(stack).await;
        let hello = Hello {
            version: 5,
            client_name: "raw".to_owned(),
            capabilities: vec![poste_waku::offered(dialect).capability],
            listen_port: 0,
            node_id: raw.node_id.clone(),
        };
        raw.write_frame(base_id::HELLO, &hello.encode()).await;
        let (id, payload) = raw.read_frame().await.unwrap();
        assert_eq!(id, base_id::HELLO);
        Hello::decode(&payload).unwrap();
        raw
    }

    /// Behind both Statuses.
    pub(crate) async fn in_session(stack: &Stack, dialect: Dialect) -> Self {
        let mut raw = Self::say_hello(stack, dialect).await;
        let (_, status) =
            poste_wire::Packet::Status(Status::new(Options::default())).encode(dialect).unwrap();
        raw.write_packet(0, &status).await;
        let (id, _) = raw.read_frame().await.unwrap();
        assert_eq!(id, OFFSET);
        raw
    }

    /// The frame of a message whose payload is taken as it is.
    pub(crate) fn frame(&mut self, id: u32, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        assert!(self.encoder.encode(id, payload, &mut out));
        out
    }

    /// The frame of a packet of the shared dialect, compressed.
    pub(crate) fn packet(&mut self, code: u8, payload: &[u8]) -> BytesMut {
        let compressed = compress(payload);
        self.frame(OFFSET + u32::from(code), &compressed)
    }

    /// Writes bytes; the gateway may have stopped reading before all are written.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = soon("the gateway to read", self.writing.write_all(bytes)).await;
    }

    pub(crate) async fn write_frame(&mut self, id: u32, payload: &[u8]) {
        let frame = self.frame(id, payload);
        self.write(&frame).await;
    }

    pub(crate) async fn write_packet(&mut self, code: u8, payload: &[u8]) {
        let frame = self.packet(code, payload);
        self.write(&frame).await;
    }

    /// The next frame, its payload as it is; none at the end.
    pub(crate) async fn read_frame(&mut self) -> Option<(u32, Bytes)> {
        soon("a frame", self.read_frame_at_leisure()).await
    }

    /// Reads to the end: the reason that the gateway gives, if it gives one.
    pub(crate) async fn read_to_end(self) -> Option<DisconnectReason> {
        soon("the end of the connection", self.read_to_end_at_leisure()).await
    }

    /// The same; the caller sets the deadline.
    pub(crate) async fn read_to_end_at_leisure(mut self) -> Option<DisconnectReason> {
        let mut reason = None;
        while let Some((id, payload)) = self.read_frame_at_leisure().await {
            assert_eq!(reason, None, "nothing follows a disconnect");
            if id == base_id::DISCONNECT {
                reason = Some(DisconnectReason::decode(&snappy::decompress(&payload, 100).unwrap()));
            }
        }
        reason
    }

    async fn read_frame_at_leisure(&mut self) -> Option<(u32, Bytes)> {
        let frame = self.frames.next().await?.ok()?;
        Some((frame.id, frame.payload))
    }
}

/// Snappy, as every payload after Hello has it.
pub(crate) fn compress(payload: &[u8]) -> BytesMut {
    let mut compressed = BytesMut::new();
    Compressor::default().append(payload, &mut compressed);
    compressed
}
