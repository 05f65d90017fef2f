//! Full history by pages of every size while envelopes arrive and old ones are retired (J8): what was answerable before the
//! first page, and is above the floor at the last, comes exactly once.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use poste_archive::record::Space;
use poste_archive::store::ArchiveStore;
use poste_archive::{LocalOptions, LocalStore};
use poste_rpc::archive::v1::query_request::Filter;
use poste_rpc::archive::v1::{Direction, QueryRequest};
use poste_service::Clock;
use poste_wire::{Bloom, Topic};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::host::Served;
use super::set;
use crate::audit::{Client, Tally, Walk, bloom, checked, question, time_ns, topics};
use crate::load::{Ledger, Stream};
use crate::set::Set;

/// How many records stand at a time, about; and their times of creation, nanoseconds.
const STANDING: u64 = 2000;
const STANDING_NS: i64 = STANDING as i64 * 1_000_000_000 / PER_SECOND as i64;
const PER_SECOND: f64 = 100.0;
/// A new record is at most as much younger than the youngest as this, and mostly older: it appears before a walk or behind.
const JITTER: u32 = (STANDING / PER_SECOND as u64) as u32;
/// While a walk takes place, this part of the records is replaced.
const REPLACED: f64 = 0.25;

/// Walks by pages of each of these sizes, in both directions, with and without filters.
pub async fn pages(seed: u64, limits: &[u32]) -> Result<Tally> {
    let directory = tempfile::tempdir()?;
    let options = LocalOptions {
        segment_bytes: 256 * 1024,
        ..LocalOptions::new(directory.path().join("archive"), Clock::system())
    };
    let store = tokio::task::spawn_blocking(move || LocalStore::open(options)).await??;
    pages_of(Arc::new(store), seed, limits).await
}

/// The same on any store.
pub async fn pages_of(store: Arc<dyn ArchiveStore>, seed: u64, limits: &[u32]) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let served = Served::start(Arc::clone(&store)).await?;
    let mut client = served.client()?;
    let ledger =
        Ledger::new(Set { per_second: PER_SECOND, jitter: JITTER, data_bytes: 10..=400, ..set(seed)? });
    let mut history = History {
        stream: Stream::open(client.clone(), "pages").await?,
        store,
        floor_ns: i64::MIN,
        ledger: Arc::clone(&ledger),
    };
    while ledger.given() < STANDING * 3 / 2 {
        history.stream.append(&ledger, 500).await?;
    }
    let (mut all, mut arrived, mut pages) = (Tally::default(), 0, 0);
    for (turn, limit) in limits.iter().enumerate() {
        let filter = match random.random_range(0..4) {
            0 => Wanted::Topics((0..40).map(|rank| ledger.set.topics.topic(rank * 3)).collect()),
            1 => Wanted::Bloom(Bloom::of_topics((0..60).map(|rank| ledger.set.topics.topic(rank * 5)))),
            _ => Wanted::Everything,
        };
        let one = history.walk(&mut client, *limit, turn.is_multiple_of(2), &filter, &mut random).await?;
        one.tally.ensure_whole()?;
        ensure!(one.tally.found > 0, "nothing to find by pages of {limit}");
        all.acknowledged += one.tally.acknowledged;
        all.found += one.tally.found;
        all.retired += one.tally.retired;
        arrived += one.arrived;
        pages += one.pages;
    }
    println!("{} walks, {pages} pages: {all}; {arrived} more arrived meanwhile and were seen", limits.len());
    ensure!(all.retired > 0 && arrived > 0, "nothing was retired, or nothing arrived, during a walk");
    served.stop().await?;
    Ok(all)
}

/// What changes while it is read.
struct History {
    store: Arc<dyn ArchiveStore>,
    stream: Stream,
    ledger: Arc<Ledger>,
    floor_ns: i64,
}

struct Outcome {
    tally: Tally,
    /// Records of the walk that were not yet acknowledged before its first page.
    arrived: u64,
    pages: u64,
}

