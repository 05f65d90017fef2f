//! Confirmations (6/WAKU1, "Message response" and "Batch acknowledged"): packet 12, then 11, for every batch, once the
//! archive has answered for each of its envelopes. What is not stored is never confirmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use poste_waku::{Outbound, SendError};
use poste_wire::packet::{EnvelopeFault, MessageResponse};
use poste_wire::{Dialect, Hash, Packet};
use tokio::sync::mpsc;

use crate::acceptance::Refusal;
use crate::mailserver::Receipt;
use crate::node::{self, Node};

/// Envelopes of one peer that may wait for the archive. A peer that repeats what waits must not fill our memory.
const MAX_UNCONFIRMED: usize = 32_768;
/// Batches of one peer that may wait for the archive, and as many again before them.
const MAX_BATCHES: usize = 1024;

/// A batch whose confirmation is due.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) dialect: Dialect,
    pub(super) hash: Hash,
    /// What was refused at once.
    pub(super) faults: Vec<(Hash, Refusal)>,
    /// What the archive has yet to answer for.
    pub(super) receipts: Vec<(Hash, Receipt)>,
}

/// The way into a peer's confirmations.
#[derive(Debug)]
pub(super) struct Batches {
    batches: mpsc::Sender<Batch>,
    unconfirmed: Arc<AtomicUsize>,
    outbound: Outbound,
}

/// The task that sends a peer's confirmations, each as soon as it can be given: what is refused at once is not held up
/// by what waits for the archive.
#[derive(Debug)]
pub(super) struct Confirming {
    batches: mpsc::Receiver<Batch>,
    unconfirmed: Arc<AtomicUsize>,
    outbound: Outbound,
}

/// Both ends.
pub(super) fn channel(outbound: Outbound) -> (Batches, Confirming) {
    let (sender, batches) = mpsc::channel(MAX_BATCHES);
    let unconfirmed = Arc::new(AtomicUsize::new(0));
    (
        Batches { batches: sender, unconfirmed: Arc::clone(&unconfirmed), outbound: outbound.clone() },
        Confirming { batches, unconfirmed, outbound },
    )
}

impl Batches {
    /// How many envelopes may be added to those that wait.
    pub(super) fn room(&self) -> usize {
        MAX_UNCONFIRMED.saturating_sub(self.unconfirmed.load(Ordering::Acquire))
    }

    /// Has a batch confirmed. When too many wait already, all of this one counts as refused: its sender tries again.
    pub(super) async fn confirm(&self, node: &Node, batch: Batch) {
        self.unconfirmed.fetch_add(batch.receipts.len(), Ordering::AcqRel);
        // A closed channel: the task has ended with the connection, which the reader is about to see.
        let Err(mpsc::error::TrySendError::Full(mut batch)) = self.batches.try_send(batch) else { return };
        self.unconfirmed.fetch_sub(batch.receipts.len(), Ordering::AcqRel);
        for (hash, _) in batch.receipts.drain(..) {
            node.metrics.refused(Refusal::TooManyUnconfirmed);
            batch.faults.push((hash, Refusal::TooManyUnconfirmed));
        }
        if let Some(response) = respond(batch).await {
            let _ = send(&self.outbound, response).await;
        }
    }
}

impl Confirming {
    pub(super) async fn run(mut self) {
        let mut waiting = FuturesUnordered::new();
        loop {
            let (count, response) = tokio::select! {
                batch = self.batches.recv(), if waiting.len() < MAX_BATCHES => {
                    let Some(batch) = batch else { return };
                    waiting.push(async { (batch.receipts.len(), respond(batch).await) });
                    continue;
                }
                Some(answered) = waiting.next() => answered,
            };
            let Some(response) = response else { return };
            self.unconfirmed.fetch_sub(count, Ordering::AcqRel);
            if send(&self.outbound, response).await.is_err() {
                return;
            }
        }
    }
}

async fn send(outbound: &Outbound, (dialect, response): (Dialect, MessageResponse)) -> Result<(), SendError> {
    let hash = response.batch_hash;
    outbound.send(dialect, &Packet::MessageResponse(response)).await?;
    outbound.send(dialect, &Packet::BatchAcknowledged(hash)).await
}

/// Waits for the archive. None: this process stops without knowing, and says nothing.
async fn respond(batch: Batch) -> Option<(Dialect, MessageResponse)> {
    let mut faults = batch.faults;
    for (hash, receipt) in batch.receipts {
        if let Err(refusal) = node::outcome(&receipt).await? {
            faults.push((hash, refusal));
        }
    }
    let faults = faults
        .into_iter()
        .map(|(hash, refusal)| EnvelopeFault {
            hash,
            code: refusal.code(batch.dialect),
            description: refusal.text().to_owned(),
        })
        .collect();
    Some((batch.dialect, MessageResponse { batch_hash: batch.hash, faults }))
}
