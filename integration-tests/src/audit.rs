//! What an archive answers, compared with what it acknowledged.

#![expect(clippy::print_stdout, reason = "what is missing is told before a test ends by it")]

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use anyhow::{Context, Result, ensure};
use poste_rpc::archive::v1::archive_service_client::ArchiveServiceClient;
use poste_rpc::archive::v1::query_request::Filter;
use poste_rpc::archive::v1::{
    Direction, LookupRequest, Position, QueryRequest, QueryResponse, Record, TopicSet,
};
use poste_wire::{Bloom, Hash, Topic};
use tonic::transport::Channel;

use crate::load::Ledger;

/// The client of an archive.
pub type Client = ArchiveServiceClient<Channel>;

/// How many were acknowledged, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged as durable.
    pub acknowledged: u64,
    /// Of those, found with their bytes by a walk and by their id.
    pub found: u64,
    /// Below the floor that the archive tells: retired, and not answered any more.
    pub retired: u64,
    /// Neither found nor retired, or not by both ways, or with other bytes.
    pub lost: u64,
    /// Answered twice by a walk, or stored again after they were acknowledged.
    pub duplicates: u64,
}

impl Tally {
    /// Fails unless everything was found, once.
    pub fn ensure_whole(&self) -> Result<()> {
        ensure!(self.lost == 0 && self.duplicates == 0, "{self}");
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, found, retired, lost, duplicates } = self;
        write!(f, "acknowledged {acknowledged}, found {found}, lost {lost}, duplicates {duplicates}")?;
        if *retired > 0 {
            write!(f, " ({retired} retired)")?;
        }
        Ok(())
    }
}

/// Compares everything that the ledger knows as acknowledged with a walk and with look-ups. Fails when the archive
/// answers what was never sent, or something in the wrong order, or bytes that are not those of their id.
pub async fn audit(client: &mut Client, ledger: &Ledger) -> Result<Tally> {
    let walked = walk(client, question(), 1000).await?;
    let mut tally = Tally { duplicates: ledger.stored_twice() + walked.repeated, ..Tally::default() };
    let mut seen = HashSet::new();
    for record in &walked.records {
        let number = checked(ledger, record)?;
        seen.insert(number);
    }
    let floor = walked.floor_ns.unwrap_or(i64::MIN);
    let (standing, retired): (Vec<u64>, Vec<u64>) =
        ledger.numbers(0).into_iter().partition(|number| time_ns(ledger, *number) >= floor);
    tally.acknowledged = (standing.len() + retired.len()) as u64;
    tally.retired = retired.len() as u64;
    let by_id = look_up(client, ledger, &standing).await?;
    tally.found =
        standing.iter().filter(|number| seen.contains(number) && by_id.contains(number)).count() as u64;
    tally.lost = standing.len() as u64 - tally.found;
    if tally.lost > 0 {
        let missing = |found: &HashSet<u64>| -> BTreeSet<u64> {
            standing.iter().copied().filter(|number| !found.contains(number)).collect()
        };
        let range = |numbers: &BTreeSet<u64>| match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) => format!("{} of {first}..={last}", numbers.len()),
            _ => "none".to_owned(),
        };
        let (walk, look_up) = (missing(&seen), missing(&by_id));
        println!("missing in the walk: {}; by their ids: {}", range(&walk), range(&look_up));
    }
    Ok(tally)
}

/// A question for everything, oldest first.
pub fn question() -> QueryRequest {
    QueryRequest {
        space: "waku1".to_owned(),
        from_ns: 0,
        to_ns: i64::MAX,
        direction: Direction::Ascending.into(),
        ..QueryRequest::default()
    }
}

/// A filter of these topics.
pub fn topics(topics: &[Topic]) -> Filter {
    Filter::Topics(TopicSet { topics: topics.iter().map(|topic| topic.0.to_vec().into()).collect() })
}

/// A filter by a bloom.
pub fn bloom(bloom: &Bloom) -> Filter {
    Filter::Bloom(bloom.0.to_vec().into())
}

/// What a walk by pages brought.
#[derive(Debug, Default)]
pub struct Walked {
    /// The records, in the order in which they came.
    pub records: Vec<Record>,
    /// How many pages.
    pub pages: u64,
    /// How many records had come before.
    pub repeated: u64,
    /// The floor that the last page told.
    pub floor_ns: Option<i64>,
    /// What the last page said about completeness.
    pub complete_until_ns: Option<i64>,
}

