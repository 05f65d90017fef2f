//! What must outlive the process.

use std::sync::Arc;
use std::time::Duration;

use poste_wire::{Bloom, Hash};
use rand::RngExt;
use rand::rngs::StdRng;

use super::retention::lenient;
use super::walks::{Walk, filters, record, topic};
use super::{
    Hooks, START, append, append_to, complete_page, everything, fill, follow, look_up, mended, one_page,
    seconds, seeded, tail_after,
};
use crate::record::{Record, Refusal, Space};
use crate::store::{
    ArchiveStore, Direction, Filter, Lane, NewRecord, Outcome, Page, Query, Retentions, SpaceStats,
    TailQuery, WriterId,
};

const RECORDS: u32 = 600;

/// J6: answers to many questions, before and after.
pub(crate) async fn j6_what_is_derived_comes_back_equal<S, A, O, R, D>(hooks: &Hooks<O, R, D>)
where
    S: ArchiveStore,
    O: Fn() -> (S, A),
    R: AsyncFn(S, &A) -> S,
    D: Fn(&A, &mut StdRng),
{
    let mut random = seeded();
    let (mut store, alive) = (hooks.open)();
    for round in 0..8 {
        fill(&store, (round * RECORDS..(round + 1) * RECORDS).map(record)).await;
        store.retire(Space::Waku1, seconds(START + round * RECORDS / 2)).await.unwrap();
        let before = Answers::of(&store).await;
        assert!(before.arrived.len() > 100);
        store.close().await.unwrap();
        (hooks.disturb)(&alive, &mut random);
        (store, _) = hooks.reopened_as_is(store, &alive, &mut random).await;
        before.check(&Answers::of(&store).await);
        mended(&store).await;
        let duplicates = append(
            &store,
            vec![NewRecord {
                space: Space::Waku1,
                body: before.arrived[random.random_range(0..before.arrived.len())].body.clone(),
            }],
        )
        .await;
        assert_eq!(duplicates, [Outcome::Duplicate]);
    }
}

struct Answers {
    pages: Vec<Page>,
    arrived: Vec<Record>,
    arrived_of_topic: Vec<Record>,
    looked_up: Vec<Option<Record>>,
    head: u64,
    retired_seq: u64,
    spaces: Vec<SpaceStats>,
}

impl Answers {
    async fn of(store: &dyn ArchiveStore) -> Self {
        let mut pages = Vec::new();
        for direction in [Direction::Ascending, Direction::Descending] {
            for filter in filters() {
                let query = Query { filter, direction, ..one_page() };
                pages.push(complete_page(store, &query).await);
            }
        }
        let arrived = follow(store, tail_after(0)).await;
        let topics = Some(Arc::new([topic(1), topic(4)].into()));
        let arrived_of_topic = follow(store, TailQuery { topics, ..tail_after(0) }).await;
        let ids: Vec<Hash> = (0..RECORDS).map(|n| Hash::of(&record(n).body)).collect();
        Self {
            pages,
            arrived,
            arrived_of_topic,
            looked_up: look_up(store, &ids, true).await,
            head: *store.head().borrow(),
            retired_seq: store.retired_seq(),
            spaces: store.stats().await.unwrap().spaces,
        }
    }

    fn check(&self, after: &Self) {
        assert!(self.pages == after.pages);
        assert!(self.arrived == after.arrived);
        assert!(self.arrived_of_topic == after.arrived_of_topic);
        assert!(self.looked_up == after.looked_up);
        assert!(self.head <= after.head && self.retired_seq <= after.retired_seq);
        // What waits below the floor for its file to be removed may have gone meanwhile.
        let kept = |spaces: &[SpaceStats]| -> Vec<_> {
            spaces.iter().map(|space| (space.space, space.newest_ns, space.floor_ns)).collect()
        };
        assert_eq!(kept(&self.spaces), kept(&after.spaces));
        assert!(self.spaces.iter().zip(&after.spaces).all(|(before, after)| after.records <= before.records));
    }
}

