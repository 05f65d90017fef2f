//! The small twin: a store in memory, for the tests of whatever asks an archive. It answers by walking an
//! ordered map, so its answers are easy to believe and slow.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use parking_lot::RwLock;
use poste_service::Clock;
use poste_wire::{Hash, Topic};
use tokio::sync::watch;

use super::{
    ArchiveStore, Connection, Direction, Filter, Lane, NewRecord, Outcome, Page, Pending, ProgressFn, Query,
    Retention, Retentions, Retired, SpaceStats, StoreError, StoreId, StoreStats, TailPage, TailQuery,
    Verification, Writable, WriterId, WriterStatus, Writers,
};
use crate::record::{Derived, Position, Record, Refusal, Space};

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    store_id: StoreId,
    state: RwLock<State>,
    head: watch::Sender<u64>,
    writable: watch::Sender<Writable>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// By position, within each space.
    records: BTreeMap<(Space, Position), Record>,
    by_id: HashMap<(Space, Hash), Position>,
    /// By order of arrival.
    arrivals: Vec<(Space, Position)>,
    writers: Writers,
    floors: BTreeMap<Space, i64>,
    retired_seq: u64,
    retentions: Retentions,
}

impl MemoryStore {
    /// An empty store with this identity.
    #[must_use]
    pub fn new(store_id: StoreId) -> Self {
        Self {
            store_id,
            state: RwLock::default(),
            head: watch::Sender::new(0),
            writable: watch::Sender::new(Writable::Yes),
        }
    }

    /// Makes it refuse records with [`Outcome::Unavailable`], as a full disk does, or take them again.
    pub fn set_writable(&self, writable: bool) {
        let refusing = || Writable::No("the store takes nothing now".to_owned());
        self.writable.send_replace(if writable { Writable::Yes } else { refusing() });
    }
}

#[tonic::async_trait]
impl ArchiveStore for MemoryStore {
    fn store_id(&self) -> StoreId {
        self.store_id
    }

    async fn append(&self, batch: Vec<NewRecord>, _lane: Lane) -> Result<Pending, StoreError> {
        let mut state = self.state.write();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let writable = self.writable.borrow().is_yes();
        let outcomes = batch.into_iter().map(|record| state.add(record, writable)).collect();
        self.head.send_replace(state.arrivals.len() as u64);
        Ok(Pending::ready(outcomes))
    }

    async fn page(&self, query: Query) -> Result<Page, StoreError> {
        let state = self.state.read();
        let (mut from, mut to) = (Position::first_of(query.from_ns), Position::last_of(query.to_ns));
        match (query.cursor, query.direction) {
            (None, _) => {}
            (Some(cursor), Direction::Ascending) => from = from.max(cursor),
            (Some(cursor), Direction::Descending) => to = to.min(cursor),
        }
        let (complete_until_ns, floor_ns) = (state.writers.complete_until_ns(), state.floor(query.space));
        let empty = Page { complete_until_ns, floor_ns, ..Page::default() };
        if from > to {
            return Ok(empty);
        }
        let range = state.records.range((query.space, from)..=(query.space, to)).map(|(_, record)| record);
        let wanted =
            |record: &&Record| query.filter.matches(record.topic) && query.cursor != Some(record.position);
        let page = match query.direction {
            Direction::Ascending => fill(range.filter(wanted), query.max_records, query.max_bytes),
            Direction::Descending => fill(range.rev().filter(wanted), query.max_records, query.max_bytes),
        };
        Ok(Page { records: page.records, next: page.next, ..empty })
    }

