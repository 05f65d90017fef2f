//! Segments in memory, and how far the stream may be called dealt with while they are there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_codec::keccak256;
use poste_wire::status::segment::{Accepted, ReassemblyBounds};
use poste_wire::status::{Reassembly, Segment};

/// Messages of which segments are missing, and those that were joined and are not dealt with yet. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Segments(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// The lowest position that is needed again after a restart, or `u64::MAX`.
    lowest: AtomicU64,
}

#[derive(Debug)]
struct State {
    reassembly: Reassembly,
    /// By what the message hashes to.
    joined: HashMap<[u8; 32], Needed>,
}

/// A message that was joined, once or several times.
#[derive(Debug)]
struct Needed {
    /// Not above that of its first segment.
    position: u64,
    holds: usize,
}

/// A message that was joined, and what keeps it needed.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) message: Bytes,
    pub(super) hold: Hold,
}

/// Until [`Hold::release`] the message is needed again after a restart; also if this is dropped, which says that it was
/// not dealt with.
#[derive(Debug)]
pub(super) struct Hold {
    segments: Segments,
    whole: [u8; 32],
    is_done: bool,
}

impl Segments {
    pub(super) fn new(bounds: ReassemblyBounds) -> Self {
        let state = State { reassembly: Reassembly::new(bounds), joined: HashMap::new() };
        Self(Arc::new(Inner { state: Mutex::new(state), lowest: AtomicU64::new(u64::MAX) }))
    }

    /// Takes a segment, and gives the whole message with the last one; none if the segment is of no use, or others
    /// are missing. Copies and hashes up to megabytes.
    pub(super) fn accept(&self, segment: Segment, now: Duration, position: u64) -> Result<Joined, Accepted> {
        let mut state = self.0.state.lock();
        let needed = state.reassembly.lowest_position().unwrap_or(position).min(position);
        let joined = match state.reassembly.accept(segment, now.as_secs(), position) {
            Accepted::Complete(message) => {
                let whole = keccak256(&message);
                let all = state.joined.entry(whole).or_insert(Needed { position: needed, holds: 0 });
                all.position = all.position.min(needed);
                all.holds += 1;
                Ok(Joined { message, hold: Hold { segments: self.clone(), whole, is_done: false } })
            }
            other => Err(other),
        };
        self.note(&state);
        joined
    }

    /// The message was dealt with, or given up where it was joined here; it may have come several times.
    fn give_back(&self, whole: &[u8; 32], is_done: bool) {
        let mut state = self.0.state.lock();
        if let Some(needed) = state.joined.get_mut(whole) {
            needed.holds = needed.holds.saturating_sub(1);
            if is_done && needed.holds == 0 {
                state.joined.remove(whole);
            }
        }
        self.note(&state);
    }

    /// The lowest position that is needed again after a restart, or `u64::MAX`. Gives up what has become too old, so
    /// that a segment without the others holds up nothing for long. Never waits.
    pub(super) fn lowest_position(&self, now: Duration) -> u64 {
        if let Some(mut state) = self.0.state.try_lock()
            && state.reassembly.expire(now.as_secs()) > 0
        {
            self.note(&state);
        }
        self.0.lowest.load(Ordering::Acquire)
    }

    pub(super) fn incomplete(&self) -> usize {
        self.0.state.lock().reassembly.len()
    }

    fn note(&self, state: &State) {
        let joined = state.joined.values().map(|needed| needed.position);
        let positions = joined.chain(state.reassembly.lowest_position());
        self.0.lowest.store(positions.min().unwrap_or(u64::MAX), Ordering::Release);
    }
}

impl Hold {
    /// The message was dealt with to the end.
    pub(super) fn release(mut self) {
        self.is_done = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.segments.give_back(&self.whole, self.is_done);
    }
}

#[cfg(test)]
mod tests {
    use poste_wire::status::segment::split;

    use super::*;

    fn segments_of(message: &[u8]) -> Vec<Segment> {
        split(message.to_vec(), 4).iter().map(|piece| Segment::read(piece).unwrap()).collect()
    }

    #[test]
    fn a_joined_message_is_needed_until_it_is_dealt_with() {
        let segments = Segments::new(ReassemblyBounds::default());
        let (first, second) = (segments_of(b"message 1"), segments_of(b"message 2"));
        let now = Duration::from_secs(1_700_000_000);
        assert_eq!(segments.lowest_position(now), u64::MAX);
        for (at, (first, second)) in (0..).zip(first.iter().zip(&second).take(2)) {
            assert_eq!(segments.accept(first.clone(), now, 10 + 2 * at).unwrap_err(), Accepted::Kept);
            assert_eq!(segments.accept(second.clone(), now, 11 + 2 * at).unwrap_err(), Accepted::Kept);
        }
        assert_eq!((segments.lowest_position(now), segments.incomplete()), (10, 2));
        let joined = segments.accept(first[2].clone(), now, 20).unwrap();
        assert_eq!((&joined.message[..], segments.lowest_position(now)), (&b"message 1"[..], 10));
        joined.hold.release();
        assert_eq!(segments.lowest_position(now), 11);
        let other = segments.accept(second[2].clone(), now, 21).unwrap();
        assert_eq!(segments.lowest_position(now), 11);
        other.hold.release();
        assert_eq!((segments.lowest_position(now), segments.incomplete()), (u64::MAX, 0));
    }

    /// It comes twice, and the copy that comes later is done with first.
    #[test]
    fn a_message_is_needed_while_any_copy_of_it_is_not_dealt_with() {
        let segments = Segments::new(ReassemblyBounds::default());
        let now = Duration::from_secs(1_700_000_000);
        let mut joined = (0..2).flat_map(|copy| {
            let pieces = segments_of(b"message 1");
            pieces
                .into_iter()
                .zip(10 * (copy + 1)..)
                .filter_map(|(piece, at)| segments.accept(piece, now, at).ok())
        });
        let (first, second) = (joined.next().unwrap().hold, joined.next().unwrap().hold);
        second.release();
        assert_eq!(segments.lowest_position(now), 10);
        drop(first);
        assert_eq!(segments.lowest_position(now), 10, "given up here, and needed after a restart");
        let again = segments_of(b"message 1")
            .into_iter()
            .filter_map(|piece| segments.accept(piece, now, 30).ok())
            .next();
        again.unwrap().hold.release();
        assert_eq!(segments.lowest_position(now), u64::MAX);
    }

    #[test]
    fn a_segment_without_the_others_holds_up_nothing_for_long() {
        let segments = Segments::new(ReassemblyBounds::default());
        let now = Duration::from_secs(1_700_000_000);
        let lone = segments_of(b"message").remove(0);
        assert_eq!(segments.accept(lone, now, 10).unwrap_err(), Accepted::Kept);
        assert_eq!(segments.lowest_position(now + Duration::from_secs(600)), 10);
        assert_eq!(segments.lowest_position(now + Duration::from_secs(601)), u64::MAX);
    }
}
