//! Connections against each other, and against a peer that does exactly what a test tells it to.

mod ending;
mod handshakes;
mod hostile;
mod pressure;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::capability::Capability;
use crate::error::Closed;
use crate::frame::{Frame, FrameError, MAX_BODY_SIZE};

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn node(byte: u8) -> LocalNode {
    LocalNode {
        key: key(byte),
        client_name: format!("node {byte}"),
        capabilities: vec![
            Offered { capability: Capability::new("waku", 1), length: 128 },
            Offered { capability: Capability::new("shh", 6), length: 128 },
        ],
        listen_port: 30303,
    }
}

fn payload(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Key 1, as whom the scripted peer appears; ours is key 2.
struct Peer(Link);

impl Peer {
    /// The scripted peer dials, up to our answer to its handshake.
    async fn dials(limits: &Limits, buffer: usize) -> (Peer, Incoming) {
        let (theirs, ours) = duplex(buffer);
        let (peer, incoming) =
            tokio::join!(Self::initiate(theirs), async { accept(ours, &node(2), limits).await.unwrap() });
        (peer, incoming)
    }

    async fn initiate(mut stream: DuplexStream) -> Peer {
        let secrets = link::initiate(&mut stream, &key(1), &key(2).public()).await.unwrap();
        Self::of(Link::new(stream, secrets))
    }

    async fn respond(mut stream: DuplexStream) -> Peer {
        let (_, secrets) = link::respond(&mut stream, &key(1)).await.unwrap();
        Self::of(Link::new(stream, secrets))
    }

    fn of(mut link: Link) -> Peer {
        link.set_limit(MAX_BODY_SIZE);
        Peer(link)
    }

    /// A connection to a scripted peer whose Hello offers waku/1 only.
    async fn connected(limits: &Limits, buffer: usize) -> (Peer, Receiver, Sender) {
        Self::connected_as(limits, buffer, &hello()).await
    }

    async fn connected_as(limits: &Limits, buffer: usize, hello: &Hello) -> (Peer, Receiver, Sender) {
        let (mut peer, incoming) = Self::dials(limits, buffer).await;
        let (connection, ()) = tokio::join!(incoming.finish(), async {
            peer.send(base_id::HELLO, &hello.encode()).await;
            let ours = peer.receive().await.unwrap();
            assert_eq!(ours.id, base_id::HELLO);
            assert_eq!(Hello::decode(&ours.payload).unwrap(), node(2).hello());
            if hello.speaks_snappy() {
                peer.0.enable_snappy();
            }
        });
        let (receiver, sender) = connection.unwrap().split();
        (peer, receiver, sender)
    }

    async fn send(&mut self, id: u32, payload: &[u8]) {
        self.try_send(id, payload).await.unwrap();
    }

    async fn try_send(&mut self, id: u32, payload: &[u8]) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        assert!(self.0.encoder.encode(id, payload, &mut out));
        self.send_bytes(&out).await
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.writing.write_all(bytes).await
    }

    /// The next frame as it is on the wire; none when our side has closed.
    async fn receive(&mut self) -> Option<Frame> {
        match self.0.frames.next().await? {
            Ok(frame) => Some(frame),
            Err(FrameError::Io(_)) => None,
            Err(FrameError::Breach(breach)) => panic!("our side wrote a bad frame: {breach}"),
        }
    }

    /// Our side says exactly this Disconnect, compressed, and closes; so does the peer.
    async fn expect_disconnect(&mut self, reason: DisconnectReason) {
        let mut compressed = BytesMut::new();
        crate::snappy::Compressor::default().append(&reason.encode(), &mut compressed);
        assert_eq!(
            self.receive().await,
            Some(Frame { id: base_id::DISCONNECT, payload: compressed.freeze() })
        );
        assert_eq!(self.receive().await, None);
        self.0.writing.shutdown().await.unwrap();
    }

    /// Our side says exactly this Disconnect, not compressed, and closes; so does the peer.
    async fn expect_plain_disconnect(&mut self, reason: DisconnectReason) {
        let payload = reason.encode().into();
        assert_eq!(self.receive().await, Some(Frame { id: base_id::DISCONNECT, payload }));
        assert_eq!(self.receive().await, None);
        self.0.writing.shutdown().await.unwrap();
    }
}

/// The Hello of the scripted peer.
fn hello() -> Hello {
    Hello {
        version: 5,
        client_name: "scripted".into(),
        capabilities: vec![Capability::new("waku", 1)],
        listen_port: 0,
        node_id: key(1).public().as_bytes().to_vec(),
    }
}

/// Two of our own connections over TCP, dialled by key 1.
async fn pair(limits: &Limits) -> (Connection, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let remote = key(2).public();
    let dialler = node(1);
    let (dialled, accepted) = tokio::join!(dial(address, &remote, &dialler, limits), async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &node(2), limits).await.unwrap().finish().await
    });
    (dialled.unwrap(), accepted.unwrap())
}

