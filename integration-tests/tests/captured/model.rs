//! What our mailserver has to answer, worked out from a request and from what is stored: the measure where the recorded
//! answer must not be ours. It shares nothing with the code that it measures but the deployed bloom projection.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use poste_codec::rlp::{Item, List};
use poste_wire::packet::Completion;
use poste_wire::{Bloom, Cursor, Hash, Topic};

use crate::recording::RequestRead;

const MAX_LIMIT: usize = 1000;

/// What is stored, in the order of mail.
#[derive(Default)]
pub(crate) struct Store(BTreeMap<(u32, Hash), Topic>);

impl Store {
    pub(crate) fn add(&mut self, sent: u32, hash: Hash, topic: Topic) {
        self.0.insert((sent, hash), topic);
    }

    /// Whether a cursor is the place of something stored.
    pub(crate) fn has(&self, cursor: &Cursor) -> bool {
        self.0.contains_key(&(cursor.sent, cursor.hash))
    }

    /// The envelopes of a page, and what completes it.
    pub(crate) fn answer(&self, request: &RequestRead, id: Hash) -> anyhow::Result<(Vec<Hash>, Completion)> {
        let after = match request.cursor.len() {
            0 => None,
            36 => Some(Cursor::try_from(&request.cursor[..])?),
            length => {
                let error = format!("request is invalid: cursor has {length} bytes, not 36");
                return Ok((Vec::new(), Completion::Failed { request_id: id, error }));
            }
        };
        let bloom = Bloom::try_from(&request.bloom[..]).ok();
        ensure!(
            bloom.is_some() || !request.topics.is_empty(),
            "the request has neither bloom filter nor topics"
        );
        let wanted = |topic: Topic| match &request.topics[..] {
            [] => bloom.is_some_and(|bloom| bloom.matches(topic)),
            topics => topics.contains(&topic),
        };
        let within = |sent: u32| (request.lower..=request.upper).contains(&sent);
        let behind = |place: (u32, Hash)| after.is_none_or(|cursor| place > (cursor.sent, cursor.hash));
        let mut places: Vec<_> = self
            .0
            .iter()
            .filter(|(place, topic)| within(place.0) && behind(**place) && wanted(**topic))
            .map(|(place, _)| *place)
            .collect();
        let limit = if request.limit == 0 { MAX_LIMIT } else { request.limit as usize };
        let more = places.len() > limit;
        places.truncate(limit);
        let last = places.last().copied();
        let end = Completion::Done {
            request_id: id,
            last_hash: last.map(|(_, hash)| hash).unwrap_or_default(),
            cursor: last.filter(|_| more).map(|(sent, hash)| Cursor { sent, hash }),
        };
        Ok((places.into_iter().map(|(_, hash)| hash).collect(), end))
    }
}

/// Reads a request of six items: lower, upper, bloom, limit, cursor, and either topics (8/WAKU-MAIL) or whether to batch
/// (2019).
pub(crate) fn older_form(payload: &Bytes) -> anyhow::Result<RequestRead> {
    let mut items: List<'_> = Item::parse(payload)?.list()?;
    ensure!(items.len() == 6, "the recorded request has {} items, not 6", items.len());
    let mut next = || items.next().context("an item is missing");
    let (lower, upper, bloom) = (next()?.u32()?, next()?.u32()?, Bytes::copy_from_slice(next()?.bytes()?));
    let (limit, cursor, last) = (next()?.u32()?, Bytes::copy_from_slice(next()?.bytes()?), next()?);
    let (topics, batch) = match last.is_list() {
        true => (last.list()?.map(|topic| Ok(Topic(topic.fixed()?))).collect::<anyhow::Result<_>>()?, false),
        false => (Vec::new(), last.bool()?),
    };
    Ok(RequestRead { lower, upper, bloom, topics, limit, cursor, batch })
}
