//! Which records make a page: the cost follows the answer. A question by topics merges the walks of those
//! topics; a bloom filter is matched against the distinct topics first. Where the wanted topics hold a good
//! part of all records, a walk by time that skips the others is cheaper; both give the same answer.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::ops::ControlFlow;

use poste_journal::FrameAt;
use poste_wire::{Hash, Topic};

use super::index::{Entry, Index, SpaceIndex};
use super::order::{Bounds, Walk};
use crate::record::Position;
use crate::store::{Direction, Filter, Query, TailQuery};

/// A record that was chosen; its body is still on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    pub(super) number: u32,
    pub(super) position: Position,
    pub(super) topic: Topic,
    pub(super) seq: u64,
    pub(super) at: FrameAt,
}

/// The records of a page, without their bodies.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) chosen: Vec<Chosen>,
    /// The last one, if more would follow it.
    pub(super) next: Option<Position>,
}

/// How many records of a walk by time are skipped for what the merge of one topic costs to begin with.
const STEPS_PER_SEEK: usize = 20;
/// Records that one question by order of arrival looks at while it holds the index.
const TAIL_STEPS: usize = 50_000;

impl Index {
    /// The records of a page.
    pub(super) fn select(&self, query: &Query) -> Selection {
        let (Some(space), Some(bounds)) = (self.space(query.space), bounds(query)) else {
            return Selection::default();
        };
        let descending = query.direction == Direction::Descending;
        let walk = |order| Walk::new(order, &space.records, bounds, descending);
        let fill = Fill::new(space, query.max_records, query.max_bytes);
        let Some(wanted) = space.wanted(&query.filter) else {
            return fill.all_of(walk(&space.by_position));
        };
        if space.walk_is_cheaper(&wanted, query.max_records) {
            let budget = 4 * STEPS_PER_SEEK * wanted.len() + 4 * query.max_records;
            if let Some(selection) = fill.clone().skipping(walk(&space.by_position), &wanted, budget) {
                return selection;
            }
        }
        match wanted.as_slice() {
            [one] => fill.all_of(walk(&space.topics[*one as usize].order)),
            many => {
                let walks = many.iter().map(|&number| walk(&space.topics[number as usize].order));
                fill.all_of(Merge::new(walks, descending))
            }
        }
    }

    /// Records in order of arrival, and the seq up to which everything was looked at.
    pub(super) fn select_tail(&self, query: &TailQuery) -> (Vec<Chosen>, u64) {
        let end = query.until.unwrap_or(u64::MAX).min(self.head).max(query.after);
        let Some(space) = self.space(query.space) else { return (Vec::new(), end) };
        let mut fill = Fill::new(space, query.max_records, query.max_bytes);
        let mut scanned = query.after;
        if query.topics.as_ref().is_some_and(|topics| topics.is_empty()) {
            return (Vec::new(), end);
        }
        let first = space.records.first_behind(query.after);
        for (steps, number) in (first..space.records.len() as u32).enumerate() {
            let entry = &space.records[number];
            if entry.seq > end {
                break;
            }
            if steps == TAIL_STEPS {
                return (fill.selection.chosen, scanned);
            }
            let topic = &space.topics[entry.topic as usize].topic;
            let wanted = query.topics.as_ref().is_none_or(|topics| topics.contains(topic));
            if wanted && !entry.is_removed() && fill.offer(number, entry).is_break() {
                return (fill.selection.chosen, scanned);
            }
            scanned = entry.seq;
        }
        (fill.selection.chosen, end)
    }
}

impl SpaceIndex {
    /// Numbers of the topics that a filter wants; `None` when it wants all.
    fn wanted(&self, filter: &Filter) -> Option<Vec<u32>> {
        let wanted: Vec<u32> = match filter {
            Filter::Everything => return None,
            Filter::Topics(topics) => {
                let numbers: HashSet<u32> =
                    topics.iter().filter_map(|topic| self.topic_number(topic)).collect();
                numbers.into_iter().collect()
            }
            Filter::Bloom(bloom) => {
                let matches = |(number, topic): (usize, &super::index::TopicOrder)| {
                    bloom.matches(topic.topic).then_some(number as u32)
                };
                self.topics.iter().enumerate().filter_map(matches).collect()
            }
        };
        (wanted.len() < self.topics.len()).then_some(wanted)
    }

    /// Compares what a page costs: skipping over the unwanted, or finding the start of each wanted topic.
    fn walk_is_cheaper(&self, wanted: &[u32], page: usize) -> bool {
        let matching: usize = wanted.iter().map(|&number| self.topics[number as usize].order.len()).sum();
        if wanted.len() < 2 || matching == 0 {
            return false;
        }
        let steps = page.saturating_mul(self.by_position.len()) / matching;
        steps < STEPS_PER_SEEK * wanted.len()
    }

    /// The record with this id.
    pub(super) fn chosen_by_id(&self, id: &Hash) -> Option<Chosen> {
        let number = self.find(id)?;
        Some(self.chosen(number, &self.records[number]))
    }

    fn chosen(&self, number: u32, entry: &Entry) -> Chosen {
        let topic = self.topics[entry.topic as usize].topic;
        Chosen { number, position: entry.position, topic, seq: entry.seq, at: entry.at }
    }
}

/// The range of positions that a question and its cursor leave; `None` when nothing can be in it.
fn bounds(query: &Query) -> Option<Bounds> {
    let mut bounds = Bounds {
        low: Position::first_of(query.from_ns),
        low_included: true,
        high: Position::last_of(query.to_ns),
        high_included: true,
    };
    match (query.cursor, query.direction) {
        (Some(cursor), Direction::Ascending) if cursor >= bounds.low => {
            (bounds.low, bounds.low_included) = (cursor, false);
        }
        (Some(cursor), Direction::Descending) if cursor <= bounds.high => {
            (bounds.high, bounds.high_included) = (cursor, false);
        }
        _ => {}
    }
    (bounds.low <= bounds.high).then_some(bounds)
}

