//! The distinct topics of a space in one file, each with its run of records.

use poste_wire::Topic;

/// The records of one topic, as a part of the section that is grouped by topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) struct Run {
    pub(super) first: u32,
    /// How many records the topic has; never 0.
    pub(in crate::local) count: u32,
}

/// Topics and their runs, sorted by topic.
#[derive(Debug)]
pub(in crate::local) struct TopicTable {
    /// With the place where the run begins; not empty.
    topics: Vec<(Topic, u32)>,
    records: u32,
}

impl TopicTable {
    /// `None` unless each topic is there once, in order, and each run has records and ends where the next begins.
    pub(super) fn new(topics: Vec<(Topic, u32)>, records: u32) -> Option<Self> {
        let (_, first) = topics.first()?;
        let (_, last) = topics.last()?;
        let ascends = |pair: &[(Topic, u32)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
        let good = *first == 0 && *last < records && topics.windows(2).all(ascends);
        good.then_some(Self { topics, records })
    }

    /// How many topics there are.
    pub(in crate::local) fn len(&self) -> usize {
        self.topics.len()
    }

    /// The records of a topic, if there are any.
    pub(in crate::local) fn find(&self, topic: &Topic) -> Option<Run> {
        let slot = self.topics.binary_search_by_key(topic, |(topic, _)| *topic).ok()?;
        Some(self.run(slot))
    }

    /// All topics in their order.
    pub(in crate::local) fn iter(&self) -> impl Iterator<Item = (Topic, Run)> {
        self.topics.iter().enumerate().map(|(slot, (topic, _))| (*topic, self.run(slot)))
    }

    fn run(&self, slot: usize) -> Run {
        let first = self.topics[slot].1;
        let end = self.topics.get(slot + 1).map_or(self.records, |(_, next)| *next);
        Run { first, count: end - first }
    }
}
