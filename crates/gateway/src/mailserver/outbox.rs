//! The outbox: envelopes on their way into the archive. They go over one `Append` stream ([`stream`]) while the archive
//! can be reached, and into the spool ([`spooling`]) while it cannot; either way they are safe soon, and only then is
//! anybody told so. What the spool holds is drained over the stream when there is one.
//!
//! What waits in memory is bounded in bytes. When the spool takes nothing and the archive is away, nothing is accepted.

mod known_store;
mod spooling;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use poste_service::readiness::Check;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Learn, QueueFull, Receipt, Stored};
use crate::metrics::Metrics;
use crate::spool::{Spool, SpoolError, SpoolWriter};
pub(crate) use known_store::KnownStore;

/// What an envelope takes besides its bytes while it waits, about. It counts, or small envelopes would fill many times
/// the memory that the outbox may have.
const PENDING_BYTES: usize = 256;
/// What waits in memory for longer than this is held back: the archive and those who ask for mail are told.
const HELD_BACK_AFTER: Duration = Duration::from_secs(30);
const NANOS: i64 = 1_000_000_000;

/// Envelopes that the archive has not acknowledged.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There may be something to send.
    arrived: Notify,
    /// There may be nothing left in memory.
    settled: Notify,
    /// There may be something for the spool's thread.
    spooling: Condvar,
    spool: Arc<Spool>,
    store: KnownStore,
    max_bytes: usize,
    ready: Check,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Pending>,
    /// Batches on their way to the archive, by their number on the stream.
    in_flight: BTreeMap<u64, InFlight>,
    /// How many there are in memory, and the bytes of their encodings; those that are on their way included.
    count: usize,
    bytes: usize,
    /// How many the archive has answered for, ever.
    answered: u64,
    connected: bool,
    /// What waits goes to the archive; otherwise into the spool.
    direct: bool,
    full: bool,
    /// What the spool's thread is writing: since when, and the creation time of its oldest.
    in_hand: Option<(Instant, u32)>,
    /// Since when what waits is taken neither by the archive nor by the spool.
    stuck: Option<Instant>,
    /// Something in the spool is settled and can be removed.
    untidy: bool,
    /// Nothing is taken any more.
    closed: bool,
    /// The spool's thread is to end when nothing waits.
    closing: bool,
}

/// A batch that the archive has not acknowledged.
#[derive(Debug)]
struct InFlight {
    batch: Vec<Pending>,
    /// When the first of it arrived.
    since: Instant,
    /// Creation time of its oldest, unix seconds.
    oldest: u32,
}

#[derive(Debug)]
struct Pending {
    body: Bytes,
    /// When it was made, unix seconds.
    sent: u32,
    arrived: Instant,
    done: Done,
}

/// Who is told what became of an envelope.
struct Done {
    receipt: oneshot::Sender<Stored>,
    learn: Option<Learn>,
}

impl Done {
    fn tell(self, stored: Stored) {
        if let Some(learn) = self.learn {
            learn(stored);
        }
        // Nobody may be waiting for the receipt any more.
        let _ = self.receipt.send(stored);
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}

impl State {
    fn memory(&self) -> usize {
        self.bytes + self.count * PENDING_BYTES
    }

    /// Takes from the front: at most so many, and bytes by `size`, but the first whatever its size.
    fn take(&mut self, max_count: usize, max_bytes: usize) -> Vec<Pending> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < max_count
            && let Some(pending) = self.waiting.front()
            && (taken.is_empty() || bytes + pending.body.len() <= max_bytes)
        {
            bytes += pending.body.len();
            taken.extend(self.waiting.pop_front());
        }
        taken
    }

    /// Puts back in front what was taken, in its order.
    fn put_back(&mut self, taken: Vec<Pending>) {
        for pending in taken.into_iter().rev() {
            self.waiting.push_front(pending);
        }
    }

    /// A batch goes to the archive.
    fn send(&mut self, number: u64, batch: Vec<Pending>) {
        let Some((since, oldest)) = age(&batch) else { return };
        self.in_flight.insert(number, InFlight { batch, since, oldest });
    }

    /// What is on its way waits again, in front.
    fn recall(&mut self) {
        for in_flight in std::mem::take(&mut self.in_flight).into_values().rev() {
            self.put_back(in_flight.batch);
        }
    }

    /// It is known what became of one.
    fn resolve(&mut self, pending: Pending, stored: Stored) {
        self.count -= 1;
        self.bytes -= pending.body.len();
        pending.done.tell(stored);
    }
}