#[tokio::test]
async fn both_roles_talk_over_tcp() {
    let (dialled, accepted) = pair(&Limits::default()).await;
    assert_eq!((dialled.remote(), accepted.remote()), (&key(2).public(), &key(1).public()));
    assert_eq!(dialled.hello(), &node(2).hello());
    assert_eq!(dialled.shared(), accepted.shared());
    let names: Vec<_> = dialled.shared().iter().map(|s| (s.capability.to_string(), s.offset)).collect();
    assert_eq!(names, [("shh/6".to_owned(), 16), ("waku/1".to_owned(), 144)]);

    let ((mut from_b, to_b), (mut from_a, to_a)) = (dialled.split(), accepted.split());
    for (capability, code, size) in [(0, 0, 0), (0, 127, 1), (1, 0, 15), (1, 126, 100_000), (1, 127, 1 << 20)]
    {
        let payload: Bytes = (0..size).map(|i: u32| (i.wrapping_mul(i) >> 3) as u8).collect();
        to_b.send(capability, code, payload.clone()).await.unwrap();
        let message = from_a.next().await.unwrap();
        assert_eq!(message, Message { capability, code, payload });
        to_a.send(capability, code, message.payload.clone()).await.unwrap();
        assert_eq!(from_b.next().await.unwrap(), message);
    }
    to_b.flush().await.unwrap();
    assert_eq!(to_b.queued_bytes(), 0);

    to_b.disconnect(DisconnectReason::Quitting);
    assert_eq!(from_a.next().await, Err(Closed::Disconnected(DisconnectReason::Quitting)));
    assert_eq!(from_b.next().await, Err(Closed::Disconnecting(DisconnectReason::Quitting)));
    assert_eq!(to_a.closed().await, Closed::Disconnected(DisconnectReason::Quitting));
    assert_eq!(to_b.closed().await, Closed::Disconnecting(DisconnectReason::Quitting));
}

#[tokio::test]
async fn many_messages_keep_their_order_both_ways_through_a_narrow_stream() {
    let (near, far) = duplex(700);
    let limits = Limits { send_queue_bytes: 10_000, ..Limits::default() };
    let remote = key(2).public();
    let dialler = node(1);
    let (dialled, accepted) = tokio::join!(dial_over(near, &remote, &dialler, &limits), async {
        accept(far, &node(2), &limits).await.unwrap().finish().await
    });
    let ((mut from_b, to_b), (mut from_a, to_a)) = (dialled.unwrap().split(), accepted.unwrap().split());
    let write = |to: Sender| async move {
        for i in 0..3000u32 {
            let size = (i % 97) as usize * 11;
            to.send(0, (i % 128) as u8, Bytes::from(vec![i as u8; size])).await.unwrap();
        }
        to.flush().await.unwrap();
    };
    async fn read(from: &mut Receiver) {
        for i in 0..3000u32 {
            let message = from.next().await.unwrap();
            assert_eq!(message.code, (i % 128) as u8);
            assert_eq!(message.payload, vec![i as u8; (i % 97) as usize * 11]);
        }
    }
    tokio::join!(write(to_a), write(to_b), read(&mut from_a), read(&mut from_b));
}

#[tokio::test]
async fn a_peer_of_version_4_gets_no_compression() {
    let (mut peer, mut receiver, sender) =
        Peer::connected_as(&Limits::default(), 4096, &Hello { version: 4, ..hello() }).await;
    peer.send(16 + 11, b"plain").await;
    assert_eq!(receiver.next().await.unwrap().payload, "plain");
    sender.send(0, 12, payload(b"too")).await.unwrap();
    assert_eq!(peer.receive().await, Some(Frame { id: 28, payload: payload(b"too") }));
    sender.disconnect(DisconnectReason::TooManyPeers);
    peer.expect_plain_disconnect(DisconnectReason::TooManyPeers).await;
}

#[tokio::test]
async fn a_version_4_message_above_the_limit_is_refused() {
    let limits = Limits { max_message_size: 1000, ..Limits::default() };
    let (mut peer, mut receiver, _sender) =
        Peer::connected_as(&limits, 4096, &Hello { version: 4, ..hello() }).await;
    peer.send(17, &[1; 1001]).await;
    let breach = Breach::TooLarge { size: 1001, limit: 1000 };
    assert_eq!(receiver.next().await, Err(Closed::Breach(breach)));
    peer.expect_plain_disconnect(DisconnectReason::SubprotocolError).await;
}

#[tokio::test]
async fn ping_is_answered_and_reserved_ids_are_ignored() {
    let (mut peer, mut receiver, _sender) = Peer::connected(&Limits::default(), 4096).await;
    for id in [0, 3, 4, 9, 15] {
        peer.send(id, b"whatever").await;
    }
    peer.send(base_id::PING, &[0xc0]).await;
    peer.send(16, b"m").await;
    assert_eq!(receiver.next().await.unwrap().payload, "m");
    assert_eq!(peer.receive().await, Some(Frame { id: base_id::PONG, payload: payload(&[1, 0, 0xc0]) }));
}
