use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn span(first_day: i32, last_day: i32, records: u64) -> TopicSpan {
    TopicSpan { first_day, last_day, records }
}

fn span_of(topics: &DistinctTopics, topic: Topic) -> Option<TopicSpan> {
    topics.iter().find(|(other, _)| *other == topic).map(|(_, span)| span)
}

fn topic(n: u32) -> Topic {
    Topic(n.to_be_bytes())
}

#[test]
fn a_topic_takes_24_bytes() {
    assert_eq!(size_of::<(Topic, TopicSpan)>(), 24);
}

#[test]
fn days_begin_at_midnight_also_before_1970() {
    const DAY_NS: i64 = 86_400_000_000_000;
    for (time_ns, day) in [(0, 0), (DAY_NS - 1, 0), (DAY_NS, 1), (-1, -1), (-DAY_NS, -1), (-DAY_NS - 1, -2)] {
        assert_eq!(day_of(time_ns), day, "{time_ns}");
    }
    assert_eq!((day_of(i64::MIN), day_of(i64::MAX)), (-106_752, 106_751));
}

#[test]
fn a_segment_widens_what_is_known_and_tells_what_changed() {
    let mut topics = DistinctTopics::default();
    assert_eq!(
        topics.add_segment(5..=6, [(topic(3), 2), (topic(1), 1), (topic(3), 1)]),
        [(topic(1), span(5, 6, 1)), (topic(3), span(5, 6, 3)),]
    );
    assert_eq!(
        topics.add_segment(2..=5, [(topic(2), 7), (topic(3), 4)]),
        [(topic(2), span(2, 5, 7)), (topic(3), span(2, 6, 7)),]
    );
    assert_eq!(topics.len(), 3);
    assert!(topics.contains(topic(2)) && !topics.contains(topic(4)));
    assert_eq!((span_of(&topics, topic(3)), span_of(&topics, topic(4))), (Some(span(2, 6, 7)), None));
    assert_eq!(topics.matching(&Bloom::FULL, 2..=4), [topic(2), topic(3)]);
    assert_eq!(topics.matching(&Bloom::FULL, 7..=i32::MAX), []);
    assert_eq!(topics.matching(&Bloom::EMPTY, i32::MIN..=i32::MAX), []);
    assert_eq!(DistinctTopics::from_spans(topics.iter().collect()), topics);
    assert!(topics.add_segment(1..=1, []).is_empty());
}

#[test]
fn a_floor_takes_away_what_is_older() {
    let mut topics = DistinctTopics::default();
    topics.add_segment(0..=9, [(topic(1), 100)]);
    topics.add_segment(0..=3, [(topic(2), 1)]);
    topics.add_segment(8..=9, [(topic(3), 1)]);
    assert!(!topics.retire(0));
    assert!(topics.retire(7));
    assert!(!topics.retire(7));
    let left: Vec<_> = topics.iter().collect();
    assert_eq!(left, [(topic(1), span(7, 9, 30)), (topic(3), span(8, 9, 1))]);
    topics.add_segment(i32::MIN..=i32::MAX, [(topic(4), u64::MAX)]);
    topics.retire(i32::MAX);
    assert_eq!(topics.iter().collect::<Vec<_>>(), [(topic(4), span(i32::MAX, i32::MAX, u64::MAX >> 32))]);
}

/// A segment: its first day, more days, and for each record its topic and the day behind the first.
type Segment = (i32, Vec<(u16, u8)>);

proptest! {
    #[test]
    fn j9_the_distinct_topics_of_a_range_are_a_superset(
        segments in prop::collection::vec((-50..50i32, prop::collection::vec((0..300u16, 0..4u8), 1..80)), 0..12),
        days in (-60..60i32, 0..30i32),
        floor in prop::option::of(-60..60i32),
        filter: [u8; 64],
    ) {
        let segments: Vec<Segment> = segments;
        let days = days.0..=days.0 + days.1;
        // Topics that a dense filter tells apart, and that share first bytes.
        let topic = |n: u16| topic(u32::from(n).wrapping_mul(0x0101_4f2d));
        let bloom = Bloom(filter.map(|byte| byte | 0x5b));
        let mut topics = DistinctTopics::default();
        let mut true_days: BTreeMap<Topic, BTreeSet<i32>> = BTreeMap::new();
        for (first, records) in &segments {
            let day = |behind: u8| first + i32::from(behind);
            let mut counts: BTreeMap<Topic, u64> = BTreeMap::new();
            for (n, behind) in records {
                *counts.entry(topic(*n)).or_default() += 1;
                true_days.entry(topic(*n)).or_default().insert(day(*behind));
            }
            let last = records.iter().map(|(_, behind)| day(*behind)).max().unwrap();
            let low = records.iter().map(|(_, behind)| day(*behind)).min().unwrap();
            let changed = topics.add_segment(low..=last, counts.clone());
            prop_assert!(changed.iter().map(|(topic, _)| topic).eq(counts.keys()));
            for (topic, span) in changed {
                prop_assert_eq!(span_of(&topics, topic), Some(span));
            }
        }
        prop_assert_eq!(topics.len(), true_days.len());
        let records: u64 = topics.iter().map(|(_, span)| span.records).sum();
        prop_assert_eq!(records, segments.iter().map(|(_, records)| records.len() as u64).sum::<u64>());
        if let Some(floor) = floor {
            topics.retire(floor);
        }
        prop_assert!(topics.iter().is_sorted_by(|a, b| a.0 < b.0));
        let found = topics.matching(&bloom, days.clone());
        prop_assert!(found.is_sorted_by(|a, b| a < b));
        for (topic, on) in &true_days {
            let stored = |day: &i32| days.contains(day) && floor.is_none_or(|floor| *day >= floor);
            if bloom.matches(*topic) && on.iter().any(stored) {
                prop_assert!(found.binary_search(topic).is_ok(), "{} is missing", topic);
            }
        }
        prop_assert!(found.iter().all(|topic| bloom.matches(*topic) && topics.contains(*topic)));
    }
}
