//! Which records of the index in memory answer a question: the cost follows the answer. A question by topics
//! merges the walks of those topics; a bloom filter is matched against the distinct topics first. Where the wanted
//! topics hold a good part of all records, a walk by time that skips the others is cheaper; both give the same
//! answer.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[cfg(test)]
use poste_journal::FrameAt;
use poste_wire::Hash;
#[cfg(test)]
use poste_wire::Topic;

use super::index::{Entry, Index, SpaceIndex};
use super::order::Walk;
use super::question::{Bounds, Candidate, Question, TailQuestion, Wanted};

/// How many records of a walk by time are skipped for what the merge of one topic costs to begin with.
const STEPS_PER_SEEK: usize = 20;
/// Records that one question by order of arrival looks at while it holds the index.
const TAIL_STEPS: usize = 50_000;

impl Index {
    /// The first `count` records that are wanted, in order, within these bounds.
    pub(super) fn select(&self, question: &Question, bounds: Bounds, count: usize) -> Vec<Candidate> {
        let Some(space) = self.space(question.space) else { return Vec::new() };
        let descending = question.descending;
        let walk = |order| Walk::new(order, &space.records, bounds, descending);
        let Some(wanted) = space.wanted(&question.wanted) else {
            return space.take(walk(&space.by_position), count);
        };
        if space.walk_is_cheaper(&wanted, count) {
            let budget = 4 * STEPS_PER_SEEK * wanted.len() + 4 * count;
            if let Some(candidates) = space.skipping(walk(&space.by_position), &wanted, budget, count) {
                return candidates;
            }
        }
        match wanted.as_slice() {
            [one] => space.take(walk(&space.topics[*one as usize].order), count),
            many => {
                let walks = many.iter().map(|&number| walk(&space.topics[number as usize].order));
                space.take(Merge::new(walks, descending), count)
            }
        }
    }

    /// At most `count` records behind a seq and up to another in order of arrival, and the seq up to which
    /// everything was looked at.
    pub(super) fn select_tail(&self, tail: &TailQuestion, count: usize) -> (Vec<Candidate>, u64) {
        let mut candidates = Vec::new();
        let Some(space) = self.space(tail.space) else { return (candidates, tail.until) };
        let mut scanned = tail.after;
        let first = space.records.first_behind(tail.after);
        for (steps, number) in (first..space.records.len() as u32).enumerate() {
            let entry = &space.records[number];
            if entry.seq > tail.until {
                break;
            }
            if steps == TAIL_STEPS || candidates.len() == count {
                return (candidates, scanned);
            }
            let candidate = space.candidate(entry);
            if tail.wants(&candidate) && !entry.is_removed() {
                candidates.push(candidate);
            }
            scanned = entry.seq;
        }
        (candidates, tail.until)
    }
}

impl SpaceIndex {
    /// Numbers of the topics that are wanted; `None` when all are.
    fn wanted(&self, wanted: &Wanted) -> Option<Vec<u32>> {
        let numbers: Vec<u32> = match wanted {
            Wanted::Everything => return None,
            Wanted::Topics(topics) => topics.iter().filter_map(|topic| self.topic_number(topic)).collect(),
            Wanted::Bloom { bloom, .. } => {
                let matches = |(number, topic): (usize, &super::index::TopicOrder)| {
                    bloom.matches(topic.topic).then_some(number as u32)
                };
                self.topics.iter().enumerate().filter_map(matches).collect()
            }
        };
        (numbers.len() < self.topics.len()).then_some(numbers)
    }

    /// Compares what a page costs: skipping over the unwanted, or finding the start of each wanted topic.
    fn walk_is_cheaper(&self, wanted: &[u32], count: usize) -> bool {
        let matching: usize = wanted.iter().map(|&number| self.topics[number as usize].order.len()).sum();
        if wanted.len() < 2 || matching == 0 {
            return false;
        }
        let steps = count.saturating_mul(self.by_position.len()) / matching;
        steps < STEPS_PER_SEEK * wanted.len()
    }

    /// The record with this id.
    pub(super) fn candidate_by_id(&self, id: &Hash) -> Option<Candidate> {
        let number = self.find(id)?;
        Some(self.candidate(&self.records[number]))
    }

    pub(super) fn candidate(&self, entry: &Entry) -> Candidate {
        let topic = self.topics[entry.topic as usize].topic;
        Candidate { position: entry.position, topic, seq: entry.seq, at: entry.at }
    }

    fn take<'a>(&self, walk: impl Iterator<Item = (u32, &'a Entry)>, count: usize) -> Vec<Candidate> {
        walk.take(count).map(|(_, entry)| self.candidate(entry)).collect()
    }

    /// The first `count` records of the wanted topics; `None` when they are not found within `budget` steps.
    fn skipping(
        &self,
        walk: Walk<'_>,
        wanted: &[u32],
        budget: usize,
        count: usize,
    ) -> Option<Vec<Candidate>> {
        let mut is_wanted = vec![false; self.topics.len()];
        for &number in wanted {
            is_wanted[number as usize] = true;
        }
        let mut candidates = Vec::new();
        for (steps, (_, entry)) in walk.enumerate() {
            if steps == budget {
                return None;
            }
            if is_wanted[entry.topic as usize] {
                candidates.push(self.candidate(entry));
                if candidates.len() == count {
                    break;
                }
            }
        }
        Some(candidates)
    }
}

