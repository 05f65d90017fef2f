//! Static peers: connected to, and connected to again when the connection ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use poste_rlpx::{Connection, Enode};
use tokio::net::lookup_host;
use tokio::time::timeout;
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

/// One attempt; nothing when the peer is connected already, or cannot be reached. A name may have several addresses.
async fn dial(node: &Node, enode: &Enode) -> Option<(Connection, SocketAddr)> {
    node.peers.check(&enode.key, false).ok()?;
    let endpoint = enode.endpoint.as_ref()?;
    let found = timeout(node.limits.dial_timeout, lookup_host(endpoint.address())).await;
    let Ok(Ok(addresses)) = found else {
        debug!("the name of a static peer cannot be resolved");
        node.metrics.handshake_failed("unresolved");
        return None;
    };
    for address in addresses {
        match poste_rlpx::dial(address, &enode.key, &node.local, &node.limits).await {
            Ok(connection) => return Some((connection, address)),
            Err(error) => {
                debug!(%error, "a static peer cannot be reached");
                node.metrics.handshake_failed(error.label());
            }
        }
    }
    None
}
