//! The topics of a space that begin with the same byte, as one value: for each, sorted, its other 3 bytes | first
//! day i32 | last day i32 | records u64; integers little-endian.

use std::collections::BTreeMap;

use poste_wire::Topic;

use crate::local::topics::TopicSpan;

const TOPIC_BYTES: usize = 19;

pub(super) fn encode(spans: &BTreeMap<Topic, TopicSpan>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(spans.len() * TOPIC_BYTES);
    for (topic, span) in spans {
        bytes.extend_from_slice(&topic.0[1..]);
        bytes.extend_from_slice(&span.first_day.to_le_bytes());
        bytes.extend_from_slice(&span.last_day.to_le_bytes());
        bytes.extend_from_slice(&span.records.to_le_bytes());
    }
    bytes
}

/// `None` for bytes that are no chunk.
pub(super) fn decode(first: u8, bytes: &[u8]) -> Option<Vec<(Topic, TopicSpan)>> {
    let (topics, []) = bytes.as_chunks::<TOPIC_BYTES>() else { return None };
    topics.iter().map(|topic| one(first, topic)).collect()
}

fn one(first: u8, bytes: &[u8; TOPIC_BYTES]) -> Option<(Topic, TopicSpan)> {
    let ([a, b, c], rest) = bytes.split_first_chunk()?;
    let (first_day, rest) = rest.split_first_chunk()?;
    let (last_day, records) = rest.split_first_chunk()?;
    let span = TopicSpan {
        first_day: i32::from_le_bytes(*first_day),
        last_day: i32::from_le_bytes(*last_day),
        records: u64::from_le_bytes(records.try_into().ok()?),
    };
    Some((Topic([first, *a, *b, *c]), span))
}
