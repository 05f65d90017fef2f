//! What goes over the Waku and Whisper networks, as types and codecs: envelopes, topics, bloom filters, proof of
//! work, the packets of `waku/1`, `waku/0` and `shh/6`, encrypted payloads, requests for mail, and the messages with
//! which Status clients and push servers talk.
//!
//! Sources: 5/WAKU0, 6/WAKU1, EIP-627, 7/WAKU-DATA and 8/WAKU-MAIL, as the deployed nodes (status-go, go-ethereum)
//! really speak them. Nothing here does I/O, reads a clock or draws randomness: time and random bytes are arguments,
//! so everything can be tested against recorded bytes. What it is not: a session (`poste-waku`) or a policy (the
//! gateway decides what it accepts).
//!
//! Every decoder takes bytes from strangers: it goes through the strict reader of `poste_codec::rlp`, allocates no
//! more than its input warrants, and never panics.
//!
//! Start with [`Envelope`] and [`Packet`]; for mail with [`mail::MailRequest`], for push
//! notifications with [`mod@status`].

mod bloom;
mod cursor;
pub mod envelope;
mod hex_id;
pub mod mail;
pub mod packet;
pub mod payload;
pub mod pow;
pub mod status;

pub use bloom::{Bloom, BloomLengthError};
pub use cursor::{Cursor, CursorLengthError, archive_key};
pub use envelope::{Envelope, EnvelopeError};
pub use hex_id::{Hash, ParseIdError, Topic};
pub use packet::{Dialect, Packet, PacketError};
pub use payload::{SymKey, password_key};
