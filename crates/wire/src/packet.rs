//! The packets of the three dialects, and the table of their codes (6/WAKU1 section "Packet codes", 5/WAKU0, EIP-627).
//!
//! Codes are relative to the capability's range: the offset of RLPx is gone, and so is snappy. The payloads are in the
//! submodules, one for each group of packets.

mod bundle;
mod complete;
mod messages;
mod options;
mod response;
mod settings;
mod status;
mod sync;

use std::fmt;

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item, RlpError};
use thiserror::Error;

pub use bundle::{bundles, list_length};
pub use complete::{Completion, CompletionError};
pub use messages::{Messages, batch_hash};
pub use options::{MAX_TOPIC_INTEREST, Options, RateLimits};
pub use response::{EnvelopeFault, MessageResponse};
pub use settings::{Interest, Settings};
pub use status::Status;
pub use sync::{SyncRequest, SyncResponse};

use crate::mail::MailRequestPacket;
use crate::{Bloom, BloomLengthError, CursorLengthError, Envelope, EnvelopeError, Hash};

/// What two nodes speak on one capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// 6/WAKU1.
    Waku1,
    /// 5/WAKU0.
    Waku0,
    /// Whisper, EIP-627 with what status-im added to it.
    Shh6,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Waku1, Self::Waku0, Self::Shh6];
    /// How many packet codes each capability takes.
    pub const LENGTH: u8 = 128;

    /// The name of the capability in Hello.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waku1 | Self::Waku0 => "waku",
            Self::Shh6 => "shh",
        }
    }

    /// The version of the capability in Hello.
    pub fn version(self) -> u32 {
        match self {
            Self::Waku1 => 1,
            Self::Waku0 => 0,
            Self::Shh6 => 6,
        }
    }

    /// Whether this is one of the two versions of Waku.
    pub fn is_waku(self) -> bool {
        self != Self::Shh6
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name(), self.version())
    }
}

/// The codes of packets inside a capability's range.
pub mod code {
    /// Status, the first packet of both sides.
    pub const STATUS: u8 = 0;
    /// Envelopes.
    pub const MESSAGES: u8 = 1;
    /// A new minimum proof of work (shh/6).
    pub const POW_REQUIREMENT: u8 = 2;
    /// A new bloom filter (shh/6).
    pub const BLOOM_FILTER: u8 = 3;
    /// A batch was taken.
    pub const BATCH_ACKNOWLEDGED: u8 = 11;
    /// What was wrong with the envelopes of a batch.
    pub const MESSAGE_RESPONSE: u8 = 12;
    /// Rate limits (shh/6).
    pub const RATE_LIMITS: u8 = 20;
    /// Changed options (waku).
    pub const STATUS_UPDATE: u8 = 22;
    /// A mailserver asks another for envelopes (shh/6).
    pub const SYNC_REQUEST: u8 = 123;
    /// The answer to it (shh/6).
    pub const SYNC_RESPONSE: u8 = 124;
    /// A request for mail is answered, or refused.
    pub const MAIL_COMPLETE: u8 = 125;
    /// A request for mail.
    pub const MAIL_REQUEST: u8 = 126;
    /// Envelopes outside the normal flow: mail.
    pub const MAIL_MESSAGES: u8 = 127;
}

/// One packet.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    /// 0: what a node is and wants. The first packet of both sides.
    Status(Status),
    /// 1: envelopes.
    Messages(Messages),
    /// 2, shh/6: the sender's new minimum proof of work.
    PowRequirement(f64),
    /// 3, shh/6: the sender's new bloom filter.
    BloomFilter(Bloom),
    /// 11: the batch with this hash was taken.
    BatchAcknowledged(Hash),
    /// 12: what was wrong with the envelopes of a batch; precedes 11.
    MessageResponse(MessageResponse),
    /// 20, shh/6: the sender's rate limits.
    RateLimits(RateLimits),
    /// 22, waku: the options that changed.
    StatusUpdate(Options),
    /// 123, shh/6: a mailserver asks for envelopes.
    SyncRequest(SyncRequest),
    /// 124, shh/6: a part of the answer to it.
    SyncResponse(SyncResponse),
    /// 125: the end of an answer to a request for mail.
    MailComplete(Completion),
    /// 126: a request for mail.
    MailRequest(MailRequestPacket),
    /// 127: mail.
    MailMessages(Vec<Envelope>),
}

