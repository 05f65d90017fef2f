//! The archive's administration over gRPC (`ArchiveAdminService`): it belongs on a listener of its own. One file for
//! each subject. A long job has a task of its own that works as fast as its answers are taken: whoever drops them ends
//! the job.

mod deadline;
mod export;
mod import;
mod retention;
mod verify;
mod writers;

use std::sync::Arc;

use poste_rpc::archive::v1;
use poste_rpc::archive::v1::archive_admin_service_server::ArchiveAdminService;
use poste_service::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Responses;
use crate::config::RetentionRules;
use crate::store::ArchiveStore;
use deadline::Deadline;

const MAX_VERIFICATIONS: usize = 1;
const MAX_TRANSFERS: usize = 2;

/// The administration of a store.
#[derive(Debug, Clone)]
pub(crate) struct AdminGrpc {
    store: Arc<dyn ArchiveStore>,
    rules: RetentionRules,
    clock: Clock,
    /// When it is cancelled, jobs end.
    stop: CancellationToken,
    verifications: Arc<Semaphore>,
    /// Exports and imports.
    transfers: Arc<Semaphore>,
}

impl AdminGrpc {
    pub(crate) fn new(
        store: Arc<dyn ArchiveStore>,
        rules: RetentionRules,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        let verifications = Arc::new(Semaphore::new(MAX_VERIFICATIONS));
        Self { store, rules, clock, stop, verifications, transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)) }
    }

    fn verification(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.verifications)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("a verification is running: wait for its end"))
    }

    fn transfer(&self) -> Result<OwnedSemaphorePermit, Status> {
        let busy = || format!("{MAX_TRANSFERS} exports or imports are running: wait for the end of one");
        Arc::clone(&self.transfers).try_acquire_owned().map_err(|_| Status::resource_exhausted(busy()))
    }
}

#[tonic::async_trait]
impl ArchiveAdminService for AdminGrpc {
    type VerifyStream = Responses<v1::VerifyResponse>;
    type ExportStream = Responses<v1::ExportResponse>;
    type ImportStream = Responses<v1::ImportResponse>;

    async fn get_retention(
        &self,
        _request: Request<v1::GetRetentionRequest>,
    ) -> Result<Response<v1::GetRetentionResponse>, Status> {
        retention::get(self).await.map(Response::new)
    }

    async fn set_retention(
        &self,
        request: Request<v1::SetRetentionRequest>,
    ) -> Result<Response<v1::SetRetentionResponse>, Status> {
        retention::set(self, request.into_inner()).await.map(Response::new)
    }

    async fn prune(&self, request: Request<v1::PruneRequest>) -> Result<Response<v1::PruneResponse>, Status> {
        retention::prune(self, request.into_inner()).await.map(Response::new)
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let deadline = Deadline::of(request.metadata())?;
        let verify = verify::Verify::begin(Arc::clone(&self.store), self.verification()?);
        Ok(Response::new(deadline.or_stop(&self.stop, verify.responses())))
    }

    async fn list_writers(
        &self,
        _request: Request<v1::ListWritersRequest>,
    ) -> Result<Response<v1::ListWritersResponse>, Status> {
        writers::list(self).await.map(Response::new)
    }

    async fn forget_writer(
        &self,
        request: Request<v1::ForgetWriterRequest>,
    ) -> Result<Response<v1::ForgetWriterResponse>, Status> {
        writers::forget(self, &request.into_inner().writer_id).await.map(Response::new)
    }

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let deadline = Deadline::of(request.metadata())?;
        let export = export::Export::begin(Arc::clone(&self.store), &request.into_inner(), self.transfer()?)?;
        Ok(Response::new(deadline.or_stop(&self.stop, export.responses())))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let deadline = Deadline::of(request.metadata())?;
        let import = import::Import::begin(Arc::clone(&self.store), request.into_inner(), self.transfer()?);
        Ok(Response::new(deadline.or_stop(&self.stop, import.responses())))
    }
}
