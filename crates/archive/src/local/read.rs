//! Reads the bodies of what was found. A record whose frame turns out damaged goes to quarantine, and the question
//! is asked again without it.

use std::sync::Arc;

use bytes::Bytes;
use poste_journal::{FrameAt, JournalError};

use super::frame;
use super::index_file::Stretch;
use super::part::{Part, SegmentId};
use super::question::Candidate;
use super::shared::Shared;
use crate::record::{Record, Space};
use crate::store::{Lane, StoreError};

/// A record that was found, and where.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) part: Arc<Part>,
    pub(super) candidate: Candidate,
}

/// Why a question must be asked again: what it found is not there any more.
#[derive(Debug)]
pub(super) struct AskAgain;

impl Shared {
    /// The records with their bodies, in the order given.
    pub(super) fn read(
        &self,
        space: Space,
        found: &[Found],
    ) -> Result<Result<Vec<Record>, AskAgain>, StoreError> {
        let mut records: Vec<Option<Record>> = vec![None; found.len()];
        for lane in [Lane::Live, Lane::Imported] {
            let of_lane = |&index: &usize| found[index].part.id().lane == lane;
            let mut order: Vec<usize> = (0..found.len()).filter(of_lane).collect();
            // What was found in order of position is read in order of place: neighbours share a read.
            order.sort_unstable_by_key(|&index| {
                let at = found[index].candidate.at;
                (at.segment, at.offset)
            });
            let frames: Vec<FrameAt> = order.iter().map(|&index| found[index].candidate.at).collect();
            let mut again = false;
            for (&index, payload) in order.iter().zip(self.reader(lane).read_many(&frames)) {
                let Found { part, candidate } = &found[index];
                match payload {
                    Ok(payload) => {
                        let body = body(space, candidate, &payload)?;
                        records[index] = Some(candidate.record(body));
                    }
                    Err(JournalError::Damaged { .. }) => {
                        again = true;
                        let at = candidate.at;
                        let bytes = at.end() - u64::from(at.offset);
                        self.quarantine(part, Stretch { offset: at.offset.into(), bytes });
                    }
                    // Retention has removed the segment since.
                    Err(_) if self.is_gone(part.id()) => again = true,
                    Err(error) => return Err(error.into()),
                }
            }
            if again {
                return Ok(Err(AskAgain));
            }
        }
        Ok(Ok(records.into_iter().flatten().collect()))
    }

    fn is_gone(&self, id: SegmentId) -> bool {
        self.view().find(id).is_none()
    }
}

fn body(space: Space, candidate: &Candidate, payload: &Bytes) -> Result<Bytes, StoreError> {
    let head = frame::head_bytes(space);
    // An index file that passed its checksums names a frame of another space only when a program was wrong.
    if payload.len() < head {
        return Err(StoreError::Corrupt(format!(
            "segment {} and its index file do not agree: run a verification of the archive",
            candidate.at.segment
        )));
    }
    Ok(payload.slice(head..))
}
