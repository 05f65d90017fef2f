//! One page of history over all parts: their records are merged in order of position, and a part is opened only when
//! the page gets as far as its range.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering as Memory;

use super::part::{Part, PartError};
use super::question::{Candidate, Question, Wanted};
use super::read::Found;
use super::sealed::SealedCursor;
use super::shared::{AskError, Shared};
use super::topics::day_of;
use super::view::{Overlap, View};
use crate::record::Position;
use crate::store::{Page, Query, StoreError};

/// A bloom filter is matched against the topics of each part; over more parts than this against the distinct topics of
/// all of them first.
const FEW_PARTS: usize = 4;

impl Shared {
    /// One page of history.
    pub(super) fn page(&self, query: &Query) -> Result<Page, StoreError> {
        self.ask(|| {
            // The claim before the parts, so that nothing that arrives meanwhile is missing below it; the floor after
            // them, so that nothing that was removed is missing above it.
            let complete_until_ns = self.complete_until_ns();
            let (view, is_whole) = self.whole_view();
            let complete_until_ns = if is_whole { complete_until_ns } else { Some(i64::MIN) };
            let floor_ns = self.floor_ns(query.space);
            let mut page = Page { complete_until_ns, floor_ns, ..Page::default() };
            let Some(question) = Question::of(query, floor_ns) else { return Ok(Some(page)) };
            let selection = self.select(&view, question, query)?;
            match self.read(query.space, &selection.found)? {
                Ok(records) => page.records = records,
                Err(_) => return Ok(None),
            }
            if self.floor_ns(query.space) != floor_ns {
                // What was retired meanwhile may be missing above the floor that this page would tell.
                return Ok(None);
            }
            page.next = selection.next;
            page.quarantined = self.quarantined_places.load(Memory::Relaxed);
            Ok(Some(page))
        })
    }

    fn select(&self, view: &View, mut question: Question, query: &Query) -> Result<Selection, AskError> {
        let overlaps = view.overlapping(question.space, &question.bounds);
        if overlaps.len() > FEW_PARTS {
            self.match_topics(&mut question);
        }
        let number = self.next_question();
        for overlap in &overlaps {
            if let Part::Sealed(part) = overlap.part.as_ref() {
                part.touch(number);
            }
        }
        let question = Arc::new(question);
        let mut merge = Merge::new(overlaps, Arc::clone(&question), query.max_records);
        let mut selection = Selection::default();
        let mut bytes_left = query.max_bytes;
        let head = super::frame::head_bytes(query.space);
        while let Some(found) = merge.next()? {
            let bytes = (found.candidate.at.payload_bytes as usize).saturating_sub(head);
            let taken = &mut selection.found;
            if let Some(last) = taken.last()
                && (taken.len() >= query.max_records || bytes > bytes_left)
            {
                selection.next = Some(last.candidate.position);
                break;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            taken.push(found);
        }
        Ok(selection)
    }

    /// Looks up which of the distinct topics a bloom filter covers: a superset of those in the range (J9).
    fn match_topics(&self, question: &mut Question) {
        let Wanted::Bloom { bloom, topics } = &mut question.wanted else { return };
        let days = day_of(question.bounds.low.time_ns)..=day_of(question.bounds.high.time_ns);
        let space = question.space;
        *topics = self.topics(|spaces| {
            spaces.get(&space).map(|distinct| distinct.matching(bloom, days)).unwrap_or_default()
        });
    }
}

/// The records of a page, without their bodies.
#[derive(Debug, Default)]
struct Selection {
    found: Vec<Found>,
    /// The last one, if more would follow it.
    next: Option<Position>,
}

/// Several parts as one, in order.
struct Merge {
    question: Arc<Question>,
    /// How many records the page takes.
    count: usize,
    /// Parts that the page has not come to; the next one is the last.
    pending: Vec<Overlap>,
    heads: BinaryHeap<Head>,
}

impl Merge {
    fn new(mut pending: Vec<Overlap>, question: Arc<Question>, count: usize) -> Self {
        if question.descending {
            pending.sort_unstable_by_key(|overlap| overlap.newest);
        } else {
            pending.sort_unstable_by_key(|overlap| std::cmp::Reverse(overlap.oldest));
        }
        Self { question, count, pending, heads: BinaryHeap::new() }
    }

    fn next(&mut self) -> Result<Option<Found>, PartError> {
        while let Some(overlap) = self.pending.pop_if(|overlap| match self.heads.peek() {
            None => true,
            Some(head) if self.question.descending => overlap.newest > head.candidate.position,
            Some(head) => overlap.oldest < head.candidate.position,
        }) {
            let mut cursor = Cursor::open(&overlap, &self.question, self.count)?;
            if let Some(candidate) = cursor.next()? {
                let descending = self.question.descending;
                self.heads.push(Head { candidate, part: overlap.part, cursor, descending });
            }
        }
        let Some(mut head) = self.heads.pop() else { return Ok(None) };
        let found = Found { part: Arc::clone(&head.part), candidate: head.candidate };
        if let Some(candidate) = head.cursor.next()? {
            head.candidate = candidate;
            self.heads.push(head);
        }
        Ok(Some(found))
    }
}

/// What one part gives, in order.
enum Cursor {
    /// Of an open segment: taken at once, so that its index is not locked while the disk is asked.
    Taken(std::vec::IntoIter<Candidate>),
    Sealed(Box<SealedCursor>),
}

impl Cursor {
    fn open(overlap: &Overlap, question: &Arc<Question>, count: usize) -> Result<Self, PartError> {
        let Overlap { part, oldest, newest } = overlap;
        match part.as_ref() {
            Part::Open(open) => {
                // What has come since may lie before what the page has given already.
                let bounds = question.bounds.within(*oldest, *newest);
                // One more than the page takes tells whether there is a next one.
                let taken = open.index.read().select(question, bounds, count.saturating_add(1));
                Ok(Self::Taken(taken.into_iter()))
            }
            Part::Sealed(_) => {
                Ok(Self::Sealed(Box::new(SealedCursor::open(Arc::clone(part), Arc::clone(question), count)?)))
            }
        }
    }

    fn next(&mut self) -> Result<Option<Candidate>, PartError> {
        match self {
            Self::Taken(candidates) => Ok(candidates.next()),
            Self::Sealed(cursor) => cursor.next(),
        }
    }
}

/// The next record of one part; the greatest is the one that comes first.
struct Head {
    candidate: Candidate,
    part: Arc<Part>,
    cursor: Cursor,
    descending: bool,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.candidate.position.cmp(&other.candidate.position);
        if self.descending { order } else { order.reverse() }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}
