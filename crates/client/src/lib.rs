//! The asking side: [`connect`] to a node, [`fetch`] its mail, [`post`] envelopes, [`listen`] to what it relays; and
//! [`notify`]: push notifications.
//!
//! What it is not: it makes no bytes of its own (packets and requests are `poste-wire`'s, one page of mail is
//! `poste-waku`'s). Here is policy: following cursors, splitting ranges, waiting for confirmations, and saying whether
//! a history is complete.

mod connect;
mod fetch;
mod listen;
pub mod notify;
mod post;

pub use connect::{ConnectOptions, connect};
pub use fetch::{Fetch, Fetched, fetch};
pub use listen::listen;
pub use post::{Post, PostSummary, Posted, post};

use poste_rlpx::ConnectError;
use poste_waku::mail::MailError;
use poste_waku::{SendError, SessionError};
use poste_wire::mail::SealRequestError;
use poste_wire::pow::MineError;
use thiserror::Error;

/// Why something could not be asked for, or an answer not be seen to its end.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The enode names no host and port.
    #[error("the enode names no host and port to connect to")]
    NoEndpoint,
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The session ended, or did not begin.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A packet could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A request could not be made or sent.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// A request could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealRequestError),
    /// The proof of work that the node asks for was not found in time.
    #[error("the node asks for more proof of work than was found in time: {0}")]
    Mine(#[from] MineError),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The runtime is shutting down.
    #[error("the process is stopping")]
    Stopping,
}

/// Unix seconds, from the system's clock.
fn unix_now() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
