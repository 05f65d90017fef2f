//! The pool: live envelopes, who knows them, and whether the archive has them. Bounded in bytes; what expires leaves.
//!
//! Every envelope has a number, in order of arrival. A peer's forwarder remembers up to which number it has looked,
//! so that a quiet pool costs nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use poste_wire::{Envelope, Hash};
use tokio::sync::watch;

use crate::mailserver::{Receipt, Stored};

/// Names a connected peer in the pool's marks. Small and dense: a slot is used again when its peer has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub usize);

/// Live envelopes.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    newest: watch::Sender<u64>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<u64, Entry>,
    numbers: HashMap<Hash, u64>,
    expiries: BTreeSet<(u32, u64)>,
    bytes: usize,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    envelope: Envelope,
    pow: f64,
    known_by: Slots,
    receipt: Receipt,
    /// When it was handed to the archive last, since 1970.
    offered: Duration,
}

impl Entry {
    /// Whether the archive did not keep it, and may do so at `now`.
    fn may_go_again(&self, now: Duration) -> bool {
        match self.receipt.known() {
            Some(Stored::OverQuota) => now.abs_diff(self.offered) >= OFFER_AGAIN_AFTER,
            known => known.is_some_and(Stored::may_come_again),
        }
    }
}

/// What became of an envelope that was offered.
#[derive(Debug)]
pub(crate) struct Pooled {
    /// Resolves when the archive has it.
    pub receipt: Receipt,
    /// It was there already.
    pub known: bool,
}

/// What a forwarder takes at a time.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    /// Envelopes for the peer, now marked as known to it; together below the bound.
    pub envelopes: Vec<Envelope>,
    /// The pool was looked at up to this number: go on from here.
    pub looked_at: u64,
    /// More may follow at once.
    pub more: bool,
}

/// What an envelope takes besides its bytes, about: its fields, its places in the maps, its receipt. It counts, or small
/// envelopes would fill many times the memory that the pool may have.
const ENTRY_BYTES: usize = 512;
/// How many envelopes anybody looks at while it holds the pool's lock.
const LOOK: usize = 4096;
/// What the archive had no quota for goes there again only after so long, however often it is sent: whoever repeats it
/// would have the archive look for it each time.
const OFFER_AGAIN_AFTER: Duration = Duration::from_secs(30);

