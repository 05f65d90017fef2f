//! A session: everything that two nodes say to each other about envelopes on one connection.
//!
//! A connection may share several dialects (status-go with its bridge has waku/1 and shh/6): each is a lane with a
//! Status exchange and settings of its own, because a common capability that one side does not start leaves the other
//! waiting. What is not tied to a lane goes out on the best one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use poste_rlpx::{Capability, Closed, Connection, DisconnectReason, Message, Offered, Receiver, Sender};
use poste_wire::packet::{Options, PacketError, Settings, Status, code};
use poste_wire::{Dialect, Packet};
use thiserror::Error;
use tokio::time::timeout;

/// What to offer in Hello for a dialect.
pub fn offered(dialect: Dialect) -> Offered {
    let capability = Capability::new(dialect.name(), dialect.version());
    Offered { capability, length: Dialect::LENGTH.into() }
}

/// What a peer said about itself on one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Its settings now.
    pub settings: Settings,
    /// It is a go-ethereum, which reads only the packets of EIP-627 and its own form of mail request.
    pub plain_go_ethereum: bool,
}

/// What came from the peer.
#[derive(Debug)]
pub enum Event {
    /// The peer's Status on this lane: from now on packets come and go on it.
    Ready(Dialect),
    /// The peer changed its settings on this lane; they are in force.
    Settings(Dialect),
    /// A packet, neither of the above.
    Packet(Dialect, Packet),
    /// A payload that cannot be read. Nothing has changed; it is for the caller to judge the peer.
    Undecodable {
        /// The lane.
        dialect: Dialect,
        /// The packet's code.
        code: u8,
        /// What is wrong.
        error: PacketError,
    },
    /// A packet that this dialect does not know, or a second Status: ignored.
    Ignored {
        /// The lane.
        dialect: Dialect,
        /// The packet's code.
        code: u8,
    },
}

/// Why a session ended, or did not begin.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The connection ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The peer's first packet on a lane is not Status.
    #[error("the peer sent packet {code} of {dialect} before its status")]
    ExpectedStatus {
        /// The lane.
        dialect: Dialect,
        /// The packet's code.
        code: u8,
    },
    /// The peer's Status cannot be read.
    #[error("the peer's status of {dialect} cannot be read: {error}")]
    Status {
        /// The lane.
        dialect: Dialect,
        /// What is wrong.
        error: PacketError,
    },
    /// The peer's Status did not come in time.
    #[error("the peer sent no status in time")]
    Silent,
    /// The connection shares nothing that this crate speaks.
    #[error("the connection shares neither waku nor shh")]
    NoDialect,
}

impl SessionError {
    /// The kind in metrics: one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed(closed) => closed.label(),
            Self::ExpectedStatus { .. } => "expected_status",
            Self::Status { .. } => "bad_status",
            Self::Silent => "no_status",
            Self::NoDialect => "no_dialect",
        }
    }
}

/// Why a packet was not sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The connection has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The packet does not exist in this dialect.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The connection does not have this lane.
    #[error("the connection does not speak {0}")]
    NoLane(Dialect),
}

/// A session at work. Dropping it, and all its [`Outbound`]s, ends the connection.
#[derive(Debug)]
pub struct Session {
    receiver: Receiver,
    outbound: Outbound,
    /// By the connection's index of capabilities.
    lanes: Vec<Option<Lane>>,
}

#[derive(Debug)]
struct Lane {
    dialect: Dialect,
    peer: Option<Peer>,
}

