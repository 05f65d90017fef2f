//! Why a request for mail is refused. The texts go out in the error form of packet 125; where deployed servers have
//! one, it is theirs word for word, because clients and their logs know it.

use thiserror::Error;

use super::RequestFormError;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The request's envelope has less proof of work than the mailserver wants.
    #[error("PoW too low")]
    PowTooLow,
    /// No key of the mailserver opens it, or what it opens is no payload.
    #[error("failed to decrypt p2p request")]
    Undecryptable,
    /// It is not signed.
    #[error("check message signature failed: wrong signature of p2p request")]
    Unsigned,
    /// The payload is no request in any layout.
    #[error("failed to decode data: {0}")]
    Undecodable(#[from] RequestFormError),
    /// The peer asks again too soon.
    #[error("rate limit exceeded")]
    RateLimited,
    /// The range ends before it begins (sealed request).
    #[error("query range is invalid: lower > upper")]
    RangeInverted,
    /// The range ends before it begins (direct request).
    #[error("request is invalid: query range is invalid: lower > upper")]
    DirectRangeInverted,
    /// A request in the fixed layout spans more than a day.
    #[error("request is invalid: query range is longer than 24 hours")]
    RangeTooLong,
    /// Neither a bloom filter nor topics.
    #[error("request is invalid: bloom filter and topics is empty")]
    NoFilter,
    /// The bloom filter has neither 64 bytes nor none.
    #[error("request is invalid: bloom filter has {0} bytes, not 64")]
    BloomLength(usize),
    /// More topics than a request may name.
    #[error("request is invalid: {0} topics exceed the maximum of 10000")]
    TooManyTopics(usize),
    /// More envelopes than a page may hold.
    #[error("request is invalid: limit exceeds the maximum allowed value")]
    LimitTooHigh,
    /// The cursor has neither 36 bytes nor none.
    #[error("request is invalid: cursor has {0} bytes, not 36")]
    CursorLength(usize),
}

impl Refusal {
    /// A short name from a closed set, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::PowTooLow => "low_pow",
            Self::Undecryptable => "undecryptable",
            Self::Unsigned => "unsigned",
            Self::Undecodable(_) => "undecodable",
            Self::RateLimited => "rate_limited",
            Self::RangeInverted | Self::DirectRangeInverted => "range_inverted",
            Self::RangeTooLong => "range_too_long",
            Self::NoFilter => "no_filter",
            Self::BloomLength(_) => "bloom_length",
            Self::TooManyTopics(_) => "too_many_topics",
            Self::LimitTooHigh => "limit",
            Self::CursorLength(_) => "cursor_length",
        }
    }
}
