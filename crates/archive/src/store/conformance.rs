//! What every store must do: a model test against an ordered map, and the promises by name. [`suite`] makes
//! the tests of one store from a function that opens an empty one (and whatever it needs to stay alive).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use poste_wire::{Bloom, Envelope, Hash, Topic};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{
    ArchiveStore, Direction, ErrorKind, Filter, Lane, NewRecord, Outcome, Page, Query, TailQuery, Writable,
};
use crate::record::{Position, Record, Space};

macro_rules! suite {
    ($open:path) => {
        #[tokio::test]
        async fn model() {
            $crate::store::conformance::model(|| $open()).await;
        }

        #[tokio::test]
        async fn j5_one_id_has_one_answer() {
            let (store, _alive) = $open();
            $crate::store::conformance::one_id_has_one_answer(&store).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn j8_walks_by_pages_while_records_arrive() {
            let (store, _alive) = $open();
            $crate::store::conformance::walks_while_records_arrive(std::sync::Arc::new(store)).await;
        }

        #[tokio::test]
        async fn a_large_record_makes_a_page_of_its_own() {
            let (store, _alive) = $open();
            $crate::store::conformance::large_record(&store).await;
        }

        #[tokio::test]
        async fn a_closed_store_takes_nothing() {
            let (store, _alive) = $open();
            $crate::store::conformance::closed(&store).await;
        }
    };
}
pub(crate) use suite;

pub(crate) fn envelope(sent: u32, topic: Topic, data: &[u8]) -> Envelope {
    Envelope::new(sent + 50, 50, topic, data, 1)
}

pub(crate) fn new_record(envelope: &Envelope) -> NewRecord {
    NewRecord { space: Space::Waku1, body: envelope.rlp().clone() }
}

pub(crate) fn everything() -> Query {
    Query {
        space: Space::Waku1,
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        filter: Filter::Everything,
        direction: Direction::Ascending,
        max_records: 1000,
        max_bytes: 2 * 1024 * 1024,
        cursor: None,
    }
}

pub(crate) async fn append(store: &dyn ArchiveStore, batch: Vec<NewRecord>) -> Vec<Outcome> {
    store.append(batch, Lane::Live).await.expect("the store is open").await
}

/// All records of a question, page by page.
pub(crate) async fn walk(store: &dyn ArchiveStore, mut query: Query) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let page = store.page(query.clone()).await.expect("the store answers");
        all.extend(page.records);
        match page.next {
            None => return all,
            Some(next) => {
                assert_eq!(Some(next), all.last().map(|record| record.position));
                query.cursor = Some(next);
            }
        }
    }
}

/// What an archive is, in the simplest words.
#[derive(Default)]
struct Model {
    by_position: BTreeMap<Position, Record>,
    by_arrival: Vec<Record>,
}

impl Model {
    fn page(&self, query: &Query) -> Page {
        let mut records: Vec<&Record> = self.by_position.values().collect();
        if query.direction == Direction::Descending {
            records.reverse();
        }
        records.retain(|record| {
            let position = record.position;
            let in_range = (query.from_ns..=query.to_ns).contains(&position.time_ns);
            let behind_cursor = match (query.cursor, query.direction) {
                (None, _) => true,
                (Some(cursor), Direction::Ascending) => position > cursor,
                (Some(cursor), Direction::Descending) => position < cursor,
            };
            let wanted = match &query.filter {
                Filter::Everything => true,
                Filter::Topics(topics) => topics.contains(&record.topic),
                Filter::Bloom(bloom) => bloom.covers(&Bloom::sample(record.topic)),
            };
            in_range && behind_cursor && wanted
        });
        let taken = fitting(&records, query.max_records, query.max_bytes);
        let next = (taken < records.len()).then(|| records[taken - 1].position);
        let records = records[..taken].iter().map(|&record| record.clone()).collect();
        Page { records, next, ..Page::default() }
    }

    fn tail(&self, query: &TailQuery) -> Vec<Record> {
        let wanted: Vec<&Record> = self
            .by_arrival
            .iter()
            .filter(|record| record.seq > query.after && record.seq <= query.until.unwrap_or(u64::MAX))
            .filter(|record| query.topics.as_ref().is_none_or(|topics| topics.contains(&record.topic)))
            .collect();
        let taken = fitting(&wanted, query.max_records, query.max_bytes);
        wanted[..taken].iter().map(|&record| record.clone()).collect()
    }
}

