//! Questions: walks, one topic, nothing found, dense blooms.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use poste_integration_tests::audit::{Client, bloom, question, topics};
use poste_rpc::archive::v1::QueryRequest;
use poste_rpc::archive::v1::query_request::Filter;
use poste_wire::{Bloom, Topic};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::report::Limit;
use crate::{Bench, SMALL, Stored};

/// The rank, from 0, of the topic that has about a hundredth of all records.
const HUNDREDTH: u32 = 8;
const DAY_NS: i64 = 86_400 * 1_000_000_000;
/// Different filters that match nothing.
const FILTERS: usize = 100;

impl Bench {
    /// The whole history by pages of 1,000.
    pub(crate) async fn walk(&mut self, stored: &Stored, body_bytes: usize) -> Result<()> {
        let limit = Limit::AtLeast(if body_bytes == SMALL { 300_000.0 } else { 120_000.0 });
        let mut client = stored.archive.client()?;
        let mut rates = Vec::new();
        for _ in 0..self.runs(3) {
            let (records, time) = walk(&mut client, None).await?;
            ensure!(records == stored.count(), "{records} of {} came", stored.count());
            rates.push(records as f64 / time.as_secs_f64());
        }
        self.report.row(
            &format!("Query, full walk by pages of 1,000 at {body_bytes} B, {} stored", stored.count()),
            limit,
            "records/s",
            &rates,
        );
        Ok(())
    }

    /// Pages of 100 of a topic that has a hundredth of the records: from anywhere, and by cursor.
    pub(crate) async fn one_topic(&mut self, stored: &Stored, when: &str) -> Result<()> {
        let mut random = StdRng::seed_from_u64(1);
        let mut client = stored.archive.client()?;
        let (from, to) = stored.range_ns();
        let of_topic = QueryRequest {
            max_records: 100,
            filter: Some(topics(&[stored.set.topics.topic(HUNDREDTH)])),
            ..question()
        };
        let mut runs = vec![Vec::new(); self.runs(3)];
        for times in &mut runs {
            for _ in 0..self.questions() {
                let question = QueryRequest { from_ns: random.random_range(from..to), ..of_topic.clone() };
                timed(&mut client, question, times).await?;
            }
        }
        let what = format!("one topic with 1 % of the records, page of 100{when}");
        self.report.times(&format!("{what}, first page from a random time"), Limit::AtMost(3.0), runs);
        let (mut next, mut records) = (of_topic.clone(), 0);
        let mut runs = vec![Vec::new(); self.runs(3)];
        for times in &mut runs {
            while times.len() < self.questions() {
                let page = timed(&mut client, next.clone(), times).await?;
                records += page.records.len();
                // At the end it begins again.
                next.cursor = page.next;
            }
        }
        ensure!(records > 0, "the topic has no records");
        self.report.times(&format!("{what}, by cursor"), Limit::AtMost(3.0), runs);
        Ok(())
    }

    /// Questions that match nothing that is stored, over a random day and over everything.
    pub(crate) async fn no_hit(&mut self, stored: &Stored) -> Result<()> {
        let mut random = StdRng::seed_from_u64(2);
        let mut client = stored.archive.client()?;
        let (from, to) = stored.range_ns();
        let all = Topics::of(stored);
        let dense: Vec<Bloom> = (0..FILTERS).map(|_| all.dense_without_hit(&mut random)).collect();
        let bits = dense.iter().map(bits).sum::<u32>() / FILTERS as u32;
        let kinds: [(String, Vec<Filter>); 3] = [
            ("five topics".to_owned(), (0..FILTERS).map(|_| topics(&all.absent(5, &mut random))).collect()),
            (
                "bloom of three topics".to_owned(),
                (0..FILTERS).map(|_| bloom(&all.sparse_without_hit(&mut random))).collect(),
            ),
            (format!("bloom of {bits} bits"), dense.iter().map(bloom).collect()),
        ];
        for (name, filters) in kinds {
            for (over, limit) in [("one day", 3.0), ("30 days", 10.0)] {
                let mut runs = vec![Vec::new(); self.runs(3)];
                for turn in 0..self.questions() * runs.len() {
                    let mut question =
                        QueryRequest { filter: Some(filters[turn % FILTERS].clone()), ..question() };
                    if over == "one day" {
                        question.from_ns = random.random_range(from..to - DAY_NS);
                        question.to_ns = question.from_ns + DAY_NS;
                    }
                    let page = timed(&mut client, question, &mut runs[turn / self.questions()]).await?;
                    ensure!(page.records.is_empty() && page.next.is_none(), "{name} found something");
                }
                self.report.times(&format!("no hit, {name}, over {over}"), Limit::AtMost(limit), runs);
            }
        }
        Ok(())
    }

