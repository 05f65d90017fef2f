//! What is asked of the parts of the store, and what they answer: places of records, without their bodies.

use std::collections::HashSet;
use std::sync::Arc;

use poste_journal::FrameAt;
use poste_wire::{Bloom, Topic};

use crate::record::{Position, Record, Space};
use crate::store::{Direction, Filter, Query, TailQuery};
use bytes::Bytes;

/// A record that was found; its body is still on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) position: Position,
    pub(super) topic: Topic,
    pub(super) seq: u64,
    pub(super) at: FrameAt,
}

impl Candidate {
    pub(super) fn record(&self, body: Bytes) -> Record {
        Record { position: self.position, topic: self.topic, seq: self.seq, body }
    }
}

/// Which records of a space are wanted, in which order.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) space: Space,
    pub(super) bounds: Bounds,
    pub(super) descending: bool,
    pub(super) wanted: Wanted,
}

impl Question {
    /// The range that a query, its cursor and the floor leave; `None` when nothing can be in it.
    pub(super) fn of(query: &Query, floor_ns: Option<i64>) -> Option<Self> {
        let from_ns = floor_ns.map_or(query.from_ns, |floor| floor.max(query.from_ns));
        let mut bounds = Bounds {
            low: Position::first_of(from_ns),
            low_included: true,
            high: Position::last_of(query.to_ns),
            high_included: true,
        };
        let descending = query.direction == Direction::Descending;
        match (query.cursor, descending) {
            (Some(cursor), false) if cursor >= bounds.low => {
                (bounds.low, bounds.low_included) = (cursor, false);
            }
            (Some(cursor), true) if cursor <= bounds.high => {
                (bounds.high, bounds.high_included) = (cursor, false);
            }
            _ => {}
        }
        let wanted = match &query.filter {
            Filter::Everything => Wanted::Everything,
            Filter::Topics(topics) => {
                let mut topics = topics.clone();
                topics.sort_unstable_by_key(|topic| topic.0);
                topics.dedup();
                Wanted::Topics(topics)
            }
            Filter::Bloom(bloom) => Wanted::Bloom { bloom: bloom.clone(), topics: None },
        };
        let empty = matches!(&wanted, Wanted::Topics(topics) if topics.is_empty());
        (bounds.low <= bounds.high && !empty).then_some(Self {
            space: query.space,
            bounds,
            descending,
            wanted,
        })
    }
}

/// Which topics are wanted.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Everything,
    /// These, sorted.
    Topics(Vec<Topic>),
    Bloom {
        bloom: Box<Bloom>,
        /// Every topic of the sealed segments in the range that the filter covers, sorted, if somebody has
        /// looked that up.
        topics: Option<Vec<Topic>>,
    },
}

impl Wanted {
    pub(super) fn matches(&self, topic: Topic) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics(topics) => topics.binary_search_by_key(&topic.0, |topic| topic.0).is_ok(),
            Self::Bloom { bloom, .. } => bloom.matches(topic),
        }
    }
}

/// A range of positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) low: Position,
    pub(super) low_included: bool,
    pub(super) high: Position,
    pub(super) high_included: bool,
}

impl Bounds {
    pub(super) fn below(&self, position: &Position) -> bool {
        *position < self.low || (*position == self.low && !self.low_included)
    }

    /// Nothing outside of these two either.
    pub(super) fn within(mut self, oldest: Position, newest: Position) -> Self {
        if oldest > self.low {
            (self.low, self.low_included) = (oldest, true);
        }
        if newest < self.high {
            (self.high, self.high_included) = (newest, true);
        }
        self
    }

    pub(super) fn above(&self, position: &Position) -> bool {
        *position > self.high || (*position == self.high && !self.high_included)
    }
}

/// Which records are wanted in order of arrival.
#[derive(Debug, Clone)]
pub(super) struct TailQuestion {
    pub(super) space: Space,
    /// Behind this seq, and up to the other.
    pub(super) after: u64,
    pub(super) until: u64,
    /// Of these topics, or all.
    pub(super) topics: Option<Arc<HashSet<Topic>>>,
    /// Not older than this.
    pub(super) floor_ns: i64,
}

impl TailQuestion {
    pub(super) fn of(query: &TailQuery, head: u64, floor_ns: Option<i64>) -> Self {
        Self {
            space: query.space,
            after: query.after,
            until: query.until.unwrap_or(u64::MAX).min(head).max(query.after),
            topics: query.topics.clone(),
            floor_ns: floor_ns.unwrap_or(i64::MIN),
        }
    }

    pub(super) fn wants(&self, candidate: &Candidate) -> bool {
        candidate.position.time_ns >= self.floor_ns
            && self.topics.as_ref().is_none_or(|topics| topics.contains(&candidate.topic))
    }
}
