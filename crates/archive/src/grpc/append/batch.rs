//! What becomes of a batch: what the store does not get to see (unknown spaces, and what is above a quota) keeps its
//! place among what it does.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use poste_rpc::archive::v1;
use poste_wire::{Hash, Topic};

use crate::metrics::StoreMetrics;
use crate::quota::{Quotas, Reservation};
use crate::record::{Derived, Position, Refusal, Space};
use crate::store::{
    ArchiveStore, Direction, Filter, Lane, NewRecord, Outcome, Pending, Query, StoreError, WriterId,
};

/// What stands between writers and the store.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    pub(crate) quotas: Quotas,
    /// Only records of these topics are kept by the store; all, if there are none.
    pub(crate) keep_topics: Option<Arc<HashSet<Topic>>>,
    /// Where records are counted that do not reach the store.
    pub(crate) metrics: StoreMetrics,
}

/// Where the outcome of a record of a batch comes from.
enum Place {
    /// The next one of the store.
    HandedOver,
    Refused(Refusal),
    /// The next one of those above a quota.
    OverQuota,
}

/// A record above a quota, and what to say to its writer if it is a new one.
struct OverQuota {
    record: NewRecord,
    reason: String,
}

/// It may be stored already.
struct Unknown {
    space: Space,
    position: Position,
    reason: String,
}

/// What a store says of some records of a space.
struct Stored {
    floor_ns: Option<i64>,
    /// Those that it has.
    ids: HashSet<Hash>,
}

impl Intake {
    /// Hands a batch over, in order with the ones before it. What comes back waits for the outcomes, one for each
    /// record. What the writer has confirmed to others is above no quota.
    pub(super) async fn hand_over(
        &self,
        store: &Arc<dyn ArchiveStore>,
        writer: &WriterId,
        records: Vec<v1::NewRecord>,
        confirmed: bool,
    ) -> Result<impl Future<Output = Vec<Outcome>> + Send + use<>, StoreError> {
        let max_size = store.retention().in_force().max_bytes;
        let (mut admitted, mut reservations, mut over_quota) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = Vec::with_capacity(records.len());
        for v1::NewRecord { space, body } in records {
            let space: Space = match space.parse() {
                Ok(space) => space,
                Err(refusal) => {
                    places.push(Place::Refused(refusal));
                    continue;
                }
            };
            let record = NewRecord { space, body };
            match self.quotas.admit(writer, record.body.len(), max_size, confirmed) {
                Ok(reservation) => {
                    admitted.push(record);
                    reservations.push(reservation);
                    places.push(Place::HandedOver);
                }
                Err(reason) => {
                    over_quota.push(OverQuota { record, reason });
                    places.push(Place::OverQuota);
                }
            }
        }
        let pending = store.append(admitted, Lane::Live).await?;
        // In a task of its own: should the writer vanish, what was not stored does not go on counting. The store answers
        // for whatever it took, at its end at the latest.
        let stored = tokio::spawn(settle(pending, reservations));
        let store = Arc::clone(store);
        let Self { keep_topics, metrics, .. } = self.clone();
        Ok(async move {
            let mut stored = stored.await.unwrap_or_default().into_iter();
            // Behind the others, so that what is twice in a batch is a duplicate.
            let mut judged = judge(&*store, keep_topics, over_quota).await.into_iter();
            let unanswered = || Outcome::Unavailable("the archive was stopped".to_owned());
            let outcome = |place| {
                let unseen = match place {
                    Place::HandedOver => return stored.next().unwrap_or_else(unanswered),
                    Place::Refused(refusal) => Outcome::Refused(refusal),
                    Place::OverQuota => judged.next().unwrap_or_else(unanswered),
                };
                metrics.count_outcomes(std::slice::from_ref(&unseen));
                unseen
            };
            places.into_iter().map(outcome).collect()
        })
    }
}

/// Only what was stored goes on counting.
async fn settle(pending: Pending, reservations: Vec<Reservation>) -> Vec<Outcome> {
    let outcomes = pending.await;
    for (reservation, outcome) in reservations.into_iter().zip(&outcomes) {
        if *outcome == Outcome::Stored {
            reservation.stored();
        }
    }
    outcomes
}

