//! The archive as a service: it opens its store, serves it, and at the end finishes, syncs and closes.

use std::pin::pin;
use std::sync::Arc;

use poste_rpc::server::Server;
use poste_service::readiness::Check;
use poste_service::running::ServiceError;
use poste_service::{Addresses, Context, RunningService, listener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{ArchiveConfig, StoreUrl};
use crate::grpc::ArchiveGrpc;
use crate::local::{LocalOptions, LocalStore};
use crate::metrics::{RpcMetrics, StoreMetrics};
use crate::store::{ArchiveStore, StoreError, Writable};

const NAME: &str = "archive";

/// Why the archive could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address cannot be used.
    #[error(transparent)]
    Bind(#[from] listener::BindError),
    /// Its store cannot be opened.
    #[error("the archive's store: {0}")]
    Store(#[from] StoreError),
    /// Its gRPC server cannot start.
    #[error(transparent)]
    Server(#[from] poste_rpc::server::ServerError),
}

/// Starts the archive on the store that its settings name. It accepts connections when this returns.
///
/// # Errors
/// [`StartError`] when the address cannot be bound or the store not opened.
pub async fn start(config: ArchiveConfig, context: Context) -> Result<RunningService, StartError> {
    let StoreUrl::Local(dir) = config.store.clone();
    let options = LocalOptions {
        segment_bytes: config.segment_size.0,
        segment_age: config.segment_age.into(),
        queue_records: config.queue_records,
        queue_bytes: config.queue_size.as_usize(),
        metrics: StoreMetrics::register(&context.metrics.scope(NAME)),
        ..LocalOptions::new(dir, context.clock.clone())
    };
    let open = tokio::task::spawn_blocking(move || LocalStore::open(options));
    let store = open.await.unwrap_or(Err(StoreError::Closed))?;
    start_with_store(Arc::new(store), config, context).await
}

/// Starts the archive on a store that the caller has opened; the archive closes it at its end. The settings
/// of the store in `config` are not looked at.
///
/// # Errors
/// [`StartError`] when the address cannot be bound.
pub async fn start_with_store(
    store: Arc<dyn ArchiveStore>,
    config: ArchiveConfig,
    context: Context,
) -> Result<RunningService, StartError> {
    let check = context.readiness.add("archive.store");
    let listener =
        listener::bind_internal("archive.grpc_listen", config.grpc_listen, config.insecure).await?;
    let metrics = RpcMetrics::register(&context.metrics.scope(NAME));
    let service = ArchiveGrpc::new(Arc::clone(&store), metrics, context.clock.clone(), context.stop.clone());
    let server = Server::new(context.drain)
        .with(poste_rpc::archive::server(service))
        .start(listener, context.stop.clone())
        .await?;
    let addresses = Addresses { grpc: Some(server.local_address()), ..Addresses::default() };
    let writable = store.writable();
    show_writable(&check, &writable.borrow());
    let stop = context.stop.clone();
    let task = tokio::spawn(async move {
        let mut serving = pin!(server.stopped());
        // The server ends by itself only by an error, and then so does the archive.
        let served = tokio::select! {
            served = &mut serving => served,
            () = watch_writable(&check, writable, &stop) => serving.await,
        };
        check.not_ready("stopped");
        // What was handed over is finished and synced, also when the server ended by an error.
        store.close().await?;
        served.map_err(ServiceError::from)
    });
    Ok(RunningService::new(NAME, addresses, context.stop, task))
}

async fn watch_writable(check: &Check, mut writable: watch::Receiver<Writable>, stop: &CancellationToken) {
    loop {
        tokio::select! {
            changed = writable.changed() => match changed {
                Ok(()) => show_writable(check, &writable.borrow_and_update()),
                Err(_) => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

fn show_writable(check: &Check, writable: &Writable) {
    match writable {
        Writable::Yes => check.ready(),
        Writable::No(reason) => check.not_ready(format!("the store takes no records: {reason}")),
    }
}