impl Pool {
    /// An empty pool for at most `max_bytes` of envelopes, with what keeping them takes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), newest: watch::Sender::new(0), max_bytes }
    }

    /// Puts an envelope in, unless it is there. `from` is then known to have it. `archive` is called for a new one, and
    /// again for one that was not kept and may be now; what the archive does not even queue is not pooled either, so that
    /// it can be sent again. `now` is since 1970.
    ///
    /// When the pool is full, the envelopes that expire first make room.
    pub(crate) fn offer<E>(
        &self,
        envelope: &Envelope,
        pow: f64,
        from: Option<Slot>,
        now: Duration,
        archive: impl FnOnce(&Envelope) -> Result<Receipt, E>,
    ) -> Result<Pooled, E> {
        let mut state = self.state.lock();
        if let Some(number) = state.numbers.get(&envelope.hash()).copied()
            && let Some(entry) = state.entries.get_mut(&number)
        {
            entry.known_by.extend(from);
            if entry.may_go_again(now) {
                entry.receipt = archive(&entry.envelope)?;
                entry.offered = now;
            }
            return Ok(Pooled { receipt: entry.receipt.clone(), known: true });
        }
        let envelope = envelope.detached();
        let receipt = archive(&envelope)?;
        state.last += 1;
        let number = state.last;
        state.bytes += envelope.rlp().len();
        state.numbers.insert(envelope.hash(), number);
        state.expiries.insert((envelope.expiry(), number));
        let mut known_by = Slots::default();
        known_by.extend(from);
        let entry = Entry { envelope, pow, known_by, receipt: receipt.clone(), offered: now };
        state.entries.insert(number, entry);
        while state.memory() > self.max_bytes && state.entries.len() > 1 {
            state.remove_first_to_expire();
        }
        drop(state);
        self.newest.send_replace(number);
        Ok(Pooled { receipt, known: false })
    }

    /// Changes whenever an envelope is added.
    pub(crate) fn arrivals(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Collects what `slot` does not know and `wants`, from behind number `after` on, up to `max_bytes` of encodings.
    pub(crate) fn parcel(
        &self,
        slot: Slot,
        after: u64,
        max_bytes: usize,
        mut wants: impl FnMut(&Envelope, f64) -> bool,
    ) -> Parcel {
        let mut parcel = Parcel { looked_at: after, ..Parcel::default() };
        let mut bytes = 0;
        let mut state = self.state.lock();
        for (looked, (number, entry)) in state.entries.range_mut(after + 1..).enumerate() {
            let size = entry.envelope.rlp().len();
            if looked == LOOK {
                parcel.more = true;
                return parcel;
            }
            if !entry.known_by.contains(slot) && wants(&entry.envelope, entry.pow) {
                if bytes + size > max_bytes && !parcel.envelopes.is_empty() {
                    parcel.more = true;
                    return parcel;
                }
                bytes += size;
                entry.known_by.insert(slot);
                parcel.envelopes.push(entry.envelope.clone());
            }
            parcel.looked_at = *number;
        }
        parcel
    }

    /// Removes what has expired at unix second `now`; says how many. Others get their turn at the pool in between.
    pub(crate) fn sweep(&self, now: u32) -> usize {
        let mut removed = 0;
        loop {
            let mut state = self.state.lock();
            for _ in 0..LOOK {
                if state.expiries.first().is_none_or(|(expiry, _)| *expiry >= now) {
                    return removed;
                }
                state.remove_first_to_expire();
                removed += 1;
            }
        }
    }

    /// Takes back every mark of a slot, before somebody else gets it. Others get their turn at the pool in between.
    pub(crate) fn forget(&self, slot: Slot) {
        let mut from = 0;
        loop {
            let mut state = self.state.lock();
            let mut looked = 0;
            for (number, entry) in state.entries.range_mut(from..).take(LOOK) {
                entry.known_by.remove(slot);
                from = number + 1;
                looked += 1;
            }
            if looked < LOOK {
                return;
            }
        }
    }

    /// How many envelopes there are, and the bytes of their encodings.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.entries.len(), state.bytes)
    }
}

impl State {
    fn memory(&self) -> usize {
        self.bytes + self.entries.len() * ENTRY_BYTES
    }

    fn remove_first_to_expire(&mut self) {
        let Some((_, number)) = self.expiries.pop_first() else { return };
        if let Some(entry) = self.entries.remove(&number) {
            self.bytes -= entry.envelope.rlp().len();
            self.numbers.remove(&entry.envelope.hash());
        }
    }
}

/// A set of slots, a bit for each.
#[derive(Debug, Default)]
struct Slots(Vec<u64>);

