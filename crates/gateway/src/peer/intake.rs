//! A Messages packet comes in (6/WAKU1, "Messages"): every envelope is judged by itself, and the batch goes on to be
//! confirmed.

use std::sync::Arc;

use poste_codec::PublicKey;
use poste_wire::packet::Messages;
use poste_wire::{Dialect, Hash};

use super::confirm::{Batch, Batches};
use crate::acceptance::Refusal;
use crate::mailserver::Receipt;
use crate::node::Node;
use crate::peers::Seat;
use crate::pool::Slot;

/// Above this many bytes, hashing once more what the packet was read with takes longer than an async task may.
pub(super) const INLINE_BYTES: usize = 64 * 1024;

/// Takes the envelopes of a packet into the node. None: the process is stopping, and nothing must be confirmed.
pub(super) async fn take(
    node: &Arc<Node>,
    seat: &Seat,
    dialect: Dialect,
    messages: Messages,
    batches: &Batches,
) -> Option<Batch> {
    let bytes: usize = messages.envelopes.iter().map(|envelope| envelope.rlp().len()).sum();
    let room = batches.room();
    let (key, slot) = (seat.peer.key, seat.slot);
    if bytes <= INLINE_BYTES {
        return Some(take_all(node, (&key, slot), dialect, &messages, room));
    }
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || take_all(&node, (&key, slot), dialect, &messages, room)).await.ok()
}

/// `room`: how many envelopes of this peer may still wait for the archive.
fn take_all(
    node: &Node,
    from: (&PublicKey, Slot),
    dialect: Dialect,
    messages: &Messages,
    room: usize,
) -> Batch {
    let mut faults = Vec::new();
    let mut receipts: Vec<(Hash, Receipt)> = Vec::new();
    for envelope in &messages.envelopes {
        match node.take(envelope, Some(from)) {
            Ok(_) if receipts.len() >= room => {
                node.metrics.refused(Refusal::TooManyUnconfirmed);
                faults.push((envelope.hash(), Refusal::TooManyUnconfirmed));
            }
            Ok(pooled) => receipts.push((envelope.hash(), pooled.receipt)),
            Err(refusal) => faults.push((envelope.hash(), refusal)),
        }
    }
    Batch { dialect, hash: messages.batch_hash, faults, receipts }
}
