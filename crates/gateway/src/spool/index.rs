//! Where the envelopes of a spool are: the places of those that nobody has settled, by segment, and nothing of their
//! bodies. What cannot be read or drained now is put off without holding up what is behind it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use poste_journal::FrameAt;

use super::SpoolSize;
use super::pause::Pause;
use super::record::OVERHEAD_BYTES;

/// Between two attempts to read what the disk does not give: doubled from the first to the last.
const READ_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Between two attempts to hand over what the archive has no quota for: likewise.
const QUOTA_PAUSES: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(300)];

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
    /// Segments of an earlier life of which some part is not known.
    unread: BTreeMap<u32, Unread>,
    /// Segments whose files are kept for people, with how many of their envelopes are lost at least.
    damaged: BTreeMap<u32, u64>,
    /// How many envelopes were settled, ever.
    settled: u64,
}

#[derive(Debug)]
struct Segment {
    /// Those that nobody drains now, in order.
    waiting: VecDeque<Place>,
    /// Those that the disk did not give.
    unreadable: PutOff,
    /// Those that the archive had no quota for.
    over_quota: PutOff,
    /// All of those, and the ones that are being drained.
    unsettled: usize,
    /// Creation time of the oldest envelope that it has had since it was last settled, unix seconds.
    oldest: u32,
}

#[derive(Debug)]
struct PutOff {
    places: Vec<Place>,
    pause: Pause,
}

#[derive(Debug)]
struct Unread {
    /// Offsets of what is known already, when reading it has failed before.
    known: BTreeSet<u32>,
    /// No envelope in it was made before, unix seconds.
    oldest: u32,
    /// It was the last: what its end held was never confirmed when it reads wrongly.
    last: bool,
    /// All that this program can read of it is known; the rest is of a newer one.
    newer: bool,
    /// Since the last failure.
    pause: Pause,
}

impl Segment {
    fn new(oldest: u32) -> Self {
        let put_off = |pauses| PutOff { places: Vec::new(), pause: Pause::new(pauses) };
        Self {
            waiting: VecDeque::new(),
            unreadable: put_off(READ_PAUSES),
            over_quota: put_off(QUOTA_PAUSES),
            unsettled: 0,
            oldest,
        }
    }

    /// Something that was put off is to be tried again.
    fn is_due(&self, now: Instant) -> bool {
        self.unreadable.is_due(now) || self.over_quota.is_due(now)
    }

    fn bring_back(&mut self, now: Instant) {
        let put_off = [&mut self.unreadable, &mut self.over_quota].into_iter();
        let due = put_off.filter(|put_off| put_off.is_due(now));
        let places: Vec<Place> = due.flat_map(|put_off| std::mem::take(&mut put_off.places)).collect();
        self.wait(places);
    }

    fn wait(&mut self, places: impl IntoIterator<Item = Place>) {
        self.waiting.extend(places);
        self.waiting.make_contiguous().sort_unstable();
    }
}

impl PutOff {
    fn is_due(&self, now: Instant) -> bool {
        !self.places.is_empty() && self.pause.is_over(now)
    }
}

impl Index {
    /// An envelope is durable there.
    pub(super) fn add(&mut self, at: FrameAt, sent: u32) {
        let place = Place { offset: at.offset, payload_bytes: at.payload_bytes };
        let segment = self.segments.entry(at.segment).or_insert_with(|| Segment::new(sent));
        segment.oldest = if segment.unsettled == 0 { sent } else { segment.oldest.min(sent) };
        segment.waiting.push_back(place);
        segment.unsettled += 1;
        self.size.envelopes += 1;
        self.size.bytes += place.body_bytes();
    }

    pub(super) fn size(&self) -> SpoolSize {
        self.size
    }

    /// Nothing unsettled is in it, as far as anybody can know.
    pub(super) fn is_empty(&self) -> bool {
        self.size.envelopes == 0 && self.unread.is_empty()
    }

    /// How many files have something that is not settled, as far as anybody can know.
    pub(super) fn files(&self) -> usize {
        let unsettled = self.segments.iter().filter(|(_, segment)| segment.unsettled > 0);
        let known = unsettled.filter(|(number, _)| !self.unread.contains_key(number));
        known.count() + self.unread.len()
    }

    /// How many envelopes were settled, ever.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Creation time of the oldest envelope, unix seconds, or earlier.
    pub(super) fn oldest(&self) -> Option<u32> {
        let unsettled = self.segments.values().filter(|segment| segment.unsettled > 0);
        let unread = self.unread.values().map(|unread| unread.oldest);
        unsettled.map(|segment| segment.oldest).chain(unread).min()
    }

