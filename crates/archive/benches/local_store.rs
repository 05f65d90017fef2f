//! The local store on this machine's disk: batches to their acknowledgement, and history by pages. Envelopes
//! of 304 bytes over 1,000 topics and a day; the page cache is warm.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use poste_archive::record::Space;
use poste_archive::store::{ArchiveStore, Direction, Filter, Lane, NewRecord, Query};
use poste_archive::{LocalOptions, LocalStore};
use poste_service::Clock;
use poste_wire::{Bloom, Envelope, Topic};
use tokio::runtime::Runtime;

const STORED: u32 = 200_000;
const TOPICS: u32 = 1_000;

fn topic(n: u32) -> Topic {
    Topic((n % TOPICS).wrapping_mul(2_654_435_761).to_be_bytes())
}

fn batch(first: u32, count: u32) -> Vec<NewRecord> {
    let body = |n: u32| -> Bytes {
        let mut data = vec![n as u8; 284];
        data[..4].copy_from_slice(&n.to_be_bytes());
        Envelope::new(1_700_000_050 + n % 86_400, 50, topic(n), &data, 1).rlp().clone()
    };
    (first..first + count).map(|n| NewRecord { space: Space::Waku1, body: body(n) }).collect()
}

fn query(filter: Filter) -> Query {
    Query {
        space: Space::Waku1,
        from_ns: 0,
        to_ns: i64::MAX,
        filter,
        direction: Direction::Ascending,
        max_records: 1000,
        max_bytes: 2 * 1024 * 1024,
        cursor: None,
    }
}

async fn walk(store: &LocalStore, mut query: Query) -> usize {
    let mut records = 0;
    loop {
        let page = store.page(query.clone()).await.expect("the store answers");
        records += black_box(&page.records).len();
        query.cursor = page.next;
        if query.cursor.is_none() {
            return records;
        }
    }
}

fn benchmark(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let dir = tempfile::tempdir().expect("a directory can be made");
    let store = LocalStore::open(LocalOptions::new(dir.path(), Clock::system())).expect("the store opens");
    let mut next = 0;

    let mut group = criterion.benchmark_group("append");
    for size in [1, 100, 4000] {
        group.throughput(Throughput::Elements(size.into()));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                || {
                    next += size;
                    batch(next - size, size)
                },
                |records| {
                    runtime.block_on(async {
                        store.append(records, Lane::Live).await.expect("it is open").await
                    })
                },
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();

    while next < STORED {
        let records = batch(next, 4000);
        next += 4000;
        runtime.block_on(async { store.append(records, Lane::Live).await.expect("it is open").await });
    }
    let mut group = criterion.benchmark_group("walk");
    group.sample_size(10);
    let some: Vec<Topic> = (0..20).map(topic).collect();
    let quarter: Vec<Topic> = (0..TOPICS / 4).map(topic).collect();
    let questions = [
        ("everything", Filter::Everything),
        ("one topic", Filter::Topics(vec![topic(1)])),
        ("20 topics", Filter::Topics(some.clone())),
        ("a quarter of all topics", Filter::Topics(quarter)),
        ("bloom of 20 topics", Filter::Bloom(Box::new(Bloom::of_topics(some)))),
    ];
    for (name, filter) in questions {
        let records = runtime.block_on(walk(&store, query(filter.clone())));
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(walk(&store, query(filter.clone()))));
        });
    }
    group.finish();
    drop(store);

    let mut group = criterion.benchmark_group("open");
    group.sample_size(10);
    group.throughput(Throughput::Elements(next.into()));
    group.bench_function("after a stop", |bencher| {
        bencher.iter(|| LocalStore::open(LocalOptions::new(dir.path(), Clock::system())).expect("it opens"));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
