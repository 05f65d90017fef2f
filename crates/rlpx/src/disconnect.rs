//! Disconnect (devp2p base protocol, id 1): why a connection ends.

use std::fmt;

use poste_codec::rlp::{Encoder, Item};

/// The reason that a Disconnect gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisconnectReason {
    /// 0x00: asked for; also what is read from a Disconnect that gives no readable reason, as in Go.
    Requested,
    /// 0x01: network error; nobody sends it.
    NetworkError,
    /// 0x02: breach of protocol, such as a message id outside every capability.
    BreachOfProtocol,
    /// 0x03: no common capability.
    UselessPeer,
    /// 0x04: too many peers.
    TooManyPeers,
    /// 0x05: a connection with this node exists.
    AlreadyConnected,
    /// 0x06: incompatible version of the base protocol.
    IncompatibleVersion,
    /// 0x07: the node id in Hello is none.
    InvalidIdentity,
    /// 0x08: the client is going down.
    Quitting,
    /// 0x09: the node id in Hello is not the one that the handshake proved.
    UnexpectedIdentity,
    /// 0x0a: connected to itself.
    ConnectedToSelf,
    /// 0x0b: read timeout; Go never sends it.
    ReadTimeout,
    /// 0x10: a sub-protocol gave up.
    SubprotocolError,
    /// A code without a name.
    Other(u64),
}

impl DisconnectReason {
    /// The reason of a code on the wire.
    pub fn from_code(code: u64) -> Self {
        match code {
            0x00 => Self::Requested,
            0x01 => Self::NetworkError,
            0x02 => Self::BreachOfProtocol,
            0x03 => Self::UselessPeer,
            0x04 => Self::TooManyPeers,
            0x05 => Self::AlreadyConnected,
            0x06 => Self::IncompatibleVersion,
            0x07 => Self::InvalidIdentity,
            0x08 => Self::Quitting,
            0x09 => Self::UnexpectedIdentity,
            0x0a => Self::ConnectedToSelf,
            0x0b => Self::ReadTimeout,
            0x10 => Self::SubprotocolError,
            code => Self::Other(code),
        }
    }

    /// The code on the wire.
    pub fn code(self) -> u64 {
        match self {
            Self::Requested => 0x00,
            Self::NetworkError => 0x01,
            Self::BreachOfProtocol => 0x02,
            Self::UselessPeer => 0x03,
            Self::TooManyPeers => 0x04,
            Self::AlreadyConnected => 0x05,
            Self::IncompatibleVersion => 0x06,
            Self::InvalidIdentity => 0x07,
            Self::Quitting => 0x08,
            Self::UnexpectedIdentity => 0x09,
            Self::ConnectedToSelf => 0x0a,
            Self::ReadTimeout => 0x0b,
            Self::SubprotocolError => 0x10,
            Self::Other(code) => code,
        }
    }

    /// The name of the reason in metrics: one of a closed set.
    pub fn label(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::NetworkError => "network_error",
            Self::BreachOfProtocol => "breach_of_protocol",
            Self::UselessPeer => "useless_peer",
            Self::TooManyPeers => "too_many_peers",
            Self::AlreadyConnected => "already_connected",
            Self::IncompatibleVersion => "incompatible_version",
            Self::InvalidIdentity => "invalid_identity",
            Self::Quitting => "quitting",
            Self::UnexpectedIdentity => "unexpected_identity",
            Self::ConnectedToSelf => "connected_to_self",
            Self::ReadTimeout => "read_timeout",
            Self::SubprotocolError => "subprotocol_error",
            Self::Other(_) => "other",
        }
    }

    /// The payload of the packet: a list of one integer.
    pub fn encode(self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.list(1).uint(self.code());
        encoder.finish()
    }

    /// Reads a payload. Other clients send a bare integer or an empty list as well; what cannot be read is
    /// [`Requested`](Self::Requested): a peer that says goodbye badly has said goodbye.
    pub fn decode(payload: &[u8]) -> Self {
        Self::try_decode(payload).unwrap_or(Self::Requested)
    }

    fn try_decode(payload: &[u8]) -> Option<Self> {
        let item = Item::parse(payload).ok()?;
        let code = if item.is_list() { item.list().ok()?.next()? } else { item };
        code.u64().ok().map(Self::from_code)
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Requested => "disconnect requested",
            Self::NetworkError => "network error",
            Self::BreachOfProtocol => "breach of protocol",
            Self::UselessPeer => "no common capability",
            Self::TooManyPeers => "too many peers",
            Self::AlreadyConnected => "already connected",
            Self::IncompatibleVersion => "incompatible version of the base protocol",
            Self::InvalidIdentity => "invalid node identity",
            Self::Quitting => "client quitting",
            Self::UnexpectedIdentity => "unexpected identity",
            Self::ConnectedToSelf => "connected to itself",
            Self::ReadTimeout => "read timeout",
            Self::SubprotocolError => "error of a sub-protocol",
            Self::Other(code) => return write!(f, "unnamed reason {code}"),
        };
        write!(f, "{text} (0x{:02x})", self.code())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_that_clients_send_is_read() {
        assert_eq!(DisconnectReason::decode(&[0xc1, 0x04]), DisconnectReason::TooManyPeers);
        assert_eq!(DisconnectReason::decode(&[0x08]), DisconnectReason::Quitting);
        assert_eq!(DisconnectReason::decode(&[0xc1, 0x80]), DisconnectReason::Requested);
        assert_eq!(DisconnectReason::decode(&[0x80]), DisconnectReason::Requested);
        assert_eq!(DisconnectReason::decode(&[0xc0]), DisconnectReason::Requested);
        assert_eq!(DisconnectReason::decode(&[]), DisconnectReason::Requested);
        assert_eq!(DisconnectReason::decode(&[0xc2, 0x10, 0x00]), DisconnectReason::SubprotocolError);
        assert_eq!(DisconnectReason::decode(&[0xc2, 0x81, 0xff]), DisconnectReason::Other(255));
        assert_eq!(DisconnectReason::decode(&[0xff, 0xff]), DisconnectReason::Requested);
    }

    proptest! {
        #[test]
        fn codes_survive(code in prop_oneof![0u64..32, any::<u64>()]) {
            let reason = DisconnectReason::from_code(code);
            prop_assert_eq!(reason.code(), code);
            prop_assert_eq!(DisconnectReason::decode(&reason.encode()), reason);
        }

        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = DisconnectReason::decode(&payload);
        }
    }
}