    /// The first that wait, of one segment; at least one, however large. What was put off comes after what was not.
    pub(super) fn take(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        now: Instant,
    ) -> Option<(u32, Vec<Place>)> {
        if self.segments.values().all(|segment| segment.waiting.is_empty())
            && let Some(segment) = self.segments.values_mut().find(|segment| segment.is_due(now))
        {
            segment.bring_back(now);
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

    /// Whether [`Index::take`] has something, or may have as soon as every segment was looked at.
    pub(super) fn has_due(&self, now: Instant) -> bool {
        let is_due = |segment: &Segment| !segment.waiting.is_empty() || segment.is_due(now);
        !self.is_looked_through() || self.segments.values().any(is_due)
    }

    /// What was taken waits again, in its place.
    pub(super) fn put_back(&mut self, number: u32, places: impl IntoIterator<Item = Place>) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.wait(places);
        }
    }

    /// What was taken is tried again later: the archive has no quota for it now.
    pub(super) fn over_quota(&mut self, number: u32, places: Vec<Place>, now: Instant) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.over_quota.places.extend(places);
            segment.over_quota.pause.begin(now);
        }
    }

    /// What was taken is tried again later: the disk does not give it now, or, when `nothing` of what was taken could be
    /// read, the whole segment. Returns how long nobody tries, unless that was known before.
    pub(super) fn unreadable(
        &mut self,
        number: u32,
        places: Vec<Place>,
        nothing: bool,
        now: Instant,
    ) -> Option<Duration> {
        let segment = self.segments.get_mut(&number)?;
        segment.unreadable.places.extend(places);
        if nothing {
            segment.unreadable.places.extend(segment.waiting.drain(..));
        }
        segment.unreadable.pause.begin(now)
    }

    /// What was taken is done with. Returns whether nothing of the segment is left.
    pub(super) fn settle(&mut self, number: u32, places: impl IntoIterator<Item = Place>) -> bool {
        let Some(segment) = self.segments.get_mut(&number) else { return false };
        for place in places {
            segment.unsettled -= 1;
            self.settled += 1;
            segment.unreadable.pause.shorten();
            self.size.envelopes -= 1;
            self.size.bytes -= place.body_bytes();
        }
        self.is_settled(number)
    }

    pub(super) fn is_settled(&self, number: u32) -> bool {
        !self.unread.contains_key(&number)
            && self.segments.get(&number).is_none_or(|segment| segment.unsettled == 0)
    }

    /// The segment's file has gone. Returns how many of its envelopes are lost.
    pub(super) fn forget(&mut self, number: u32) -> u64 {
        self.segments.remove(&number);
        self.damaged.remove(&number).unwrap_or_default()
    }

    /// The segment's file is kept, because so many more envelopes in it are lost, or may be.
    pub(super) fn damaged(&mut self, number: u32, lost: u64) {
        *self.damaged.entry(number).or_default() += lost;
    }

    pub(super) fn is_damaged(&self, number: u32) -> bool {
        self.damaged.contains_key(&number)
    }

    pub(super) fn damaged_segments(&self) -> usize {
        self.damaged.len()
    }

    /// The last segment of an earlier life was read in part, which is forgotten: it is to be read.
    pub(super) fn read_again(&mut self, number: u32) {
        if let Some(segment) = self.segments.remove(&number) {
            self.size.envelopes -= segment.unsettled;
            self.size.bytes -= segment.waiting.iter().map(|place| place.body_bytes()).sum::<u64>();
        }
        self.add_unread(number);
        if let Some(unread) = self.unread.get_mut(&number) {
            unread.last = true;
        }
    }

    /// A segment of an earlier life is to be read.
    pub(super) fn add_unread(&mut self, number: u32) {
        let pause = Pause::new(READ_PAUSES);
        let unread = Unread { known: BTreeSet::new(), oldest: 0, last: false, newer: false, pause };
        self.unread.insert(number, unread);
    }

    /// Learns how old the envelopes in each unread segment may be: in unix seconds, where that is known. Until then they
    /// may be of any time.
    pub(super) fn bound_unread<E>(
        &mut self,
        oldest_of: impl Fn(u32) -> Result<Option<u32>, E>,
    ) -> Result<(), E> {
        for (number, unread) in &mut self.unread {
            unread.oldest = oldest_of(*number)?.unwrap_or(0);
        }
        Ok(())
    }

    /// Whether it was the last segment of an earlier life, and is not read yet.
    pub(super) fn was_last(&self, number: u32) -> bool {
        self.unread.get(&number).is_some_and(|unread| unread.last)
    }

    /// The segment to read next, and from when on.
    pub(super) fn next_unread(&self) -> Option<(u32, Option<Instant>)> {
        let readable = self.unread.iter().filter(|(_, unread)| !unread.newer);
        let due = readable.map(|(number, unread)| (unread.pause.until(), *number));
        due.min().map(|(until, number)| (number, until))
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether the disk was asked for every segment once.
    pub(super) fn is_looked_through(&self) -> bool {
        self.unread.values().all(|unread| unread.newer || unread.pause.until().is_some())
    }

    /// What a segment of an earlier life holds.
    pub(super) fn read_through(&mut self, number: u32, frames: &[(FrameAt, u32)]) {
        let Some(unread) = self.unread.remove(&number) else { return };
        self.add_all(number, &unread.known, frames);
    }

    /// The disk gave only a part of a segment of an earlier life. Returns how long nobody tries again.
    pub(super) fn read_in_part(
        &mut self,
        number: u32,
        frames: &[(FrameAt, u32)],
        now: Instant,
    ) -> Option<Duration> {
        let mut unread = self.unread.remove(&number)?;
        self.add_all(number, &unread.known, frames);
        unread.known.extend(frames.iter().map(|(at, _)| at.offset));
        let pause = unread.pause.begin(now);
        self.unread.insert(number, unread);
        pause
    }

    /// Some of a segment of an earlier life is for a newer program. It stays.
    pub(super) fn read_but_newer(&mut self, number: u32, frames: &[(FrameAt, u32)]) {
        let Some(mut unread) = self.unread.remove(&number) else { return };
        self.add_all(number, &unread.known, frames);
        unread.newer = true;
        self.unread.insert(number, unread);
    }

    fn add_all(&mut self, number: u32, known: &BTreeSet<u32>, frames: &[(FrameAt, u32)]) {
        for &(at, sent) in frames.iter().filter(|(at, _)| !known.contains(&at.offset)) {
            self.add(at, sent);
        }
        self.put_back(number, []);
    }

    /// How many segments the disk does not give, or not all of them.
    pub(super) fn unreadable_segments(&self) -> usize {
        let in_part = self.segments.values().filter(|segment| !segment.unreadable.places.is_empty());
        let failed = |unread: &&Unread| !unread.newer && unread.pause.until().is_some();
        in_part.count() + self.unread.values().filter(failed).count()
    }

    /// Everything that was put off is due.
    #[cfg(test)]
    pub(super) fn end_pauses(&mut self) {
        let pauses = |segment: &mut Segment| {
            segment.unreadable.pause.end();
            segment.over_quota.pause.end();
        };
        self.segments.values_mut().for_each(pauses);
        self.unread.values_mut().for_each(|unread| unread.pause.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u32, offset: u32) -> FrameAt {
        FrameAt { segment, offset, payload_bytes: 100 + OVERHEAD_BYTES as u32 }
    }

    fn offsets(taken: Option<(u32, Vec<Place>)>) -> Option<(u32, Vec<u32>)> {
        taken.map(|(segment, places)| (segment, places.iter().map(|place| place.offset).collect()))
    }

    #[test]
    fn places_go_out_in_order_and_come_back_in_order() {
        let now = Instant::now();
        let mut index = Index::default();
        for offset in 0..5 {
            index.add(at(1, offset), 50 - offset);
        }
        index.add(at(2, 0), 10);
        assert_eq!(index.size(), SpoolSize { envelopes: 6, bytes: 600 });
        assert_eq!(index.oldest(), Some(10));
        let (segment, first) = index.take(2, usize::MAX, now).unwrap();
        assert_eq!((segment, first.len()), (1, 2));
        let (_, second) = index.take(10, 1, now).unwrap();
        assert_eq!(second.len(), 1, "one that is larger than the bound still goes");
        index.put_back(1, second);
        index.put_back(1, first.clone());
        assert_eq!(index.take(2, usize::MAX, now).unwrap().1, first);
        assert!(!index.settle(1, first));
        let (_, rest) = index.take(10, usize::MAX, now).unwrap();
        assert!(index.settle(1, rest), "nothing is left of the first");
        assert_eq!((index.size().envelopes, index.is_settled(1), index.is_settled(2)), (1, true, false));
        assert_eq!(index.take(10, usize::MAX, now).unwrap().0, 2);
        assert_eq!(index.oldest(), Some(10), "what is being drained counts");
    }

    #[test]
    fn the_oldest_begins_anew_when_all_is_settled() {
        let mut index = Index::default();
        index.add(at(1, 0), 10);
        let (_, places) = index.take(1, 1, Instant::now()).unwrap();
        assert!(index.settle(1, places));
        assert_eq!(index.oldest(), None);
        index.add(at(1, 1), 20);
        assert_eq!(index.oldest(), Some(20));
    }

    #[test]
    fn what_is_over_quota_lets_pass_what_is_behind_it_and_comes_again() {
        let now = Instant::now();
        let mut index = Index::default();
        for offset in 0..3 {
            index.add(at(1, offset), 50);
        }
        index.add(at(2, 0), 50);
        let (_, places) = index.take(2, usize::MAX, now).unwrap();
        index.over_quota(1, places, now);
        assert_eq!(offsets(index.take(9, usize::MAX, now)), Some((1, vec![2])));
        assert_eq!(offsets(index.take(9, usize::MAX, now)), Some((2, vec![0])));
        assert_eq!((index.take(9, usize::MAX, now), index.has_due(now)), (None, false));
        assert_eq!((index.size().envelopes, index.is_settled(1)), (4, false));
        let later = now + QUOTA_PAUSES[0];
        index.add(at(2, 1), 50);
        assert_eq!(offsets(index.take(9, usize::MAX, later)), Some((2, vec![1])), "those go before");
        assert!(index.has_due(later));
        let (_, places) = index.take(9, usize::MAX, later).unwrap();
        assert_eq!(places.len(), 2);
        index.over_quota(1, places, later);
        assert!(!index.has_due(later + QUOTA_PAUSES[0]), "the pauses grow");
        assert!(index.has_due(later + 2 * QUOTA_PAUSES[0]));
    }

    #[test]
    fn a_segment_that_cannot_be_read_lets_the_others_pass() {
        let now = Instant::now();
        let mut index = Index::default();
        for offset in 0..3 {
            index.add(at(1, offset), 50);
        }
        index.add(at(2, 0), 50);
        let (_, places) = index.take(2, usize::MAX, now).unwrap();
        assert_eq!(index.unreadable(1, places, true, now), Some(READ_PAUSES[0]));
        assert_eq!(index.unreadable_segments(), 1);
        assert_eq!(offsets(index.take(9, usize::MAX, now)), Some((2, vec![0])));
        assert_eq!(index.take(9, usize::MAX, now), None);
        let (mut at, mut pauses) = (now, Vec::new());
        for _ in 0..8 {
            at += READ_PAUSES[1];
            let (_, places) = index.take(9, usize::MAX, at).unwrap();
            assert_eq!(places.len(), 3);
            pauses.extend(index.unreadable(1, places, true, at).map(|pause| pause.as_secs()));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn what_is_not_read_is_no_older_than_its_file_says() {
        let mut index = Index::default();
        index.add(at(3, 0), 500);
        (1..=2).for_each(|number| index.add_unread(number));
        assert_eq!((index.oldest(), index.files()), (Some(0), 3));
        index.bound_unread(|number| Ok::<_, ()>(Some(number * 100))).unwrap();
        assert_eq!(index.oldest(), Some(100));
        index.read_through(1, &[(at(1, 0), 170)]);
        assert_eq!((index.oldest(), index.files()), (Some(170), 3));
        index.bound_unread(|_| Err(())).unwrap_err();
        index.read_but_newer(2, &[]);
        assert_eq!((index.oldest(), index.next_unread(), index.unreadable_segments()), (Some(170), None, 0));
        assert!(index.is_looked_through() && !index.is_settled(2));
        index.bound_unread(|_| Ok::<_, ()>(None)).unwrap();
        assert_eq!(index.oldest(), Some(0));
    }

    #[test]
    fn a_segment_is_not_settled_before_all_of_it_is_known() {
        let now = Instant::now();
        let mut index = Index::default();
        index.add_unread(1);
        assert_eq!((index.is_empty(), index.is_settled(1), index.oldest()), (false, false, Some(0)));
        assert_eq!((index.next_unread(), index.is_looked_through()), (Some((1, None)), false));
        assert!(index.has_due(now));
        assert_eq!(index.read_in_part(1, &[(at(1, 1), 50)], now), Some(READ_PAUSES[0]));
        assert_eq!(
            (index.next_unread(), index.is_looked_through()),
            (Some((1, Some(now + READ_PAUSES[0]))), true)
        );
        let (_, places) = index.take(9, usize::MAX, now).unwrap();
        assert!(!index.settle(1, places), "there may be more");
        assert_eq!((index.size().envelopes, index.is_empty(), index.oldest()), (0, false, Some(0)));
        index.read_through(1, &[(at(1, 0), 70), (at(1, 1), 50), (at(1, 2), 60)]);
        assert_eq!((index.size().envelopes, index.next_unread(), index.oldest()), (2, None, Some(60)));
        let (_, places) = index.take(9, usize::MAX, now).unwrap();
        assert!(index.settle(1, places));
        assert!(index.is_empty());
    }
}