/// When the first of a group arrived, and the creation time of its oldest.
fn age(group: &[Pending]) -> Option<(Instant, u32)> {
    let since = group.iter().map(|pending| pending.arrived).min()?;
    Some((since, group.iter().map(|pending| pending.sent).min()?))
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxSize {
    /// Envelopes, those in the spool included.
    pub count: usize,
    /// Bytes of their encodings.
    pub bytes: usize,
    /// Envelopes in memory: confirmed to nobody.
    pub unconfirmed: usize,
    /// Whether a stream to the archive is open.
    pub connected: bool,
}

impl Outbox {
    /// An outbox for at most `max_bytes` of envelopes in memory, with what keeping them takes, on an opened spool.
    /// `ready` says whether it takes envelopes.
    pub(crate) fn start(
        (spool, writer): (Arc<Spool>, SpoolWriter),
        max_bytes: usize,
        store: KnownStore,
        ready: Check,
        metrics: Metrics,
    ) -> Result<(Arc<Self>, Spooling), SpoolError> {
        ready.ready();
        let state = State {
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            count: 0,
            bytes: 0,
            answered: 0,
            connected: false,
            // The archive gets a moment before the first envelope goes to disk.
            direct: true,
            full: false,
            in_hand: None,
            stuck: None,
            untidy: false,
            closed: false,
            closing: false,
        };
        let outbox = Arc::new(Self {
            state: Mutex::new(state),
            arrived: Notify::new(),
            settled: Notify::new(),
            spooling: Condvar::new(),
            spool,
            store,
            max_bytes,
            ready,
            metrics,
        });
        let shared = Arc::clone(&outbox);
        let thread = std::thread::Builder::new()
            .name("gateway-spool".to_owned())
            .spawn(move || spooling::run(&shared, writer))
            .map_err(SpoolError::Thread)?;
        let spooling = Spooling { outbox: Arc::clone(&outbox), thread: Some(thread) };
        Ok((outbox, spooling))
    }

    /// Takes an envelope's encoding, made at unix second `sent`; the receipt resolves when it is safe, and `learn` is told
    /// even when nobody waits for that.
    pub(crate) fn push(&self, body: Bytes, sent: u32, learn: Option<Learn>) -> Result<Receipt, QueueFull> {
        let (sender, receipt) = oneshot::channel();
        let done = Done { receipt: sender, learn };
        let mut state = self.state.lock();
        if state.closed || (!state.direct && self.spool.is_faulty()) {
            return Err(QueueFull);
        }
        if state.memory() + body.len() + PENDING_BYTES > self.max_bytes {
            if !state.full {
                state.full = true;
                self.ready.not_ready("the queue of envelopes for the archive is full: is the archive up?");
                warn!(bytes = state.bytes, "the queue for the archive is full, envelopes are refused");
            }
            return Err(QueueFull);
        }
        state.count += 1;
        state.bytes += body.len();
        state.waiting.push_back(Pending { body, sent, arrived: Instant::now(), done });
        self.measure(&state);
        let direct = state.direct;
        drop(state);
        if direct {
            self.arrived.notify_one();
        } else {
            self.spooling.notify_one();
        }
        Ok(Receipt::pending(receipt))
    }

    /// What waits.
    pub(crate) fn size(&self) -> OutboxSize {
        let spool = self.spool.size();
        let state = self.state.lock();
        OutboxSize {
            count: state.count + spool.envelopes,
            bytes: state.bytes + usize::try_from(spool.bytes).unwrap_or(usize::MAX),
            unconfirmed: state.count,
            connected: state.connected,
        }
    }

    /// Creation time of the oldest envelope that is held back from the archive, nanoseconds: of anything in the spool,
    /// and of what has waited for 30 s.
    pub(crate) fn held_back_ns(&self) -> Option<i64> {
        let is_late = |since: Instant| since.elapsed() > HELD_BACK_AFTER;
        let state = self.state.lock();
        let late = state.waiting.iter().take_while(|pending| is_late(pending.arrived));
        let in_flight = state.in_flight.values().map(|in_flight| (in_flight.since, in_flight.oldest));
        let on_their_way = in_flight.chain(state.in_hand).filter(|(since, _)| is_late(*since));
        let oldest = late.map(|pending| pending.sent).chain(on_their_way.map(|(_, oldest)| oldest)).min();
        drop(state);
        oldest.into_iter().chain(self.spool.oldest()).min().map(|sent| i64::from(sent) * NANOS)
    }

    /// Which store its envelopes go to.
    pub(crate) fn store(&self) -> &KnownStore {
        &self.store
    }

    /// Whether an answer of this store may be believed.
    pub(crate) fn is_known(&self, store: &Bytes) -> bool {
        self.store.is_known(store)
    }

    /// From now on what waits goes into the spool, until the archive answers again.
    fn go_away(&self, state: &mut State) {
        state.direct = false;
        self.spooling.notify_one();
    }

    /// There may be room in memory again, and nothing left.
    fn after_settling(&self, state: &mut State) {
        if state.full && state.memory() < self.max_bytes / 10 * 9 {
            state.full = false;
            self.ready.ready();
            info!("the queue for the archive has room again");
        }
        self.measure(state);
        if state.count == 0 {
            self.settled.notify_one();
        }
    }

    fn measure(&self, state: &State) {
        self.metrics.outbox_envelopes.set(state.count as i64);
        self.metrics.outbox_bytes.set(state.bytes as i64);
    }
}

/// The owner of the spool's thread. When it goes, the thread makes what waits safe and ends.
#[derive(Debug)]
pub(crate) struct Spooling {
    outbox: Arc<Outbox>,
    thread: Option<JoinHandle<()>>,
}

impl Spooling {
    /// Makes what still waits safe in the spool, and gives its directory back. To be called when nothing is pushed or
    /// sent any more.
    pub(crate) async fn end(mut self) {
        self.close();
        let Some(thread) = self.thread.take() else { return };
        let ended = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        if !ended.unwrap_or(false) {
            error!("the thread of the spool has failed");
        }
    }

    fn close(&self) {
        let mut state = self.outbox.state.lock();
        // A stream that was cut short has not put back what it had sent.
        state.recall();
        state.connected = false;
        state.direct = false;
        state.closing = true;
        self.outbox.spooling.notify_one();
    }
}

impl Drop for Spooling {
    fn drop(&mut self) {
        self.close();
    }
}
