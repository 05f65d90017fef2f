//! What every store must do: a model test against an ordered map, and the promises by name. [`suite`] makes the
//! tests of one store:
//!
//! - `suite!(open, reopen)`: `fn open() -> (Store, Alive)` opens an empty store and gives whatever it needs to stay
//!   alive; the store reads the system's clock. `async fn reopen(Store, &Alive) -> Store` drops the store, which may
//!   have been closed before, and opens it again.
//! - `suite!(open, reopen, disturb)`: `fn disturb(&Alive, &mut StdRng)` is called between the closing and the
//!   opening, and may do to the store's files what must not matter (J6).
//!
//! `POSTE_SEED` repeats a run of the model that failed, `POSTE_MODEL_OPERATIONS` sets how many operations it makes
//! in all, for long runs.

mod model;
mod operations;
mod promises;
mod reopening;
mod retention;
mod walks;
mod writers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use poste_wire::{Envelope, Hash, Topic};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{
    ArchiveStore, Direction, ErrorKind, Filter, Lane, NewRecord, Outcome, Page, Query, TailPage, TailQuery,
    Writable,
};
use crate::record::{Record, Space};

pub(crate) use operations::model;
pub(crate) use promises::*;
pub(crate) use reopening::*;
pub(crate) use retention::*;
pub(crate) use walks::*;
pub(crate) use writers::{
    no_page_claims_more_than_it_holds, what_comes_late_was_never_called_complete, writers_are_waited_for,
};

macro_rules! suite {
    ($open:path, $reopen:path) => {
        $crate::store::conformance::suite!($open, $reopen, $crate::store::conformance::leave_alone);
    };
    ($open:path, $reopen:path, $disturb:path) => {
        $crate::store::conformance::suite!(@open $open:
            a_large_record_makes_a_page_of_its_own
            a_closed_store_takes_nothing
            batches_of_one_caller_keep_their_order
            j1_acknowledged_is_answerable
            j4_time_topic_and_id_come_from_the_body
            j5_one_id_has_one_answer_in_flight
            j5_one_id_has_one_answer_for_many_callers
            j5_one_id_has_one_answer_against_old_records
            j5_one_id_has_one_answer_across_lanes
            j7_a_floor_is_told_and_never_sinks
            j7_a_floor_is_told_before_records_vanish
            j7_what_arrives_below_a_rising_floor_is_not_seen
            j8_walks_by_pages_while_records_arrive_and_retire
            j9_no_topic_is_missing
            what_is_set_of_retention_is_told
            writers_are_waited_for
            no_page_claims_more_than_it_holds
            what_comes_late_was_never_called_complete
        );
        $crate::store::conformance::suite!(@reopen ($open, $reopen, $disturb):
            model
            j6_what_is_derived_comes_back_equal
            j7_a_floor_outlives_the_store
            j8_walks_go_on_over_reopens
            tails_go_on_over_reopens
            what_an_operator_sets_of_retention_outlives_the_store
            writers_are_away_after_a_reopen
        );
    };
    (@open $open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            let (store, _alive) = $open();
            $crate::store::conformance::$promise(std::sync::Arc::new(store)).await;
        }
    )*};
    (@reopen $hooks:tt: $($promise:ident)*) => {$(
        #[tokio::test]
        async fn $promise() {
            let (open, reopen, disturb) = $hooks;
            let hooks = $crate::store::conformance::Hooks { open, reopen, disturb };
            $crate::store::conformance::$promise(&hooks).await;
        }
    )*};
}
pub(crate) use suite;

/// How the stores of a suite are opened.
pub(crate) struct Hooks<O, R, D> {
    pub(crate) open: O,
    pub(crate) reopen: R,
    pub(crate) disturb: D,
}

/// For stores of which nothing can be taken away.
pub(crate) fn leave_alone<A>(_alive: &A, _random: &mut StdRng) {}

impl<O, R, D> Hooks<O, R, D> {
    /// Ends a store, now by closing and now by dropping it, and opens it again, ready and sound.
    async fn reopened<S: ArchiveStore, A>(&self, store: S, alive: &A, random: &mut StdRng) -> S
    where
        R: AsyncFn(S, &A) -> S,
        D: Fn(&A, &mut StdRng),
    {
        let (store, is_disturbed) = self.reopened_as_is(store, alive, random).await;
        if is_disturbed {
            mended(&store).await;
        }
        store
    }

    /// The same, but what was done to its files may show later. Also tells whether something was.
    async fn reopened_as_is<S: ArchiveStore, A>(&self, store: S, alive: &A, random: &mut StdRng) -> (S, bool)
    where
        R: AsyncFn(S, &A) -> S,
        D: Fn(&A, &mut StdRng),
    {
        let store_id = store.store_id();
        let is_disturbed = random.random();
        if is_disturbed {
            store.close().await.expect("nothing is left to fail");
            (self.disturb)(alive, random);
        }
        let store = (self.reopen)(store, alive).await;
        assert_eq!(store.store_id(), store_id);
        ready(&store).await;
        (store, is_disturbed)
    }
}

/// Waits until a store takes records. While it makes an index anew it takes none, and says that its answers are not
/// complete.
async fn ready(store: &dyn ArchiveStore) {
    let mut writable = store.writable();
    let taking = timeout(PATIENCE, writable.wait_for(Writable::is_yes)).await;
    taking.expect("it takes records before long").expect("it is open");
}

