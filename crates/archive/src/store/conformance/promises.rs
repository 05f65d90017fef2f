//! Promises by name that need no model.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use poste_wire::{Bloom, Envelope, Hash, Topic};

use super::{
    START, append, append_to, envelope, everything, fill, follow, new_record, one_page, seconds, tail_after,
    walk,
};
use crate::record::{MAX_BODY_BYTES, Position, Record, Refusal, Space};
use crate::store::{ArchiveStore, Direction, ErrorKind, Filter, Lane, NewRecord, Outcome, Query, TailQuery};

fn record(n: u32) -> NewRecord {
    new_record(&envelope(START + n % 300, Topic((n % 13).to_be_bytes()), &n.to_be_bytes()))
}

fn count(outcomes: &[Outcome], wanted: &Outcome) -> usize {
    outcomes.iter().filter(|outcome| *outcome == wanted).count()
}

/// Several writers, each asks for what it was just told is stored, in every way there is; and one reader follows.
pub(crate) async fn j1_acknowledged_is_answerable(store: Arc<dyn ArchiveStore>) {
    const WRITERS: u32 = 4;
    const BATCHES: u32 = 30;
    const BATCH: u32 = 6;
    let follower = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let mut head = store.head();
            let (mut seqs, mut after) = (Vec::new(), 0);
            while seqs.len() < (WRITERS * BATCHES * BATCH) as usize {
                head.wait_for(|head| *head > after).await.unwrap();
                let page = store.tail(TailQuery { max_records: 10, ..tail_after(after) }).await.unwrap();
                seqs.extend(page.records.iter().map(|record| record.seq));
                after = page.scanned;
            }
            assert!(seqs.is_sorted_by(|a, b| a < b), "in order of arrival, each once");
        }
    });
    let writer = |number: u32, store: Arc<dyn ArchiveStore>| async move {
        for batch in 0..BATCHES {
            let lane = if batch % 3 == 2 { Lane::Imported } else { Lane::Live };
            let first = (number * BATCHES + batch) * BATCH;
            let records: Vec<NewRecord> = (first..first + BATCH).map(record).collect();
            let outcomes = append_to(store.as_ref(), records.clone(), lane).await;
            assert_eq!(count(&outcomes, &Outcome::Stored), BATCH as usize);
            for record in records {
                answered_everywhere(store.as_ref(), &record.body).await;
            }
        }
    };
    let writers: Vec<_> =
        (0..WRITERS).map(|number| tokio::spawn(writer(number, Arc::clone(&store)))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    follower.await.unwrap();
}

async fn answered_everywhere(store: &dyn ArchiveStore, body: &Bytes) {
    let found = store.lookup(Space::Waku1, vec![Hash::of(body)], true).await.unwrap().remove(0);
    let found = found.expect("a look-up finds it");
    assert_eq!(&found.body, body);
    assert!(*store.head().borrow() >= found.seq);
    let time_ns = found.position.time_ns;
    let filters = [
        Filter::Everything,
        Filter::Topics(vec![found.topic]),
        Filter::Bloom(Box::new(Bloom::of_topics([found.topic]))),
    ];
    for filter in filters {
        let query = Query { from_ns: time_ns, to_ns: time_ns, filter, ..one_page() };
        let page = store.page(query.clone()).await.unwrap();
        assert!(page.records.contains(&found), "{query:?}");
    }
    let arrived = TailQuery { until: Some(found.seq), ..tail_after(found.seq - 1) };
    assert_eq!(store.tail(arrived).await.unwrap().records, [found]);
}

