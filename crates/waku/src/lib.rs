//! One session of Waku or Whisper over an RLPx connection: the exchange of Status, the peer's settings as they change,
//! typed packets in both directions, and the asking side of mail ([`mail`]).
//!
//! What it is not: it keeps no envelopes, relays nothing and stores nothing (that is the gateway), and decides nothing
//! about when to ask again (that is the client). Bytes are `poste-wire`'s, the transport is `poste-rlpx`'s.
//!
//! Start with [`Session::open`].

pub mod mail;
mod session;

pub use session::{Event, Outbound, Peer, SendError, Session, SessionError, offered};
