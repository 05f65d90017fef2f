//! J7: a floor is durable, then told, then hides; it never sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use poste_wire::{Hash, Topic};
use rand::RngExt;

use super::{
    START, Turns, append, append_to, envelope, everything, fill, new_record, one_page, seconds, seeded,
    tail_after, turn,
};
use crate::record::{Position, Record, Refusal, Space};
use crate::store::{ArchiveStore, Direction, Filter, Lane, NewRecord, Outcome, Query, Retention, Retentions};

/// Creation times of these records, seconds from [`START`]; no order of arrival.
const SPAN: u32 = 400;

fn record(n: u32) -> NewRecord {
    new_record(&envelope(START + n.wrapping_mul(7919) % SPAN, Topic((n % 7).to_be_bytes()), &n.to_be_bytes()))
}

pub(crate) async fn j7_a_floor_is_told_and_never_sinks(store: Arc<dyn ArchiveStore>) {
    let store = store.as_ref();
    let floor_of = async |query: Query| store.page(query).await.unwrap().floor_ns;
    assert_eq!((floor_of(everything()).await, store.retired_seq()), (None, 0));
    fill(store, (0..SPAN).map(record)).await;
    let known = store.page(one_page()).await.unwrap().records;
    let below = store.retire(Space::Waku1, seconds(START - 100)).await.unwrap();
    assert_eq!(below.floor_ns, Some(seconds(START - 100)));
    let nothing = (below.hidden, below.records, below.bytes, store.retired_seq());
    assert_eq!(nothing, (0, 0, 0, 0), "nothing is that old");

    let floor_ns = seconds(START + 100);
    for sunk_ns in [floor_ns, floor_ns - 1, seconds(START), i64::MIN] {
        let hidden = if store.page(one_page()).await.unwrap().floor_ns == Some(floor_ns) { 0 } else { 100 };
        let would = store.would_retire(Space::Waku1, seconds(START + 300)).await.unwrap();
        let all_hidden = (would.floor_ns, would.hidden);
        assert_eq!(all_hidden, (Some(seconds(START + 300)), 200 + hidden), "it only would");
        let would = store.would_retire(Space::Waku1, floor_ns.max(sunk_ns)).await.unwrap();
        let retired = store.retire(Space::Waku1, floor_ns.max(sunk_ns)).await.unwrap();
        assert_eq!((retired.floor_ns, retired.hidden), (Some(floor_ns), hidden));
        assert_eq!(
            (would.floor_ns, would.hidden),
            (retired.floor_ns, retired.hidden),
            "the same was told before"
        );
        assert_eq!(store.retire(Space::Waku1, sunk_ns).await.unwrap().floor_ns, Some(floor_ns));
        let page = store.page(one_page()).await.unwrap();
        assert_eq!((page.records.len() as u32, page.floor_ns), (SPAN - 100, Some(floor_ns)));
        assert_eq!(page.records[0].position.time_ns, floor_ns, "what is as old as the floor is kept");
    }
    // Whatever is asked, the floor is told.
    let (first_ns, last_ns) = (seconds(START), seconds(START + 99));
    let beyond = Position::last_of(seconds(START + SPAN));
    let questions = [
        Query { from_ns: first_ns, to_ns: last_ns, ..everything() },
        Query { from_ns: last_ns, to_ns: first_ns, ..everything() },
        Query { filter: Filter::Topics(Vec::new()), ..everything() },
        Query { cursor: Some(beyond), ..everything() },
        Query {
            cursor: Some(Position::first_of(floor_ns)),
            direction: Direction::Descending,
            ..everything()
        },
    ];
    for question in questions {
        let page = store.page(question.clone()).await.unwrap();
        assert_eq!((page.records.len(), page.floor_ns), (0, Some(floor_ns)), "{question:?}");
    }
    // The cursor of a record that is gone goes on where the kept ones begin.
    let gone = known.iter().find(|record| record.position.time_ns < floor_ns).unwrap();
    let kept = store.page(Query { cursor: Some(gone.position), ..one_page() }).await.unwrap();
    assert_eq!(kept.records.len() as u32, SPAN - 100);
    // What is gone is gone in every way, and cannot come back.
    let found = store.lookup(Space::Waku1, vec![gone.position.id], true).await.unwrap();
    assert_eq!(found, [None]);
    for lane in [Lane::Live, Lane::Imported] {
        let again = NewRecord { space: Space::Waku1, body: gone.body.clone() };
        let batch = vec![again, record(SPAN + lane as u32)];
        let outcomes = append_to(store, batch, lane).await;
        assert_eq!(outcomes[0], Outcome::Refused(Refusal::BelowFloor));
    }
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.spaces.iter().map(|space| space.floor_ns).collect::<Vec<_>>(), [Some(floor_ns)]);

    store.retire(Space::Waku1, seconds(START + SPAN)).await.unwrap();
    let page = store.page(everything()).await.unwrap();
    assert_eq!((page.records, page.floor_ns), (Vec::new(), Some(seconds(START + SPAN))));
    assert!(store.tail(tail_after(0)).await.unwrap().records.is_empty());
    let head = *store.head().borrow();
    let last_seq = known.iter().map(|record| record.seq).max().unwrap();
    assert!(head >= last_seq && (last_seq..=head).contains(&store.retired_seq()));
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.spaces.iter().map(|space| space.floor_ns).collect::<Vec<_>>(), [page.floor_ns]);
    let newer = new_record(&envelope(START + SPAN, Topic([1; 4]), b"as old as the floor"));
    assert_eq!(append(store, vec![newer]).await, [Outcome::Stored]);
    assert!(*store.head().borrow() > last_seq, "a seq is given once");
}

