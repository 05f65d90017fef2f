//! The archive over gRPC (`poste.archive.v1`): one file for each call, and `admin` for what operators call. A stream is a state machine that is
//! polled by its connection, so a slow or vanished caller costs nothing but itself.

mod admin;
mod append;
mod convert;
mod lookup;
mod query;
mod stats;
mod tail;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::archive_service_server::ArchiveService;
use poste_service::Clock;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::RpcMetrics;
use crate::store::ArchiveStore;

pub(crate) use admin::AdminGrpc;
pub(crate) use append::Intake;

/// Who opens a stream and says nothing is not waited for any longer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The archive service on a store.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveGrpc {
    store: Arc<dyn ArchiveStore>,
    intake: Intake,
    metrics: RpcMetrics,
    clock: Clock,
    /// When it is cancelled, streams finish what they have and end.
    stop: CancellationToken,
}

impl ArchiveGrpc {
    pub(crate) fn new(
        store: Arc<dyn ArchiveStore>,
        intake: Intake,
        metrics: RpcMetrics,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        Self { store, intake, metrics, clock, stop }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ArchiveService for ArchiveGrpc {
    type AppendStream = Responses<v1::AppendResponse>;
    type TailStream = Responses<v1::TailResponse>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let append = append::Append::open(self, request.into_inner()).await?;
        Ok(Response::new(Box::pin(append.responses())))
    }

    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryResponse>, Status> {
        query::answer(self, request.into_inner()).await.map(Response::new)
    }

    async fn tail(
        &self,
        request: Request<Streaming<v1::TailRequest>>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let tail = tail::Tail::open(self, request.into_inner()).await?;
        Ok(Response::new(Box::pin(tail.responses())))
    }

    async fn lookup(
        &self,
        request: Request<v1::LookupRequest>,
    ) -> Result<Response<v1::LookupResponse>, Status> {
        lookup::answer(self, request.into_inner()).await.map(Response::new)
    }

    async fn stats(
        &self,
        _request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        stats::answer(self).await.map(Response::new)
    }
}

/// The first message of a stream, as long as the archive runs.
async fn first_message<T>(
    requests: &mut Streaming<T>,
    stop: &CancellationToken,
) -> Result<Option<T>, Status> {
    within_open(requests.message(), stop).await
}

async fn within_open<T>(
    message: impl Future<Output = Result<T, Status>>,
    stop: &CancellationToken,
) -> Result<T, Status> {
    tokio::select! {
        message = message => message,
        () = stop.cancelled() => Err(stopping()),
        () = tokio::time::sleep(OPEN_TIMEOUT) => Err(Status::deadline_exceeded(format!(
            "the first message of the stream did not come within {} s",
            OPEN_TIMEOUT.as_secs()
        ))),
    }
}

/// The end of a stream because the archive stops: the caller connects again, here or elsewhere.
fn stopping() -> Status {
    Status::unavailable("the archive is stopping")
}