impl Session {
    /// Sends `status` on every lane and waits for the peer's first one, at most `patience`. The statuses of further
    /// lanes come as [`Event::Ready`].
    pub async fn open(
        connection: Connection,
        status: Options,
        patience: Duration,
    ) -> Result<Self, SessionError> {
        let lanes: Vec<_> =
            connection.shared().iter().map(|shared| dialect_of(&shared.capability).map(Lane::new)).collect();
        let indices: Arc<[_]> = lanes
            .iter()
            .enumerate()
            .filter_map(|(index, lane)| lane.as_ref().map(|lane| (lane.dialect, index)))
            .collect();
        if indices.is_empty() {
            return Err(SessionError::NoDialect);
        }
        let (receiver, sender) = connection.split();
        let mut session = Self { receiver, outbound: Outbound { sender, lanes: indices }, lanes };
        let status = Packet::Status(Status::new(status));
        for (dialect, _) in session.outbound.lanes.clone().iter() {
            session.outbound.send(*dialect, &status).await.map_err(|error| match error {
                SendError::Closed(closed) => SessionError::Closed(closed),
                SendError::Packet(_) | SendError::NoLane(_) => SessionError::NoDialect,
            })?;
        }
        match timeout(patience, session.next()).await {
            Ok(Ok(_)) => Ok(session),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                session.outbound.disconnect(DisconnectReason::SubprotocolError);
                Err(SessionError::Silent)
            }
        }
    }

    /// The next thing that the peer says. After an error the connection is over; the peer was told why, where the
    /// protocol has a word for it. Cancel safe.
    pub async fn next(&mut self) -> Result<Event, SessionError> {
        loop {
            let message = self.receiver.next().await?;
            if let Some(lane) = self.lanes.get_mut(message.capability).and_then(Option::as_mut) {
                let event = lane.take(message);
                if event.is_err() {
                    self.outbound.disconnect(DisconnectReason::SubprotocolError);
                }
                return event;
            }
        }
    }

    /// The peer on a lane, once its Status has come.
    pub fn peer(&self, dialect: Dialect) -> Option<&Peer> {
        self.ready().find(|(lane, _)| *lane == dialect).map(|(_, peer)| peer)
    }

    /// The best lane that is ready, with its peer: waku/1 before waku/0 before shh/6.
    pub fn best(&self) -> Option<(Dialect, &Peer)> {
        self.ready().min_by_key(|(dialect, _)| *dialect)
    }

    /// The sending side. Cheap to clone.
    pub fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    fn ready(&self) -> impl Iterator<Item = (Dialect, &Peer)> {
        self.lanes.iter().flatten().filter_map(|lane| lane.peer.as_ref().map(|peer| (lane.dialect, peer)))
    }
}

fn dialect_of(capability: &Capability) -> Option<Dialect> {
    Dialect::ALL
        .into_iter()
        .find(|dialect| dialect.name() == capability.name && dialect.version() == capability.version)
}

impl Lane {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, peer: None }
    }

    fn take(&mut self, message: Message) -> Result<Event, SessionError> {
        let (dialect, code) = (self.dialect, message.code);
        let Some(peer) = &mut self.peer else { return self.take_status(code, message.payload) };
        if code == code::STATUS {
            return Ok(Event::Ignored { dialect, code });
        }
        let packet = match Packet::decode(dialect, code, message.payload) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(Event::Ignored { dialect, code }),
            Err(error) => return Ok(Event::Undecodable { dialect, code, error }),
        };
        let change = match packet {
            Packet::StatusUpdate(options) => options,
            Packet::PowRequirement(pow) => Options { pow_requirement: Some(pow), ..Options::default() },
            Packet::BloomFilter(bloom) => Options { bloom: Some(bloom), ..Options::default() },
            Packet::RateLimits(limits) => Options { packet_limits: Some(limits), ..Options::default() },
            packet => return Ok(Event::Packet(dialect, packet)),
        };
        peer.settings.update(&change);
        Ok(Event::Settings(dialect))
    }

    fn take_status(&mut self, code: u8, payload: Bytes) -> Result<Event, SessionError> {
        let dialect = self.dialect;
        if code != code::STATUS {
            return Err(SessionError::ExpectedStatus { dialect, code });
        }
        match Packet::decode(dialect, code, payload) {
            Ok(Some(Packet::Status(status))) => {
                self.peer = Some(Peer {
                    settings: Settings::of_status(dialect, &status),
                    plain_go_ethereum: dialect == Dialect::Shh6 && status.is_plain_go_ethereum(),
                });
                Ok(Event::Ready(dialect))
            }
            Ok(_) => Err(SessionError::ExpectedStatus { dialect, code }),
            Err(error) => Err(SessionError::Status { dialect, error }),
        }
    }
}

/// The sending side of a session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    sender: Sender,
    lanes: Arc<[(Dialect, usize)]>,
}

impl Outbound {
    /// Sends a packet on a lane; waits while the connection's queue is full.
    pub async fn send(&self, dialect: Dialect, packet: &Packet) -> Result<(), SendError> {
        let (code, payload) = packet.encode(dialect)?;
        self.send_raw(dialect, code, payload).await
    }

    /// Sends a payload as it is, for what [`Packet`] cannot hold; waits while the connection's queue is full.
    pub async fn send_raw(&self, dialect: Dialect, code: u8, payload: Bytes) -> Result<(), SendError> {
        let lane = self.lanes.iter().find(|(lane, _)| *lane == dialect);
        let (_, capability) = lane.ok_or(SendError::NoLane(dialect))?;
        Ok(self.sender.send(*capability, code, payload).await?)
    }

    /// Waits until everything that was sent has been written to the network.
    pub async fn flush(&self) -> Result<(), SendError> {
        Ok(self.sender.flush().await?)
    }

    /// Says goodbye and ends the connection.
    pub fn disconnect(&self, reason: DisconnectReason) {
        self.sender.disconnect(reason);
    }

    /// Waits until the connection has ended and said its last word.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}