    /// A bloom that covers a quarter of all topics against no filter at all, both by pages of 1,000 to the end.
    pub(crate) async fn dense_bloom(&mut self, stored: &Stored) -> Result<()> {
        let mut random = StdRng::seed_from_u64(3);
        let mut client = stored.archive.client()?;
        let filter = Topics::of(stored).quarter(&mut random);
        let (mut ratios, mut rates, mut found) = (Vec::new(), Vec::new(), 0);
        for _ in 0..self.runs(3) {
            let (all, everything) = walk(&mut client, None).await?;
            let (records, filtered) = walk(&mut client, Some(bloom(&filter))).await?;
            ensure!(records > 0 && records < all, "{records} of {all} match");
            ratios.push(filtered.as_secs_f64() / everything.as_secs_f64());
            rates.push(filtered.as_secs_f64());
            found = records;
        }
        let what = format!(
            "dense bloom ({} bits, a quarter of all topics, {found} records), full walk",
            bits(&filter)
        );
        self.report.row(&format!("{what}, against one without filter"), Limit::AtMost(1.5), "times", &ratios);
        self.report.row(&what, Limit::None, "s", &rates);
        Ok(())
    }

    fn questions(&self) -> usize {
        if self.quick { 500 } else { 2000 }
    }
}

/// Walks to the end; how many records came, and the time it took.
async fn walk(client: &mut Client, filter: Option<Filter>) -> Result<(u64, Duration)> {
    let mut next = QueryRequest { max_records: 1000, filter, ..question() };
    let (begun, mut records) = (Instant::now(), 0);
    loop {
        let page = client.query(next.clone()).await?.into_inner();
        records += page.records.len() as u64;
        next.cursor = page.next;
        if next.cursor.is_none() {
            return Ok((records, begun.elapsed()));
        }
    }
}

async fn timed(
    client: &mut Client,
    question: QueryRequest,
    times: &mut Vec<Duration>,
) -> Result<poste_rpc::archive::v1::QueryResponse> {
    let begun = Instant::now();
    let page = client.query(question).await?.into_inner();
    times.push(begun.elapsed());
    Ok(page)
}

/// All topics of the set, and the bits of each in a bloom.
struct Topics {
    all: Vec<(Topic, Bloom)>,
    /// For each of the 512 bits the topics that have it.
    by_bit: Vec<Vec<usize>>,
}

impl Topics {
    fn of(stored: &Stored) -> Self {
        let topics = &stored.set.topics;
        let all: Vec<_> = (0..topics.len())
            .map(|rank| topics.topic(rank))
            .map(|topic| (topic, Bloom::sample(topic)))
            .collect();
        let mut by_bit = vec![Vec::new(); 512];
        for (place, (_, sample)) in all.iter().enumerate() {
            for bit in (0..512).filter(|bit| has(sample, *bit)) {
                by_bit[bit].push(place);
            }
        }
        Self { all, by_bit }
    }

    fn matches(&self, filter: &Bloom) -> usize {
        self.all.iter().filter(|(_, sample)| filter.covers(sample)).count()
    }

    /// Topics that nothing is stored of.
    fn absent(&self, count: usize, random: &mut StdRng) -> Vec<Topic> {
        let mut found = Vec::new();
        while found.len() < count {
            let topic = Topic(random.random());
            if !self.all.iter().any(|(stored, _)| *stored == topic) {
                found.push(topic);
            }
        }
        found
    }

    fn sparse_without_hit(&self, random: &mut StdRng) -> Bloom {
        loop {
            let filter = Bloom::of_topics(self.absent(3, random));
            if self.matches(&filter) == 0 {
                return filter;
            }
        }
    }

    /// As many bits as can be set in a random order without covering a stored topic.
    fn dense_without_hit(&self, random: &mut StdRng) -> Bloom {
        let mut order: Vec<usize> = (0..512).collect();
        order.shuffle(random);
        let mut filter = Bloom::EMPTY;
        for bit in order {
            set(&mut filter, bit);
            if self.by_bit[bit].iter().any(|place| filter.covers(&self.all[*place].1)) {
                filter.0[bit / 8] &= !(1 << (bit % 8));
            }
        }
        filter
    }

    /// Random bits until a quarter of all topics is covered.
    fn quarter(&self, random: &mut StdRng) -> Bloom {
        let mut order: Vec<usize> = (0..512).collect();
        order.shuffle(random);
        let mut filter = Bloom::EMPTY;
        for bit in order {
            set(&mut filter, bit);
            if self.matches(&filter) >= self.all.len() / 4 {
                break;
            }
        }
        filter
    }
}

fn has(bloom: &Bloom, bit: usize) -> bool {
    bloom.0[bit / 8] >> (bit % 8) & 1 == 1
}

fn set(bloom: &mut Bloom, bit: usize) {
    bloom.0[bit / 8] |= 1 << (bit % 8);
}

fn bits(bloom: &Bloom) -> u32 {
    bloom.0.iter().map(|byte| byte.count_ones()).sum()
}
