//! What an archive is, in the simplest words.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use poste_wire::{Hash, Topic};

use super::PATIENCE;
use super::writers::ModelWriters;
use crate::record::{Position, Record};
use crate::store::{ArchiveStore, Direction, Page, Query, SpaceStats, StoreStats, TailQuery, Writable};

/// An ordered map of all that is answerable, and a list of all that ever was.
#[derive(Default)]
pub(super) struct Model {
    pub(super) by_position: BTreeMap<Position, Record>,
    pub(super) by_arrival: Vec<Record>,
    /// The highest seq that the store may have given.
    pub(super) head: u64,
    pub(super) floor_ns: Option<i64>,
    pub(super) writers: ModelWriters,
    /// What the store last said; it never sinks.
    retired_seq: u64,
    /// Something was done to the store's files that may not have shown yet.
    pub(super) is_disturbed: bool,
}

impl Model {
    pub(super) fn is_below_floor(&self, time_ns: i64) -> bool {
        self.floor_ns.is_some_and(|floor_ns| time_ns < floor_ns)
    }

    pub(super) fn add(&mut self, record: Record) {
        assert!(record.seq > self.head, "{} behind {}", record.seq, self.head);
        self.head = record.seq;
        self.by_arrival.push(record.clone());
        self.by_position.insert(record.position, record);
    }

    pub(super) fn retire(&mut self, floor_ns: i64) {
        let floor_ns = self.floor_ns.map_or(floor_ns, |floor| floor.max(floor_ns));
        self.floor_ns = Some(floor_ns);
        self.by_position = self.by_position.split_off(&Position::first_of(floor_ns));
    }

    pub(super) fn page(&self, query: &Query) -> Page {
        let wanted = |record: &&Record| {
            let time_ns = record.position.time_ns;
            query.from_ns <= time_ns
                && time_ns <= query.to_ns
                && query.filter.matches(record.topic)
                && query.cursor.is_none_or(|cursor| match query.direction {
                    Direction::Ascending => record.position > cursor,
                    Direction::Descending => record.position < cursor,
                })
        };
        let mut records: Vec<&Record> = self.by_position.values().filter(wanted).collect();
        if query.direction == Direction::Descending {
            records.reverse();
        }
        let taken = fitting(&records, query.max_records, query.max_bytes);
        let next = (taken < records.len()).then(|| records[taken - 1].position);
        let records = records[..taken].iter().map(|&record| record.clone()).collect();
        let (complete_until_ns, floor_ns) = (self.writers.complete_until_ns(), self.floor_ns);
        Page { records, next, complete_until_ns, floor_ns, quarantined: 0 }
    }

    /// All that a tail gives in the end, however it is cut into pages.
    pub(super) fn tail(&self, query: &TailQuery) -> Vec<Record> {
        self.by_arrival
            .iter()
            .filter(|record| !self.is_below_floor(record.position.time_ns))
            .filter(|record| record.seq > query.after && record.seq <= query.until.unwrap_or(u64::MAX))
            .filter(|record| query.topics.as_ref().is_none_or(|topics| topics.contains(&record.topic)))
            .cloned()
            .collect()
    }

    pub(super) fn lookup(&self, id: Hash, with_bodies: bool) -> Option<Record> {
        let mut record = self.by_position.values().find(|record| record.position.id == id)?.clone();
        if !with_bodies {
            record.body.clear();
        }
        Some(record)
    }

    /// What is below the floor may still be counted; nothing else may be missing.
    pub(super) async fn check_stats(&self, store: &dyn ArchiveStore) {
        let least = summary(self.by_position.values());
        let stats = self.settled_stats(store, least.topics).await;
        assert_eq!(stats.writable, Some(Writable::Yes));
        assert_eq!((stats.quarantined, stats.quarantined_bytes, stats.indexing), (0, 0, None));
        assert_eq!(stats.seq, self.head);
        let Some(space) = stats.spaces.first() else {
            assert!(self.by_position.is_empty() && self.floor_ns.is_none());
            return;
        };
        assert_eq!(space.floor_ns, self.floor_ns);
        let most = summary(self.by_arrival.iter());
        assert!((least.records..=most.records).contains(&space.records), "{least:?} {space:?} {most:?}");
        assert!((least.bytes..=most.bytes).contains(&space.bytes), "{least:?} {space:?} {most:?}");
        assert!((least.topics..=most.topics).contains(&space.topics), "{least:?} {space:?} {most:?}");
        if let (Some(oldest_ns), Some(newest_ns)) = (least.oldest_ns, least.newest_ns) {
            let times = most.oldest_ns.unwrap()..=oldest_ns;
            assert!(times.contains(&space.oldest_ns.unwrap()), "{least:?} {space:?} {most:?}");
            assert_eq!(space.newest_ns, Some(newest_ns));
        }
    }

    /// A store that was opened again may have to make indexes anew, and to count topics.
    async fn settled_stats(&self, store: &dyn ArchiveStore, topics: u64) -> StoreStats {
        let begun = Instant::now();
        loop {
            let stats = store.stats().await.unwrap();
            let counted = stats.spaces.iter().all(|space| space.topics >= topics);
            if (stats.indexing.is_none() && counted) || begun.elapsed() > PATIENCE {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn check_retired_seq(&mut self, store: &dyn ArchiveStore) {
        let retired = self.by_arrival.iter().filter(|record| self.is_below_floor(record.position.time_ns));
        let least = retired.map(|record| record.seq).max().unwrap_or(0);
        let told = store.retired_seq();
        if least == 0 && self.retired_seq == 0 && !self.is_disturbed {
            assert_eq!(told, 0, "nothing was ever retired");
        }
        assert!(
            told >= least.max(self.retired_seq),
            "{told}, but was {} and {least} is gone",
            self.retired_seq
        );
        assert!(told <= self.head, "{told} is above the head {}", self.head);
        self.retired_seq = told;
    }
}

pub(super) fn fitting(records: &[&Record], max_records: usize, max_bytes: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |record: &&&Record| {
        bytes = bytes.saturating_add(record.body.len());
        bytes <= max_bytes
    };
    let count = records.iter().take(max_records).take_while(fits).count();
    count.max(1).min(records.len())
}

fn summary<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> SpaceStats {
    let times = records.clone().map(|record| record.position.time_ns);
    SpaceStats {
        space: crate::record::Space::Waku1,
        records: records.clone().count() as u64,
        bytes: records.clone().map(|record| record.body.len() as u64).sum(),
        topics: records.map(|record| record.topic).collect::<HashSet<Topic>>().len() as u64,
        oldest_ns: times.clone().min(),
        newest_ns: times.max(),
        floor_ns: None,
    }
}
