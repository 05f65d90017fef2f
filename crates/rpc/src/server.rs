//! A gRPC server on a listener that is already bound: the services it is given, `grpc.health.v1` for each of
//! them, reflection (v1 and v1alpha), keepalive, and a graceful stop with a deadline.

mod cut;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;

use crate::DESCRIPTORS;
use cut::Cuttable;

/// How often an open connection is pinged, and how long it may stay silent after that.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at a time on one connection.
const MAX_CONCURRENT_STREAMS: u32 = 128;
/// How long nothing is accepted after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 windows in bytes: a batch is up to 4 MiB, and must not wait for window updates.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Services that will share a listener.
#[derive(Debug)]
pub struct Server {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    drain: Duration,
    draining: CancellationToken,
}

impl Server {
    /// A server without services. From when `draining` is cancelled it says that it does not serve, and goes on serving:
    /// that is for balancers to look away. After the signal to stop, open calls have `drain` to end; then their
    /// connections are cut.
    pub fn new(drain: Duration, draining: CancellationToken) -> Self {
        Self { routes: RoutesBuilder::default(), names: Vec::new(), drain, draining }
    }

    /// Adds a service, for example what [`crate::archive::server`] returns.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Serves on `listener` until `stop` is cancelled: `grpc.health.v1` then says NOT_SERVING if it did not before, no
    /// connection is accepted, and open calls are drained. Must be called inside a tokio runtime.
    pub async fn start(self, listener: TcpListener, stop: CancellationToken) -> Result<Running, ServerError> {
        let Self { mut routes, names, drain, draining } = self;
        let local_address = listener.local_addr().map_err(ServerError::Listener)?;

        let (health, health_service) = tonic_health::server::health_reporter();
        for &name in &names {
            health.set_service_status(name, ServingStatus::Serving).await;
        }
        routes.add_service(health_service);

        let reflection = || {
            names.iter().fold(
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(DESCRIPTORS),
                |builder, &name| builder.with_service_name(name),
            )
        };
        routes.add_service(reflection().build_v1()?);
        routes.add_service(reflection().build_v1alpha()?);

        // Cancelled when the drain is over, or when `Running` is dropped: connections end there and then, so
        // that no call outlives its server and keeps what it serves from (a store's lock) alive.
        let cut = CancellationToken::new();
        let incoming = connections(TcpListenerStream::new(listener), cut.clone());
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());

        let cut_on_drop = cut.clone().drop_guard();
        let task = tokio::spawn(async move {
            let deadline = async {
                tokio::select! {
                    () = draining.cancelled() => {}
                    () = stop.cancelled() => {}
                }
                for name in names.iter().copied().chain([""]) {
                    health.set_service_status(name, ServingStatus::NotServing).await;
                }
                stop.cancelled().await;
                tokio::time::sleep(drain).await;
            };
            tokio::pin!(serving);
            tokio::select! {
                result = &mut serving => result.map_err(ServerError::Transport),
                () = deadline => {
                    tracing::debug!("calls still open at the end of the drain are cut");
                    cut.cancel();
                    serving.await.map_err(ServerError::Transport)
                }
            }
        });
        Ok(Running { local_address, task, _cut_on_drop: cut_on_drop })
    }
}

/// The connections of a listener. After an error, such as no free file descriptor, it waits: the listener reports the
/// same again at once.
fn connections(
    accepted: impl Stream<Item = io::Result<TcpStream>>,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Cuttable>> {
    let mut is_failing = false;
    accepted.then(move |accepted| {
        if let Err(error) = &accepted
            && !is_failing
        {
            tracing::warn!(%error, "connections cannot be accepted now");
        }
        is_failing = accepted.is_err();
        let cut = cut.clone();
        async move {
            match accepted {
                Ok(stream) => Cuttable::new(stream, cut),
                Err(error) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    Err(error)
                }
            }
        }
    })
}

/// A server at work. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Running {
    local_address: SocketAddr,
    task: JoinHandle<Result<(), ServerError>>,
    _cut_on_drop: tokio_util::sync::DropGuard,
}

impl Running {
    /// Where it listens, with the real port.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Waits until the server has ended: after its token was cancelled and the drain is over, or by an error.
    pub async fn stopped(mut self) -> Result<(), ServerError> {
        (&mut self.task).await.unwrap_or_else(|error| Err(ServerError::Panicked(error.to_string())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a gRPC server could not start, or ended.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The listener is unusable.
    #[error("gRPC listener: {0}")]
    Listener(#[source] io::Error),
    /// The descriptor set does not describe what is served.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// tonic gave up.
    #[error("gRPC server: {0}")]
    Transport(#[source] tonic::transport::Error),
    /// The server's task ended by a panic.
    #[error("gRPC server ended unexpectedly: {0}")]
    Panicked(String),
}

#[cfg(test)]
mod tests;
