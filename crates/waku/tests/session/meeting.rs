//! Two nodes that meet: connections over a stream in memory, and the scripted peer.

use std::time::Duration;

use bytes::Bytes;
use poste_codec::SecretKey;
use poste_rlpx::{Capability, Closed, Connection, Limits, LocalNode, Message, Offered, Receiver, Sender};
use poste_waku::{Event, Session, SessionError};
use poste_wire::packet::{Options, RateLimits, Status};
use poste_wire::{Bloom, Dialect, Envelope, Packet, Topic};
use tokio::io::duplex;

/// How long our sessions wait for a Status.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn node(byte: u8, capabilities: Vec<Offered>) -> LocalNode {
    LocalNode { key: key(byte), client_name: format!("node {byte}"), capabilities, listen_port: 0 }
}

/// Two ends of one connection: of the side that dials, and of the one that is dialled.
pub(crate) async fn connect(dialler: Vec<Offered>, listener: Vec<Offered>) -> (Connection, Connection) {
    let (near, far) = duplex(64 * 1024);
    let limits = Limits::default();
    let (dialler, listener) = (node(1, dialler), node(2, listener));
    let remote = listener.key.public();
    let (dialled, accepted) = tokio::join!(poste_rlpx::dial_over(near, &remote, &dialler, &limits), async {
        poste_rlpx::accept(far, &listener, &limits).await.unwrap().finish().await
    });
    (dialled.unwrap(), accepted.unwrap())
}

pub(crate) fn offers(dialects: &[Dialect]) -> Vec<Offered> {
    dialects.iter().copied().map(poste_waku::offered).collect()
}

/// What a full node says.
pub(crate) fn options() -> Options {
    Options {
        pow_requirement: Some(0.002),
        bloom: Some(Bloom::FULL),
        light: Some(false),
        confirmations: Some(true),
        packet_limits: Some(RateLimits { ip: 10, peer: 5, topic: 0 }),
        topic_interest: None,
        byte_limits: None,
    }
}

pub(crate) fn envelope(number: u8) -> Envelope {
    Envelope::new(1_600_000_050, 50, Topic([number; 4]), &[number; 100], number.into())
}

/// The other end, in the hands of a test.
pub(crate) struct Scripted {
    receiver: Receiver,
    sender: Sender,
}

impl Scripted {
    /// A connection whose other end is scripted. Ours is the one that was dialled.
    pub(crate) async fn offering(theirs: Vec<Offered>, ours: Vec<Offered>) -> (Self, Connection) {
        let (dialled, accepted) = connect(theirs, ours).await;
        let (receiver, sender) = dialled.split();
        (Self { receiver, sender }, accepted)
    }

    /// Both offer the same dialects.
    pub(crate) async fn sharing(dialects: &[Dialect]) -> (Self, Connection) {
        Self::offering(offers(dialects), offers(dialects)).await
    }

    /// A session of ours on one dialect whose peer said what a full node says.
    pub(crate) async fn in_session(dialect: Dialect) -> (Self, Session) {
        let (mut peer, connection) = Self::sharing(&[dialect]).await;
        peer.say(dialect, &Packet::Status(Status::new(options()))).await;
        let session = open(connection).await.unwrap();
        let Packet::Status(ours) = peer.hear(dialect).await else { panic!("status comes first") };
        assert_eq!(ours.options, options());
        (peer, session)
    }

    pub(crate) fn lane(&self, dialect: Dialect) -> usize {
        let capability = poste_waku::offered(dialect).capability;
        self.lane_of(&capability)
    }

    pub(crate) fn lane_of(&self, capability: &Capability) -> usize {
        self.sender.shared().iter().position(|shared| shared.capability == *capability).unwrap()
    }

    pub(crate) async fn say(&self, dialect: Dialect, packet: &Packet) {
        let (code, payload) = packet.encode(dialect).unwrap();
        self.say_raw(dialect, code, payload).await;
    }

    pub(crate) async fn say_raw(&self, dialect: Dialect, code: u8, payload: impl Into<Bytes>) {
        self.sender.send(self.lane(dialect), code, payload.into()).await.unwrap();
    }

    pub(crate) async fn say_on(&self, lane: usize, code: u8, payload: impl Into<Bytes>) {
        self.sender.send(lane, code, payload.into()).await.unwrap();
    }

    /// The next packet, which must be on this lane.
    pub(crate) async fn hear(&mut self, dialect: Dialect) -> Packet {
        let Message { code, payload, .. } = self.hear_raw(dialect).await;
        Packet::decode(dialect, code, payload).unwrap().unwrap()
    }

    pub(crate) async fn hear_raw(&mut self, dialect: Dialect) -> Message {
        let message = self.receiver.next().await.unwrap();
        assert_eq!(message.capability, self.lane(dialect));
        message
    }

    /// Reads to the end: what our side ended the connection with.
    pub(crate) async fn hear_the_end(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.receiver.next().await {
                return closed;
            }
        }
    }
}

/// Opens our session.
pub(crate) async fn open(connection: Connection) -> Result<Session, SessionError> {
    Session::open(connection, options(), PATIENCE).await
}

/// The next event, which must be a packet.
pub(crate) async fn packet(session: &mut Session) -> (Dialect, Packet) {
    match session.next().await.unwrap() {
        Event::Packet(dialect, packet) => (dialect, packet),
        event => panic!("not a packet: {event:?}"),
    }
}
