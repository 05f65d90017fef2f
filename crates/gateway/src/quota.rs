//! What each peer may add in a rolling day, by size of envelope: cheap large envelopes must not push out those of others.
//! It outlives connections: reconnecting does not help.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use poste_codec::PublicKey;
use poste_service::config::ByteSize;

/// The first sizes that are no longer small, and no longer medium, bytes.
const MEDIUM_FROM: usize = 4 * 1024;
const LARGE_FROM: usize = 64 * 1024;
const CLASSES: usize = 3;

const HOUR: u64 = 3600;
const HOURS: usize = 24;
/// How many peers are remembered. When there are more, those that have added nothing for the longest time are forgotten,
/// some at a time.
const MAX_PEERS: usize = 10_000;
const FORGET: usize = 1_000;

/// Quotas and what has been used of them.
#[derive(Debug)]
pub(crate) struct PeerQuotas {
    /// Bytes in a day for small, medium and large envelopes; none is no limit.
    limits: [Option<u64>; CLASSES],
    peers: Mutex<HashMap<PublicKey, Usage>>,
}

/// What was counted of one peer for one envelope. It is given back when this is dropped, unless the envelope was kept.
#[derive(Debug)]
#[must_use]
pub(crate) struct Charge {
    /// Until the envelope is kept.
    quotas: Option<Arc<PeerQuotas>>,
    peer: PublicKey,
    class: usize,
    bytes: u64,
    /// The hour since 1970 in which it was counted.
    hour: u64,
}

/// What one peer has added in the last day: bytes of each class by hour.
#[derive(Debug, Clone, Default)]
struct Usage {
    hours: [[u64; CLASSES]; HOURS],
    /// The hour since 1970 that was written to last.
    newest: u64,
}

impl Usage {
    /// Empties the hours that are a day old at `hour`. A clock that was set back adds to the newest hour there is.
    fn advance(&mut self, hour: u64) {
        if hour <= self.newest {
            return;
        }
        let passed = usize::try_from(hour - self.newest).unwrap_or(HOURS).min(HOURS);
        for ahead in 1..=passed {
            self.hours[(self.newest as usize + ahead) % HOURS] = [0; CLASSES];
        }
        if passed == HOURS {
            self.hours = [[0; CLASSES]; HOURS];
        }
        self.newest = hour;
    }

    fn used(&self, class: usize) -> u64 {
        self.hours.iter().map(|hour| hour[class]).sum()
    }
}

impl PeerQuotas {
    /// Quotas for small, medium and large envelopes; 0 is none.
    pub(crate) fn new(limits: [ByteSize; CLASSES]) -> Self {
        Self { limits: limits.map(|limit| Some(limit.0).filter(|bytes| *bytes > 0)), peers: Mutex::default() }
    }

    /// Whether a peer may add an envelope of `bytes` at `now` (since 1970).
    pub(crate) fn has_room(&self, peer: &PublicKey, bytes: usize, now: Duration) -> bool {
        let class = class(bytes);
        let Some(limit) = self.limits[class] else { return true };
        let mut peers = self.peers.lock();
        let used = peers.get_mut(peer).map_or(0, |usage| {
            usage.advance(now.as_secs() / HOUR);
            usage.used(class)
        });
        used.saturating_add(bytes as u64) <= limit
    }

    /// Counts an envelope that a peer has added. None: there is no limit for its size.
    pub(crate) fn charge(self: &Arc<Self>, peer: &PublicKey, bytes: usize, now: Duration) -> Option<Charge> {
        let (class, bytes) = (class(bytes), bytes as u64);
        self.limits[class]?;
        let mut peers = self.peers.lock();
        if peers.len() >= MAX_PEERS && !peers.contains_key(peer) {
            forget_oldest(&mut peers);
        }
        let usage = peers.entry(*peer).or_default();
        usage.advance(now.as_secs() / HOUR);
        usage.hours[usage.newest as usize % HOURS][class] += bytes;
        Some(Charge { quotas: Some(Arc::clone(self)), peer: *peer, class, bytes, hour: usage.newest })
    }

    /// What was counted came to nothing: the envelope was not kept.
    fn give_back(&self, charge: &Charge) {
        let mut peers = self.peers.lock();
        let Some(usage) = peers.get_mut(&charge.peer) else { return };
        // What was counted a day ago no longer counts; a peer that was forgotten meanwhile begins anew.
        if charge.hour <= usage.newest && usage.newest - charge.hour < HOURS as u64 {
            let used = &mut usage.hours[charge.hour as usize % HOURS][charge.class];
            *used = used.saturating_sub(charge.bytes);
        }
    }
}

impl Charge {
    /// The envelope was kept: it counts.
    pub(crate) fn keep(mut self) {
        self.quotas = None;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(quotas) = self.quotas.take() {
            quotas.give_back(self);
        }
    }
}