fn fitting(records: &[&Record], max_records: usize, max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |record: &&&Record| {
        bytes += record.body.len();
        bytes <= max_bytes
    };
    let count = records.iter().take(max_records).take_while(fits).count();
    count.max(1).min(records.len())
}

/// Random operations on the store and on the model; every answer must be equal.
pub(crate) async fn model<S: ArchiveStore, A>(open: impl Fn() -> (S, A)) {
    let first_seed = match std::env::var("POSTE_SEED") {
        Ok(seed) => seed.parse().expect("POSTE_SEED is a number"),
        Err(_) => u64::from(rand::rng().next_u32()),
    };
    let mut operations = 0;
    for seed in first_seed..first_seed + 6 {
        println!("POSTE_SEED={seed}");
        let (store, _alive) = open();
        operations += run(&store, &mut StdRng::seed_from_u64(seed)).await;
    }
    println!("{operations} operations were equal");
}

async fn run(store: &dyn ArchiveStore, random: &mut StdRng) -> usize {
    let mut model = Model::default();
    // Some topics share bits of their projections, some differ between the two projections.
    let topics: Vec<Topic> = (0..random.random_range(1..40))
        .map(|_| Topic([random.random_range(0..6), random.random_range(0..6), 3, random.random_range(0..8)]))
        .collect();
    let span = random.random_range(1..200);
    let operations = 250;
    for _ in 0..operations {
        match random.random_range(0..10) {
            0..3 => append_some(store, &mut model, &topics, span, random).await,
            3..7 => {
                let query = random_query(&model, &topics, span, random);
                assert_eq!(store.page(query.clone()).await.unwrap(), model.page(&query), "{query:?}");
            }
            7 => {
                let mut query = random_query(&model, &topics, span, random);
                (query.cursor, query.max_records) = (None, query.max_records.max(5));
                let mut whole = query.clone();
                (whole.max_records, whole.max_bytes) = (usize::MAX, usize::MAX);
                assert_eq!(walk(store, query.clone()).await, model.page(&whole).records, "{query:?}");
            }
            8 => {
                let query = random_tail(&model, &topics, random);
                check_tail(store, &model, query).await;
            }
            _ => {
                check_lookup(store, &model, random).await;
                check_stats(store, &model).await;
            }
        }
    }
    operations
}

