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
    /// By what the message hashes to: a position not above that of its first segment.
    joined: HashMap<[u8; 32], u64>,
}

/// A message that was joined. Until [`Segments::release`] it is needed again after a restart.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) message: Bytes,
    pub(super) hold: Hold,
}

#[derive(Debug)]
pub(super) struct Hold([u8; 32]);

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
                state.joined.insert(whole, needed);
                Ok(Joined { message, hold: Hold(whole) })
            }
            other => Err(other),
        };
        self.note(&state);
        joined
    }

    /// The message was dealt with to the end.
    pub(super) fn release(&self, hold: &Hold) {
        let mut state = self.0.state.lock();
        state.joined.remove(&hold.0);
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
        let positions = state.joined.values().copied().chain(state.reassembly.lowest_position());
        self.0.lowest.store(positions.min().unwrap_or(u64::MAX), Ordering::Release);
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
        segments.release(&joined.hold);
        assert_eq!(segments.lowest_position(now), 11);
        let other = segments.accept(second[2].clone(), now, 21).unwrap();
        assert_eq!(segments.lowest_position(now), 11);
        segments.release(&other.hold);
        assert_eq!((segments.lowest_position(now), segments.incomplete()), (u64::MAX, 0));
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
