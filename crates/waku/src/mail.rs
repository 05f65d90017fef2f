//! The asking side of mail: one request for one page, and everything that comes of it (8/WAKU-MAIL as deployed).
//!
//! A mailserver that knows completion ends a page with packet 125; go-ethereum's own ends it with silence.

use std::time::Duration;

use poste_codec::SecretKey;
use poste_wire::mail::{MailRequest, MailRequestPacket, RequestSeal, SealRequestError, seal_request};
use poste_wire::packet::{Completion, code};
use poste_wire::payload::MAX_PADDING;
use poste_wire::{Cursor, Dialect, Envelope, Hash, Packet, SymKey};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::{Event, SendError, Session, SessionError};

/// Least proof of work of a request, whatever less the mailserver asks for: what deployed clients put in.
const MIN_POW: f64 = 0.002;

/// What requests are sealed with.
#[derive(Debug, Clone)]
pub struct Sealer {
    /// The key of the mailserver's password.
    pub key: SymKey,
    /// The node key, which signs.
    pub signer: SecretKey,
}

/// How a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageEnd {
    /// The mailserver says that this was all, or where to go on.
    Done {
        /// The last envelope that was sent, by the mailserver's word; zero if there was none.
        last_hash: Hash,
        /// Where the next page begins.
        cursor: Option<Cursor>,
    },
    /// The mailserver refused, or could not go on.
    Failed(String),
    /// Nothing came for as long as the caller was willing to wait.
    Silence,
    /// The mailserver sends more than it was asked for.
    TooMuch,
    /// The mailserver sent mail that cannot be read, so that its completion would say more than is true.
    Unreadable,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many envelopes came, repetitions included.
    pub received: usize,
    /// How it ended.
    pub end: PageEnd,
}

/// Why a page could not be asked for, or its end not seen.
#[derive(Debug, Error)]
pub enum MailError {
    /// The session is over.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The request could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The request could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealRequestError),
    /// No lane of the session is ready.
    #[error("the session is not ready")]
    NotReady,
}

/// Seals a request in the form that the session's peer reads. `random` fills a buffer with fresh random bytes. Mining
/// takes as long as the peer's proof of work wants, until `should_stop`: not for an async task.
pub fn seal(
    sealer: &Sealer,
    request: &MailRequest,
    pow_requirement: f64,
    plain_go_ethereum: bool,
    now: u32,
    mut random: impl FnMut(&mut [u8]),
    should_stop: impl FnMut() -> bool,
) -> Result<Envelope, SealRequestError> {
    let payload = if plain_go_ethereum { request.encode_binary() } else { request.encode() };
    let (mut nonce, mut padding) = ([0; 12], [0; MAX_PADDING]);
    random(&mut nonce);
    random(&mut padding);
    let seal = RequestSeal {
        payload: &payload,
        signer: &sealer.signer,
        key: &sealer.key,
        now,
        pow_target: pow_requirement.max(MIN_POW),
        nonce,
        padding: &padding,
    };
    seal_request(&seal, should_stop)
}

/// Sends a sealed request and hands every envelope of the answer to `take`, until the page ends. `silence` is how long
/// nothing may come; `most` how many envelopes at most. What else the peer sends meanwhile is dropped.
pub async fn page(
    session: &mut Session,
    request: &Envelope,
    silence: Duration,
    most: usize,
    mut take: impl FnMut(Envelope),
) -> Result<Page, MailError> {
    let (dialect, _) = session.best().ok_or(MailError::NotReady)?;
    let packet = Packet::MailRequest(MailRequestPacket::Sealed(request.clone()));
    session.outbound().send(dialect, &packet).await?;
    let mut received = 0;
    let mut deadline = Instant::now() + silence;
    loop {
        let Ok(event) = timeout_at(deadline, session.next()).await else {
            return Ok(Page { received, end: PageEnd::Silence });
        };
        match event? {
            Event::Packet(_, Packet::MailMessages(envelopes)) => {
                received += envelopes.len();
                if received > most {
                    return Ok(Page { received, end: PageEnd::TooMuch });
                }
                envelopes.into_iter().for_each(&mut take);
                deadline = Instant::now() + silence;
            }
            Event::Packet(_, Packet::MailComplete(end)) if end.request_id() == request.hash() => {
                let end = match end {
                    Completion::Done { last_hash, cursor, .. } => PageEnd::Done { last_hash, cursor },
                    Completion::Failed { error, .. } => PageEnd::Failed(error),
                };
                return Ok(Page { received, end });
            }
            Event::Undecodable { code: code::MAIL_MESSAGES, .. } => {
                return Ok(Page { received, end: PageEnd::Unreadable });
            }
            _ => {}
        }
    }
}

/// Whether a session's peer answers mail requests as go-ethereum does: in the fixed layout, ended by silence.
pub fn ends_by_silence(session: &Session) -> bool {
    session.best().is_some_and(|(dialect, peer)| dialect == Dialect::Shh6 && peer.plain_go_ethereum)
}