/// Readers go on asking while the floor rises: an answer that lacks a record tells of a floor above it.
pub(crate) async fn j7_a_floor_is_told_before_records_vanish(store: Arc<dyn ArchiveStore>) {
    fill(store.as_ref(), (0..2 * SPAN).map(record)).await;
    let known: Arc<[Record]> = store.page(one_page()).await.unwrap().records.into();
    let done = Arc::new(AtomicBool::new(false));
    let (turns, asked) = Turns::new();
    let turns = Arc::new(turns);
    let reader = |store: Arc<dyn ArchiveStore>| {
        let (known, done, turns) = (Arc::clone(&known), Arc::clone(&done), Arc::clone(&turns));
        let mut random = seeded();
        async move {
            let mut floor_ns = None;
            while !done.load(Ordering::Acquire) {
                // The floor rises during one of the questions.
                let during = random.random_range(0..3);
                let ask = |number| turns.give(usize::from(number == during));
                let topic = known[random.random_range(0..known.len())].topic;
                let (filter, direction) = match random.random_range(0..3) {
                    0 => (Filter::Topics(vec![topic]), Direction::Descending),
                    1 => (Filter::Everything, Direction::Descending),
                    _ => (Filter::Everything, Direction::Ascending),
                };
                ask(0);
                let page =
                    store.page(Query { filter: filter.clone(), direction, ..one_page() }).await.unwrap();
                assert!(page.floor_ns >= floor_ns, "{:?} after {floor_ns:?}", page.floor_ns);
                floor_ns = page.floor_ns;
                let wanted = known.iter().filter(|record| filter.matches(record.topic)).collect();
                check_told(&page.records, wanted, page.floor_ns);
                let after = known[random.random_range(0..known.len())].seq;
                ask(1);
                let arrived = store.tail(tail_after(after)).await.unwrap().records;
                let from = after.max(store.retired_seq());
                let lacks = |record: &&Record| record.seq > from && !arrived.contains(record);
                assert_eq!(known.iter().find(lacks), None, "behind {from}, and not told");
                let ids: Vec<Hash> = known.iter().map(|record| record.position.id).collect();
                ask(2);
                let found = store.lookup(Space::Waku1, ids, true).await.unwrap();
                let found: Vec<Record> = found.into_iter().flatten().collect();
                let told = store.page(everything()).await.unwrap().floor_ns;
                check_told(&found, known.iter().collect(), told);
            }
        }
    };
    let readers = [0, 1].map(|_| tokio::spawn(reader(Arc::clone(&store))));
    drop(turns);
    for time in (START..=START + SPAN).step_by(10) {
        turn(&asked).await;
        let retired = store.retire(Space::Waku1, seconds(time)).await.unwrap();
        assert_eq!(retired.floor_ns, Some(seconds(time)));
        let page = store.page(one_page()).await.unwrap();
        assert_eq!(page.floor_ns, retired.floor_ns);
        assert!(page.records.iter().all(|record| record.position.time_ns >= seconds(time)));
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.await.unwrap();
    }
}

