//! Confirmations (6/WAKU1, "Message response" and "Batch acknowledged"): packet 12, then 11, for every batch, once the
//! archive has answered for each of its envelopes, or the spool has it on disk. What is not safe is never confirmed.

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
use crate::node::{self, MAX_MESSAGE_SIZE, Node};

/// Envelopes of one peer that may wait for the archive. A peer that repeats what waits must not fill our memory.
const MAX_UNCONFIRMED: usize = 32_768;
/// Envelopes of one peer that its waiting confirmations may be about, those that were refused included: the peer may
/// send bad ones faster than it reads what is wrong with them.
const MAX_ENTRIES: usize = 2 * MAX_UNCONFIRMED;
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

/// How many envelopes of a peer wait.
#[derive(Debug, Default)]
struct Waiting {
    /// For the archive.
    receipts: AtomicUsize,
    /// For a confirmation, these included.
    entries: AtomicUsize,
}

impl Waiting {
    /// Adds those of a batch; says how many wait for a confirmation now.
    fn add(&self, receipts: usize, entries: usize) -> usize {
        self.receipts.fetch_add(receipts, Ordering::AcqRel);
        self.entries.fetch_add(entries, Ordering::AcqRel) + entries
    }

    fn remove(&self, receipts: usize, entries: usize) {
        self.receipts.fetch_sub(receipts, Ordering::AcqRel);
        self.entries.fetch_sub(entries, Ordering::AcqRel);
    }
}

impl Batch {
    /// How many envelopes wait for the archive, and how many the confirmation is about.
    fn counts(&self) -> (usize, usize) {
        (self.receipts.len(), self.faults.len() + self.receipts.len())
    }
}

/// The way into a peer's confirmations.
#[derive(Debug)]
pub(super) struct Batches {
    batches: mpsc::Sender<Batch>,
    waiting: Arc<Waiting>,
    outbound: Outbound,
}

/// The task that sends a peer's confirmations, each as soon as it can be given: what is refused at once is not held up
/// by what waits for the archive.
#[derive(Debug)]
pub(super) struct Confirming {
    batches: mpsc::Receiver<Batch>,
    waiting: Arc<Waiting>,
    outbound: Outbound,
}

/// Both ends.
pub(super) fn channel(outbound: Outbound) -> (Batches, Confirming) {
    let (sender, batches) = mpsc::channel(MAX_BATCHES);
    let waiting = Arc::<Waiting>::default();
    (
        Batches { batches: sender, waiting: Arc::clone(&waiting), outbound: outbound.clone() },
        Confirming { batches, waiting, outbound },
    )
}

impl Batches {
    /// How many envelopes may be added to those that wait.
    pub(super) fn room(&self) -> usize {
        MAX_UNCONFIRMED.saturating_sub(self.waiting.receipts.load(Ordering::Acquire))
    }

    /// Has a batch confirmed. When too many wait already, all of this one counts as refused: its sender tries again.
    /// Then this waits until the peer has made room for the answer.
    pub(super) async fn confirm(&self, node: &Node, batch: Batch) {
        let (receipts, entries) = batch.counts();
        let mut batch = if self.waiting.add(receipts, entries) > MAX_ENTRIES {
            batch
        } else {
            match self.batches.try_send(batch) {
                Err(mpsc::error::TrySendError::Full(batch)) => batch,
                // A closed channel: the task has ended with the connection, which the reader is about to see.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        };
        self.waiting.remove(receipts, entries);
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
        let mut responses = FuturesUnordered::new();
        loop {
            let ((receipts, entries), response) = tokio::select! {
                batch = self.batches.recv(), if responses.len() < MAX_BATCHES => {
                    let Some(batch) = batch else { return };
                    responses.push(async { (batch.counts(), respond(batch).await) });
                    continue;
                }
                Some(answered) = responses.next() => answered,
            };
            let Some(response) = response else { return };
            self.waiting.remove(receipts, entries);
            if send(&self.outbound, response).await.is_err() {
                return;
            }
        }
    }
}

/// Sends 12 and 11. A 12 that is too large for a packet goes without its words; if that does not help, nothing is said,
/// which the sender takes as it is: not confirmed.
async fn send(outbound: &Outbound, (dialect, response): (Dialect, MessageResponse)) -> Result<(), SendError> {
    let hash = response.batch_hash;
    let mut packet = Packet::MessageResponse(response);
    let (mut code, mut payload) = packet.encode(dialect)?;
    if payload.len() > MAX_MESSAGE_SIZE
        && let Packet::MessageResponse(response) = &mut packet
    {
        response.faults.iter_mut().for_each(|fault| fault.description.clear());
        (code, payload) = packet.encode(dialect)?;
    }
    if payload.len() > MAX_MESSAGE_SIZE {
        return Ok(());
    }
    outbound.send_raw(dialect, code, payload).await?;
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
