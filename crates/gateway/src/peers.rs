//! Who is connected: one connection for each node id, at most so many, and a dense slot for each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use poste_codec::PublicKey;
use poste_rlpx::DisconnectReason;
use poste_wire::packet::Settings;
use poste_wire::{Dialect, Envelope};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::pool::{Pool, Slot};

/// The connected peers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    state: Arc<Mutex<State>>,
    max: usize,
    /// Where slots leave their marks.
    pool: Arc<Pool>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Option<Arc<Peer>>>,
    by_key: HashMap<PublicKey, Slot>,
    /// Those that count against the limit.
    counted: usize,
}

/// A connected peer.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its proven key.
    pub(crate) key: PublicKey,
    /// Its address at the other end of the connection.
    pub(crate) address: SocketAddr,
    /// What it calls itself.
    pub(crate) client_name: String,
    /// Whether it dialled us.
    pub(crate) inbound: bool,
    /// Since 1970.
    pub(crate) connected_at: Duration,
    /// What it wants, as soon as it has said it.
    pub(crate) wants: watch::Sender<Option<Wants>>,
    pub(crate) envelopes_in: AtomicU64,
    pub(crate) envelopes_out: AtomicU64,
    pub(crate) mail_requests: AtomicU64,
}

/// What a peer wants to be sent, and in which dialect.
#[derive(Debug, Clone)]
pub(crate) struct Wants {
    pub(crate) dialect: Dialect,
    pub(crate) settings: Arc<Settings>,
}

impl Wants {
    /// Whether an envelope with this proof of work is for the peer.
    pub(crate) fn takes(&self, envelope: &Envelope, pow: f64) -> bool {
        pow >= self.settings.pow_requirement && self.settings.interest.wants(envelope.topic())
    }
}

impl Peer {
    pub(crate) fn new(
        key: PublicKey,
        address: SocketAddr,
        client_name: String,
        inbound: bool,
        connected_at: Duration,
    ) -> Self {
        Self {
            key,
            address,
            client_name,
            inbound,
            connected_at,
            wants: watch::Sender::new(None),
            envelopes_in: AtomicU64::new(0),
            envelopes_out: AtomicU64::new(0),
            mail_requests: AtomicU64::new(0),
        }
    }
}

/// A peer's place. When this is dropped, however that comes about, the place is free again, and whoever gets it next
/// knows no envelope.
#[derive(Debug)]
pub(crate) struct Seat {
    peers: Peers,
    /// Whether the pool may hold marks of the slot.
    marks: AtomicBool,
    pub(crate) slot: Slot,
    pub(crate) peer: Arc<Peer>,
    counts: bool,
}

impl Peers {
    /// Nobody, and at most `max` at a time.
    pub(crate) fn new(max: usize, pool: Arc<Pool>, metrics: Metrics) -> Self {
        Self { state: Arc::default(), max, pool, metrics }
    }

    /// Whether a peer would be seated; to be asked before Hello, so that it can be turned away in its place.
    pub(crate) fn check(&self, key: &PublicKey, counts: bool) -> Result<(), DisconnectReason> {
        self.state.lock().check(key, counts, self.max)
    }

    /// Seats a peer whose key is proven. `counts`: against the limit, which static peers do not.
    pub(crate) fn seat(&self, peer: Peer, counts: bool) -> Result<Seat, DisconnectReason> {
        let mut state = self.state.lock();
        state.check(&peer.key, counts, self.max)?;
        let index = state.slots.iter().position(Option::is_none).unwrap_or(state.slots.len());
        if index == state.slots.len() {
            state.slots.push(None);
        }
        let peer = Arc::new(peer);
        state.slots[index] = Some(Arc::clone(&peer));
        state.by_key.insert(peer.key, Slot(index));
        state.counted += usize::from(counts);
        self.metrics.peers.set(state.by_key.len() as i64);
        Ok(Seat { peers: self.clone(), marks: AtomicBool::new(false), slot: Slot(index), peer, counts })
    }

    /// Everybody, with the slot.
    pub(crate) fn all(&self) -> Vec<(Slot, Arc<Peer>)> {
        let state = self.state.lock();
        let seated = state.slots.iter().enumerate();
        seated.filter_map(|(index, peer)| Some((Slot(index), Arc::clone(peer.as_ref()?)))).collect()
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().by_key.len()
    }

    /// How many there may be.
    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

impl State {
    fn check(&self, key: &PublicKey, counts: bool, max: usize) -> Result<(), DisconnectReason> {
        if self.by_key.contains_key(key) {
            return Err(DisconnectReason::AlreadyConnected);
        }
        if counts && self.counted >= max {
            return Err(DisconnectReason::TooManyPeers);
        }
        Ok(())
    }
}

impl Seat {
    /// From now on envelopes may be marked as known to this peer.
    pub(crate) fn begin_marking(&self) {
        self.marks.store(true, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if *self.marks.get_mut() {
            self.peers.pool.forget(self.slot);
        }
        let mut state = self.peers.state.lock();
        state.slots[self.slot.0] = None;
        state.by_key.remove(&self.peer.key);
        state.counted -= usize::from(self.counts);
        self.peers.metrics.peers.set(state.by_key.len() as i64);
    }
}

/// Adds to a counter that nothing else is ordered by.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_codec::SecretKey;

    fn peer(byte: u8) -> Peer {
        let key = SecretKey::from_bytes(&[byte; 32]).unwrap().public();
        Peer::new(key, ([127, 0, 0, 1], 1).into(), String::new(), true, Duration::ZERO)
    }

    #[test]
    fn one_seat_for_each_key_and_no_more_than_there_are() {
        let scope = poste_service::metrics::Metrics::new().scope("gateway");
        let peers = Peers::new(2, Arc::new(Pool::new(1 << 20)), Metrics::new(&scope));
        let first = peers.seat(peer(1), true).unwrap();
        assert_eq!(peers.seat(peer(1), true).unwrap_err(), DisconnectReason::AlreadyConnected);
        let second = peers.seat(peer(2), true).unwrap();
        assert_eq!(peers.check(&peer(3).key, true), Err(DisconnectReason::TooManyPeers));
        let fixed = peers.seat(peer(4), false).unwrap();
        assert_eq!((first.slot, second.slot, fixed.slot), (Slot(0), Slot(1), Slot(2)));
        drop(first);
        let third = peers.seat(peer(3), true).unwrap();
        assert_eq!((third.slot, peers.count()), (Slot(0), 3));
        drop((second, third, fixed));
        assert_eq!((peers.count(), peers.all().len()), (0, 0));
    }
}