pub(crate) async fn j7_a_floor_outlives_the_store<S, A, O, R, D>(hooks: &Hooks<O, R, D>)
where
    S: ArchiveStore,
    O: Fn() -> (S, A),
    R: AsyncFn(S, &A) -> S,
    D: Fn(&A, &mut StdRng),
{
    let mut random = seeded();
    let (mut store, alive) = (hooks.open)();
    // A floor of a store that holds nothing is a floor too.
    let floor_ns = seconds(START);
    store.retire(Space::Waku1, floor_ns).await.unwrap();
    store = hooks.reopened(store, &alive, &mut random).await;
    assert_eq!(store.page(everything()).await.unwrap().floor_ns, Some(floor_ns));
    fill(&store, (0..RECORDS).map(record)).await;
    let known = store.page(one_page()).await.unwrap().records;
    for time in [START + 50, START + 300, START + RECORDS] {
        let floor_ns = seconds(time);
        store.retire(Space::Waku1, floor_ns).await.unwrap();
        let retired_seq = store.retired_seq();
        store = hooks.reopened(store, &alive, &mut random).await;
        let page = store.page(one_page()).await.unwrap();
        let (gone, kept): (Vec<_>, Vec<_>) =
            known.iter().cloned().partition(|record| record.position.time_ns < floor_ns);
        assert_eq!((page.records == kept, page.floor_ns), (true, Some(floor_ns)));
        assert!(store.retired_seq() >= retired_seq);
        assert_eq!(store.retire(Space::Waku1, floor_ns - 1).await.unwrap().floor_ns, Some(floor_ns));
        let again = NewRecord { space: Space::Waku1, body: gone[gone.len() / 2].body.clone() };
        for lane in [Lane::Live, Lane::Imported] {
            let outcomes = append_to(&store, vec![again.clone()], lane).await;
            assert_eq!(outcomes, [Outcome::Refused(Refusal::BelowFloor)]);
        }
    }
}

/// Cursors are good for ever: each page may be of another life of the store.
pub(crate) async fn j8_walks_go_on_over_reopens<S, A, O, R, D>(hooks: &Hooks<O, R, D>)
where
    S: ArchiveStore,
    O: Fn() -> (S, A),
    R: AsyncFn(S, &A) -> S,
    D: Fn(&A, &mut StdRng),
{
    let mut random = seeded();
    let (mut store, alive) = (hooks.open)();
    fill(&store, (0..RECORDS).map(record)).await;
    let (mut next, mut wanted) = (RECORDS, 0);
    for direction in [Direction::Ascending, Direction::Descending] {
        let dense = Filter::Bloom(Box::new(Bloom::of_topics([topic(0), topic(1), topic(5)])));
        for filter in [Filter::Everything, Filter::Topics(vec![topic(2), topic(3)]), dense] {
            let query = Query { direction, filter, max_records: 61, ..everything() };
            let mut walk = Walk::begin(&store, query).await;
            while walk.go_on(&store).await {
                append(&store, (next..next + 20).map(record).collect()).await;
                next += 20;
                store.retire(Space::Waku1, seconds(START + next - RECORDS)).await.unwrap();
                store = hooks.reopened(store, &alive, &mut random).await;
            }
            wanted += walk.end();
        }
    }
    assert!(wanted > RECORDS as usize, "only {wanted} records had to be there");
}

/// So are tokens: a reader in order of arrival misses nothing, or is told.
pub(crate) async fn tails_go_on_over_reopens<S, A, O, R, D>(hooks: &Hooks<O, R, D>)
where
    S: ArchiveStore,
    O: Fn() -> (S, A),
    R: AsyncFn(S, &A) -> S,
    D: Fn(&A, &mut StdRng),
{
    let mut random = seeded();
    let (mut store, alive) = (hooks.open)();
    let (mut after, mut arrived, mut told) = (0, Vec::new(), 0);
    for first in (0..RECORDS).step_by(50) {
        let lane = if first % 150 == 0 { Lane::Imported } else { Lane::Live };
        let outcomes = append_to(&store, (first..first + 50).map(record).collect(), lane).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
        let page = store.tail(TailQuery { max_records: 40, ..tail_after(after) }).await.unwrap();
        after = page.scanned;
        arrived.extend(page.records);
        store = hooks.reopened(store, &alive, &mut random).await;
        assert!(*store.head().borrow() >= after, "the token is of a time to come");
    }
    assert_eq!(store.retired_seq(), 0);
    let rest = follow(&store, TailQuery { max_records: 40, ..tail_after(after) }).await;
    let bodies: Vec<_> = arrived.iter().chain(&rest).map(|record| record.body.clone()).collect();
    assert!(bodies == (0..RECORDS).map(|n| record(n).body).collect::<Vec<_>>(), "each once, in its order");
    // The reader is away, and what it has not read retires: all of it in the end.
    for time in [START + RECORDS / 2, START + 2 * RECORDS] {
        store.retire(Space::Waku1, seconds(time)).await.unwrap();
        store = hooks.reopened(store, &alive, &mut random).await;
        let found = follow(&store, tail_after(after)).await;
        let gone = rest.iter().filter(|record| !found.contains(record)).map(|record| record.seq).max();
        assert!(store.retired_seq() >= gone.unwrap_or(0).max(told));
        told = store.retired_seq();
    }
    assert!(told > after, "the reader missed something");
    let outcomes = append(&store, vec![record(3 * RECORDS)]).await;
    assert_eq!(outcomes, [Outcome::Stored]);
    assert_eq!(follow(&store, tail_after(told)).await.len(), 1, "and goes on behind it");
}

