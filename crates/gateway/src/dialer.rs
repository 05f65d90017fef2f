//! Static peers: connected to, and connected to again when the connection ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use poste_rlpx::{Connection, Enode};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::node::Node;
use crate::peer;

/// Between two attempts: a deployed node closes who connects twice within 30 s.
const REDIAL: Duration = Duration::from_secs(35);

/// Keeps one static peer connected until `stop`.
pub(crate) async fn run(node: Arc<Node>, enode: Enode, stop: CancellationToken) {
    loop {
        let dialled = tokio::select! {
            dialled = dial(&node, &enode) => dialled,
            () = stop.cancelled() => return,
        };
        if let Some((connection, address)) = dialled {
            Box::pin(peer::serve(Arc::clone(&node), connection, address, false, false, stop.clone())).await;
        }
        tokio::select! {
            () = tokio::time::sleep(REDIAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One attempt; nothing when the peer is connected already, or cannot be reached.
async fn dial(node: &Node, enode: &Enode) -> Option<(Connection, SocketAddr)> {
    node.peers.check(&enode.key, false).ok()?;
    let (host, port) = enode.endpoint.as_ref()?.address();
    let failed = |reason: &'static str| {
        debug!(reason, "a static peer cannot be reached");
        node.metrics.handshake_failed(reason);
    };
    let Some(address) = tokio::net::lookup_host((host, port)).await.ok().and_then(|mut found| found.next())
    else {
        failed("unresolved");
        return None;
    };
    let dialled = poste_rlpx::dial(address, &enode.key, &node.local, &node.limits).await;
    dialled.inspect_err(|error| failed(error.label())).ok().map(|connection| (connection, address))
}