/// Several walks as one, in order.
struct Merge<'a> {
    walks: Vec<Walk<'a>>,
    heads: BinaryHeap<Head<'a>>,
    descending: bool,
}

impl<'a> Merge<'a> {
    fn new(walks: impl Iterator<Item = Walk<'a>>, descending: bool) -> Self {
        let mut merge = Self { walks: Vec::new(), heads: BinaryHeap::new(), descending };
        for mut walk in walks {
            let head = walk.next();
            merge.push_head(head, merge.walks.len());
            if head.is_some() {
                merge.walks.push(walk);
            }
        }
        merge
    }

    fn push_head(&mut self, head: Option<(u32, &'a Entry)>, walk: usize) {
        if let Some((number, entry)) = head {
            self.heads.push(Head { number, entry, walk, descending: self.descending });
        }
    }
}

impl<'a> Iterator for Merge<'a> {
    type Item = (u32, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.heads.pop()?;
        let following = self.walks[head.walk].next();
        self.push_head(following, head.walk);
        Some((head.number, head.entry))
    }
}

/// The next record of one walk; the greatest is the one that comes first.
struct Head<'a> {
    number: u32,
    entry: &'a Entry,
    walk: usize,
    descending: bool,
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.entry.position.cmp(&other.entry.position);
        if self.descending { order } else { order.reverse() }
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Derived, Position, Space};

    fn topic(number: u32) -> Topic {
        Topic(number.to_be_bytes())
    }

    /// 40,000 records of 1,000 topics, one a second; topics 0 to 9 only among the last 5,000.
    fn index() -> Index {
        let mut index = Index::default();
        for n in 0..40_000_u32 {
            let number = if n < 35_000 { 10 + n % 990 } else { n % 10 };
            let position = Position { time_ns: i64::from(n) * 1_000_000_000, id: Hash::of(&n.to_be_bytes()) };
            let at = FrameAt { segment: 1, offset: n, payload_bytes: 100 };
            let seq = u64::from(n) + 1;
            assert!(index.insert(Space::Waku1, Derived { position, topic: topic(number) }, seq, at));
        }
        index
    }

    fn question(wanted: Wanted, descending: bool) -> Question {
        let bounds = Bounds {
            low: Position::first_of(i64::MIN),
            low_included: true,
            high: Position::last_of(i64::MAX),
            high_included: true,
        };
        Question { space: Space::Waku1, bounds, descending, wanted }
    }

    #[test]
    fn a_walk_that_skips_and_a_merge_give_the_same_page() {
        let index = index();
        let space = index.space(Space::Waku1).unwrap();
        let topics: Vec<Topic> = (0..10).map(topic).collect();
        let wanted: Vec<u32> = topics.iter().map(|topic| space.topic_number(topic).unwrap()).collect();
        assert!(space.walk_is_cheaper(&wanted, 10), "by the estimate, which is wrong here");
        for descending in [false, true] {
            let question = question(Wanted::Topics(topics.clone()), descending);
            let times = |candidates: Vec<Candidate>| -> Vec<i64> {
                candidates.iter().map(|one| one.position.time_ns / 1_000_000_000).collect()
            };
            let walk = Walk::new(&space.by_position, &space.records, question.bounds, descending);
            let skipping = space.skipping(walk, &wanted, usize::MAX, 10).unwrap();
            let expected: Vec<i64> =
                if descending { (39_990..40_000).rev().collect() } else { (35_000..35_010).collect() };
            assert_eq!(times(skipping), expected);
            assert_eq!(
                times(index.select(&question, question.bounds, 10)),
                expected,
                "descending: {descending}"
            );
        }
    }

    #[test]
    fn a_walk_gives_up_when_what_is_wanted_is_far_away() {
        let index = index();
        let space = index.space(Space::Waku1).unwrap();
        let bounds = question(Wanted::Everything, false).bounds;
        let walk = || Walk::new(&space.by_position, &space.records, bounds, false);
        let wanted = [space.topic_number(&topic(3)).unwrap()];
        assert!(space.skipping(walk(), &wanted, 1000, 10).is_none());
        assert!(space.skipping(walk(), &wanted, 40_000, 10).is_some());
    }

    #[test]
    fn a_tail_that_finds_little_comes_back_in_between() {
        let mut index = index();
        let space = Space::Waku1;
        for n in 40_000..100_000_u32 {
            let position = Position { time_ns: 0, id: Hash::of(&n.to_be_bytes()) };
            let at = FrameAt { segment: 1, offset: n, payload_bytes: 100 };
            index.insert(space, Derived { position, topic: topic(20) }, u64::from(n) + 1, at);
        }
        let tail = |after| TailQuestion {
            space,
            after,
            until: 200_000,
            topics: Some(Arc::new(std::collections::HashSet::from([topic(3)]))),
            floor_ns: i64::MIN,
        };
        let (candidates, scanned) = index.select_tail(&tail(0), 1000);
        assert_eq!((candidates.len(), scanned), (500, TAIL_STEPS as u64));
        let (candidates, scanned) = index.select_tail(&tail(scanned), 1000);
        assert_eq!((candidates.len(), scanned), (0, 200_000));
    }

    #[test]
    fn an_index_entry_is_small() {
        assert!(size_of::<Entry>() <= 72, "{} bytes", size_of::<Entry>());
    }
}