/// Finds all that was done to what is derived, and waits until it is made anew.
async fn mended(store: &dyn ArchiveStore) {
    let found = store.verify(Arc::new(|_| true)).await.unwrap();
    // What is being made anew already is passed over.
    let all_seen = found.complete || found.unindexed > 0;
    assert!((found.quarantined, found.unreadable, all_seen) == (0, 0, true), "{found:?}");
    ready(store).await;
}

/// A page that does not say of itself that it lacks what an index does not give at the moment.
async fn complete_page(store: &dyn ArchiveStore, query: &Query) -> Page {
    let ask = async {
        loop {
            let page = store.page(query.clone()).await.expect("the store answers");
            if page.complete_until_ns != Some(i64::MIN) {
                return page;
            }
            ready(store).await;
        }
    };
    timeout(PATIENCE, ask).await.expect("it is complete before long")
}

/// A look-up, again while an index is made anew.
async fn look_up(store: &dyn ArchiveStore, ids: &[Hash], with_bodies: bool) -> Vec<Option<Record>> {
    let ask = async {
        loop {
            match store.lookup(Space::Waku1, ids.to_vec(), with_bodies).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => ready(store).await,
                found => return found.unwrap(),
            }
        }
    };
    timeout(PATIENCE, ask).await.expect("it is found before long")
}

/// Whatever takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Creation time of the first records, seconds.
const START: u32 = 1_000_000;

fn seconds(time: u32) -> i64 {
    i64::from(time) * 1_000_000_000
}

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

/// Everything, on one page.
fn one_page() -> Query {
    Query { max_records: usize::MAX, max_bytes: usize::MAX, ..everything() }
}

/// Everything behind a seq, at once.
fn tail_after(after: u64) -> TailQuery {
    TailQuery {
        space: Space::Waku1,
        after,
        until: None,
        topics: None,
        max_records: usize::MAX,
        max_bytes: usize::MAX,
    }
}

pub(crate) async fn append(store: &dyn ArchiveStore, batch: Vec<NewRecord>) -> Vec<Outcome> {
    append_to(store, batch, Lane::Live).await
}

async fn append_to(store: &dyn ArchiveStore, batch: Vec<NewRecord>, lane: Lane) -> Vec<Outcome> {
    let count = batch.len();
    let outcomes = store.append(batch, lane).await.expect("the store is open").await;
    assert_eq!(outcomes.len(), count);
    outcomes
}

/// Appends new records in batches; every fifth batch is imported.
async fn fill(store: &dyn ArchiveStore, records: impl IntoIterator<Item = NewRecord>) {
    let records: Vec<NewRecord> = records.into_iter().collect();
    for (number, batch) in records.chunks(25).enumerate() {
        let lane = if number % 5 == 4 { Lane::Imported } else { Lane::Live };
        let outcomes = append_to(store, batch.to_vec(), lane).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    }
}

/// All records of a question, page by page.
pub(crate) async fn walk(store: &dyn ArchiveStore, mut query: Query) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let page = complete_page(store, &query).await;
        all.extend(page.records);
        match page.next {
            None => return all,
            Some(next) => {
                assert_eq!(Some(next), all.last().map(|record| record.position));
                assert_ne!(Some(next), query.cursor, "the walk stands still");
                query.cursor = Some(next);
            }
        }
    }
}

/// All records of a question in order of arrival, piece by piece.
async fn follow(store: &dyn ArchiveStore, mut query: TailQuery) -> Vec<Record> {
    let head = *store.head().borrow();
    let end = query.until.unwrap_or(u64::MAX).min(head);
    let mut all: Vec<Record> = Vec::new();
    let begun = Instant::now();
    while query.after < end {
        let TailPage { records, scanned } = store.tail(query.clone()).await.expect("the store answers");
        if scanned == query.after && begun.elapsed() < PATIENCE {
            // It may stand still for an index that is made anew.
            ready(store).await;
            continue;
        }
        assert!((query.after + 1..=end).contains(&scanned), "{scanned} for {query:?}, head {head}");
        assert!(records.iter().all(|record| (query.after + 1..=scanned).contains(&record.seq)));
        all.extend(records);
        query.after = scanned;
    }
    all
}

/// One task gives turns to another. It ends with the giver, so that nobody waits for the turns of one that failed.
struct Turns(Arc<Semaphore>);

impl Turns {
    fn new() -> (Self, Arc<Semaphore>) {
        let turns = Arc::new(Semaphore::new(0));
        (Self(Arc::clone(&turns)), turns)
    }

    fn give(&self, turns: usize) {
        self.0.add_permits(turns);
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn turn(turns: &Semaphore) {
    turns.acquire().await.expect("the other task goes on").forget();
}

/// The seed of this run, told to whoever wants to repeat it.
fn first_seed() -> u64 {
    let seed = match std::env::var("POSTE_SEED") {
        Ok(seed) => seed.parse().expect("POSTE_SEED is a number"),
        Err(_) => u64::from(rand::rng().next_u32()),
    };
    println!("POSTE_SEED={seed}");
    seed
}

fn seeded() -> StdRng {
    StdRng::seed_from_u64(first_seed())
}
