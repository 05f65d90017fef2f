//! Segments whose index file is missing or damaged. While there is one, answers are not complete and say so, and no
//! records are taken: nobody could tell which are new.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use super::{Cause, Shared};
use crate::local::part::SegmentId;
use crate::local::segment_path;
use crate::local::view::View;
use crate::store::Progress;

/// Segments whose index file is missing or was found invalid.
#[derive(Debug, Default)]
pub(super) struct Unindexed {
    pub(super) segments: BTreeSet<SegmentId>,
    pub(super) progress: Progress,
}

impl Shared {
    pub(in crate::local) fn add_unindexed(&self, id: SegmentId, bytes: u64) {
        let mut unindexed = self.unindexed.lock();
        unindexed.segments.insert(id);
        unindexed.progress.total_bytes += bytes;
        let reason = "an index is being made anew, which takes seconds for each million records";
        drop(unindexed);
        self.refuse(Cause::Unindexed, Some(reason.to_owned()));
    }

    /// The parts, and the segments that are missing among them.
    pub(in crate::local) fn view_and_missing(&self) -> (Arc<View>, Vec<SegmentId>) {
        // As in [`Shared::whole_view`]: held, so that none comes or goes between the two.
        let unindexed = self.unindexed.lock();
        let view = self.view();
        let missing = unindexed.segments.iter().copied().filter(|&id| view.find(id).is_none());
        let missing = missing.collect();
        (view, missing)
    }

    /// One index file is soon made anew: an answer a little later beats one that is not complete.
    pub(super) fn wait_for_index(&self, id: SegmentId, deadline: Instant) {
        let mut unindexed = self.unindexed.lock();
        while unindexed.segments.contains(&id) && !self.is_closing() {
            if self.index_made.wait_until(&mut unindexed, deadline).timed_out() {
                return;
            }
        }
    }

    /// Within a lane the newest first: that is what people ask for.
    pub(in crate::local) fn unindexed_segments(&self) -> Vec<SegmentId> {
        self.unindexed.lock().segments.iter().rev().copied().collect()
    }

    pub(in crate::local) fn segment_exists(&self, id: SegmentId) -> bool {
        let opened = self.disk.open(&segment_path(&self.dir, id));
        !matches!(opened, Err(error) if error.kind() == ErrorKind::NotFound)
    }

    pub(in crate::local) fn indexing_progress(&self, bytes: u64) {
        let mut unindexed = self.unindexed.lock();
        let progress = &mut unindexed.progress;
        progress.done_bytes += bytes;
        progress.total_bytes = progress.total_bytes.max(progress.done_bytes);
    }

    /// The segment has its part again, or is gone.
    pub(in crate::local) fn indexed(&self, id: SegmentId) {
        let mut unindexed = self.unindexed.lock();
        unindexed.segments.remove(&id);
        let done = unindexed.segments.is_empty();
        if done {
            unindexed.progress = Progress::default();
        }
        drop(unindexed);
        self.index_made.notify_all();
        if done {
            self.refuse(Cause::Unindexed, None);
        }
    }

    pub(in crate::local) fn indexing(&self) -> Option<Progress> {
        let unindexed = self.unindexed.lock();
        (!unindexed.segments.is_empty()).then_some(unindexed.progress)
    }
}
