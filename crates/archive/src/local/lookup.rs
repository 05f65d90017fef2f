//! Records by their ids, in whatever part they stand.

use std::sync::Arc;

use bytes::Bytes;
use poste_wire::Hash;

use super::read::Found;
use super::shared::Shared;
use crate::record::{Record, Space};
use crate::store::StoreError;

impl Shared {
    /// For each id the record, if it is stored.
    pub(super) fn lookup(
        &self,
        space: Space,
        ids: &[Hash],
        with_bodies: bool,
    ) -> Result<Vec<Option<Record>>, StoreError> {
        self.ask(|| {
            let (view, is_whole) = self.whole_view();
            let floor_ns = self.floor_ns(space).unwrap_or(i64::MIN);
            let mut found: Vec<Option<Found>> = Vec::with_capacity(ids.len());
            for id in ids {
                let mut one = None;
                for part in view.parts().iter().rev() {
                    if let Some(candidate) = part.candidate_by_id(space, id)? {
                        one = Some(Found { part: Arc::clone(part), candidate });
                        break;
                    }
                }
                if one.is_none() && !is_whole {
                    let reason = "an index is being made anew, so nobody can tell yet what is not stored";
                    let (path, reason) = (self.dir.clone(), reason.to_owned());
                    return Err(StoreError::Unreadable { path, reason }.into());
                }
                found.push(one.filter(|found| found.candidate.position.time_ns >= floor_ns));
            }
            if !with_bodies {
                let record = |found: Found| found.candidate.record(Bytes::new());
                return Ok(Some(found.into_iter().map(|found| found.map(record)).collect()));
            }
            let there: Vec<Found> = found.iter().flatten().cloned().collect();
            let Ok(records) = self.read(space, &there)? else { return Ok(None) };
            let mut records = records.into_iter();
            Ok(Some(found.into_iter().map(|found| found.and_then(|_| records.next())).collect()))
        })
    }
}