    async fn tail(&self, query: TailQuery) -> Result<TailPage, StoreError> {
        let state = self.state.read();
        let end = (state.arrivals.len() as u64).min(query.until.unwrap_or(u64::MAX));
        let after = query.after.min(end);
        let arrivals = state.arrivals[after as usize..end as usize].iter();
        let wanted = arrivals
            .filter(|(space, _)| *space == query.space)
            .filter_map(|place| state.records.get(place))
            .filter(|record| query.topics.as_ref().is_none_or(|topics| topics.contains(&record.topic)));
        let Page { records, next, .. } = fill(wanted, query.max_records, query.max_bytes);
        let scanned = match (next, records.last()) {
            (Some(_), Some(last)) => last.seq,
            _ => end.max(query.after),
        };
        Ok(TailPage { records, scanned })
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn retired_seq(&self) -> u64 {
        self.state.read().retired_seq
    }

    fn writable(&self) -> watch::Receiver<Writable> {
        self.writable.subscribe()
    }

    async fn lookup(
        &self,
        space: Space,
        ids: Vec<Hash>,
        with_bodies: bool,
    ) -> Result<Vec<Option<Record>>, StoreError> {
        let state = self.state.read();
        let find = |id| {
            let position = state.by_id.get(&(space, id))?;
            let mut record = state.records.get(&(space, *position))?.clone();
            if !with_bodies {
                record.body.clear();
            }
            Some(record)
        };
        Ok(ids.into_iter().map(find).collect())
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let state = self.state.read();
        Ok(StoreStats {
            seq: state.arrivals.len() as u64,
            spaces: state.spaces(),
            writable: Some(self.writable.borrow().clone()),
            retention: state.retentions.in_force(),
            ..StoreStats::default()
        })
    }

    async fn writer_connected(
        &self,
        writer: &WriterId,
        at_ns: i64,
        max_intake_age: Duration,
    ) -> Result<Connection, StoreError> {
        self.state.write().writers.connected(writer, at_ns, max_intake_age)
    }

    async fn writer_reports(
        &self,
        writer: &WriterId,
        connection: Connection,
        held_back_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        let now_ns = Clock::system().unix_nanos();
        self.state.write().writers.reports(writer, connection, held_back_ns, now_ns)?;
        Ok(())
    }

    async fn writer_left(
        &self,
        writer: &WriterId,
        connection: Connection,
        goodbye: bool,
    ) -> Result<(), StoreError> {
        self.state.write().writers.left(writer, connection, goodbye)?;
        Ok(())
    }

    async fn forget_writer(&self, writer: &WriterId) -> Result<bool, StoreError> {
        Ok(self.state.write().writers.forget(writer))
    }

    async fn writers(&self) -> Result<Vec<WriterStatus>, StoreError> {
        Ok(self.state.read().writers.all())
    }

    async fn retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError> {
        Ok(self.state.write().retire(space, floor_ns))
    }

    async fn would_retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError> {
        let state = self.state.read();
        let floor_ns = state.floor(space).map_or(floor_ns, |floor| floor.max(floor_ns));
        let below: Vec<&Record> = state.below(space, floor_ns).map(|(_, record)| record).collect();
        let bytes = below.iter().map(|record| record.body.len() as u64).sum();
        let records = below.len() as u64;
        Ok(Retired { floor_ns: Some(floor_ns), hidden: records, records, bytes })
    }

    /// Nothing retires by itself here: tests call [`ArchiveStore::retire`].
    async fn set_retention(&self, retention: Retention, durable: bool) -> Result<(), StoreError> {
        self.state.write().retentions.set(retention, durable);
        Ok(())
    }

    async fn reset_retention(&self) -> Result<(), StoreError> {
        self.state.write().retentions.overridden = None;
        Ok(())
    }

    fn retention(&self) -> Retentions {
        self.state.read().retentions
    }

    async fn verify(&self, _progress: ProgressFn) -> Result<Verification, StoreError> {
        let records = self.state.read().records.len() as u64;
        Ok(Verification { records, complete: true, ..Verification::default() })
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.state.write().closed = true;
        self.writable.send_replace(Writable::No("the archive was stopped".to_owned()));
        Ok(())
    }
}

impl State {
    fn add(&mut self, new: NewRecord, writable: bool) -> Outcome {
        let derived = match Derived::of(new.space, &new.body) {
            Ok(derived) => derived,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if !writable {
            return Outcome::Unavailable("the store takes nothing now".to_owned());
        }
        let Derived { position, topic } = derived;
        if let Some(floor_ns) = self.floor(new.space)
            && position.time_ns < floor_ns
        {
            return Outcome::Refused(Refusal::BelowFloor);
        }
        if self.by_id.contains_key(&(new.space, position.id)) {
            return Outcome::Duplicate;
        }
        self.arrivals.push((new.space, position));
        self.by_id.insert((new.space, position.id), position);
        let seq = self.arrivals.len() as u64;
        self.records.insert((new.space, position), Record { position, topic, seq, body: new.body });
        Outcome::Stored
    }

    fn floor(&self, space: Space) -> Option<i64> {
        self.floors.get(&space).copied()
    }

    /// Each space that holds something, or has a floor.
    fn spaces(&self) -> Vec<SpaceStats> {
        let holding = self.records.keys().map(|(space, _)| *space);
        let spaces: BTreeSet<Space> = holding.chain(self.floors.keys().copied()).collect();
        spaces.into_iter().map(|space| self.stats_of(space)).collect()
    }

    fn stats_of(&self, space: Space) -> SpaceStats {
        let range = (space, Position::first_of(i64::MIN))..=(space, Position::last_of(i64::MAX));
        let records: Vec<&Record> = self.records.range(range).map(|(_, record)| record).collect();
        let topics: HashSet<Topic> = records.iter().map(|record| record.topic).collect();
        SpaceStats {
            space,
            records: records.len() as u64,
            bytes: records.iter().map(|record| record.body.len() as u64).sum(),
            topics: topics.len() as u64,
            oldest_ns: records.first().map(|record| record.position.time_ns),
            newest_ns: records.last().map(|record| record.position.time_ns),
            floor_ns: self.floor(space),
        }
    }

    fn below(&self, space: Space, floor_ns: i64) -> impl Iterator<Item = (&(Space, Position), &Record)> {
        let first = (space, Position::first_of(i64::MIN));
        self.records.range(first..(space, Position::first_of(floor_ns)))
    }

    fn retire(&mut self, space: Space, floor_ns: i64) -> Retired {
        let floor_ns = self.floor(space).map_or(floor_ns, |floor| floor.max(floor_ns));
        self.floors.insert(space, floor_ns);
        let below: Vec<(Space, Position)> = self.below(space, floor_ns).map(|(place, _)| *place).collect();
        let mut retired = Retired { floor_ns: Some(floor_ns), ..Retired::default() };
        for place in below {
            if let Some(record) = self.records.remove(&place) {
                self.by_id.remove(&(space, record.position.id));
                self.retired_seq = self.retired_seq.max(record.seq);
                retired.hidden += 1;
                retired.records += 1;
                retired.bytes += record.body.len() as u64;
            }
        }
        retired
    }
}

impl Filter {
    pub(crate) fn matches(&self, topic: Topic) -> bool {
        match self {
            Self::Everything => true,
            Self::Topics(topics) => topics.contains(&topic),
            Self::Bloom(bloom) => bloom.matches(topic),
        }
    }
}

/// Takes records until a limit is met; `next` when one more would have followed.
fn fill<'a>(records: impl Iterator<Item = &'a Record>, max_records: usize, max_bytes: usize) -> Page {
    let mut page = Page::default();
    let mut bytes = 0_usize;
    for record in records {
        bytes = bytes.saturating_add(record.body.len());
        let full = page.records.len() >= max_records || bytes > max_bytes;
        if full && !page.records.is_empty() {
            page.next = page.records.last().map(|last| last.position);
            break;
        }
        page.records.push(record.clone());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (MemoryStore, ()) {
        (MemoryStore::new(StoreId([1; 16])), ())
    }

    /// As if its state had been durable: the records stay, the connections do not.
    async fn reopen(store: MemoryStore, _alive: &()) -> MemoryStore {
        let mut state = store.state.into_inner();
        state.closed = false;
        state.retentions.configured = Retention::default();
        let durable: Vec<_> = state.writers.durable().map(|(id, since_ns)| (id.clone(), since_ns)).collect();
        state.writers = Writers::restored(durable);
        let head = watch::Sender::new(state.arrivals.len() as u64);
        let writable = watch::Sender::new(Writable::Yes);
        MemoryStore { store_id: store.store_id, state: RwLock::new(state), head, writable }
    }

    crate::store::conformance::suite!(open, reopen);
}
