//! Where the envelopes of a spool are: the places of those that nobody has settled, by segment, and nothing of their
//! bodies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use poste_journal::FrameAt;

use super::SpoolSize;
use super::record::OVERHEAD_BYTES;

/// Where one envelope is in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    offset: u32,
    payload_bytes: u32,
}

impl Place {
    pub(super) fn frame(self, segment: u32) -> FrameAt {
        FrameAt { segment, offset: self.offset, payload_bytes: self.payload_bytes }
    }

    fn body_bytes(self) -> u64 {
        (self.payload_bytes as usize).saturating_sub(OVERHEAD_BYTES) as u64
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    segments: BTreeMap<u32, Segment>,
    size: SpoolSize,
    /// Segments with something in them that cannot be read: their files are kept.
    damaged: BTreeSet<u32>,
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Segment {
    /// Those that nobody drains now, in order.
    waiting: VecDeque<Place>,
    /// Those and the ones that are being drained.
    unsettled: usize,
    /// Creation time of the oldest envelope that it has had since it was last settled, unix seconds.
    oldest: u32,
    read_failures: u32,
}

impl Index {
    /// An envelope is durable there.
    pub(super) fn add(&mut self, at: FrameAt, sent: u32) {
        let place = Place { offset: at.offset, payload_bytes: at.payload_bytes };
        let segment = self.segments.entry(at.segment).or_insert_with(|| Segment {
            waiting: VecDeque::new(),
            unsettled: 0,
            oldest: sent,
            read_failures: 0,
        });
        segment.oldest = if segment.unsettled == 0 { sent } else { segment.oldest.min(sent) };
        segment.waiting.push_back(place);
        segment.unsettled += 1;
        self.size.envelopes += 1;
        self.size.bytes += place.body_bytes();
    }

    pub(super) fn size(&self) -> SpoolSize {
        self.size
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        let unsettled = self.segments.values().filter(|segment| segment.unsettled > 0);
        unsettled.map(|segment| segment.oldest).min()
    }

    /// The first that wait, of one segment; at least one, however large.
    pub(super) fn take(&mut self, max_records: usize, max_bytes: usize) -> Option<(u32, Vec<Place>)> {
        if self.rests() {
            return None;
        }
        let (number, segment) = self.segments.iter_mut().find(|(_, segment)| !segment.waiting.is_empty())?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(place) = segment.waiting.front().copied()
            && taken.len() < max_records
            && (taken.is_empty() || bytes + place.payload_bytes as usize <= max_bytes)
        {
            bytes += place.payload_bytes as usize;
            taken.push(place);
            segment.waiting.pop_front();
        }
        Some((*number, taken))
    }

    /// What was taken waits again, in its place.
    pub(super) fn put_back(&mut self, number: u32, places: impl IntoIterator<Item = Place>) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.waiting.extend(places);
        segment.waiting.make_contiguous().sort_unstable();
    }

    /// What was taken is done with. Returns whether nothing of the segment is left.
    pub(super) fn settle(&mut self, number: u32, places: impl IntoIterator<Item = Place>) -> bool {
        let Some(segment) = self.segments.get_mut(&number) else { return false };
        for place in places {
            segment.unsettled -= 1;
            segment.read_failures = 0;
            self.size.envelopes -= 1;
            self.size.bytes -= place.body_bytes();
        }
        segment.unsettled == 0
    }

    pub(super) fn is_settled(&self, number: u32) -> bool {
        self.segments.get(&number).is_none_or(|segment| segment.unsettled == 0)
    }

    /// The segment's file has gone.
    pub(super) fn forget(&mut self, number: u32) {
        self.segments.remove(&number);
        self.damaged.remove(&number);
    }

    pub(super) fn damaged(&mut self, number: u32) {
        self.damaged.insert(number);
    }

    pub(super) fn is_damaged(&self, number: u32) -> bool {
        self.damaged.contains(&number)
    }

    /// Some of a segment could not be read; returns how often in a row.
    pub(super) fn read_failed(&mut self, number: u32) -> u32 {
        self.segments.get_mut(&number).map_or(0, |segment| {
            segment.read_failures += 1;
            segment.read_failures
        })
    }

    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn rest(&mut self, pause: Duration) {
        self.rests_until = Instant::now().checked_add(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u32, offset: u32) -> FrameAt {
        FrameAt { segment, offset, payload_bytes: 100 + OVERHEAD_BYTES as u32 }
    }

    #[test]
    fn places_go_out_in_order_and_come_back_in_order() {
        let mut index = Index::default();
        for offset in 0..5 {
            index.add(at(1, offset), 50 - offset);
        }
        index.add(at(2, 0), 10);
        assert_eq!(index.size(), SpoolSize { envelopes: 6, bytes: 600 });
        assert_eq!(index.oldest(), Some(10));
        let (segment, first) = index.take(2, usize::MAX).unwrap();
        assert_eq!((segment, first.len()), (1, 2));
        let (_, second) = index.take(10, 1).unwrap();
        assert_eq!(second.len(), 1, "one that is larger than the bound still goes");
        index.put_back(1, second);
        index.put_back(1, first.clone());
        assert_eq!(index.take(2, usize::MAX).unwrap().1, first);
        assert!(!index.settle(1, first));
        let (_, rest) = index.take(10, usize::MAX).unwrap();
        assert!(index.settle(1, rest), "nothing is left of the first");
        assert_eq!((index.size().envelopes, index.is_settled(1), index.is_settled(2)), (1, true, false));
        assert_eq!(index.take(10, usize::MAX).unwrap().0, 2);
        assert_eq!(index.oldest(), Some(10), "what is being drained counts");
    }

    #[test]
    fn the_oldest_begins_anew_when_all_is_settled() {
        let mut index = Index::default();
        index.add(at(1, 0), 10);
        let (_, places) = index.take(1, 1).unwrap();
        assert!(index.settle(1, places));
        assert_eq!(index.oldest(), None);
        index.add(at(1, 1), 20);
        assert_eq!(index.oldest(), Some(20));
    }
}
