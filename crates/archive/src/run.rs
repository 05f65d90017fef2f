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
use crate::grpc::{AdminGrpc, ArchiveGrpc, Intake};
use crate::local::{LocalOptions, LocalStore};
use crate::metrics::{RpcMetrics, StoreMetrics};
use crate::quota::Quotas;
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
    let metrics = StoreMetrics::register(&context.metrics.scope(NAME));
    let keep_topics = config.keep_topics();
    let options = LocalOptions {
        segment_bytes: config.segment_size.0,
        segment_age: config.segment_age.into(),
        queue_records: config.queue_records,
        queue_bytes: config.queue_size.as_usize(),
        metrics: metrics.clone(),
        keep_topics: keep_topics.clone(),
        ..LocalOptions::new(dir, context.clock.clone())
    };
    let open = tokio::task::spawn_blocking(move || LocalStore::open(options));
    let store = open.await.unwrap_or(Err(StoreError::Closed))?;
    let quotas = Quotas::new(config.quota_limits(), context.clock.clone());
    let intake = Intake { quotas, keep_topics: keep_topics.map(Arc::new), metrics };
    serve(Arc::new(store), intake, config, context).await
}

/// Starts the archive on a store that the caller has opened; the archive closes it at its end. Of the settings of the
/// store in `config` only its retention and the quotas count.
///
/// # Errors
/// [`StartError`] when an address cannot be bound.
pub async fn start_with_store(
    store: Arc<dyn ArchiveStore>,
    config: ArchiveConfig,
    context: Context,
) -> Result<RunningService, StartError> {
    let quotas = Quotas::new(config.quota_limits(), context.clock.clone());
    serve(store, Intake { quotas, keep_topics: None, metrics: StoreMetrics::default() }, config, context)
        .await
}

async fn serve(
    store: Arc<dyn ArchiveStore>,
    intake: Intake,
    config: ArchiveConfig,
    context: Context,
) -> Result<RunningService, StartError> {
    let check = context.readiness.add("archive.store");
    let listener =
        listener::bind_internal("archive.grpc_listen", config.grpc_listen, config.insecure).await?;
    let admin_listener =
        listener::bind_internal("archive.admin_listen", config.admin_listen, config.insecure).await?;
    // An operator's override, if there is one, goes on counting.
    let by_operator = false;
    store.set_retention(config.retention(), by_operator).await?;
    let metrics = RpcMetrics::register(&context.metrics.scope(NAME));
    let (clock, stop) = (&context.clock, &context.stop);
    let service = ArchiveGrpc::new(Arc::clone(&store), intake, metrics, clock.clone(), stop.clone());
    let admin = AdminGrpc::new(Arc::clone(&store), config.retention_rules(), clock.clone(), stop.clone());
    let server = Server::new(context.drain, context.draining.clone())
        .with(poste_rpc::archive::server(service))
        .start(listener, stop.clone())
        .await?;
    let administration = Server::new(context.drain, context.draining.clone())
        .with(poste_rpc::archive::admin_server(admin))
        .start(admin_listener, stop.clone())
        .await?;
    let addresses = Addresses {
        grpc: Some(server.local_address()),
        admin: Some(administration.local_address()),
        ..Addresses::default()
    };
    let writable = store.writable();
    show_writable(&check, &writable.borrow());
    let stop = context.stop.clone();
    let task = tokio::spawn(async move {
        let mut serving = pin!(async { tokio::try_join!(server.stopped(), administration.stopped()) });
        // A server ends by itself only by an error, and then so do the other one and the archive.
        let served = tokio::select! {
            served = &mut serving => served,
            () = watch_writable(&check, writable, &stop) => serving.await,
        };
        check.not_ready("stopped");
        // What was handed over is finished and synced, also when the server ended by an error.
        store.close().await?;
        served.map(|_| ()).map_err(ServiceError::from)
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