impl Slots {
    fn contains(&self, Slot(slot): Slot) -> bool {
        self.0.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn insert(&mut self, Slot(slot): Slot) {
        if self.0.len() <= slot / 64 {
            self.0.resize(slot / 64 + 1, 0);
        }
        self.0[slot / 64] |= 1 << (slot % 64);
    }

    fn remove(&mut self, Slot(slot): Slot) {
        if let Some(word) = self.0.get_mut(slot / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    fn extend(&mut self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.insert(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_wire::Topic;

    const A: Slot = Slot(0);
    const B: Slot = Slot(100);
    const NOW: Duration = Duration::from_secs(1_600_000_000);

    fn envelope(number: u32, expiry: u32) -> Envelope {
        Envelope::new(expiry, 50, Topic(number.to_be_bytes()), &[0; 100], u64::from(number))
    }

    fn stored(_: &Envelope) -> Result<Receipt, ()> {
        Ok(Receipt::ready(Stored::Yes))
    }

    fn take(pool: &Pool, slot: Slot, after: u64, max_bytes: usize) -> (Vec<Envelope>, u64, bool) {
        let parcel = pool.parcel(slot, after, max_bytes, |_, _| true);
        (parcel.envelopes, parcel.looked_at, parcel.more)
    }

    #[test]
    fn the_sender_never_gets_its_own_and_others_get_it_once() {
        let pool = Pool::new(1 << 20);
        let first = envelope(1, 100);
        assert!(!pool.offer(&first, 1.0, Some(A), NOW, stored).unwrap().known);
        assert_eq!(take(&pool, A, 0, 1 << 20), (vec![], 1, false));
        assert_eq!(take(&pool, B, 0, 1 << 20), (vec![first.clone()], 1, false));
        assert_eq!(take(&pool, B, 0, 1 << 20), (vec![], 1, false));
        assert!(pool.offer(&first, 1.0, Some(B), NOW, stored).unwrap().known);
    }

    #[test]
    fn a_known_envelope_is_not_archived_twice_and_a_refused_one_is_not_kept() {
        let pool = Pool::new(1 << 20);
        let first = envelope(1, 100);
        assert_eq!(pool.offer(&first, 1.0, None, NOW, |_| Err::<Receipt, _>("full")).unwrap_err(), "full");
        assert_eq!(pool.size(), (0, 0));
        pool.offer(&first, 1.0, None, NOW, stored).unwrap();
        pool.offer(&first, 1.0, None, NOW, |_| -> Result<Receipt, ()> { panic!("archived twice") }).unwrap();
    }

    #[test]
    fn what_was_not_kept_is_archived_again_when_it_is_sent_again() {
        for (stored, expected) in [
            (Stored::OverQuota, true),
            (Stored::NoRoom, true),
            (Stored::Refused, false),
            (Stored::Unknown, false),
        ] {
            let pool = Pool::new(1 << 20);
            let first = envelope(1, 100);
            pool.offer(&first, 1.0, Some(A), NOW, |_| Ok::<_, ()>(Receipt::ready(stored))).unwrap();
            assert_eq!(take(&pool, B, 0, 1 << 20).0.len(), 1);
            if stored == Stored::OverQuota {
                let early = NOW + OFFER_AGAIN_AFTER - Duration::from_millis(1);
                let known = pool.offer(&first, 1.0, Some(A), early, |_| Err("not yet")).unwrap();
                assert_eq!(known.receipt.known(), Some(stored), "it is said again");
            }
            let later = NOW + OFFER_AGAIN_AFTER;
            let mut again = false;
            let refused = pool.offer(&first, 1.0, Some(A), later, |_| {
                again = true;
                Err("still none")
            });
            assert_eq!((again, refused.is_err()), (expected, expected), "{stored:?}");
            let offer = || pool.offer(&first, 1.0, Some(A), later, self::stored).unwrap();
            assert!(offer().known);
            let now = if expected { Stored::Yes } else { stored };
            assert_eq!(offer().receipt.known(), Some(now), "{stored:?}");
            assert_eq!((pool.size().0, take(&pool, B, 0, 1 << 20).0.len()), (1, 0), "relayed once");
        }
    }

    #[test]
    fn parcels_keep_to_their_bound_and_go_on() {
        let pool = Pool::new(1 << 20);
        let all: Vec<_> = (1..=10).map(|number| envelope(number, 100)).collect();
        all.iter().for_each(|envelope| drop(pool.offer(envelope, 1.0, None, NOW, stored).unwrap()));
        let bound = 3 * all[0].rlp().len();
        let (mut got, mut after) = (vec![], 0);
        loop {
            let (envelopes, looked_at, more) = take(&pool, B, after, bound);
            assert!(envelopes.len() <= 3);
            got.extend(envelopes);
            after = looked_at;
            if !more {
                break;
            }
        }
        assert_eq!(got, all);
        assert_eq!(take(&pool, A, 0, 1).0.len(), 1, "one that is larger than the bound still goes");
    }

    #[test]
    fn what_expires_first_makes_room() {
        let one = envelope(1, 100).rlp().len();
        let pool = Pool::new(2 * (one + ENTRY_BYTES));
        for (number, expiry) in [(1, 120), (2, 100), (3, 110)] {
            pool.offer(&envelope(number, expiry), 1.0, None, NOW, stored).unwrap();
        }
        assert_eq!(take(&pool, A, 0, 1 << 20).0, [envelope(1, 120), envelope(3, 110)]);
        assert_eq!(pool.sweep(110), 0);
        assert_eq!(pool.sweep(111), 1);
        assert_eq!(pool.size(), (1, one));
    }

    #[test]
    fn a_slot_that_is_used_again_knows_nothing() {
        let pool = Pool::new(1 << 20);
        pool.offer(&envelope(1, 100), 1.0, Some(B), NOW, stored).unwrap();
        pool.forget(B);
        assert_eq!(take(&pool, B, 0, 1 << 20).0.len(), 1);
    }
}
