//! Forgetting what is older than its retention, in pieces, so that nobody waits long for the writer.

use std::ops::Bound;

use redb::{ReadableDatabase, Table, WriteTransaction};

use super::claims::{ANSWERED_AT, ANSWERS, ENDED, ENDED_AT, FoundBy, OPEN};
use super::registrations::{ROWS, forget};
use super::row::{Row, device_of};
use super::{Files, RedbStore};
use crate::store::{DeviceId, Expired, Retention, StoreError};

/// Behind which row the next piece begins. It is kept in memory: a restart begins anew.
pub(super) type Cursor = Option<Vec<u8>>;

/// One piece.
pub(super) async fn expire(
    store: &RedbStore,
    retention: Retention,
    budget: usize,
) -> Result<Expired, StoreError> {
    let budget = budget.max(1);
    let mut expired = expire_requests(store, retention, budget).await?;
    if retention.registrations_before_unix_s == 0 {
        return Ok(expired);
    }
    let before = retention.registrations_before_unix_s;
    let after = store.0.expiry.lock().take();
    let piece = store.read(move |files| files.stale(after, before, budget)).await?;
    let is_last = piece.next.is_none();
    if !piece.stale.is_empty() {
        let stale = piece.stale;
        expired.registrations = store
            .0
            .registrations
            .write(move |transaction, slots| {
                let mut forgotten = Vec::new();
                for device in stale {
                    // It may have been registered or reached since.
                    let is_stale = |row: &Row| row.last_sign_unix_s() < before;
                    if forget(transaction, slots, &device, is_stale)?.is_some() {
                        forgotten.push(device);
                    }
                }
                Ok(forgotten)
            })
            .await?;
    }
    *store.0.expiry.lock() = piece.next;
    expired.is_done &= is_last;
    Ok(expired)
}

async fn expire_requests(
    store: &RedbStore,
    retention: Retention,
    budget: usize,
) -> Result<Expired, StoreError> {
    let (claims_before, answers_before) = (retention.claims_before_unix_s, retention.answers_before_unix_s);
    if (claims_before, answers_before) == (0, 0) {
        return Ok(Expired { is_done: true, ..Expired::default() });
    }
    let work = move |transaction: &WriteTransaction, (): &mut ()| {
        let ended = oldest(&mut transaction.open_table(ENDED_AT)?, claims_before, budget)?;
        let mut claims = transaction.open_table(ENDED)?;
        for id in &ended {
            claims.remove(id)?;
        }
        let answered = oldest(&mut transaction.open_table(ANSWERED_AT)?, answers_before, budget)?;
        let mut answers = transaction.open_table(ANSWERS)?;
        for id in &answered {
            answers.remove(id)?;
        }
        // Few: those that are being sent now, and any whose owner forgot to end them.
        let mut open = 0;
        transaction.open_table(OPEN)?.retain(|_, at| {
            let is_kept = at >= claims_before;
            open += u64::from(!is_kept);
            is_kept
        })?;
        Ok(Expired {
            claims: ended.len() as u64 + open,
            answers: answered.len() as u64,
            registrations: Vec::new(),
            is_done: ended.len() < budget && answered.len() < budget,
        })
    };
    store.0.requests.write(work).await
}

/// Takes the oldest entries out of an order by time.
fn oldest(
    by_time: &mut Table<'_, (u64, &FoundBy), ()>,
    before_unix_s: u64,
    max: usize,
) -> Result<Vec<FoundBy>, StoreError> {
    let mut taken = Vec::new();
    let older = by_time.extract_from_if(..(before_unix_s, &[0; 32]), |_, ()| true)?;
    for entry in older.take(max) {
        taken.push(*entry?.0.value().1);
    }
    Ok(taken)
}

/// What a piece of the rows holds.
struct Piece {
    stale: Vec<DeviceId>,
    /// Where the next piece begins; absent at the end.
    next: Cursor,
}

impl Files {
    fn stale(&self, after: Cursor, before_unix_s: u64, budget: usize) -> Result<Piece, StoreError> {
        let read = self.registrations.begin_read()?;
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut stale = Vec::new();
        let mut last = None;
        for (seen, found) in read.open_table(ROWS)?.range::<&[u8]>((from, Bound::Unbounded))?.enumerate() {
            if seen == budget {
                return Ok(Piece { stale, next: last });
            }
            let (key, row) = found?;
            let row = self.readable(Row::decode(row.value()));
            if row.is_some_and(|row| row.last_sign_unix_s() < before_unix_s) {
                stale.extend(self.readable(device_of(key.value())));
            }
            last = Some(key.value().to_vec());
        }
        Ok(Piece { stale, next: None })
    }
}
