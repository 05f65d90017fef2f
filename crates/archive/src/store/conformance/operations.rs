//! Random operations on a store and on the model; every answer must be equal.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use poste_wire::{Bloom, Envelope, Hash, Topic};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

use super::model::{Model, fitting};
use super::{
    Hooks, PATIENCE, START, complete_page, first_seed, follow, look_up, mended, one_page, ready, seconds,
    walk,
};
use crate::record::{Position, Record, Refusal, Space};
use crate::store::{
    ArchiveStore, Direction, Filter, Lane, NewRecord, Outcome, Query, TailQuery, Verification,
};

/// Runs one seed after the other.
pub(crate) async fn model<S, A, O, R, D>(hooks: &Hooks<O, R, D>)
where
    S: ArchiveStore,
    O: Fn() -> (S, A),
    R: AsyncFn(S, &A) -> S,
    D: Fn(&A, &mut StdRng),
{
    const OPERATIONS: usize = 1500;
    let wanted = match std::env::var("POSTE_MODEL_OPERATIONS") {
        Ok(operations) => operations.parse().expect("POSTE_MODEL_OPERATIONS is a number"),
        Err(_) => OPERATIONS,
    };
    let (mut seed, mut operations, mut records) = (first_seed(), 0, 0);
    while operations < wanted {
        println!("POSTE_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        // Long runs have some stores that grow larger.
        let length = if wanted > OPERATIONS && random.random_range(0..8) == 0 { 2500 } else { 250 };
        let run = Run::new(random);
        records += run.operate(hooks, length).await.by_arrival.len();
        operations += length;
        seed += 1;
    }
    println!("{operations} operations were equal, {records} records were stored");
}

struct Run {
    model: Model,
    random: StdRng,
    topics: Vec<Topic>,
    /// Creation time of the newest records, seconds; it grows with every append by up to `drift`.
    now: u32,
    drift: u32,
    /// So far before `now` records come live; imported ones are of all times.
    window: u32,
}

impl Run {
    fn new(mut random: StdRng) -> Self {
        // Some topics share bits of their projections, some differ between the two projections.
        let topics = (0..random.random_range(1..40))
            .map(|_| {
                Topic([random.random_range(0..6), random.random_range(0..6), 3, random.random_range(0..8)])
            })
            .collect();
        let (drift, window) = (random.random_range(0..20), random.random_range(1..200));
        Self { model: Model::default(), random, topics, now: START + window, drift, window }
    }

    async fn operate<S, A, O, R, D>(mut self, hooks: &Hooks<O, R, D>, operations: usize) -> Model
    where
        S: ArchiveStore,
        O: Fn() -> (S, A),
        R: AsyncFn(S, &A) -> S,
        D: Fn(&A, &mut StdRng),
    {
        let (mut store, alive) = (hooks.open)();
        for _ in 0..operations {
            match self.random.random_range(0..100) {
                0..26 => self.append(&store).await,
                26..58 => self.page(&store).await,
                58..66 => self.walk(&store).await,
                66..76 => self.tail(&store).await,
                76..82 => self.lookup(&store).await,
                82..86 => self.model.check_stats(&store).await,
                86..92 => {
                    for _ in 0..self.random.random_range(1..6) {
                        self.model.writers.operate(&store, self.now, &mut self.random).await;
                    }
                }
                92..95 => self.retire(&store).await,
                95 => self.would_retire(&store).await,
                96 => self.verify(&store).await,
                _ => {
                    let reopened = hooks.reopened_as_is(store, &alive, &mut self.random).await;
                    (store, self.model.is_disturbed) = reopened;
                    self.compare_reopened(&store).await;
                }
            }
        }
        store.close().await.unwrap();
        self.model
    }

    async fn append(&mut self, store: &dyn ArchiveStore) {
        if self.model.is_disturbed {
            self.meet_damage(store).await;
        }
        let mut known: HashSet<Hash> = self.model.by_position.keys().map(|position| position.id).collect();
        let mut handed_over = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let lane = if self.random.random_range(0..3) == 0 { Lane::Imported } else { Lane::Live };
            let mut batch: Vec<NewRecord> = Vec::new();
            for _ in 0..self.random.random_range(1..30) {
                let body = self.body(lane, &batch);
                batch.push(NewRecord { space: Space::Waku1, body });
            }
            let expected: Vec<Expected> =
                batch.iter().map(|record| self.expected(&record.body, &mut known)).collect();
            handed_over.push((store.append(batch.clone(), lane).await.unwrap(), batch, expected));
            self.now += self.random.random_range(0..=self.drift);
        }
        for (pending, batch, expected) in handed_over {
            let outcomes = pending.await;
            assert_eq!(outcomes.len(), batch.len());
            for (outcome, expected) in outcomes.iter().zip(&expected) {
                assert!(expected.is(outcome), "{outcome:?} instead of {expected:?}");
            }
            let stored: Vec<&Envelope> = expected.iter().filter_map(Expected::stored).collect();
            let ids: Vec<Hash> = stored.iter().map(|envelope| envelope.hash()).collect();
            let found = look_up(store, &ids, true).await;
            assert_eq!(found.len(), stored.len());
            for (envelope, found) in stored.into_iter().zip(found) {
                let record = found.expect("J1: an acknowledged record is found");
                let time_ns = seconds(envelope.expiry() - envelope.ttl());
                assert_eq!(record.position, Position { time_ns, id: envelope.hash() });
                assert_eq!((record.topic, &record.body), (envelope.topic(), envelope.rlp()));
                self.model.add(record);
            }
        }
        assert_eq!(*store.head().borrow(), self.model.head);
    }

    /// Hands over what is known already until none of it meets an index that has to be made anew.
    async fn meet_damage(&mut self, store: &dyn ArchiveStore) {
        let known = self.model.by_position.values().map(|record| record.body.clone());
        let batch: Vec<NewRecord> = known.map(|body| NewRecord { space: Space::Waku1, body }).collect();
        let ask = async {
            loop {
                let outcomes = store.append(batch.clone(), Lane::Live).await.unwrap().await;
                if outcomes.iter().all(|outcome| *outcome == Outcome::Duplicate) {
                    return;
                }
                let refused = |outcome: &Outcome| matches!(outcome, Outcome::Unavailable(_));
                assert!(outcomes.iter().all(refused), "one index is of all the group");
                ready(store).await;
            }
        };
        timeout(PATIENCE, ask).await.expect("it takes records before long");
        mended(store).await;
        self.model.is_disturbed = false;
    }

    /// A body for a batch: mostly new, now and then one that is known, or no record at all.
    fn body(&mut self, lane: Lane, batch: &[NewRecord]) -> Bytes {
        let random = &mut self.random;
        let by_arrival = &self.model.by_arrival;
        match random.random_range(0..100) {
            0..10 if !by_arrival.is_empty() => {
                by_arrival[random.random_range(0..by_arrival.len())].body.clone()
            }
            10..20 if !batch.is_empty() => batch[random.random_range(0..batch.len())].body.clone(),
            20..28 => Bytes::from(vec![random.random(); random.random_range(0..20)]),
            28 => Envelope::new(10, 11, self.topics[0], b"before 1970", random.random()).rlp().clone(),
            pick => {
                let data: Vec<u8> = (0..random.random_range(0..300)).map(|_| random.random()).collect();
                let topic = self.topics[random.random_range(0..self.topics.len())];
                let sent = match (pick, lane) {
                    (29, _) => 0,
                    (30, _) => u32::MAX,
                    (_, Lane::Live) => self.now - random.random_range(0..self.window),
                    (_, Lane::Imported) => random.random_range(START..=self.now),
                };
                let ttl = random.random_range(0..100).min(u32::MAX - sent);
                Envelope::new(sent + ttl, ttl, topic, &data, random.random()).rlp().clone()
            }
        }
    }

    fn expected(&self, body: &Bytes, known: &mut HashSet<Hash>) -> Expected {
        let Ok(envelope) = Envelope::decode(body.clone()) else { return Expected::NoRecord };
        let Some(sent) = envelope.expiry().checked_sub(envelope.ttl()) else { return Expected::NoRecord };
        if self.model.is_below_floor(seconds(sent)) {
            Expected::BelowFloor
        } else if known.insert(envelope.hash()) {
            Expected::Stored(envelope)
        } else {
            Expected::Duplicate
        }
    }

    async fn page(&mut self, store: &dyn ArchiveStore) {
        let query = self.query();
        assert_eq!(complete_page(store, &query).await, self.model.page(&query), "{query:?}");
    }

    async fn walk(&mut self, store: &dyn ArchiveStore) {
        let mut query = self.query();
        (query.cursor, query.max_records) = (None, query.max_records.max(5));
        let whole = Query { max_records: usize::MAX, max_bytes: usize::MAX, ..query.clone() };
        assert_eq!(walk(store, query).await, self.model.page(&whole).records, "{whole:?}");
    }

    async fn tail(&mut self, store: &dyn ArchiveStore) {
        let random = &mut self.random;
        let some = self.topics.iter().copied().filter(|_| random.random_range(0..3) == 0).collect();
        let end = self.model.head + 2;
        let query = TailQuery {
            space: Space::Waku1,
            after: random.random_range(0..end),
            until: if random.random_range(0..3) == 0 { Some(random.random_range(0..end)) } else { None },
            topics: if random.random() { Some(Arc::new(some)) } else { None },
            max_records: random.random_range(1..60),
            max_bytes: random.random_range(1..20_000),
        };
        let expected = self.model.tail(&query);
        let page = store.tail(query.clone()).await.unwrap();
        assert!(expected.starts_with(&page.records), "{query:?} {page:?}");
        let fits = fitting(&expected.iter().collect::<Vec<_>>(), query.max_records, query.max_bytes);
        assert!(page.records.len() <= fits, "{} of {fits}: {query:?}", page.records.len());
        if query.after < query.until.unwrap_or(u64::MAX).min(self.model.head) {
            assert_eq!(follow(store, query.clone()).await, expected, "{query:?}");
        } else {
            assert_eq!(page.scanned, query.after, "{query:?}: there is nothing to look at");
        }
        self.model.check_retired_seq(store);
    }

    async fn lookup(&mut self, store: &dyn ArchiveStore) {
        let (random, model) = (&mut self.random, &self.model);
        let mut ids = vec![Hash(random.random())];
        for _ in 0..random.random_range(0..20) {
            if let Some(record) = model.by_arrival.get(random.random_range(0..model.by_arrival.len().max(1)))
            {
                ids.push(record.position.id);
            }
        }
        let with_bodies: bool = random.random();
        let expected: Vec<Option<Record>> = ids.iter().map(|id| model.lookup(*id, with_bodies)).collect();
        assert_eq!(look_up(store, &ids, with_bodies).await, expected);
    }

    async fn retire(&mut self, store: &dyn ArchiveStore) {
        let floor_ns = self.floor_ns();
        let would = store.would_retire(Space::Waku1, floor_ns).await.unwrap();
        let before = self.model.by_position.len();
        self.model.retire(floor_ns);
        let hidden = (before - self.model.by_position.len()) as u64;
        let retired = store.retire(Space::Waku1, floor_ns).await.unwrap();
        assert_eq!(retired.floor_ns, self.model.floor_ns);
        // What has lost its index cannot be counted.
        if !self.model.is_disturbed {
            assert_eq!((would.hidden, retired.hidden), (hidden, hidden));
        }
        assert_eq!(complete_page(store, &one_page()).await, self.model.page(&one_page()), "{floor_ns}");
        self.model.check_retired_seq(store);
        self.lookup(store).await;
    }

    async fn would_retire(&mut self, store: &dyn ArchiveStore) {
        let floor_ns = self.floor_ns();
        let would = store.would_retire(Space::Waku1, floor_ns).await.unwrap();
        assert_eq!(would.floor_ns, self.model.floor_ns.max(Some(floor_ns)));
        assert!(would.records <= self.model.by_arrival.len() as u64, "{would:?}");
        assert_eq!(
            complete_page(store, &one_page()).await,
            self.model.page(&one_page()),
            "nothing has changed"
        );
        self.model.check_retired_seq(store);
    }

    /// Mostly somewhat above the oldest records; now and then lower than before, or above all.
    fn floor_ns(&mut self) -> i64 {
        let random = &mut self.random;
        let times: Vec<i64> = self.model.by_position.keys().map(|position| position.time_ns).collect();
        let floor_ns = self.model.floor_ns.unwrap_or(0);
        match random.random_range(0..40) {
            0..4 => floor_ns,
            4..8 => floor_ns - seconds(random.random_range(0..100)),
            8 => seconds(self.now) + 1,
            _ if times.is_empty() => floor_ns + 1,
            // The floor itself is kept, what is a nanosecond older is not.
            _ => times[random.random_range(0..times.len().div_ceil(4))] + random.random_range(0..2),
        }
    }

    async fn verify(&mut self, store: &dyn ArchiveStore) {
        if self.model.is_disturbed {
            mended(store).await;
            self.model.is_disturbed = false;
        }
        let found = store.verify(Arc::new(|_| true)).await.unwrap();
        let counts = self.model.by_position.len() as u64..=self.model.by_arrival.len() as u64;
        assert!(counts.contains(&found.records), "{found:?} of {counts:?}");
        let clean = Verification {
            records: found.records,
            bytes: found.bytes,
            complete: true,
            ..Verification::default()
        };
        assert_eq!(found, clean);
    }

    async fn compare_reopened(&mut self, store: &dyn ArchiveStore) {
        let head = *store.head().borrow();
        assert!(head >= self.model.head, "{head} was {}: tokens would be worth nothing", self.model.head);
        self.model.head = head;
        self.model.writers.all_left();
        self.model.writers.check(store).await;
        assert_eq!(complete_page(store, &one_page()).await, self.model.page(&one_page()));
        self.model.check_stats(store).await;
        self.model.check_retired_seq(store);
    }

    fn query(&mut self) -> Query {
        let times = START - 5..self.now + 5;
        let filter = self.filter();
        let random = &mut self.random;
        let time_ns = |random: &mut StdRng, times: &Range<u32>| seconds(random.random_range(times.clone()));
        let (from_ns, to_ns) = match random.random_range(0..4) {
            0 => (i64::MIN, i64::MAX),
            1 => (time_ns(random, &times), time_ns(random, &times) + random.random_range(-1..2)),
            2 => {
                let from_ns = time_ns(random, &times);
                (from_ns, from_ns + seconds(random.random_range(0..self.window)))
            }
            _ => (time_ns(random, &times), i64::MAX),
        };
        let by_arrival = &self.model.by_arrival;
        let cursor = match random.random_range(0..4) {
            0 => Some(Position { time_ns: time_ns(random, &times), id: Hash(random.random()) }),
            1 if !by_arrival.is_empty() => {
                Some(by_arrival[random.random_range(0..by_arrival.len())].position)
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

    fn filter(&mut self) -> Filter {
        let (topics, random) = (&self.topics, &mut self.random);
        let some_topics = |random: &mut StdRng, of: usize| -> Vec<Topic> {
            let mut some: Vec<Topic> =
                topics.iter().copied().filter(|_| random.random_range(0..of) == 0).collect();
            some.push(Topic([random.random(), 0, 0, 0]));
            some
        };
        match random.random_range(0..8) {
            0..2 => Filter::Everything,
            2 => Filter::Topics(Vec::new()),
            3 => Filter::Topics(vec![topics[0], topics[0]]),
            4 => Filter::Topics(some_topics(random, 2)),
            5 => Filter::Bloom(Box::new(Bloom::of_topics(some_topics(random, 8)))),
            6 => Filter::Bloom(Box::new(Bloom::of_topics(some_topics(random, 2)))),
            _ => Filter::Bloom(Box::new(if random.random() { Bloom::FULL } else { Bloom::EMPTY })),
        }
    }
}

/// What must become of a record.
#[derive(Debug)]
enum Expected {
    NoRecord,
    BelowFloor,
    Stored(Envelope),
    Duplicate,
}

impl Expected {
    fn is(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::BelowFloor, Outcome::Refused(refusal)) => *refusal == Refusal::BelowFloor,
            (Self::NoRecord, Outcome::Refused(refusal)) => *refusal != Refusal::BelowFloor,
            (Self::Stored(_), Outcome::Stored) | (Self::Duplicate, Outcome::Duplicate) => true,
            _ => false,
        }
    }

    fn stored(&self) -> Option<&Envelope> {
        match self {
            Self::Stored(envelope) => Some(envelope),
            _ => None,
        }
    }
}
