//! Forwarding (6/WAKU1, "Messages"; EIP-627): what is in the pool, what the peer wants by bloom filter or topic interest
//! and by proof of work, and what it does not know already.

use std::sync::Arc;
use std::time::Duration;

use poste_waku::Outbound;
use poste_wire::packet::Messages;
use poste_wire::{Hash, Packet};

use crate::node::Node;
use crate::peers::{Peer, Wants, add};
use crate::pool::Slot;

/// Envelopes of one packet, in bytes: leaves room for the list's header below the 1 MiB at which peers disconnect.
const PARCEL_BYTES: usize = 256 * 1024;
/// How long arrivals are collected before a packet is made of them, and at least between two looks at the whole pool.
const COLLECT: Duration = Duration::from_millis(20);

/// Sends what the peer wants, as long as the connection lasts. A peer that reads slowly holds up nobody else: what
/// expires meanwhile is not sent.
pub(super) async fn run(node: Arc<Node>, slot: Slot, peer: Arc<Peer>, outbound: Outbound) {
    let mut arrivals = node.pool.arrivals();
    let mut changes = peer.wants.subscribe();
    let mut looked_at = 0;
    loop {
        arrivals.borrow_and_update();
        let wants = changes.borrow_and_update().clone();
        if let Some(wants) = wants {
            let parcel =
                node.pool.parcel(slot, looked_at, PARCEL_BYTES, |envelope, pow| wants.takes(envelope, pow));
            looked_at = parcel.looked_at;
            if !parcel.envelopes.is_empty() && !send(&node, &peer, &outbound, &wants, parcel.envelopes).await
            {
                return;
            }
            if parcel.more {
                tokio::task::yield_now().await;
                continue;
            }
        }
        tokio::select! {
            // What matches by the new settings and was not sent before goes out now.
            changed = changes.changed() => match changed {
                Ok(()) => looked_at = 0,
                Err(_) => return,
            },
            arrived = arrivals.changed() => if arrived.is_err() { return },
        }
        tokio::time::sleep(COLLECT).await;
    }
}

async fn send(
    node: &Node,
    peer: &Peer,
    outbound: &Outbound,
    wants: &Wants,
    envelopes: Vec<poste_wire::Envelope>,
) -> bool {
    let count = envelopes.len();
    // Nobody asks for the hash of a batch that is on its way out.
    let messages = Messages { envelopes, batch_hash: Hash::default() };
    if outbound.send(wants.dialect, &Packet::Messages(messages)).await.is_err() {
        return false;
    }
    add(&peer.envelopes_out, count);
    node.metrics.relayed(count);
    true
}
