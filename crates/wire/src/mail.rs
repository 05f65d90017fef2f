//! Requests for mail (8/WAKU-MAIL, and what go-ethereum and status-go made of it): what is asked for, the forms in
//! which it is written, and which requests are refused with which words.
//!
//! A request comes in packet 126, either sealed in an envelope ([`open_request`], then [`MailRequest::decode`]) or
//! directly ([`DirectRequest`]). Both end in [`MailRequest::validate`].

mod direct;
mod form;
mod refusal;
mod sealed;
mod validate;

use std::fmt;

use bytes::Bytes;

pub use direct::{DirectRequest, MailRequestPacket};
pub use form::{RequestForm, RequestFormError};
pub use refusal::Refusal;
pub use sealed::{
    OpenedRequest, REQUEST_TTL, RequestKeys, RequestSeal, SealRequestError, open_request, seal_request,
};
pub use validate::{BINARY_MAX_RANGE_SECONDS, Filter, MAX_LIMIT, MAX_TOPICS, OPEN_END_SECONDS, ValidRequest};

use crate::{Bloom, Cursor, Topic};

/// A request for mail as it was written, nothing checked: lengths and bounds are those of the sender.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MailRequest {
    /// Not created before this, unix seconds.
    pub lower: u32,
    /// Not created after this, unix seconds; 0 stands for now and a little more.
    pub upper: u32,
    /// A bloom filter over the topics; 64 bytes, or none when `topics` says what is wanted.
    pub bloom: Bytes,
    /// The topics themselves; if there are any, the bloom filter does not count.
    pub topics: Vec<Topic>,
    /// How many envelopes at most; 0 stands for 1000.
    pub limit: u32,
    /// Only what comes behind this place: 36 bytes, or none.
    pub cursor: Bytes,
    /// Whether several envelopes may come in one packet.
    pub batch: bool,
}

impl MailRequest {
    /// A request as deployed clients write it, for everything between two moments (inclusive, unix seconds).
    pub fn between(lower: u32, upper: u32) -> Self {
        Self { lower, upper, bloom: bloom_bytes(Bloom::FULL), batch: true, ..Self::default() }
    }

    /// The same for these topics only; none means all.
    pub fn with_topics(mut self, topics: Vec<Topic>) -> Self {
        let bloom = if topics.is_empty() { Bloom::FULL } else { Bloom::of_topics(topics.iter().copied()) };
        self.bloom = bloom_bytes(bloom);
        self.topics = topics;
        self
    }

    /// The same with at most this many envelopes.
    pub fn with_limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// The same from behind this place on.
    pub fn with_cursor(mut self, cursor: Option<Cursor>) -> Self {
        self.cursor = cursor.map_or_else(Bytes::new, |cursor| Bytes::copy_from_slice(&cursor.to_bytes()));
        self
    }
}

/// Without what tells a reader's interests.
impl fmt::Debug for MailRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailRequest")
            .field("lower", &self.lower)
            .field("upper", &self.upper)
            .field("bloom", &format_args!("{} bytes", self.bloom.len()))
            .field("topics", &self.topics.len())
            .field("limit", &self.limit)
            .field("cursor", &format_args!("{} bytes", self.cursor.len()))
            .field("batch", &self.batch)
            .finish()
    }
}

fn bloom_bytes(bloom: Bloom) -> Bytes {
    Bytes::copy_from_slice(bloom.as_bytes())
}

#[cfg(test)]
mod tests;
