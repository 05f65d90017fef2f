//! Records in order of arrival, over all parts. The parts of one lane follow each other; those of the two lanes may
//! interleave, so what several parts give is sorted, up to where every one of them was looked at.

use std::sync::Arc;

use super::frame;
use super::part::{Part, PartError};
use super::question::{Candidate, TailQuestion};
use super::read::Found;
use super::sealed;
use super::shared::Shared;
use super::view::View;
use crate::store::{StoreError, TailPage, TailQuery};

impl Shared {
    /// Records in order of arrival.
    pub(super) fn tail(&self, query: &TailQuery) -> Result<TailPage, StoreError> {
        self.ask(|| {
            // The head before the parts: a record up to it is in one of them.
            let head = *self.head.borrow();
            let (view, is_whole) = self.whole_view();
            let tail = TailQuestion::of(query, head, self.floor_ns(query.space));
            if tail.topics.as_ref().is_some_and(|topics| topics.is_empty()) {
                return Ok(Some(TailPage { records: Vec::new(), scanned: tail.until }));
            }
            // While a segment is not indexed, what it holds cannot be passed over.
            if !is_whole {
                return Ok(Some(TailPage { records: Vec::new(), scanned: query.after }));
            }
            let (mut found, mut scanned) = select(&view, &tail, query.max_records)?;
            let head = frame::head_bytes(query.space);
            let mut bytes = 0_usize;
            let fits = |found: &Found| {
                bytes =
                    bytes.saturating_add((found.candidate.at.payload_bytes as usize).saturating_sub(head));
                bytes <= query.max_bytes
            };
            let fitting = found.iter().map(fits).take_while(|&fits| fits).count().max(1);
            if fitting < found.len() {
                found.truncate(fitting);
                scanned = found[fitting - 1].candidate.seq;
            }
            match self.read(query.space, &found)? {
                Ok(records) => Ok(Some(TailPage { records, scanned })),
                Err(_) => Ok(None),
            }
        })
    }
}

/// The first `count` records behind `tail.after`, and the seq up to which everything was looked at.
fn select(view: &View, tail: &TailQuestion, count: usize) -> Result<(Vec<Found>, u64), PartError> {
    let mut parts: Vec<(u64, &Arc<Part>)> = view
        .parts()
        .iter()
        .filter_map(|part| {
            let span = part.span(tail.space)?;
            let overlaps = span.last_seq > tail.after && span.first_seq <= tail.until;
            overlaps.then_some((span.first_seq, part))
        })
        .collect();
    parts.sort_unstable_by_key(|&(first_seq, _)| first_seq);
    let mut found: Vec<Found> = Vec::new();
    let mut scanned = tail.until;
    for (first_seq, part) in parts {
        // What lies behind where an earlier part stopped comes with the next question.
        if first_seq > scanned {
            break;
        }
        let (candidates, until) = candidates(part, tail, count)?;
        scanned = scanned.min(until);
        found.extend(candidates.into_iter().map(|candidate| Found { part: Arc::clone(part), candidate }));
        found.retain(|found| found.candidate.seq <= scanned);
        found.sort_unstable_by_key(|found| found.candidate.seq);
        if found.len() > count {
            found.truncate(count);
            scanned = found[count - 1].candidate.seq;
        }
    }
    Ok((found, scanned))
}

fn candidates(part: &Part, tail: &TailQuestion, count: usize) -> Result<(Vec<Candidate>, u64), PartError> {
    match part {
        Part::Open(part) => Ok(part.index.read().select_tail(tail, count)),
        Part::Sealed(part) => sealed::select_tail(part, tail, count),
    }
}
