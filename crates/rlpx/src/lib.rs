//! The devp2p transport (RLPx): how two Ethereum-style nodes prove who they are and exchange messages.
//!
//! Below: the ECIES handshake in its EIP-8 and its older plain form, AES-CTR frames with a running Keccak
//! MAC, snappy. Above: Hello, Disconnect, Ping, and the ranges of message ids that the common capabilities
//! share. What it is not: it knows no capability (the Waku session is `poste-waku`), keeps no list of peers
//! and decides nothing about them.
//!
//! The codecs ([`handshake`], [`frame`], [`snappy`], [`hello`], [`disconnect`], [`capability`]) are pure:
//! bytes in, bytes out, randomness as an argument. [`connection`] puts them on a stream. Start with [`dial`]
//! and [`accept`].

pub mod capability;
pub mod connection;
pub mod disconnect;
pub mod enode;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod hello;
pub mod snappy;

pub use capability::{Capability, Offered, Shared};
pub use connection::{
    Connection, Incoming, Limits, LocalNode, Message, Receiver, Sender, accept, dial, dial_over,
};
pub use disconnect::DisconnectReason;
pub use enode::Enode;
pub use error::{Breach, Closed, ConnectError, TrySendError};
pub use hello::Hello;

/// The first message id that belongs to capabilities; the ids below it are the base protocol's.
pub const BASE_PROTOCOL_LENGTH: u32 = 16;

/// Ids of the base protocol (the others below [`BASE_PROTOCOL_LENGTH`] are reserved: read and ignored).
pub mod base_id {
    /// Hello: the first message of both sides.
    pub const HELLO: u32 = 0;
    /// Disconnect, with a reason.
    pub const DISCONNECT: u32 = 1;
    /// Ping.
    pub const PING: u32 = 2;
    /// Pong.
    pub const PONG: u32 = 3;
}

#[cfg(test)]
mod vectors;