pub(crate) async fn j4_time_topic_and_id_come_from_the_body(store: Arc<dyn ArchiveStore>) {
    let topic = Topic([1, 2, 3, 4]);
    // Creation time, expiry and ttl in seconds.
    let cases = [
        (1000, 1050, 50),
        (1000, 1000, 0),
        (0, 0, 0),
        (0, 70, 70),
        (u32::MAX, u32::MAX, 0),
        (1, u32::MAX, u32::MAX - 1),
    ];
    let envelopes = cases.map(|(_, expiry, ttl)| Envelope::new(expiry, ttl, topic, b"data", 7));
    let wraps = Envelope::new(10, 11, topic, b"data", 7);
    let mut longer = envelopes[0].rlp().to_vec();
    longer.push(0);
    let refused = [wraps.rlp().clone(), longer.into(), Bytes::new(), vec![0xff; MAX_BODY_BYTES + 1].into()];
    let bodies = envelopes.iter().map(|envelope| envelope.rlp().clone()).chain(refused);
    let batch = bodies.map(|body| NewRecord { space: Space::Waku1, body }).collect();
    let outcomes = append(store.as_ref(), batch).await;
    assert!(outcomes[..cases.len()].iter().all(|outcome| *outcome == Outcome::Stored), "{outcomes:?}");
    assert_eq!(outcomes[cases.len()], Outcome::Refused(Refusal::TimeWraps));
    assert!(matches!(outcomes[cases.len() + 1], Outcome::Refused(Refusal::Undecodable(_))));
    assert!(matches!(outcomes[cases.len() + 2], Outcome::Refused(Refusal::Undecodable(_))));
    assert!(matches!(outcomes[cases.len() + 3], Outcome::Refused(Refusal::TooLarge { .. })));
    for ((time, ..), envelope) in cases.iter().zip(&envelopes) {
        let id = Hash::of(envelope.rlp());
        let found = store.lookup(Space::Waku1, vec![id], true).await.unwrap().remove(0).unwrap();
        assert_eq!(found.position, Position { time_ns: seconds(*time), id });
        assert_eq!((found.topic, &found.body), (topic, envelope.rlp()));
        let query = Query { from_ns: seconds(*time), to_ns: seconds(*time), ..everything() };
        assert!(store.page(query).await.unwrap().records.contains(&found));
    }
    assert_eq!(walk(store.as_ref(), everything()).await.len(), cases.len());
}

pub(crate) async fn j5_one_id_has_one_answer_in_flight(store: Arc<dyn ArchiveStore>) {
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
    assert_eq!(count(&outcomes, &Outcome::Stored), 2);
    assert_eq!(count(&outcomes, &Outcome::Duplicate), 58);
}

/// Everybody hands over the same records, in another order.
pub(crate) async fn j5_one_id_has_one_answer_for_many_callers(store: Arc<dyn ArchiveStore>) {
    const CALLERS: u32 = 4;
    const RECORDS: u32 = 200;
    let caller = |number: u32, store: Arc<dyn ArchiveStore>| async move {
        let mut stored = 0;
        for first in (0..RECORDS).step_by(10) {
            let batch: Vec<NewRecord> =
                (first..first + 10).map(|n| record((n * 7 + number * 50) % RECORDS)).collect();
            let lane = if number == 0 { Lane::Imported } else { Lane::Live };
            let outcomes = append_to(store.as_ref(), batch.clone(), lane).await;
            stored += count(&outcomes, &Outcome::Stored);
            assert_eq!(count(&outcomes, &Outcome::Stored) + count(&outcomes, &Outcome::Duplicate), 10);
            let ids = batch.iter().map(|record| Hash::of(&record.body)).collect();
            let found = store.lookup(Space::Waku1, ids, false).await.unwrap();
            assert!(found.iter().all(Option::is_some), "a duplicate is answerable too");
        }
        stored
    };
    let callers: Vec<_> =
        (0..CALLERS).map(|number| tokio::spawn(caller(number, Arc::clone(&store)))).collect();
    let mut stored = 0;
    for caller in callers {
        stored += caller.await.unwrap();
    }
    assert_eq!(stored, RECORDS as usize);
    assert_eq!(follow(store.as_ref(), tail_after(0)).await.len(), RECORDS as usize);
}

pub(crate) async fn j5_one_id_has_one_answer_against_old_records(store: Arc<dyn ArchiveStore>) {
    let store = store.as_ref();
    fill(store, (0..2000).map(record)).await;
    let before = follow(store, tail_after(0)).await;
    assert_eq!(before.len(), 2000);
    for first in (0..2000).step_by(100) {
        let lane = if first % 300 == 0 { Lane::Imported } else { Lane::Live };
        let batch = (first..first + 100).rev().map(record).collect();
        let outcomes = append_to(store, batch, lane).await;
        assert_eq!(count(&outcomes, &Outcome::Duplicate), 100);
    }
    assert!(follow(store, tail_after(0)).await == before, "the first record stays");
}

pub(crate) async fn j5_one_id_has_one_answer_across_lanes(store: Arc<dyn ArchiveStore>) {
    let store = store.as_ref();
    let lanes = [Lane::Live, Lane::Imported];
    for (n, first, second) in [(0, lanes[0], lanes[1]), (1, lanes[1], lanes[0])] {
        let first = store.append(vec![record(n)], first).await.unwrap();
        let second = store.append(vec![record(n), record(n + 10)], second).await.unwrap();
        assert_eq!(second.await, [Outcome::Duplicate, Outcome::Stored]);
        assert_eq!(first.await, [Outcome::Stored]);
        for lane in lanes {
            let outcomes = append_to(store, vec![record(n + 10), record(n)], lane).await;
            assert_eq!(count(&outcomes, &Outcome::Duplicate), 2);
        }
    }
    assert_eq!(walk(store, everything()).await.len(), 4);
}

