//! How long records are kept, and taking away what is older.

use std::time::Duration;

use poste_rpc::archive::v1;
use tonic::Status;

use super::AdminGrpc;
use crate::grpc::convert;
use crate::record::Space;
use crate::store::{Retention, Retired};

pub(super) async fn get(admin: &AdminGrpc) -> Result<v1::GetRetentionResponse, Status> {
    let retentions = admin.store.retention();
    let (file_bytes, spaces) = due(admin, retentions.in_force()).await?;
    Ok(v1::GetRetentionResponse {
        configured: Some(message(retentions.configured)),
        r#override: retentions.overridden.map(message),
        spaces,
        file_bytes,
    })
}

/// The bytes of the store's files, and what a retention would take away by age.
async fn due(admin: &AdminGrpc, retention: Retention) -> Result<(u64, Vec<v1::SpaceRetention>), Status> {
    let stats = admin.store.stats().await.map_err(|error| convert::status(&error))?;
    let mut spaces = Vec::with_capacity(stats.spaces.len());
    for of_space in stats.spaces {
        let mut message = v1::SpaceRetention {
            space: of_space.space.to_string(),
            floor_ns: of_space.floor_ns,
            ..v1::SpaceRetention::default()
        };
        if let Some(max_age) = retention.max_age {
            let due_floor_ns = admin.clock.unix_nanos().saturating_sub_unsigned(nanos(max_age));
            let due = admin.store.would_retire(of_space.space, due_floor_ns).await;
            let due = due.map_err(|error| convert::status(&error))?;
            message.due_floor_ns = Some(due_floor_ns);
            message.due_records = due.records;
            message.due_bytes = due.bytes;
            message.due_hidden = due.hidden;
        }
        spaces.push(message);
    }
    Ok((stats.file_bytes, spaces))
}

pub(super) async fn set(
    admin: &AdminGrpc,
    request: v1::SetRetentionRequest,
) -> Result<v1::SetRetentionResponse, Status> {
    let v1::SetRetentionRequest { max_age_ns, max_bytes, min_age_ns, reset, dry_run } = request;
    let names_something = max_age_ns.is_some() || max_bytes.is_some() || min_age_ns.is_some();
    if names_something == reset {
        return Err(Status::invalid_argument("set an age or a size, or reset, but not both"));
    }
    let retentions = admin.store.retention();
    let mut retention = if reset { retentions.configured } else { retentions.in_force() };
    if let Some(max_age_ns) = max_age_ns {
        retention.max_age = (max_age_ns > 0).then_some(Duration::from_nanos(max_age_ns));
    }
    if let Some(max_bytes) = max_bytes {
        retention.max_bytes = (max_bytes > 0).then_some(max_bytes);
    }
    if let Some(min_age_ns) = min_age_ns {
        retention.min_age = Duration::from_nanos(min_age_ns);
    }
    if !reset {
        admin.rules.check(retention).map_err(Status::invalid_argument)?;
    }
    if dry_run {
        let (file_bytes, spaces) = due(admin, retention).await?;
        return Ok(v1::SetRetentionResponse { retention: Some(message(retention)), spaces, file_bytes });
    }
    if reset {
        admin.store.reset_retention().await.map_err(|error| convert::status(&error))?;
        tracing::info!("retention is that of the configuration again");
    } else {
        let durable = true;
        admin.store.set_retention(retention, durable).await.map_err(|error| convert::status(&error))?;
        tracing::info!(?retention, "retention was overridden");
    }
    let retention = Some(message(admin.store.retention().in_force()));
    Ok(v1::SetRetentionResponse { retention, ..v1::SetRetentionResponse::default() })
}

pub(super) async fn prune(admin: &AdminGrpc, request: v1::PruneRequest) -> Result<v1::PruneResponse, Status> {
    let v1::PruneRequest { space, before_ns, dry_run } = request;
    let space: Space = convert::space(&space)?;
    if before_ns > admin.clock.unix_nanos() {
        return Err(Status::invalid_argument(
            "that time is in the future: nothing could be stored until then, so name one that has passed",
        ));
    }
    let retired = if dry_run {
        admin.store.would_retire(space, before_ns).await
    } else {
        admin.store.retire(space, before_ns).await
    };
    let retired = retired.map_err(|error| convert::status(&error))?;
    if !dry_run {
        tracing::info!(hidden = retired.hidden, bytes = retired.bytes, "pruned");
    }
    let Retired { floor_ns, hidden, records, bytes } = retired;
    Ok(v1::PruneResponse { floor_ns, records, bytes, hidden })
}

fn message(retention: Retention) -> v1::Retention {
    v1::Retention {
        max_age_ns: retention.max_age.map_or(0, nanos),
        max_bytes: retention.max_bytes.unwrap_or(0),
        min_age_ns: nanos(retention.min_age),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