/// What becomes of records above a quota, which counts for new ones only: a writer that did not get an acknowledgement
/// sends again what is stored long since.
async fn judge(
    store: &dyn ArchiveStore,
    keep_topics: Option<Arc<HashSet<Topic>>>,
    over_quota: Vec<OverQuota>,
) -> Vec<Outcome> {
    if over_quota.is_empty() {
        return Vec::new();
    }
    // Hashing takes about 2 ms a MiB.
    let derive = move || over_quota.into_iter().map(|one| one.derive(keep_topics.as_deref())).collect();
    let derived: Vec<Result<Unknown, Outcome>> =
        tokio::task::spawn_blocking(derive).await.unwrap_or_default();
    let mut stored: BTreeMap<Space, Result<Stored, StoreError>> = BTreeMap::new();
    for space in derived.iter().flatten().map(|unknown| unknown.space).collect::<BTreeSet<_>>() {
        let ids = derived.iter().flatten().filter(|unknown| unknown.space == space);
        let ids = ids.map(|unknown| unknown.position.id).collect();
        stored.insert(space, Stored::of(store, space, ids).await);
    }
    let outcome = |unknown: Unknown| match stored.get(&unknown.space) {
        Some(Ok(stored)) => stored.outcome(unknown),
        Some(Err(error)) => Outcome::Unavailable(error.to_string()),
        None => Outcome::OverQuota(unknown.reason),
    };
    derived.into_iter().map(|one| one.map_or_else(|known| known, outcome)).collect()
}

impl OverQuota {
    fn derive(self, keep_topics: Option<&HashSet<Topic>>) -> Result<Unknown, Outcome> {
        let Self { record: NewRecord { space, body }, reason } = self;
        let Derived { position, topic } = Derived::of(space, &body).map_err(Outcome::Refused)?;
        match keep_topics {
            Some(topics) if !topics.contains(&topic) => Err(Outcome::NotKept),
            _ => Ok(Unknown { space, position, reason }),
        }
    }
}

impl Stored {
    async fn of(store: &dyn ArchiveStore, space: Space, ids: Vec<Hash>) -> Result<Self, StoreError> {
        // An empty page, for the sake of the floor that each page carries.
        let nothing = Query {
            space,
            from_ns: i64::MIN,
            to_ns: i64::MIN,
            filter: Filter::Topics(Vec::new()),
            direction: Direction::Ascending,
            max_records: 1,
            max_bytes: 1,
            cursor: None,
        };
        let floor_ns = store.page(nothing).await?.floor_ns;
        let found = store.lookup(space, ids, false).await?;
        Ok(Self { floor_ns, ids: found.into_iter().flatten().map(|record| record.position.id).collect() })
    }

    fn outcome(&self, Unknown { position, reason, .. }: Unknown) -> Outcome {
        if self.floor_ns.is_some_and(|floor_ns| position.time_ns < floor_ns) {
            Outcome::Refused(Refusal::BelowFloor)
        } else if self.ids.contains(&position.id) {
            Outcome::Duplicate
        } else {
            Outcome::OverQuota(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use poste_service::Clock;

    use super::*;
    use crate::quota::{DayBytes, QuotaLimits};
    use crate::store::conformance::envelope;
    use crate::store::{MemoryStore, StoreId};

    #[tokio::test]
    async fn what_was_stored_counts_and_nothing_else_also_when_the_writer_is_gone() {
        let writer = DayBytes { medium: 100_000, ..DayBytes::default() };
        let limits = QuotaLimits { writer, ..QuotaLimits::default() };
        let quotas = Quotas::new(limits, Clock::system());
        let intake = Intake { quotas, keep_topics: None, metrics: StoreMetrics::default() };
        let store: Arc<dyn ArchiveStore> = Arc::new(MemoryStore::new(StoreId([1; 16])));
        let writer: WriterId = "gateway".parse().unwrap();
        let hand_over = |n: u8| {
            let body = envelope(1000, Topic([1; 4]), &[n; 40_000]).rlp().clone();
            intake.hand_over(&store, &writer, vec![v1::NewRecord { space: "waku1".to_owned(), body }], false)
        };
        for _ in 0..3 {
            // The stream is cut before anything is acknowledged.
            drop(hand_over(0).await.unwrap());
            tokio::task::yield_now().await;
        }
        assert_eq!(hand_over(1).await.unwrap().await, [Outcome::Stored], "one of the three was");
        assert!(matches!(hand_over(2).await.unwrap().await[..], [Outcome::OverQuota(_)]));
    }
}
