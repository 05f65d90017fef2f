//! The parts of the store at one moment. A question takes a view and keeps to it; whoever changes the parts makes a
//! new one.

use std::sync::Arc;

use super::part::{Part, SegmentId};
use super::question::Bounds;
use crate::record::{Position, Space};

/// Every part, sorted by segment.
#[derive(Debug, Default)]
pub(super) struct View {
    parts: Vec<Arc<Part>>,
}

impl View {
    pub(super) fn new(mut parts: Vec<Arc<Part>>) -> Self {
        parts.sort_unstable_by_key(|part| part.id());
        Self { parts }
    }

    pub(super) fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    pub(super) fn find(&self, id: SegmentId) -> Option<&Arc<Part>> {
        let index = self.parts.binary_search_by_key(&id, |part| part.id()).ok()?;
        Some(&self.parts[index])
    }

    /// The same with this part in its place, or added.
    pub(super) fn with(&self, part: Arc<Part>) -> Self {
        let mut parts = self.parts.clone();
        match parts.binary_search_by_key(&part.id(), |part| part.id()) {
            Ok(index) => parts[index] = part,
            Err(index) => parts.insert(index, part),
        }
        Self { parts }
    }

    /// The same without these.
    pub(super) fn without(&self, gone: &[SegmentId]) -> Self {
        let parts = self.parts.iter().filter(|part| !gone.contains(&part.id())).cloned().collect();
        Self { parts }
    }

    /// The parts with records of a space between two positions, each with the first and the last that it may have
    /// there.
    pub(super) fn overlapping(&self, space: Space, bounds: &Bounds) -> Vec<Overlap> {
        let overlap = |part: &Arc<Part>| {
            let span = part.span(space)?;
            let apart = bounds.above(&span.oldest) || bounds.below(&span.newest);
            (!apart).then(|| Overlap { part: Arc::clone(part), oldest: span.oldest, newest: span.newest })
        };
        self.parts.iter().filter_map(overlap).collect()
    }
}

/// A part that a question concerns.
#[derive(Debug, Clone)]
pub(super) struct Overlap {
    pub(super) part: Arc<Part>,
    pub(super) oldest: Position,
    pub(super) newest: Position,
}