async fn append_some(
    store: &dyn ArchiveStore,
    model: &mut Model,
    topics: &[Topic],
    span: u32,
    random: &mut StdRng,
) {
    let mut batch = Vec::new();
    let mut expected = Vec::new();
    let mut known: HashSet<Hash> = model.by_position.keys().map(|position| position.id).collect();
    for _ in 0..random.random_range(1..40) {
        let pick = random.random_range(0..10);
        let body = match pick {
            0 if !model.by_arrival.is_empty() => {
                model.by_arrival[random.random_range(0..model.by_arrival.len())].body.clone()
            }
            1 if !batch.is_empty() => {
                let before: &NewRecord = &batch[random.random_range(0..batch.len())];
                before.body.clone()
            }
            2 => Bytes::from(vec![random.random(); random.random_range(0..20)]),
            _ => {
                let data: Vec<u8> = (0..random.random_range(0..300)).map(|_| random.random()).collect();
                let topic = topics[random.random_range(0..topics.len())];
                let sent = 1000 + random.random_range(0..span);
                let ttl = random.random_range(0..100);
                Envelope::new(sent + ttl, ttl, topic, &data, random.random()).rlp().clone()
            }
        };
        expected.push(match Envelope::decode(body.clone()) {
            Err(_) => None,
            Ok(envelope) => Some((known.insert(envelope.hash()), envelope)),
        });
        batch.push(NewRecord { space: Space::Waku1, body });
    }
    let outcomes = append(store, batch.clone()).await;
    assert_eq!(outcomes.len(), batch.len());
    for ((outcome, expected), NewRecord { body, .. }) in outcomes.iter().zip(expected).zip(batch) {
        match (outcome, expected) {
            (Outcome::Refused(_), None) | (Outcome::Duplicate, Some((false, _))) => {}
            (Outcome::Stored, Some((true, envelope))) => {
                // J1: what is acknowledged is answerable.
                let found = store.lookup(Space::Waku1, vec![envelope.hash()], true).await.unwrap();
                let record = found[0].clone().expect("an acknowledged record is found");
                let time_ns = i64::from(envelope.expiry() - envelope.ttl()) * 1_000_000_000;
                assert_eq!(record.position, Position { time_ns, id: envelope.hash() });
                assert_eq!((record.topic, &record.body), (envelope.topic(), &body));
                let last_seq = model.by_arrival.last().map_or(0, |last| last.seq);
                assert!(record.seq > last_seq, "{} behind {last_seq}", record.seq);
                model.by_arrival.push(record.clone());
                model.by_position.insert(record.position, record);
            }
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
    }
    let head = model.by_arrival.last().map_or(0, |last| last.seq);
    assert_eq!(*store.head().borrow(), head);
}

fn random_query(model: &Model, topics: &[Topic], span: u32, random: &mut StdRng) -> Query {
    let some_topics = |random: &mut StdRng, of: usize| -> Vec<Topic> {
        let mut some: Vec<Topic> =
            topics.iter().copied().filter(|_| random.random_range(0..of) == 0).collect();
        some.push(Topic([random.random(), 0, 0, 0]));
        some
    };
    let filter = match random.random_range(0..8) {
        0..2 => Filter::Everything,
        2 => Filter::Topics(Vec::new()),
        3 => Filter::Topics(vec![topics[0], topics[0]]),
        4 => Filter::Topics(some_topics(random, 2)),
        5 => Filter::Bloom(Box::new(Bloom::of_topics(some_topics(random, 8)))),
        6 => Filter::Bloom(Box::new(Bloom::of_topics(some_topics(random, 2)))),
        _ => Filter::Bloom(Box::new(if random.random() { Bloom::FULL } else { Bloom::EMPTY })),
    };
    let seconds = |random: &mut StdRng| i64::from(1000 + random.random_range(0..span)) * 1_000_000_000;
    let (from_ns, to_ns) = match random.random_range(0..4) {
        0 => (i64::MIN, i64::MAX),
        1 => (seconds(random), seconds(random) + random.random_range(-1..2)),
        _ => (seconds(random), i64::MAX),
    };
    let cursor = match random.random_range(0..4) {
        0 => Some(Position { time_ns: seconds(random), id: Hash(random.random()) }),
        1 if !model.by_arrival.is_empty() => {
            Some(model.by_arrival[random.random_range(0..model.by_arrival.len())].position)
        }
        _ => None,
    };
    Query {
        space: Space::Waku1,
        from_ns,
        to_ns,
        filter,
        direction: if random.random() { Direction::Ascending } else { Direction::Descending },
        max_records: random.random_range(1..60),
        max_bytes: random.random_range(1..20_000),
        cursor,
    }
}

fn random_tail(model: &Model, topics: &[Topic], random: &mut StdRng) -> TailQuery {
    let head = model.by_arrival.last().map_or(0, |last| last.seq);
    let some = topics.iter().copied().filter(|_| random.random_range(0..3) == 0).collect();
    TailQuery {
        space: Space::Waku1,
        after: random.random_range(0..head + 2),
        until: if random.random_range(0..3) == 0 { Some(random.random_range(0..head + 2)) } else { None },
        topics: if random.random() { Some(Arc::new(some)) } else { None },
        max_records: random.random_range(1..60),
        max_bytes: random.random_range(1..20_000),
    }
}

async fn check_tail(store: &dyn ArchiveStore, model: &Model, query: TailQuery) {
    let page = store.tail(query.clone()).await.unwrap();
    assert_eq!(page.records, model.tail(&query), "{query:?}");
    // Continuing behind `scanned` misses nothing and repeats nothing.
    let mut rest = query.clone();
    rest.after = page.scanned;
    (rest.max_records, rest.max_bytes) = (usize::MAX, usize::MAX);
    let mut whole = query.clone();
    (whole.max_records, whole.max_bytes) = (usize::MAX, usize::MAX);
    let joined: Vec<Record> =
        page.records.into_iter().chain(store.tail(rest).await.unwrap().records).collect();
    assert_eq!(joined, model.tail(&whole), "{query:?}");
}

async fn check_lookup(store: &dyn ArchiveStore, model: &Model, random: &mut StdRng) {
    let mut ids = vec![Hash(random.random())];
    for _ in 0..random.random_range(0..20) {
        if let Some(record) = model.by_arrival.get(random.random_range(0..model.by_arrival.len().max(1))) {
            ids.push(record.position.id);
        }
    }
    let with_bodies: bool = random.random();
    let expected: Vec<Option<Record>> = ids
        .iter()
        .map(|id| {
            let mut record = model.by_arrival.iter().find(|record| record.position.id == *id)?.clone();
            if !with_bodies {
                record.body.clear();
            }
            Some(record)
        })
        .collect();
    assert_eq!(store.lookup(Space::Waku1, ids, with_bodies).await.unwrap(), expected);
}

async fn check_stats(store: &dyn ArchiveStore, model: &Model) {
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.writable, Some(Writable::Yes));
    assert_eq!((stats.quarantined, stats.quarantined_bytes), (0, 0));
    assert_eq!(stats.seq, model.by_arrival.last().map_or(0, |last| last.seq));
    let Some(space) = stats.spaces.first() else {
        assert!(model.by_arrival.is_empty());
        return;
    };
    assert_eq!(space.records, model.by_position.len() as u64);
    assert_eq!(space.bytes, model.by_arrival.iter().map(|record| record.body.len() as u64).sum::<u64>());
    let topics: HashSet<Topic> = model.by_arrival.iter().map(|record| record.topic).collect();
    assert_eq!(space.topics, topics.len() as u64);
    let times = |position: &Position| position.time_ns;
    assert_eq!(space.oldest_ns, model.by_position.keys().next().map(times));
    assert_eq!(space.newest_ns, model.by_position.keys().next_back().map(times));
}