fn class(bytes: usize) -> usize {
    match bytes {
        ..MEDIUM_FROM => 0,
        MEDIUM_FROM..LARGE_FROM => 1,
        LARGE_FROM.. => 2,
    }
}

fn forget_oldest(peers: &mut HashMap<PublicKey, Usage>) {
    let mut ages: Vec<(u64, PublicKey)> = peers.iter().map(|(key, usage)| (usage.newest, *key)).collect();
    ages.select_nth_unstable_by_key(FORGET, |(newest, _)| *newest);
    for (_, key) in &ages[..FORGET] {
        peers.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_codec::SecretKey;

    const NOW: Duration = Duration::from_secs(1_600_000_000);

    fn peer(number: u32) -> PublicKey {
        let mut bytes = [1; 32];
        bytes[28..].copy_from_slice(&number.to_be_bytes());
        SecretKey::from_bytes(&bytes).unwrap().public()
    }

    fn quotas(limits: [ByteSize; CLASSES]) -> Arc<PeerQuotas> {
        Arc::new(PeerQuotas::new(limits))
    }

    fn add(quotas: &Arc<PeerQuotas>, number: u32, bytes: usize, now: Duration) -> bool {
        let fits = quotas.has_room(&peer(number), bytes, now);
        if fits {
            quotas.charge(&peer(number), bytes, now).into_iter().for_each(Charge::keep);
        }
        fits
    }

    #[test]
    fn each_peer_and_each_size_has_its_own() {
        let quotas = quotas([ByteSize(0), ByteSize(10_000), ByteSize(200_000)]);
        for _ in 0..100 {
            assert!(add(&quotas, 1, 4095, NOW), "small ones have no limit");
        }
        assert!(add(&quotas, 1, 4096, NOW) && add(&quotas, 1, 5904, NOW), "up to the limit");
        assert!(!add(&quotas, 1, 4096, NOW));
        assert!(add(&quotas, 1, 65_537, NOW) && add(&quotas, 1, 65_537, NOW) && add(&quotas, 1, 65_537, NOW));
        assert!(!add(&quotas, 1, 65_537, NOW));
        assert!(!add(&quotas, 1, 65_535, NOW), "below 64 KiB is medium");
        assert!(add(&quotas, 2, 4096, NOW), "another peer");
    }

    #[test]
    fn the_day_rolls_by_hours() {
        let quotas = quotas([ByteSize(100), ByteSize(0), ByteSize(0)]);
        let hours = |count: u64| NOW + Duration::from_secs(count * HOUR);
        assert!(add(&quotas, 1, 60, hours(0)));
        assert!(add(&quotas, 1, 40, hours(12)));
        assert!(!add(&quotas, 1, 1, hours(23)));
        assert!(add(&quotas, 1, 60, hours(24)), "what came a day ago no longer counts");
        assert!(!add(&quotas, 1, 1, hours(24)));
        assert!(!add(&quotas, 1, 1, hours(2)), "a clock that is set back gives nothing");
        assert!(add(&quotas, 1, 100, hours(24 * 50)));
    }

    #[test]
    fn what_was_not_kept_is_given_back_unless_its_hour_has_passed() {
        let quotas = quotas([ByteSize(100), ByteSize(0), ByteSize(0)]);
        assert!(quotas.charge(&peer(1), 5000, NOW).is_none(), "no limit");
        let hours = |count: u64| NOW + Duration::from_secs(count * HOUR);
        let [first, second, third] = [0, 0, 1].map(|hour| quotas.charge(&peer(1), 30, hours(hour)).unwrap());
        assert!(!add(&quotas, 1, 40, hours(1)));
        drop(first);
        assert!(add(&quotas, 1, 40, hours(1)) && !add(&quotas, 1, 1, hours(1)));
        // A day later its hour is another one.
        assert!(add(&quotas, 1, 30, hours(24)) && !add(&quotas, 1, 1, hours(24)));
        drop(second);
        assert!(!add(&quotas, 1, 1, hours(24)), "it does not count any more");
        drop(third);
        assert!(add(&quotas, 1, 30, hours(24)));
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_leave() {
        let quotas = quotas([ByteSize(100), ByteSize(0), ByteSize(0)]);
        let mut keys: Vec<PublicKey> = Vec::new();
        for number in 0..MAX_PEERS as u32 + 1 {
            keys.push(peer(number));
            let later = Duration::from_secs(u64::from(number) * HOUR / 1000);
            quotas.charge(&keys[number as usize], 100, NOW + later).unwrap().keep();
        }
        assert_eq!(quotas.peers.lock().len(), MAX_PEERS + 1 - FORGET);
        assert!(quotas.has_room(&keys[0], 1, NOW), "the oldest is forgotten");
        let last = keys.len() - 1;
        assert!(!quotas.has_room(&keys[last], 1, NOW + Duration::from_secs(10 * HOUR)));
    }
}