fn check_told(found: &[Record], wanted: Vec<&Record>, floor_ns: Option<i64>) {
    let found: std::collections::HashSet<Position> = found.iter().map(|record| record.position).collect();
    let lacks = |record: &&&Record| !found.contains(&record.position);
    let missing = wanted.iter().filter(lacks).map(|record| Some(record.position.time_ns)).max();
    assert!(missing.is_none_or(|missing| missing < floor_ns), "lacks {missing:?}, told of {floor_ns:?}");
}

/// Records are on their way while the floor rises over them.
pub(crate) async fn j7_what_arrives_below_a_rising_floor_is_not_seen(store: Arc<dyn ArchiveStore>) {
    const RECORDS: u32 = 900;
    let (turns, written) = Turns::new();
    let appending = Arc::clone(&store);
    let writer = tokio::spawn(async move {
        let mut pending = Vec::new();
        for first in (0..RECORDS).step_by(10) {
            let lane = if first % 30 == 0 { Lane::Imported } else { Lane::Live };
            let batch: Vec<NewRecord> = (first..first + 10).map(record).collect();
            pending.push((batch.clone(), appending.append(batch, lane).await.unwrap()));
            turns.give(1);
        }
        let mut outcomes = Vec::new();
        for (batch, pending) in pending {
            outcomes.extend(batch.into_iter().zip(pending.await));
        }
        (outcomes, turns)
    });
    let mut floor_ns = 0;
    for time in (START..START + SPAN / 2).step_by(5) {
        turn(&written).await;
        floor_ns = seconds(time);
        store.retire(Space::Waku1, floor_ns).await.unwrap();
        let seen = store.page(one_page()).await.unwrap().records;
        assert!(seen.iter().all(|record| record.position.time_ns >= floor_ns));
    }
    let (outcomes, _) = writer.await.unwrap();
    let ids = outcomes.iter().map(|(record, _)| Hash::of(&record.body)).collect();
    let found = store.lookup(Space::Waku1, ids, false).await.unwrap();
    assert_eq!(outcomes.len(), RECORDS as usize);
    for ((new, outcome), found) in outcomes.iter().zip(found) {
        let sent = poste_wire::Envelope::decode(new.body.clone()).unwrap();
        let is_kept = seconds(sent.expiry() - sent.ttl()) >= floor_ns;
        match outcome {
            Outcome::Stored => assert_eq!(found.is_some(), is_kept),
            Outcome::Refused(Refusal::BelowFloor) => assert!(!is_kept && found.is_none()),
            other => panic!("{other:?}"),
        }
    }
    let seen = store.page(one_page()).await.unwrap().records;
    assert!(seen.iter().all(|record| record.position.time_ns >= floor_ns));
    assert!(store.tail(tail_after(0)).await.unwrap().records.len() == seen.len());
}

/// Keeps all that these tests store.
pub(super) fn lenient(years: u64) -> Retention {
    let max_age = Some(Duration::from_secs(years * 365 * 86_400));
    Retention { max_age, max_bytes: Some(1 << 60), min_age: Duration::from_secs(3600) }
}

pub(crate) async fn what_is_set_of_retention_is_told(store: Arc<dyn ArchiveStore>) {
    fill(store.as_ref(), (0..100).map(record)).await;
    let in_force = async || {
        let told = store.stats().await.unwrap().retention;
        assert_eq!(told, store.retention().in_force());
        told
    };
    store.set_retention(lenient(100), false).await.unwrap();
    assert_eq!(in_force().await, lenient(100));
    store.set_retention(lenient(200), true).await.unwrap();
    assert_eq!(in_force().await, lenient(200));
    store.set_retention(lenient(300), false).await.unwrap();
    assert_eq!(in_force().await, lenient(200), "the override counts");
    let both = Retentions { configured: lenient(300), overridden: Some(lenient(200)) };
    assert_eq!(store.retention(), both);
    store.reset_retention().await.unwrap();
    assert_eq!(in_force().await, lenient(300));
    assert_eq!(store.page(one_page()).await.unwrap().records.len(), 100, "all of it is young enough");
}