/// Takes records until a limit is met.
#[derive(Debug, Clone)]
struct Fill<'a> {
    space: &'a SpaceIndex,
    max_records: usize,
    bytes_left: usize,
    selection: Selection,
}

impl<'a> Fill<'a> {
    fn new(space: &'a SpaceIndex, max_records: usize, max_bytes: usize) -> Self {
        Self { space, max_records, bytes_left: max_bytes, selection: Selection::default() }
    }

    /// Takes a record, or breaks because the page is full and this one would follow it.
    fn offer(&mut self, number: u32, entry: &Entry) -> ControlFlow<()> {
        let bytes = self.space.body_bytes(entry);
        let chosen = &mut self.selection.chosen;
        if let Some(last) = chosen.last()
            && (chosen.len() >= self.max_records || bytes > self.bytes_left)
        {
            self.selection.next = Some(last.position);
            return ControlFlow::Break(());
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        chosen.push(self.space.chosen(number, entry));
        ControlFlow::Continue(())
    }

    fn all_of(mut self, mut walk: impl Iterator<Item = (u32, &'a Entry)>) -> Selection {
        let _ = walk.try_for_each(|(number, entry)| self.offer(number, entry));
        self.selection
    }

    /// As [`Fill::all_of`], taking only records of the wanted topics; `None` when the page is not complete
    /// within `budget` steps.
    fn skipping(mut self, walk: Walk<'a>, wanted: &[u32], budget: usize) -> Option<Selection> {
        let mut is_wanted = vec![false; self.space.topics.len()];
        for &number in wanted {
            is_wanted[number as usize] = true;
        }
        for (steps, (number, entry)) in walk.enumerate() {
            if steps == budget {
                return None;
            }
            if is_wanted[entry.topic as usize] && self.offer(number, entry).is_break() {
                break;
            }
        }
        Some(self.selection)
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
    use super::*;
    use crate::record::{Derived, Space};

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

    fn query(filter: Filter, direction: Direction) -> Query {
        let (space, from_ns, to_ns) = (Space::Waku1, i64::MIN, i64::MAX);
        Query { space, from_ns, to_ns, filter, direction, max_records: 10, max_bytes: 1 << 20, cursor: None }
    }

    #[test]
    fn a_walk_that_skips_and_a_merge_give_the_same_page() {
        let index = index();
        let space = index.space(Space::Waku1).unwrap();
        let topics: Vec<Topic> = (0..10).map(topic).collect();
        let wanted: Vec<u32> = topics.iter().map(|topic| space.topic_number(topic).unwrap()).collect();
        assert!(space.walk_is_cheaper(&wanted, 10), "by the estimate, which is wrong here");
        for direction in [Direction::Ascending, Direction::Descending] {
            let query = query(Filter::Topics(topics.clone()), direction);
            let times = |selection: Selection| -> Vec<i64> {
                selection.chosen.iter().map(|one| one.position.time_ns / 1_000_000_000).collect()
            };
            let descending = direction == Direction::Descending;
            let walk = Walk::new(&space.by_position, &space.records, bounds(&query).unwrap(), descending);
            let skipping = Fill::new(space, 10, 1 << 20).skipping(walk, &wanted, usize::MAX).unwrap();
            let expected: Vec<i64> =
                if descending { (39_990..40_000).rev().collect() } else { (35_000..35_010).collect() };
            assert_eq!(times(skipping), expected);
            assert_eq!(times(index.select(&query)), expected, "{direction:?}");
        }
    }

    #[test]
    fn a_walk_gives_up_when_what_is_wanted_is_far_away() {
        let index = index();
        let space = index.space(Space::Waku1).unwrap();
        let bounds = bounds(&query(Filter::Everything, Direction::Ascending)).unwrap();
        let walk = || Walk::new(&space.by_position, &space.records, bounds, false);
        let wanted = [space.topic_number(&topic(3)).unwrap()];
        let fill = Fill::new(space, 10, 1 << 20);
        assert!(fill.clone().skipping(walk(), &wanted, 1000).is_none());
        assert!(fill.skipping(walk(), &wanted, 40_000).is_some());
    }

    #[test]
    fn a_tail_that_finds_little_comes_back_in_between() {
        let mut index = index();
        let topics = Some(std::sync::Arc::new(HashSet::from([topic(3)])));
        let space = Space::Waku1;
        for n in 40_000..100_000_u32 {
            let position = Position { time_ns: 0, id: Hash::of(&n.to_be_bytes()) };
            let at = FrameAt { segment: 1, offset: n, payload_bytes: 100 };
            index.insert(space, Derived { position, topic: topic(20) }, u64::from(n) + 1, at);
        }
        let query = |after| TailQuery {
            space,
            after,
            until: None,
            topics: topics.clone(),
            max_records: 1000,
            max_bytes: 1 << 20,
        };
        let (chosen, scanned) = index.select_tail(&query(0));
        assert_eq!((chosen.len(), scanned), (500, TAIL_STEPS as u64));
        let (chosen, scanned) = index.select_tail(&query(scanned));
        assert_eq!((chosen.len(), scanned), (0, 100_000));
    }

    #[test]
    fn an_index_entry_is_small() {
        assert!(size_of::<Entry>() <= 72, "{} bytes", size_of::<Entry>());
    }
}