/// A question of one topic, or of few, finds the few records in many.
pub(crate) async fn j9_no_topic_is_missing(store: Arc<dyn ArchiveStore>) {
    const RECORDS: u32 = 1500;
    let store = store.as_ref();
    let topic = |n: u32| Topic((n.wrapping_mul(n) % 397).wrapping_mul(2_654_435_761).to_be_bytes());
    let record = |n: u32| new_record(&envelope(START + n / 3 + n * 31 % 50, topic(n), &n.to_be_bytes()));
    fill(store, (0..RECORDS).map(record)).await;
    let all = store.page(one_page()).await.unwrap().records;
    let mut by_topic: HashMap<Topic, Vec<Record>> = HashMap::new();
    for record in &all {
        by_topic.entry(record.topic).or_default().push(record.clone());
    }
    assert!(by_topic.len() > 100);
    for (&topic, expected) in &by_topic {
        let query = Query { filter: Filter::Topics(vec![topic]), ..one_page() };
        assert_eq!(&store.page(query.clone()).await.unwrap().records, expected);
        // In a range that holds little more than one of them.
        let time_ns = expected[expected.len() / 2].position.time_ns;
        let bloom = Filter::Bloom(Box::new(Bloom::of_topics([topic])));
        let narrow = Query { from_ns: time_ns, to_ns: time_ns, filter: bloom, ..query };
        let found = store.page(narrow).await.unwrap().records;
        let wanted: Vec<&Record> = expected.iter().filter(|r| r.position.time_ns == time_ns).collect();
        assert!(wanted.iter().all(|wanted| found.contains(wanted)), "{topic:?}");
    }
    let some: HashSet<Topic> = by_topic.keys().copied().filter(|topic| topic.0[3] % 4 == 0).collect();
    for direction in [Direction::Ascending, Direction::Descending] {
        let filter = Filter::Topics(some.iter().copied().collect());
        let found = walk(store, Query { filter, direction, max_records: 70, ..everything() }).await;
        assert_eq!(found.len(), all.iter().filter(|record| some.contains(&record.topic)).count());
        let dense = Bloom::of_topics(some.iter().copied());
        let filter = Filter::Bloom(Box::new(dense));
        let found = walk(store, Query { filter, direction, max_records: 70, ..everything() }).await;
        assert_eq!(found.len(), all.iter().filter(|record| dense.matches(record.topic)).count());
    }
    let found = follow(store, TailQuery { topics: Some(Arc::new(some.clone())), ..tail_after(0) }).await;
    assert_eq!(found.len(), all.iter().filter(|record| some.contains(&record.topic)).count());
}

pub(crate) async fn batches_of_one_caller_keep_their_order(store: Arc<dyn ArchiveStore>) {
    let mut pending = Vec::new();
    for first in (0..400).step_by(8) {
        let lane = if first % 24 == 0 { Lane::Imported } else { Lane::Live };
        pending.push(store.append((first..first + 8).map(record).collect(), lane).await.unwrap());
    }
    for pending in pending {
        assert_eq!(count(&pending.await, &Outcome::Stored), 8);
    }
    let arrived = follow(store.as_ref(), TailQuery { max_records: 33, ..tail_after(0) }).await;
    let bodies: Vec<Bytes> = arrived.into_iter().map(|record| record.body).collect();
    assert!(bodies == (0..400).map(|n| record(n).body).collect::<Vec<_>>());
}

pub(crate) async fn a_large_record_makes_a_page_of_its_own(store: Arc<dyn ArchiveStore>) {
    let store = store.as_ref();
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
        query.cursor = page.next;
        if page.next.is_none() || pages.len() > sizes.len() {
            break;
        }
    }
    assert_eq!(pages, [1, 1, 2]);
    let arrived = follow(store, TailQuery { max_bytes: 1000, ..tail_after(0) }).await;
    assert_eq!(arrived.len(), sizes.len());
}

pub(crate) async fn a_closed_store_takes_nothing(store: Arc<dyn ArchiveStore>) {
    let record = new_record(&envelope(1000, Topic([1; 4]), b"before"));
    let pending = store.append(vec![record.clone()], Lane::Live).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(pending.await, [Outcome::Stored], "what was handed over is finished");
    assert_eq!(store.append(vec![record], Lane::Live).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!store.writable().borrow().is_yes());
    store.close().await.unwrap();
}
