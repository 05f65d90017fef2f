//! Which topics a space has had, and on which days: what a bloom question is matched against before any index file
//! is opened. It may name a topic that a range does not have, and never lacks one that it has (J9).

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use poste_wire::{Bloom, Topic};

/// When records of a topic were created, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicSpan {
    /// No record was created before this day; days since 1970.
    pub(super) first_day: i32,
    /// Nor behind this one.
    pub(super) last_day: i32,
    /// How many records; an estimate once older ones were retired.
    pub(super) records: u64,
}

impl TopicSpan {
    /// Both together.
    fn with(self, other: Self) -> Self {
        Self {
            first_day: self.first_day.min(other.first_day),
            last_day: self.last_day.max(other.last_day),
            records: self.records.saturating_add(other.records),
        }
    }
}

/// The day of a creation time, as days since 1970.
pub(super) fn day_of(time_ns: i64) -> i32 {
    const DAY_NS: i64 = 86_400 * 1_000_000_000;
    time_ns.div_euclid(DAY_NS) as i32
}

/// The distinct topics of one space; 24 bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DistinctTopics {
    /// Sorted by topic, each once.
    spans: Vec<(Topic, TopicSpan)>,
}

impl DistinctTopics {
    /// What was kept elsewhere, in any order.
    pub(super) fn from_spans(mut spans: Vec<(Topic, TopicSpan)>) -> Self {
        spans.sort_unstable_by_key(|(topic, _)| *topic);
        spans.dedup_by(|(topic, span), (kept, kept_span)| {
            let same = topic == kept;
            if same {
                *kept_span = kept_span.with(*span);
            }
            same
        });
        spans.shrink_to_fit();
        Self { spans }
    }

    /// Takes in a segment that has records of these days, with how many it has of each topic. Returns the spans of
    /// its topics as they are now, sorted.
    pub(super) fn add_segment(
        &mut self,
        days: RangeInclusive<i32>,
        topics: impl IntoIterator<Item = (Topic, u64)>,
    ) -> Vec<(Topic, TopicSpan)> {
        let span = |records| TopicSpan { first_day: *days.start(), last_day: *days.end(), records };
        let added = topics.into_iter().map(|(topic, records)| (topic, span(records))).collect();
        let mut added = Self::from_spans(added).spans;
        let mut new = 0;
        for (topic, span) in &mut added {
            match self.find(*topic) {
                Ok(at) => {
                    let known = &mut self.spans[at].1;
                    *known = known.with(*span);
                    *span = *known;
                }
                Err(_) => new += 1,
            }
        }
        if new > 0 {
            self.insert(&added, new);
        }
        added
    }

    /// Forgets what was before this day, as far as that is known. Returns whether anything has changed.
    pub(super) fn retire(&mut self, floor_day: i32) -> bool {
        let mut changed = false;
        self.spans.retain_mut(|(_, span)| {
            if span.first_day >= floor_day {
                return true;
            }
            changed = true;
            if span.last_day < floor_day {
                return false;
            }
            // As if they had come evenly: what the numbers are for is to compare costs.
            let days = |first: i32| u128::from(span.last_day.abs_diff(first)) + 1;
            let left = u128::from(span.records) * days(floor_day) / days(span.first_day);
            span.records = u64::try_from(left).unwrap_or(u64::MAX).max(1);
            span.first_day = floor_day;
            true
        });
        changed
    }

    /// The topics that pass a filter and may have records on these days, sorted.
    pub(super) fn matching(&self, bloom: &Bloom, days: RangeInclusive<i32>) -> Vec<Topic> {
        let (first_day, last_day) = days.into_inner();
        let mut matching = Vec::new();
        // Every topic is written and only the matching stay: a branch that nobody can foretell would cost twice as much.
        let mut some = [Topic::default(); 256];
        for spans in self.spans.chunks(some.len()) {
            let mut count = 0;
            for (topic, span) in spans {
                some[count] = *topic;
                let meets = (span.first_day <= last_day) & (span.last_day >= first_day);
                count += usize::from(meets & bloom.matches(*topic));
            }
            matching.extend_from_slice(&some[..count]);
        }
        matching
    }

    /// Whether there are or were records of a topic.
    pub(super) fn contains(&self, topic: Topic) -> bool {
        self.find(topic).is_ok()
    }

    /// How many topics there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Every topic, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Topic, TopicSpan)> {
        self.spans.iter().copied()
    }

    fn find(&self, topic: Topic) -> Result<usize, usize> {
        self.spans.binary_search_by_key(&topic, |(topic, _)| *topic)
    }

    /// Merges in what is `new` of `added`, from behind, so that each span moves once.
    fn insert(&mut self, added: &[(Topic, TopicSpan)], new: usize) {
        let mut from = self.spans.len();
        let mut to = from + new;
        let Some(last) = added.last() else { return };
        self.spans.resize(to, *last);
        for (topic, span) in added.iter().rev() {
            while from > 0 && self.spans[from - 1].0 > *topic {
                (from, to) = (from - 1, to - 1);
                self.spans[to] = self.spans[from];
            }
            if from == 0 || self.spans[from - 1].0 != *topic {
                to -= 1;
                self.spans[to] = (*topic, *span);
            }
        }
    }
}