pub(crate) async fn one_id_has_one_answer(store: &dyn ArchiveStore) {
    let record = new_record(&envelope(1000, Topic([1; 4]), b"once"));
    let other = new_record(&envelope(1000, Topic([1; 4]), b"other"));
    let mut pending = Vec::new();
    for _ in 0..20 {
        pending.push(
            store.append(vec![record.clone(), other.clone(), record.clone()], Lane::Live).await.unwrap(),
        );
    }
    let mut outcomes = Vec::new();
    for pending in pending {
        outcomes.extend(pending.await);
        // Whatever was answered, the record is there now.
        assert_eq!(store.page(everything()).await.unwrap().records.len(), 2);
    }
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count(), 2);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Duplicate).count(), 58);
}

pub(crate) async fn walks_while_records_arrive(store: Arc<dyn ArchiveStore>) {
    let topic = |n: u32| Topic((n % 7).to_be_bytes());
    let body =
        move |n: u32| new_record(&envelope(n.wrapping_mul(2_654_435_761) % 5000, topic(n), &n.to_be_bytes()));
    append(store.as_ref(), (0..2000).map(body).collect()).await;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for first in (2000..6000).step_by(50) {
                append(store.as_ref(), (first..first + 50).map(body).collect()).await;
            }
        }
    });
    for direction in [Direction::Ascending, Direction::Descending] {
        for filter in [Filter::Everything, Filter::Topics(vec![topic(1), topic(2), topic(3)])] {
            let whole = Query { direction, filter, max_bytes: usize::MAX, ..everything() };
            let before =
                store.page(Query { max_records: usize::MAX, ..whole.clone() }).await.unwrap().records;
            let walked = walk(store.as_ref(), Query { max_records: 37, ..whole }).await;
            let positions: Vec<Position> = walked.iter().map(|record| record.position).collect();
            let in_order = match direction {
                Direction::Ascending => positions.is_sorted_by(|a, b| a < b),
                Direction::Descending => positions.is_sorted_by(|a, b| a > b),
            };
            assert!(in_order, "out of order, or twice");
            let found: HashSet<Position> = positions.into_iter().collect();
            let missing = before.iter().filter(|record| !found.contains(&record.position)).count();
            assert_eq!(missing, 0, "of {} that were there before", before.len());
        }
    }
    writer.await.unwrap();
    assert_eq!(walk(store.as_ref(), everything()).await.len(), 6000);
}

pub(crate) async fn large_record(store: &dyn ArchiveStore) {
    let sizes = [10, 100_000, 10, 10];
    let records: Vec<NewRecord> = sizes
        .iter()
        .enumerate()
        .map(|(n, &size)| new_record(&envelope(1000 + n as u32, Topic([1; 4]), &vec![n as u8; size])))
        .collect();
    append(store, records).await;
    let mut query = Query { max_bytes: 1000, ..everything() };
    let mut pages = Vec::new();
    loop {
        let page = store.page(query.clone()).await.unwrap();
        pages.push(page.records.len());
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    assert_eq!(pages, [1, 1, 2]);
}

pub(crate) async fn closed(store: &dyn ArchiveStore) {
    let record = new_record(&envelope(1000, Topic([1; 4]), b"before"));
    let pending = store.append(vec![record.clone()], Lane::Live).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(pending.await, [Outcome::Stored], "what was handed over is finished");
    assert_eq!(store.append(vec![record], Lane::Live).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!store.writable().borrow().is_yes());
    store.close().await.unwrap();
}
