//! `Stats`: what the store holds.

use poste_rpc::archive::v1;
use tonic::Status;

use super::{ArchiveGrpc, convert};
use crate::store::SpaceStats;

pub(super) async fn answer(service: &ArchiveGrpc) -> Result<v1::StatsResponse, Status> {
    let stats = service.store.stats().await.map_err(|error| convert::status(&error))?;
    Ok(v1::StatsResponse {
        store_id: convert::store_id_bytes(service.store.store_id()),
        seq: stats.seq,
        spaces: stats.spaces.into_iter().map(space_message).collect(),
        file_bytes: stats.file_bytes,
        quarantined: stats.quarantined,
        quarantined_bytes: stats.quarantined_bytes,
        writable: stats.writable,
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
    }
}
