//! The payload of a sealed request, in every layout that was ever deployed or specified. Which one it is shows in the
//! number of items and in their types:
//!
//! | items | layout |
//! |---|---|
//! | 7 | lower upper bloom topics limit cursor batch: deployed since 2020, what we write |
//! | 6, the last a bool | lower upper bloom limit cursor batch: deployed in 2019 |
//! | 6, the last a list | lower upper bloom limit cursor topics: 8/WAKU-MAIL |
//! | 4 or 5 | lower upper bloom limit [cursor] |
//! | no RLP | go-ethereum's fixed layout, big-endian: lower(4) upper(4) [bloom(64) [limit(4) [cursor(40)]]] |

use bytes::Bytes;
use poste_codec::rlp::{Encoder, Item, RlpError};
use thiserror::Error;

use super::{MailRequest, bloom_bytes};
use crate::{Bloom, Cursor, Topic};

/// How a request was written. It decides what else is asked of it, and how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestForm {
    /// Seven items: status-go since 2020.
    Deployed,
    /// Six items, the last says whether to batch: status-go in 2019.
    Batch2019,
    /// Four to six items: 8/WAKU-MAIL, and status-go before 2019.
    Specified,
    /// The fixed layout: go-ethereum, which reads bare envelopes only.
    Binary,
    /// Not sealed: status-go's own messenger.
    Direct,
}

/// A payload that is no request in any layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestFormError {
    /// A list, but of other items.
    #[error(transparent)]
    Rlp(#[from] RlpError),
    /// A list of another number of items.
    #[error("a request has 4 to 7 items, not {0}")]
    Items(usize),
    /// Neither a list nor as long as the fixed layout.
    #[error("a request is an RLP list, or has 8, 72, 76 or 116 bytes, not {0}")]
    Length(usize),
}

impl MailRequest {
    /// Reads the payload of an opened request envelope.
    pub fn decode(payload: &[u8]) -> Result<(Self, RequestForm), RequestFormError> {
        match Item::parse(payload) {
            Ok(item) if item.is_list() => decode_list(&item),
            Err(error) if payload.first().is_some_and(|first| *first >= 0xc0) => Err(error.into()),
            _ => Ok((decode_binary(payload)?, RequestForm::Binary)),
        }
    }

    /// Writes the seven items that status-go reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.list(7).uint(self.lower.into()).uint(self.upper.into()).bytes(&self.bloom);
        write_topics(&mut encoder, &self.topics);
        encoder.uint(self.limit.into()).bytes(&self.cursor).bool(self.batch);
        encoder.finish()
    }

    /// Writes the fixed layout that go-ethereum reads: bounds and, unless it is full or of a wrong length, the bloom
    /// filter; limit and cursor only if they are set, because go-ethereum knows neither.
    pub fn encode_binary(&self) -> Vec<u8> {
        let mut bytes = [self.lower.to_be_bytes(), self.upper.to_be_bytes()].concat();
        let bloom = Bloom::try_from(&self.bloom[..]).unwrap_or(Bloom::FULL);
        let cursor = Cursor::try_from(&self.cursor[..]).ok();
        if bloom != Bloom::FULL || self.limit != 0 || cursor.is_some() {
            bytes.extend(bloom.as_bytes());
        }
        if self.limit != 0 || cursor.is_some() {
            bytes.extend(self.limit.to_be_bytes());
        }
        if let Some(cursor) = cursor {
            bytes.extend(cursor.to_bytes());
            // A whole key of the archive ends in the topic, which the order does not need.
            bytes.extend([0; 4]);
        }
        bytes
    }
}

fn decode_list(item: &Item<'_>) -> Result<(MailRequest, RequestForm), RequestFormError> {
    let items: Vec<_> = item.list()?.take(8).collect();
    let (request, form) = match items[..] {
        [lower, upper, bloom, topics, limit, cursor, batch] => (
            MailRequest {
                topics: read_topics(&topics)?,
                ..read(lower, upper, bloom, limit, Some(cursor), Some(batch))?
            },
            RequestForm::Deployed,
        ),
        // Without topics a specified request may end in an empty string, which then reads as a bool.
        [lower, upper, bloom, limit, cursor, last] if last.is_list() => (
            MailRequest {
                topics: read_topics(&last)?,
                ..read(lower, upper, bloom, limit, absent(cursor), None)?
            },
            RequestForm::Specified,
        ),
        [lower, upper, bloom, limit, cursor, batch] => {
            (read(lower, upper, bloom, limit, absent(cursor), Some(batch))?, RequestForm::Batch2019)
        }
        [lower, upper, bloom, limit, cursor] => {
            (read(lower, upper, bloom, limit, absent(cursor), None)?, RequestForm::Specified)
        }
        [lower, upper, bloom, limit] => {
            (read(lower, upper, bloom, limit, None, None)?, RequestForm::Specified)
        }
        // Counted anew: a long list was cut above.
        _ => return Err(RequestFormError::Items(item.list()?.len())),
    };
    Ok((request, form))
}

fn read(
    lower: Item<'_>,
    upper: Item<'_>,
    bloom: Item<'_>,
    limit: Item<'_>,
    cursor: Option<Item<'_>>,
    batch: Option<Item<'_>>,
) -> Result<MailRequest, RlpError> {
    let cursor = cursor.map_or(Ok(&[][..]), |cursor| cursor.bytes())?;
    Ok(MailRequest {
        lower: lower.u32()?,
        upper: upper.u32()?,
        bloom: Bytes::copy_from_slice(bloom.bytes()?),
        topics: Vec::new(),
        limit: limit.u32()?,
        cursor: Bytes::copy_from_slice(cursor),
        batch: batch.map_or(Ok(false), |batch| batch.bool())?,
    })
}

/// 8/WAKU-MAIL writes a missing cursor as an empty string or as an empty list.
fn absent(cursor: Item<'_>) -> Option<Item<'_>> {
    (cursor.raw() != [0xc0]).then_some(cursor)
}

fn decode_binary(bytes: &[u8]) -> Result<MailRequest, RequestFormError> {
    let number =
        |at: usize| -> u32 { bytes[at..at + 4].iter().fold(0, |value, byte| value << 8 | u32::from(*byte)) };
    let (bloom, limit, cursor) = match bytes.len() {
        8 => (bloom_bytes(Bloom::FULL), 0, &[][..]),
        72 => (Bytes::copy_from_slice(&bytes[8..72]), 0, &[][..]),
        76 => (Bytes::copy_from_slice(&bytes[8..72]), number(72), &[][..]),
        116 => (Bytes::copy_from_slice(&bytes[8..72]), number(72), &bytes[76..112]),
        length => return Err(RequestFormError::Length(length)),
    };
    Ok(MailRequest {
        lower: number(0),
        upper: number(4),
        bloom,
        topics: Vec::new(),
        limit,
        cursor: Bytes::copy_from_slice(cursor),
        batch: false,
    })
}

pub(super) fn read_topics(item: &Item<'_>) -> Result<Vec<Topic>, RlpError> {
    item.list()?.map(|topic| topic.fixed().map(Topic)).collect()
}

pub(super) fn write_topics(encoder: &mut Encoder, topics: &[Topic]) {
    encoder.list(topics.len());
    for topic in topics {
        encoder.bytes(&topic.0);
    }
}
