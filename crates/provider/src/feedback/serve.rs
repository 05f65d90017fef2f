//! Serving the hook: a bounded number of connections, each request with a deadline.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::FeedbackSettings;

/// After an error of `accept`, which may last (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    settings: FeedbackSettings,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    // A connection carries one request, so that its deadline is that of the request.
    let deadline = settings.request_timeout + settings.queue_wait;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < settings.max_connections.max(1) => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(settings.request_timeout)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
                // How the connection ends concerns nobody: what was reported on it has been taken by then.
                connections.spawn(async move { drop(tokio::time::timeout(deadline, serving).await) });
            }
            Err(error) => {
                tracing::warn!(%error, "feedback listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}
