//! What is registered for one person, and forgetting it.

use poste_rpc::push::v1;
use poste_wire::status::{HashedPublicKey, InstallationId};
use tonic::Status;

use super::{Inside, store_failed};
use crate::store::{DeviceId, Registration, TokenType};

const NANOS: u64 = 1_000_000_000;

pub(super) async fn show(
    inside: &Inside,
    request: &v1::RegistrationRequest,
) -> Result<v1::RegistrationResponse, Status> {
    let rows = inside.store.registrations(&owner(&request.hashed_key)?).await.map_err(store_failed)?;
    if rows.is_empty() {
        return Err(Status::not_found("nothing is registered for this key"));
    }
    Ok(v1::RegistrationResponse { devices: rows.iter().map(device).collect() })
}

pub(super) async fn forget(
    inside: &Inside,
    request: &v1::ForgetRequest,
) -> Result<v1::ForgetResponse, Status> {
    let key = owner(&request.hashed_key)?;
    let now = inside.clock.now();
    let forgotten = match &request.installation_id {
        None => inside.server.forget_owner(&key, now).await.map_err(store_failed)?,
        Some(installation) => {
            let installation = InstallationId::any(installation)
                .map_err(|error| Status::invalid_argument(format!("installation_id: {error}")))?;
            let was_there = inside.server.forget_device(&DeviceId { key, installation }, now).await;
            usize::from(was_there.map_err(store_failed)?)
        }
    };
    if forgotten == 0 {
        return Err(Status::not_found("nothing is registered for this key, or not this device"));
    }
    tracing::info!(forgotten, "an operator has registrations forgotten");
    Ok(v1::ForgetResponse { forgotten: forgotten as u64 })
}

fn owner(hashed_key: &[u8]) -> Result<HashedPublicKey, Status> {
    let wrong = |error| Status::invalid_argument(format!("hashed_key: {error}"));
    HashedPublicKey::try_from(hashed_key).map_err(wrong)
}

/// Nothing of its data but the length.
fn device(row: &Registration) -> v1::Device {
    let token_type = match row.token_type {
        TokenType::Apn => v1::TokenType::Apn,
        TokenType::Firebase => v1::TokenType::Firebase,
    };
    v1::Device {
        installation_id: row.device.installation.to_string(),
        version: row.version,
        token_type: token_type.into(),
        registered_ns: nanos(row.registered_unix_s),
        reached_ns: row.reached_unix_s.map(nanos),
        data_bytes: row.data.as_bytes().len() as u64,
    }
}

fn nanos(unix_s: u64) -> i64 {
    i64::try_from(unix_s.saturating_mul(NANOS)).unwrap_or(i64::MAX)
}
