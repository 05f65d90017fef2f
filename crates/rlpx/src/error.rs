//! What ends a connection, or keeps it from beginning: typed, so that a caller can count it by kind and knows
//! the reason that the peer was given.

use std::io;

use poste_codec::rlp::RlpError;
use thiserror::Error;

use crate::disconnect::DisconnectReason;
use crate::handshake::HandshakeError;

/// What a peer did against the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Breach {
    /// A frame whose MAC is wrong. The connection closes without a message.
    #[error("the peer sent a frame with a wrong MAC")]
    WrongMac,
    /// A message above the limit, by its frame header or by the length that its compressed form declares.
    #[error("the peer sent a message of {size} bytes, above the limit of {limit}")]
    TooLarge {
        /// Bytes announced.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A frame that does not begin with a message id.
    #[error("the peer sent a frame without a readable message id")]
    MessageId,
    /// A payload that cannot be decompressed.
    #[error("the peer sent a payload that is no snappy block")]
    Snappy,
    /// A message id outside every capability.
    #[error("the peer sent message id {id}, which belongs to no common capability")]
    UnknownMessage {
        /// The id on the wire.
        id: u32,
    },
    /// The first message is neither Hello nor Disconnect.
    #[error("the peer sent message id {id} before its Hello")]
    ExpectedHello {
        /// The id on the wire.
        id: u32,
    },
    /// A Hello that cannot be read.
    #[error("the peer sent an unreadable Hello: {0}")]
    Hello(#[source] RlpError),
    /// A Hello above 2048 bytes.
    #[error("the peer sent a Hello of {size} bytes, above the limit of 2048")]
    HelloTooLarge {
        /// Bytes announced.
        size: usize,
    },
    /// The node id in Hello is not 64 bytes long, or zero.
    #[error("the peer's Hello holds no valid node id")]
    InvalidIdentity,
    /// The node id in Hello is another than the handshake proved.
    #[error("the peer's Hello names another node than its handshake")]
    UnexpectedIdentity,
    /// No common capability.
    #[error("the peer serves no capability that this node serves")]
    UselessPeer,
    /// The peer has our own key.
    #[error("the peer is this node itself")]
    ConnectedToSelf,
}

impl Breach {
    /// What the peer is told; none when the connection closes without a message.
    pub fn reason(&self) -> Option<DisconnectReason> {
        match self {
            Self::WrongMac => None,
            Self::TooLarge { .. } => Some(DisconnectReason::SubprotocolError),
            Self::MessageId
            | Self::Snappy
            | Self::UnknownMessage { .. }
            | Self::ExpectedHello { .. }
            | Self::Hello(_)
            | Self::HelloTooLarge { .. } => Some(DisconnectReason::BreachOfProtocol),
            Self::InvalidIdentity => Some(DisconnectReason::InvalidIdentity),
            Self::UnexpectedIdentity => Some(DisconnectReason::UnexpectedIdentity),
            Self::UselessPeer => Some(DisconnectReason::UselessPeer),
            Self::ConnectedToSelf => Some(DisconnectReason::ConnectedToSelf),
        }
    }

    /// The kind in metrics: one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::WrongMac => "wrong_mac",
            Self::TooLarge { .. } => "too_large",
            Self::MessageId => "message_id",
            Self::Snappy => "snappy",
            Self::UnknownMessage { .. } => "unknown_message",
            Self::ExpectedHello { .. } | Self::Hello(_) | Self::HelloTooLarge { .. } => "hello",
            Self::InvalidIdentity => "invalid_identity",
            Self::UnexpectedIdentity => "unexpected_identity",
            Self::UselessPeer => "useless_peer",
            Self::ConnectedToSelf => "connected_to_self",
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Closed {
    /// The peer said goodbye, and was answered.
    #[error("the peer disconnected: {0}")]
    Disconnected(DisconnectReason),
    /// This side said goodbye ([`Sender::disconnect`](crate::Sender::disconnect)).
    #[error("disconnected by this side: {0}")]
    Disconnecting(DisconnectReason),
    /// The peer breached the protocol, and was told so where the protocol has a word for it.
    #[error(transparent)]
    Breach(#[from] Breach),
    /// The peer closed the stream without a word.
    #[error("the peer closed the connection")]
    Eof,
    /// No message came for the idle timeout.
    #[error("the peer was silent for too long")]
    Idle,
    /// The peer did not take a frame within the write timeout.
    #[error("the peer does not read: a write took too long")]
    WriteTimeout,
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Io(io::ErrorKind),
    /// The [`Receiver`](crate::Receiver) was dropped.
    #[error("the connection was dropped by this side")]
    Dropped,
    /// This side tried to send what no frame can carry, or under a code that does not exist: a defect of the
    /// caller.
    #[error("tried to send a message that is too large, or whose capability or code does not exist")]
    Unsendable,
}

impl Closed {
    /// The reason that either side gave; none when the connection ended without one.
    pub fn reason(&self) -> Option<DisconnectReason> {
        match self {
            Self::Disconnected(reason) | Self::Disconnecting(reason) => Some(*reason),
            Self::Breach(breach) => breach.reason(),
            _ => None,
        }
    }

    /// The kind in metrics: one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Disconnected(_) => "disconnected",
            Self::Disconnecting(_) => "disconnecting",
            Self::Breach(breach) => breach.label(),
            Self::Eof => "eof",
            Self::Idle => "idle",
            Self::WriteTimeout => "write_timeout",
            Self::Io(_) => "io",
            Self::Dropped => "dropped",
            Self::Unsendable => "unsendable",
        }
    }
}

/// Why no connection came about.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address cannot be resolved or reached.
    #[error("cannot reach the peer: {0}")]
    Unreachable(#[source] io::Error),
    /// The address did not answer in time.
    #[error("the peer's address does not answer; check host, port and firewall")]
    DialTimeout,
    /// The two handshakes took too long.
    #[error("the peer did not finish the handshake in time")]
    HandshakeTimeout,
    /// The peer closed the stream during a handshake. A dialled node does so when the key in its enode is
    /// wrong.
    #[error("the peer closed the connection during the handshake; check the key in its enode")]
    Eof,
    /// The stream broke.
    #[error("the connection broke during the handshake: {0}")]
    Io(#[source] io::Error),
    /// The bytes are no RLPx handshake with this node's key.
    #[error("no RLPx handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The peer said goodbye in place of Hello or right after it, and was answered.
    #[error("the peer refused: {0}")]
    Disconnected(DisconnectReason),
    /// The peer breached the protocol or cannot be served, and was told so where the protocol has a word for
    /// it.
    #[error(transparent)]
    Breach(#[from] Breach),
}

impl ConnectError {
    /// The reason that either side gave; none when the attempt ended without one.
    pub fn reason(&self) -> Option<DisconnectReason> {
        match self {
            Self::Disconnected(reason) => Some(*reason),
            Self::Breach(breach) => breach.reason(),
            _ => None,
        }
    }

    /// The kind in metrics: one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::DialTimeout => "dial_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Eof => "eof",
            Self::Io(_) => "io",
            Self::Handshake(_) => "handshake",
            Self::Disconnected(_) => "disconnected",
            Self::Breach(breach) => breach.label(),
        }
    }
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TrySendError {
    /// The queue holds as many bytes as it may; the peer reads too slowly.
    #[error("the send queue is full")]
    Full,
    /// The connection has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}