impl History {
    async fn walk(
        &mut self,
        client: &mut Client,
        limit: u32,
        descending: bool,
        filter: &Wanted,
        random: &mut StdRng,
    ) -> Result<Outcome> {
        let before: Vec<u64> =
            self.standing().into_iter().filter(|number| filter.wants(&self.ledger, *number)).collect();
        let direction = if descending { Direction::Descending } else { Direction::Ascending };
        let question = QueryRequest { direction: direction.into(), filter: filter.message(), ..question() };
        let mut walk = Walk::new(question, limit);
        let expected_pages = (before.len() as f64 / f64::from(limit)).max(1.0);
        let arrive_a_page = STANDING as f64 * REPLACED / expected_pages;
        loop {
            let count = (arrive_a_page * random.random_range(0.0..2.0) + random.random::<f64>()) as usize;
            // The page is asked for while the records arrive.
            let (page, arrived) = tokio::join!(walk.page(client), self.arrive(count.min(1000)));
            arrived?;
            if page?.is_none() {
                break;
            }
            if random.random_bool((4.0 / expected_pages).min(0.5)) {
                self.retire().await?;
            }
        }
        let walked = walk.walked();
        let mut seen = HashSet::new();
        for record in &walked.records {
            let number = checked(&self.ledger, record)?;
            ensure!(filter.wants(&self.ledger, number), "not asked for: {record:?}");
            seen.insert(number);
        }
        let floor = walked.floor_ns.unwrap_or(i64::MIN);
        let (expected, retired): (Vec<u64>, Vec<u64>) =
            before.iter().partition(|number| time_ns(&self.ledger, **number) >= floor);
        let found = expected.iter().filter(|number| seen.contains(number)).count() as u64;
        let before: HashSet<u64> = before.into_iter().collect();
        Ok(Outcome {
            arrived: seen.difference(&before).count() as u64,
            pages: walked.pages,
            tally: Tally {
                acknowledged: (expected.len() + retired.len()) as u64,
                found,
                retired: retired.len() as u64,
                lost: expected.len() as u64 - found,
                duplicates: walked.repeated,
            },
        })
    }

    /// What is acknowledged and not retired.
    fn standing(&self) -> Vec<u64> {
        let set = &self.ledger.set;
        let seconds = self.floor_ns / 1_000_000_000 - i64::from(set.begin) - i64::from(set.jitter) - 1;
        let from = (seconds.max(0) as f64 * set.per_second) as u64;
        let mut numbers = self.ledger.numbers(from);
        numbers.retain(|number| time_ns(&self.ledger, *number) >= self.floor_ns);
        numbers
    }

    async fn arrive(&mut self, count: usize) -> Result<()> {
        if count == 0 { Ok(()) } else { self.stream.append(&self.ledger, count).await }
    }

    /// Raises the floor to where it leaves about as many records as should stand.
    async fn retire(&mut self) -> Result<()> {
        let newest = i64::from(self.ledger.set.begin) * 1_000_000_000
            + (self.ledger.given() as f64 / PER_SECOND * 1e9) as i64;
        self.floor_ns = self.floor_ns.max(newest - STANDING_NS);
        self.store.retire(Space::Waku1, self.floor_ns).await?;
        Ok(())
    }
}

/// What a walk asks for.
enum Wanted {
    Everything,
    Topics(HashSet<Topic>),
    Bloom(Bloom),
}

impl Wanted {
    fn message(&self) -> Option<Filter> {
        match self {
            Self::Everything => None,
            Self::Topics(wanted) => Some(topics(&wanted.iter().copied().collect::<Vec<_>>())),
            Self::Bloom(filter) => Some(bloom(filter)),
        }
    }

    fn wants(&self, ledger: &Ledger, number: u64) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics(wanted) => wanted.contains(&ledger.set.topic(number)),
            Self::Bloom(filter) => filter.matches(ledger.set.topic(number)),
        }
    }
}
