//! Who writes, and whom to wait for no longer.

use poste_rpc::archive::v1;
use tonic::Status;

use super::AdminGrpc;
use crate::grpc::convert;
use crate::store::{WriterId, WriterStatus};

pub(super) async fn list(admin: &AdminGrpc) -> Result<v1::ListWritersResponse, Status> {
    let writers = admin.store.writers().await.map_err(|error| convert::status(&error))?;
    Ok(v1::ListWritersResponse { writers: writers.into_iter().map(message).collect() })
}

pub(super) async fn forget(admin: &AdminGrpc, writer_id: &str) -> Result<v1::ForgetWriterResponse, Status> {
    let writer: WriterId = writer_id.parse().map_err(|error| convert::status(&error))?;
    if admin.store.forget_writer(&writer).await.map_err(|error| convert::status(&error))? {
        tracing::info!("a writer that is away was forgotten");
        return Ok(v1::ForgetWriterResponse {});
    }
    let known = admin.store.writers().await.map_err(|error| convert::status(&error))?;
    if known.iter().any(|status| status.writer == writer) {
        return Err(Status::failed_precondition(format!(
            "writer {writer} is connected: stop it first, then it can be forgotten"
        )));
    }
    Err(Status::not_found(format!("no writer {writer} is known here")))
}

fn message(status: WriterStatus) -> v1::Writer {
    v1::Writer {
        writer_id: status.writer.to_string(),
        connected: status.connected,
        held_back_ns: status.held_back_ns,
    }
}