/// Why a payload could not be read, or a packet not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// The payload is not RLP of the expected form.
    #[error(transparent)]
    Rlp(#[from] RlpError),
    /// An envelope in the payload.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A bloom filter of another length than 64 bytes.
    #[error(transparent)]
    Bloom(#[from] BloomLengthError),
    /// A cursor of another length than 36 bytes.
    #[error(transparent)]
    Cursor(#[from] CursorLengthError),
    /// A completion of a length that means nothing.
    #[error(transparent)]
    Completion(#[from] CompletionError),
    /// A minimum proof of work below zero, infinite, or not a number.
    #[error("a minimum proof of work is a finite number from 0 up")]
    Pow,
    /// More topics than a topic interest may hold.
    #[error("a topic interest holds at most 10,000 topics, not {0}")]
    TooManyTopics(usize),
    /// A Status of a version that this dialect is not.
    #[error("the status is of version {0}")]
    Version(u64),
    /// The dialect has no such packet.
    #[error("{0} has no such packet")]
    NotInDialect(Dialect),
}

impl Packet {
    /// Reads the payload of a packet with `code`, decompressed. `None` is a packet that this dialect does not know, or
    /// a version of one that it ignores: to be ignored.
    pub fn decode(dialect: Dialect, code: u8, payload: Bytes) -> Result<Option<Self>, PacketError> {
        let shh = dialect == Dialect::Shh6;
        Ok(Some(match code {
            code::STATUS => Self::Status(Status::decode(dialect, &payload)?),
            code::MESSAGES => Self::Messages(Messages::decode(&payload)?),
            code::POW_REQUIREMENT if shh => Self::PowRequirement(options::pow(&Item::parse(&payload)?)?),
            code::BLOOM_FILTER if shh => Self::BloomFilter(Bloom::try_from(Item::parse(&payload)?.bytes()?)?),
            code::BATCH_ACKNOWLEDGED => Self::BatchAcknowledged(Hash(Item::parse(&payload)?.fixed()?)),
            code::MESSAGE_RESPONSE => match MessageResponse::decode(&payload)? {
                Some(response) => Self::MessageResponse(response),
                None => return Ok(None),
            },
            code::RATE_LIMITS if shh => Self::RateLimits(RateLimits::decode(&Item::parse(&payload)?)?),
            code::STATUS_UPDATE if !shh => {
                Self::StatusUpdate(Options::decode(dialect, &Item::parse(&payload)?)?)
            }
            code::SYNC_REQUEST if shh => Self::SyncRequest(SyncRequest::decode(&payload)?),
            code::SYNC_RESPONSE if shh => Self::SyncResponse(SyncResponse::decode(&payload)?),
            code::MAIL_COMPLETE => Self::MailComplete(Completion::decode(Item::parse(&payload)?.bytes()?)?),
            code::MAIL_REQUEST => Self::MailRequest(MailRequestPacket::decode(dialect, payload)?),
            code::MAIL_MESSAGES => Self::MailMessages(messages::decode_mail(dialect, &payload)?),
            _ => return Ok(None),
        }))
    }

    /// Its code and payload.
    pub fn encode(&self, dialect: Dialect) -> Result<(u8, Bytes), PacketError> {
        self.check_dialect(dialect)?;
        let payload = match self {
            Self::Status(status) => status.encode(dialect),
            Self::Messages(messages) => messages::encode(&messages.envelopes),
            Self::PowRequirement(pow) => one(|e| _ = e.uint(pow.to_bits())),
            Self::BloomFilter(bloom) => one(|e| _ = e.bytes(&bloom.0)),
            Self::BatchAcknowledged(hash) => one(|e| _ = e.bytes(&hash.0)),
            Self::MessageResponse(response) => one(|e| response.encode(e)),
            Self::RateLimits(limits) => one(|e| limits.encode(e)),
            Self::StatusUpdate(options) => one(|e| options.encode(dialect, e)),
            Self::SyncRequest(request) => one(|e| request.encode(e)),
            Self::SyncResponse(response) => one(|e| response.encode(e)),
            Self::MailComplete(completion) => one(|e| _ = e.bytes(&completion.to_bytes())),
            Self::MailRequest(request) => request.encode(dialect),
            Self::MailMessages(envelopes) => messages::encode_mail(dialect, envelopes),
        };
        Ok((self.code(), payload))
    }

    /// Its code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Status(_) => code::STATUS,
            Self::Messages(_) => code::MESSAGES,
            Self::PowRequirement(_) => code::POW_REQUIREMENT,
            Self::BloomFilter(_) => code::BLOOM_FILTER,
            Self::BatchAcknowledged(_) => code::BATCH_ACKNOWLEDGED,
            Self::MessageResponse(_) => code::MESSAGE_RESPONSE,
            Self::RateLimits(_) => code::RATE_LIMITS,
            Self::StatusUpdate(_) => code::STATUS_UPDATE,
            Self::SyncRequest(_) => code::SYNC_REQUEST,
            Self::SyncResponse(_) => code::SYNC_RESPONSE,
            Self::MailComplete(_) => code::MAIL_COMPLETE,
            Self::MailRequest(_) => code::MAIL_REQUEST,
            Self::MailMessages(_) => code::MAIL_MESSAGES,
        }
    }

    fn check_dialect(&self, dialect: Dialect) -> Result<(), PacketError> {
        let speaks = match self {
            Self::PowRequirement(_)
            | Self::BloomFilter(_)
            | Self::RateLimits(_)
            | Self::SyncRequest(_)
            | Self::SyncResponse(_) => dialect == Dialect::Shh6,
            Self::StatusUpdate(_) => dialect.is_waku(),
            _ => true,
        };
        if speaks { Ok(()) } else { Err(PacketError::NotInDialect(dialect)) }
    }
}

fn one(write: impl FnOnce(&mut Encoder)) -> Bytes {
    let mut encoder = Encoder::new();
    write(&mut encoder);
    encoder.finish().into()
}

#[cfg(test)]
mod tests;
