//! What the store holds, summed up over its parts.

use std::collections::HashSet;

use poste_wire::Topic;

use super::part::{Part, Span};
use super::shared::Shared;
use super::view::View;
use crate::record::Space;
use crate::store::{SpaceStats, StoreError, StoreStats};

impl Shared {
    /// What the store holds.
    pub(super) fn stats(&self) -> Result<StoreStats, StoreError> {
        let view = self.view();
        let (quarantined, quarantined_bytes) = self.quarantined();
        let spaces = [Space::Waku1].into_iter().filter_map(|space| self.space_stats(&view, space));
        Ok(StoreStats {
            seq: *self.head.borrow(),
            spaces: spaces.collect(),
            file_bytes: self.file_bytes(),
            quarantined,
            quarantined_bytes,
            segments: view.parts().len() as u64,
            writable: Some(self.writable.borrow().clone()),
            indexing: self.indexing(),
            retention: self.retentions.lock().in_force(),
        })
    }

    fn space_stats(&self, view: &View, space: Space) -> Option<SpaceStats> {
        let floor_ns = self.floor_ns(space);
        let spans: Vec<Span> = view.parts().iter().filter_map(|part| part.span(space)).collect();
        if spans.is_empty() && floor_ns.is_none() {
            return None;
        }
        let above = |time_ns: i64| floor_ns.map_or(time_ns, |floor| time_ns.max(floor));
        Some(SpaceStats {
            space,
            records: spans.iter().map(|span| span.records).sum(),
            bytes: spans.iter().map(|span| span.body_bytes).sum(),
            topics: self.count_topics(view, space),
            oldest_ns: spans.iter().map(|span| above(span.oldest.time_ns)).min(),
            newest_ns: spans.iter().map(|span| span.newest.time_ns).max(),
            floor_ns,
        })
    }

    /// Distinct topics; those of retired records may count for a while.
    fn count_topics(&self, view: &View, space: Space) -> u64 {
        let mut in_memory: HashSet<Topic> = HashSet::new();
        for part in view.parts() {
            if let Part::Open(open) = part.as_ref()
                && let Some(index) = open.index.read().space(space)
            {
                in_memory.extend(index.distinct_topics());
            }
        }
        let sealed = self.topics(|spaces| {
            let distinct = spaces.get(&space)?;
            in_memory.retain(|topic| !distinct.contains(*topic));
            Some(distinct.len() as u64)
        });
        sealed.flatten().unwrap_or(0) + in_memory.len() as u64
    }
}
