//! `Stats`: what the store holds.

use poste_rpc::archive::v1;
use tonic::Status;

use super::{ArchiveGrpc, convert};
use crate::store::{SpaceStats, Writable};

pub(super) async fn answer(service: &ArchiveGrpc) -> Result<v1::StatsResponse, Status> {
    let stats = service.store.stats().await.map_err(|error| convert::status(&error))?;
    Ok(v1::StatsResponse {
        store_id: convert::store_id_bytes(service.store.store_id()),
        seq: stats.seq,
        spaces: stats.spaces.into_iter().map(space_message).collect(),
        file_bytes: stats.file_bytes,
        quarantined: stats.quarantined,
        quarantined_bytes: stats.quarantined_bytes,
        writable: stats.writable.as_ref().is_some_and(Writable::is_yes),
        unwritable_reason: match stats.writable {
            Some(Writable::No(reason)) => reason,
            _ => String::new(),
        },
        indexing: stats.indexing.map(|progress| v1::IndexProgress {
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
        }),
        segments: stats.segments,
    })
}

fn space_message(stats: SpaceStats) -> v1::SpaceStats {
    v1::SpaceStats {
        space: stats.space.to_string(),
        records: stats.records,
        bytes: stats.bytes,
        topics: stats.topics,
        oldest_ns: stats.oldest_ns,
        newest_ns: stats.newest_ns,
        floor_ns: stats.floor_ns,
    }
}
