//! Records in order of arrival, over all parts. The parts of one lane follow each other; those of the two lanes may
//! interleave, so what several parts give is sorted, up to where every one of them was looked at.

use std::sync::Arc;

use super::part::{Part, PartError};
use super::question::{Candidate, TailQuestion};
use super::read::Found;
use super::sealed;
use super::view::View;

/// The first `count` records behind `tail.after`, and the seq up to which everything was looked at.
pub(super) fn select(view: &View, tail: &TailQuestion, count: usize) -> Result<(Vec<Found>, u64), PartError> {
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
