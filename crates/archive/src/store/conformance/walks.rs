//! J8: a walk by pages gives every record that was answerable before its first page and is above the floor at its
//! last, once.

use std::collections::HashSet;
use std::sync::Arc;

use poste_wire::{Bloom, Topic};
use tokio::sync::Semaphore;

use super::{START, append_to, envelope, everything, fill, new_record, one_page, seconds, walk};
use crate::record::{Position, Record, Space};
use crate::store::{ArchiveStore, Direction, Filter, Lane, NewRecord, Outcome, Query};

/// About so many records are answerable at a time.
const POPULATION: u32 = 500;
const PAGES_OF: [usize; 6] = [1, 2, 3, 7, 37, 1000];

pub(super) fn topic(n: u32) -> Topic {
    Topic([n as u8 % 7, 2, n as u8 % 7 * 31, 9])
}

/// Records of a time that goes on by a second for each, somewhat out of order, every fifth much older.
pub(super) fn record(n: u32) -> NewRecord {
    let age = if n % 5 == 4 { n.wrapping_mul(2_654_435_761) % (POPULATION / 2) } else { n * 37 % 20 };
    new_record(&envelope(START + n - age.min(n), topic(n), &n.to_be_bytes()))
}

pub(super) fn filters() -> Vec<Filter> {
    let bloom = |topics: &[u32]| {
        Filter::Bloom(Box::new(Bloom::of_topics(topics.iter().map(|&number| topic(number)))))
    };
    vec![
        Filter::Everything,
        Filter::Topics(vec![topic(3)]),
        Filter::Topics(vec![topic(1), topic(2), Topic([9; 4]), topic(6)]),
        bloom(&[5]),
        bloom(&[0, 1, 2, 3]),
        Filter::Bloom(Box::new(Bloom::FULL)),
    ]
}

/// One walk that is going on, and what it must find.
pub(super) struct Walk {
    query: Query,
    before: Vec<Record>,
    found: Vec<Position>,
    floor_ns: Option<i64>,
}

impl Walk {
    pub(super) async fn begin(store: &dyn ArchiveStore, query: Query) -> Self {
        let at_once = Query { max_records: usize::MAX, max_bytes: usize::MAX, ..query.clone() };
        let page = store.page(at_once).await.unwrap();
        Self { query, before: page.records, found: Vec::new(), floor_ns: page.floor_ns }
    }

    /// Takes one page; false after the last one.
    pub(super) async fn go_on(&mut self, store: &dyn ArchiveStore) -> bool {
        let page = store.page(self.query.clone()).await.unwrap();
        assert!(page.records.len() <= self.query.max_records);
        assert!(page.records.iter().all(|record| self.query.filter.matches(record.topic)));
        assert!(page.floor_ns >= self.floor_ns, "{:?} after {:?}", page.floor_ns, self.floor_ns);
        self.found.extend(page.records.iter().map(|record| record.position));
        self.floor_ns = page.floor_ns;
        if page.next.is_some() {
            assert_eq!(page.next, self.found.last().copied());
            assert_ne!(page.next, self.query.cursor, "the walk stands still");
            self.query.cursor = page.next;
        }
        page.next.is_some()
    }

    /// Checks the whole of it. Returns how many records had to be there.
    pub(super) fn end(self) -> usize {
        let in_order = match self.query.direction {
            Direction::Ascending => self.found.is_sorted_by(|a, b| a < b),
            Direction::Descending => self.found.is_sorted_by(|a, b| a > b),
        };
        assert!(in_order, "out of order, or twice: {:?}", self.query);
        let found: HashSet<Position> = self.found.into_iter().collect();
        let kept = |record: &&Record| Some(record.position.time_ns) >= self.floor_ns;
        let wanted: Vec<&Record> = self.before.iter().filter(kept).collect();
        let missing = wanted.iter().filter(|record| !found.contains(&record.position)).count();
        assert_eq!(missing, 0, "of {} that had to be there: {:?}", wanted.len(), self.query);
        wanted.len()
    }
}

pub(crate) async fn j8_walks_by_pages_while_records_arrive_and_retire(store: Arc<dyn ArchiveStore>) {
    fill(store.as_ref(), (0..POPULATION).map(record)).await;
    // A page that is taken lets some records arrive and the oldest retire, at the same time as the next pages.
    let turns = Arc::new(Semaphore::new(0));
    let churn = tokio::spawn({
        let (store, turns) = (Arc::clone(&store), Arc::clone(&turns));
        async move {
            let mut next = POPULATION;
            while let Ok(turn) = turns.acquire_many(10).await {
                turn.forget();
                let lane = if next.is_multiple_of(4) { Lane::Imported } else { Lane::Live };
                let batch = (next..next + 5).map(record).collect();
                let outcomes = append_to(store.as_ref(), batch, lane).await;
                assert!(outcomes.contains(&Outcome::Stored));
                next += 5;
                store.retire(Space::Waku1, seconds(START + next - POPULATION)).await.unwrap();
            }
            next
        }
    });
    let mut wanted = 0;
    for max_records in PAGES_OF {
        for direction in [Direction::Ascending, Direction::Descending] {
            for filter in filters() {
                let query = Query { direction, filter, max_records, ..everything() };
                let mut walk = Walk::begin(store.as_ref(), query).await;
                while walk.go_on(store.as_ref()).await {
                    turns.add_permits(1 + max_records.min(100) / 5);
                }
                wanted += walk.end();
                turns.add_permits(10);
            }
        }
    }
    turns.close();
    let last = churn.await.unwrap();
    assert!(last > 2 * POPULATION, "only {last} records came: the walks were not disturbed");
    assert!(wanted > 1000, "only {wanted} records had to be there: nothing was tested");
    let walked = walk(store.as_ref(), Query { max_records: 37, ..everything() }).await;
    assert!(walked == store.page(one_page()).await.unwrap().records);
}