pub(crate) async fn writers_are_away_after_a_reopen<S, A, O, R, D>(hooks: &Hooks<O, R, D>)
where
    S: ArchiveStore,
    O: Fn() -> (S, A),
    R: AsyncFn(S, &A) -> S,
    D: Fn(&A, &mut StdRng),
{
    let mut random = seeded();
    let (mut store, alive) = (hooks.open)();
    let ids: [WriterId; 4] = ["silent", "holding", "polite", "forgotten"].map(|id| id.parse().unwrap());
    store.writer_connected(&ids[0], seconds(5000), Duration::ZERO).await.unwrap();
    let holding = store.writer_connected(&ids[1], seconds(6000), Duration::ZERO).await.unwrap();
    store.writer_reports(&ids[1], holding, Some(seconds(4000))).await.unwrap();
    let polite = store.writer_connected(&ids[2], seconds(1000), Duration::ZERO).await.unwrap();
    store.writer_left(&ids[2], polite, true).await.unwrap();
    let forgotten = store.writer_connected(&ids[3], seconds(1000), Duration::ZERO).await.unwrap();
    store.writer_left(&ids[3], forgotten, false).await.unwrap();
    assert!(store.forget_writer(&ids[3]).await.unwrap());
    for _ in 0..3 {
        store = hooks.reopened(store, &alive, &mut random).await;
        let known: Vec<_> =
            store.writers().await.unwrap().into_iter().map(|w| (w.writer, w.connected)).collect();
        assert_eq!(known, [(ids[1].clone(), false), (ids[0].clone(), false)]);
        let until_ns = store.page(everything()).await.unwrap().complete_until_ns.unwrap();
        assert!((seconds(4000 - 120)..=seconds(4000)).contains(&until_ns), "{until_ns}");
    }
    let back = store.writer_connected(&ids[1], seconds(7000), Duration::ZERO).await.unwrap();
    store.writer_reports(&ids[1], back, None).await.unwrap();
    let until_ns = store.page(everything()).await.unwrap().complete_until_ns;
    assert_eq!(until_ns, Some(seconds(5000)), "the silent one is still away");
    assert!(store.forget_writer(&ids[0]).await.unwrap());
    store.writer_left(&ids[1], back, true).await.unwrap();
    store = hooks.reopened(store, &alive, &mut random).await;
    assert_eq!(store.writers().await.unwrap(), []);
    assert_eq!(store.page(everything()).await.unwrap().complete_until_ns, None);
}

pub(crate) async fn what_an_operator_sets_of_retention_outlives_the_store<S, A, O, R, D>(
    hooks: &Hooks<O, R, D>,
) where
    S: ArchiveStore,
    O: Fn() -> (S, A),
    R: AsyncFn(S, &A) -> S,
    D: Fn(&A, &mut StdRng),
{
    let mut random = seeded();
    let (mut store, alive) = (hooks.open)();
    let untold = store.retention();
    store.set_retention(lenient(100), false).await.unwrap();
    for years in [200, 300] {
        store.set_retention(lenient(years), true).await.unwrap();
        store = hooks.reopened(store, &alive, &mut random).await;
        assert_eq!(store.retention(), Retentions { overridden: Some(lenient(years)), ..untold });
    }
    store.reset_retention().await.unwrap();
    store = hooks.reopened(store, &alive, &mut random).await;
    assert_eq!(store.retention(), untold);
}