/// Walks by pages of `limit` records to the end. Fails when a page has the wrong order or more records than asked for.
pub async fn walk(client: &mut Client, question: QueryRequest, limit: u32) -> Result<Walked> {
    let mut walk = Walk::new(question, limit);
    while walk.page(client).await?.is_some() {}
    Ok(walk.walked)
}

/// A walk that is under way.
#[derive(Debug)]
pub struct Walk {
    question: QueryRequest,
    walked: Walked,
    ended: bool,
}

impl Walk {
    /// A walk that stands before its first page.
    pub fn new(question: QueryRequest, limit: u32) -> Self {
        Self {
            question: QueryRequest { max_records: limit, ..question },
            walked: Walked::default(),
            ended: false,
        }
    }

    /// Fetches the next page; `None` after the last one.
    pub async fn page(&mut self, client: &mut Client) -> Result<Option<QueryResponse>> {
        if self.ended {
            return Ok(None);
        }
        let mut page = client.query(self.question.clone()).await?.into_inner();
        let limit = self.question.max_records as usize;
        ensure!(page.records.len() <= limit, "{} records on a page of {limit}", page.records.len());
        let floor = page.floor_ns.unwrap_or(i64::MIN);
        let descending = self.question.direction() == Direction::Descending;
        for record in std::mem::take(&mut page.records) {
            let place = place(record.position.as_ref())?;
            ensure!(place.0 >= floor, "a record of {} below the floor {floor}", place.0);
            let before =
                self.walked.records.last().map(|last| self::place(last.position.as_ref())).transpose()?;
            if before == Some(place) {
                self.walked.repeated += 1;
                continue;
            }
            ensure!(before.is_none_or(|before| (before < place) != descending), "out of order: {record:?}");
            self.walked.records.push(record);
        }
        self.walked.pages += 1;
        self.walked.floor_ns = page.floor_ns;
        self.walked.complete_until_ns = page.complete_until_ns;
        self.ended = page.next.is_none();
        self.question.cursor = page.next.clone();
        Ok(Some(page))
    }

    /// What came until now.
    pub fn walked(self) -> Walked {
        self.walked
    }
}

/// The number of a record that is what was sent, in every byte and in all that is derived.
pub fn checked(ledger: &Ledger, record: &Record) -> Result<u64> {
    let (time, id) = place(record.position.as_ref())?;
    let number = ledger.number_of(&id).with_context(|| format!("{id} was never sent"))?;
    ensure!(record.body == ledger.set.body(number), "other bytes for {id}");
    let (made, topic) = (time_ns(ledger, number), ledger.set.topic(number));
    ensure!(time == made && record.topic == topic.0.as_slice(), "misfiled: {record:?}");
    Ok(number)
}

/// When an envelope of the ledger's set was made, nanoseconds.
pub fn time_ns(ledger: &Ledger, number: u64) -> i64 {
    i64::from(ledger.set.time(number)) * 1_000_000_000
}

/// Time and id of a position: their order is the order of the space.
pub fn place(position: Option<&Position>) -> Result<(i64, Hash)> {
    let position = position.context("a record without a position")?;
    let id = <[u8; 32]>::try_from(position.id.as_ref()).context("an id of 32 bytes")?;
    Ok((position.time_ns, Hash(id)))
}

/// Which of the numbers are found by their id, with their bytes.
async fn look_up(client: &mut Client, ledger: &Ledger, numbers: &[u64]) -> Result<HashSet<u64>> {
    let mut found = HashSet::new();
    for some in numbers.chunks(1000) {
        let ids: Vec<_> =
            some.iter().map(|number| Hash::of(&ledger.set.body(*number)).0.to_vec().into()).collect();
        let mut from = 0;
        while from < ids.len() {
            let request =
                LookupRequest { space: "waku1".to_owned(), ids: ids[from..].to_vec(), with_bodies: true };
            let answer = client.lookup(request).await?.into_inner();
            ensure!(answer.answered > 0, "a look-up that looks at nothing");
            from += answer.answered as usize;
            for record in &answer.records {
                ensure!(found.insert(checked(ledger, record)?), "found twice by its id: {record:?}");
            }
        }
    }
    Ok(found)
}
