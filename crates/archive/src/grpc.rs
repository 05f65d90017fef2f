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

use futures::Stream;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::archive_service_server::ArchiveService;
use poste_service::Clock;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::{RpcMetrics, StoreMetrics};
use crate::quota::Quotas;
use crate::store::ArchiveStore;

pub(crate) use admin::AdminGrpc;

/// The archive service on a store.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveGrpc {
    store: Arc<dyn ArchiveStore>,
    quotas: Quotas,
    metrics: RpcMetrics,
    /// Where records are counted that do not reach the store.
    store_metrics: StoreMetrics,
    clock: Clock,
    /// When it is cancelled, streams finish what they have and end.
    stop: CancellationToken,
}

impl ArchiveGrpc {
    pub(crate) fn new(
        store: Arc<dyn ArchiveStore>,
        quotas: Quotas,
        (metrics, store_metrics): (RpcMetrics, StoreMetrics),
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        Self { store, quotas, metrics, store_metrics, clock, stop }
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

/// The end of a stream because the archive stops: the caller connects again, here or elsewhere.
fn stopping() -> Status {
    Status::unavailable("the archive is stopping")
}
