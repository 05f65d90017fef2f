//! Segments in memory, and how far the stream may be called dealt with while they are there.
//!
//! Segments grow old by the time of the stream that they came in, not by the clock: while nothing is read the others cannot
//! come. The stream's time is that of its newest message, and passes with the clock while its position moves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_codec::keccak256;
use poste_wire::status::segment::{Accepted, ReassemblyBounds};
use poste_wire::status::{Reassembly, Segment};

/// Whoever asks less often does not know whether it was read all the time.
const LONGEST_STEP: Duration = Duration::from_secs(10);

/// Messages of which segments are missing, and those that were joined and are not dealt with yet. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Segments(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    time: Mutex<StreamTime>,
    /// The lowest position that is needed again after a restart, or `u64::MAX`.
    lowest: AtomicU64,
}

#[derive(Debug)]
struct State {
    reassembly: Reassembly,
    /// By what the message hashes to.
    joined: HashMap<[u8; 32], Needed>,
}

/// Times since 1970.
#[derive(Debug, Default)]
struct StreamTime {
    latest: Duration,
    /// What was asked last, and when.
    asked: Option<(u64, Duration)>,
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
        let (state, time) = (Mutex::new(state), Mutex::default());
        Self(Arc::new(Inner { state, time, lowest: AtomicU64::new(u64::MAX) }))
    }

    /// A message of the stream was made then, and is dealt with now.
    pub(super) fn note_time(&self, made_at: Duration, now: Duration) {
        self.0.time.lock().note(made_at.min(now));
    }

    /// Takes a segment, and gives the whole message with the last one; none if the segment is of no use, or others
    /// are missing. Copies and hashes up to megabytes.
    pub(super) fn accept(&self, segment: Segment, position: u64) -> Result<Joined, Accepted> {
        let time = self.0.time.lock().latest.as_secs();
        let mut state = self.0.state.lock();
        let needed = state.reassembly.lowest_position().unwrap_or(position).min(position);
        let joined = match state.reassembly.accept(segment, time, position) {
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

    /// The lowest position that is needed again after a restart, or `u64::MAX`, when everything up to `position` has been
    /// read. Gives up what has become too old, so that a segment without the others holds up nothing for long. Never
    /// waits.
    pub(super) fn lowest_position(&self, position: u64, now: Duration) -> u64 {
        let time = self.0.time.lock().pass(position, now);
        if let Some(mut state) = self.0.state.try_lock()
            && state.reassembly.expire(time.as_secs()) > 0
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

impl StreamTime {
    fn note(&mut self, time: Duration) {
        self.latest = self.latest.max(time);
    }

    /// The time since the last call passed for the stream as well, if its position has moved since. Gives its time.
    fn pass(&mut self, position: u64, now: Duration) -> Duration {
        if let Some((last_position, last)) = self.asked.replace((position, now))
            && position > last_position
        {
            let passed = now.saturating_sub(last).min(LONGEST_STEP);
            self.note((self.latest + passed).min(now));
        }
        self.latest
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
        // A message that panics is given up: it must not hold up the checkpoint for ever.
        self.segments.give_back(&self.whole, self.is_done || std::thread::panicking());
    }
}

#[cfg(test)]
mod tests {
    use poste_wire::status::segment::split;

    use super::*;

    const START: Duration = Duration::from_secs(1_700_000_000);

    fn lowest(segments: &Segments) -> u64 {
        segments.lowest_position(0, START)
    }

    fn segments_of(message: &[u8]) -> Vec<Segment> {
        split(message.to_vec(), 4).iter().map(|piece| Segment::read(piece).unwrap()).collect()
    }

    #[test]
    fn a_joined_message_is_needed_until_it_is_dealt_with() {
        let segments = Segments::new(ReassemblyBounds::default());
        let (first, second) = (segments_of(b"message 1"), segments_of(b"message 2"));
        assert_eq!(lowest(&segments), u64::MAX);
        for (at, (first, second)) in (0..).zip(first.iter().zip(&second).take(2)) {
            assert_eq!(segments.accept(first.clone(), 10 + 2 * at).unwrap_err(), Accepted::Kept);
            assert_eq!(segments.accept(second.clone(), 11 + 2 * at).unwrap_err(), Accepted::Kept);
        }
        assert_eq!((lowest(&segments), segments.incomplete()), (10, 2));
        let joined = segments.accept(first[2].clone(), 20).unwrap();
        assert_eq!((&joined.message[..], lowest(&segments)), (&b"message 1"[..], 10));
        joined.hold.release();
        assert_eq!(lowest(&segments), 11);
        let other = segments.accept(second[2].clone(), 21).unwrap();
        assert_eq!(lowest(&segments), 11);
        other.hold.release();
        assert_eq!((lowest(&segments), segments.incomplete()), (u64::MAX, 0));
    }

    /// It comes twice, and the copy that comes later is done with first.
    #[test]
    fn a_message_is_needed_while_any_copy_of_it_is_not_dealt_with() {
        let segments = Segments::new(ReassemblyBounds::default());
        let mut joined = (0..2).flat_map(|copy| {
            let pieces = segments_of(b"message 1");
            pieces
                .into_iter()
                .zip(10 * (copy + 1)..)
                .filter_map(|(piece, at)| segments.accept(piece, at).ok())
        });
        let (first, second) = (joined.next().unwrap().hold, joined.next().unwrap().hold);
        second.release();
        assert_eq!(lowest(&segments), 10);
        drop(first);
        assert_eq!(lowest(&segments), 10, "given up here, and needed after a restart");
        let again =
            segments_of(b"message 1").into_iter().filter_map(|piece| segments.accept(piece, 30).ok()).next();
        again.unwrap().hold.release();
        assert_eq!(lowest(&segments), u64::MAX);
    }

    #[test]
    fn a_segment_without_the_others_holds_up_nothing_for_long() {
        let segments = Segments::new(ReassemblyBounds::default());
        segments.note_time(START, START);
        let lone = segments_of(b"message").remove(0);
        assert_eq!(segments.accept(lone.clone(), 10).unwrap_err(), Accepted::Kept);
        let later = |seconds| START + Duration::from_secs(seconds);
        segments.note_time(later(600), later(600));
        assert_eq!(segments.lowest_position(20, later(600)), 10);
        segments.note_time(later(601), later(601));
        assert_eq!(segments.lowest_position(20, later(601)), u64::MAX);
        // Nothing for us comes any more, and the stream goes on.
        assert_eq!(segments.accept(lone, 30).unwrap_err(), Accepted::Kept);
        let gone =
            (0..400).find(|step| segments.lowest_position(31 + step, later(601 + 2 * step)) == u64::MAX);
        assert!(gone.is_some_and(|step| (300..=302).contains(&step)), "{gone:?}");
    }

    /// The archive is away for a day, or everything else waits for a gateway: the others come later.
    #[test]
    fn segments_wait_while_nothing_is_read() {
        let segments = Segments::new(ReassemblyBounds::default());
        let pieces = segments_of(b"message 1");
        segments.note_time(START, START);
        for (at, piece) in (10..).zip(&pieces[..2]) {
            assert_eq!(segments.accept(piece.clone(), at).unwrap_err(), Accepted::Kept);
        }
        let day = Duration::from_secs(24 * 60 * 60);
        for second in (0..day.as_secs()).step_by(10) {
            assert_eq!(segments.lowest_position(11, START + Duration::from_secs(second)), 10);
        }
        // It is back, and others' messages come first.
        assert_eq!(segments.lowest_position(1000, START + day), 10);
        segments.note_time(START + Duration::from_secs(5), START + day);
        assert_eq!(&segments.accept(pieces[2].clone(), 1001).unwrap().message[..], b"message 1");
    }
}
