//! Accepting peers: bounded in pending handshakes; turned away in place of Hello when there is no seat.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::node::Node;
use crate::peer;

/// Inbound handshakes at a time; who comes on top of them is closed without a word.
const MAX_HANDSHAKES: usize = 50;
/// After an error of accept itself (no file descriptors left) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts peers until `stop`. Each is served by a task of `tasks`.
pub(crate) async fn run(node: Arc<Node>, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection: is the limit of open files too low?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            node.metrics.connection_refused("too_many_handshakes");
            continue;
        };
        tasks.spawn(welcome(Arc::clone(&node), stream, address, permit, stop.clone()));
    }
}

async fn welcome(
    node: Arc<Node>,
    stream: TcpStream,
    address: SocketAddr,
    handshaking: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let connecting = async {
        // Without it Pings wait for company; that is no reason to refuse a peer.
        let _ = stream.set_nodelay(true);
        let incoming = match poste_rlpx::accept(stream, &node.local, &node.limits).await {
            Ok(incoming) => incoming,
            Err(error) => return Err(error.label()),
        };
        let seat = node.peers.check(incoming.remote(), true);
        if let Err(reason) = seat {
            node.metrics.connection_refused("no_seat");
            incoming.reject(reason).await;
            return Ok(None);
        }
        incoming.finish().await.map(Some).map_err(|error| error.label())
    };
    let connection = tokio::select! {
        connection = connecting => connection,
        () = stop.cancelled() => return,
    };
    drop(handshaking);
    match connection {
        Ok(Some(connection)) => {
            Box::pin(peer::serve(node, connection, address, true, true, stop)).await;
        }
        Ok(None) => {}
        Err(reason) => {
            debug!(reason, "an inbound handshake came to nothing");
            node.metrics.handshake_failed(reason);
        }
    }
}
