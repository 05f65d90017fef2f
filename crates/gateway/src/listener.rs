//! Accepting peers: bounded in pending handshakes; turned away in place of Hello when there is no seat.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::node::Node;
use crate::peer;

/// Inbound handshakes at a time; who comes on top of them is closed without a word.
const MAX_HANDSHAKES: usize = 50;
/// How many of them may be of one public address, so that one host does not keep all others out. Private ranges are
/// exempt: behind a container network everybody may have the same.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 8;
/// After an error of accept itself (no file descriptors left) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts peers until `stop`. Each is served by a task of `tasks`.
pub(crate) async fn run(node: Arc<Node>, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
    let handshakes = Arc::new(Handshakes::default());
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
        let Some(handshake) = Handshakes::begin(&handshakes, address.ip()) else {
            node.metrics.connection_refused("too_many_handshakes");
            continue;
        };
        tasks.spawn(welcome(Arc::clone(&node), stream, address, handshake, stop.clone()));
    }
}

async fn welcome(
    node: Arc<Node>,
    stream: TcpStream,
    address: SocketAddr,
    handshake: Handshake,
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
    drop(handshake);
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

/// The inbound handshakes under way, by address.
#[derive(Debug, Default)]
struct Handshakes(Mutex<HashMap<IpAddr, usize>>);

/// One of them. It counts until this is dropped.
#[derive(Debug)]
struct Handshake {
    all: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    /// Counts one more, unless there are too many.
    fn begin(all: &Arc<Self>, address: IpAddr) -> Option<Handshake> {
        let mut pending = all.0.lock();
        let of_address = pending.get(&address).copied().unwrap_or(0);
        let full = pending.values().sum::<usize>() >= MAX_HANDSHAKES;
        if full || (of_address >= MAX_HANDSHAKES_PER_ADDRESS && !is_private(address)) {
            return None;
        }
        pending.insert(address, of_address + 1);
        Some(Handshake { all: Arc::clone(all), address })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut pending = self.all.0.lock();
        match pending.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(pending.remove(&self.address)),
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(all: &Arc<Handshakes>, address: &str, times: usize) -> Vec<Handshake> {
        (0..times).filter_map(|_| Handshakes::begin(all, address.parse().unwrap())).collect()
    }

    #[test]
    fn one_public_address_does_not_keep_the_others_out() {
        let all = Arc::new(Handshakes::default());
        let greedy = begin(&all, "203.0.113.1", 100);
        assert_eq!(greedy.len(), MAX_HANDSHAKES_PER_ADDRESS);
        let lan = begin(&all, "192.168.0.1", 100);
        assert_eq!(greedy.len() + lan.len(), MAX_HANDSHAKES);
        assert_eq!(begin(&all, "203.0.113.2", 1).len(), 0);
        drop((greedy, lan));
        assert_eq!(begin(&all, "203.0.113.2", 1).len(), 1);
        assert!(all.0.lock().is_empty());
    }
}
