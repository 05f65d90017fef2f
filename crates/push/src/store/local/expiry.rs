//! Forgetting what is older than its retention, in pieces, so that nobody waits long for the writer.

use std::ops::Bound;

use redb::{ReadableDatabase, Table, TableError};

use super::claims::{FoundBy, Requests, Tables};
use super::registrations::{ROWS, TOMBSTONE_TIMES, forget, forget_tombstone};
use super::row::{Row, device_of};
use super::{Files, RedbStore};
use crate::store::{DeviceId, Expired, Retention, StoreError};

/// Where the next piece begins. It is kept in memory: a restart begins anew.
#[derive(Debug)]
pub(super) enum Cursor {
    /// Behind a row.
    Rows(Behind),
    /// Behind a tombstone. They come after the rows, some of which become tombstones that are old already.
    Tombstones(Behind),
}

/// Behind this key, or at the begin.
type Behind = Option<Vec<u8>>;

impl Default for Cursor {
    fn default() -> Self {
        Self::Rows(None)
    }
}

/// One piece.
pub(super) async fn expire(
    store: &RedbStore,
    retention: Retention,
    budget: usize,
) -> Result<Expired, StoreError> {
    let budget = budget.max(1);
    let mut expired = expire_requests(store, retention, budget).await?;
    let cursor = std::mem::take(&mut *store.0.expiry.lock());
    let behind = match cursor {
        Cursor::Tombstones(behind) => behind,
        Cursor::Rows(_) if retention.registrations_before_unix_s == 0 => None,
        Cursor::Rows(behind) => {
            let next =
                expire_rows(store, behind, retention.registrations_before_unix_s, budget, &mut expired)
                    .await?;
            if next.is_some() {
                *store.0.expiry.lock() = Cursor::Rows(next);
                return Ok(Expired { is_done: false, ..expired });
            }
            None
        }
    };
    if retention.tombstones_before_unix_s > 0 {
        let before = retention.tombstones_before_unix_s;
        let next = match expire_tombstones(store, behind.clone(), before, budget, &mut expired).await {
            Ok(next) => next,
            // Whoever asked has to know what was forgotten, and hears of the error the next time.
            Err(error) if !expired.registrations.is_empty() => {
                tracing::warn!(%error, "no old versions were forgotten");
                *store.0.expiry.lock() = Cursor::Tombstones(behind);
                return Ok(Expired { is_done: false, ..expired });
            }
            Err(error) => return Err(error),
        };
        if next.is_some() {
            *store.0.expiry.lock() = Cursor::Tombstones(next);
            expired.is_done = false;
        }
    }
    Ok(expired)
}

/// Gives where the next piece begins, absent at the end.
async fn expire_rows(
    store: &RedbStore,
    behind: Behind,
    before: u64,
    budget: usize,
    expired: &mut Expired,
) -> Result<Behind, StoreError> {
    let Piece { stale, next } = store.read(move |files| files.stale(behind, before, budget)).await?;
    if !stale.is_empty() {
        expired.registrations = store
            .0
            .registrations
            .write(move |tables, slots| {
                let mut forgotten = Vec::new();
                for device in &stale {
                    // It may have been registered or reached since.
                    let is_stale = |row: &Row| row.last_sign_unix_s() < before;
                    // No older registration of it was made after its last sign.
                    if forget(tables, slots, device, 0, is_stale)?.is_some() {
                        forgotten.push(device.clone());
                    }
                }
                Ok(forgotten)
            })
            .await?;
    }
    Ok(next)
}

/// Gives where the next piece begins, absent at the end.
async fn expire_tombstones(
    store: &RedbStore,
    behind: Behind,
    before: u64,
    budget: usize,
    expired: &mut Expired,
) -> Result<Behind, StoreError> {
    let Piece { stale, next } = store.read(move |files| files.old_tombstones(behind, before, budget)).await?;
    if !stale.is_empty() {
        expired.tombstones = store
            .0
            .registrations
            .write(move |tables, _| {
                let mut count = 0;
                for device_key in &stale {
                    count += u64::from(forget_tombstone(tables, device_key, before)?);
                }
                Ok(count)
            })
            .await?;
    }
    Ok(next)
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
    let work = move |tables: &mut Tables<'_>, _: &mut Requests| {
        let ended = oldest(&mut tables.ended_at, claims_before, budget)?;
        for id in &ended {
            tables.ended.remove(id)?;
        }
        let answered = oldest(&mut tables.answered_at, answers_before, budget)?;
        for id in &answered {
            tables.answers.remove(id)?;
        }
        // Few: those that are being sent now, and any whose owner forgot to end them.
        let mut open = 0;
        tables.open.retain(|_, at| {
            let is_kept = at >= claims_before;
            open += u64::from(!is_kept);
            is_kept
        })?;
        Ok(Expired {
            claims: ended.len() as u64 + open,
            answers: answered.len() as u64,
            registrations: Vec::new(),
            tombstones: 0,
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

/// What a piece of a table holds.
struct Piece<T> {
    stale: Vec<T>,
    /// Where the next piece begins; absent at the end.
    next: Behind,
}

impl Files {
    fn stale(
        &self,
        behind: Behind,
        before_unix_s: u64,
        budget: usize,
    ) -> Result<Piece<DeviceId>, StoreError> {
        let read = self.registrations.begin_read()?;
        let rows = read.open_table(ROWS)?.range::<&[u8]>((from(&behind), Bound::Unbounded))?;
        let found = rows.map(|found| {
            let (key, row) = found?;
            let row = self.readable(Row::decode(row.value()));
            let is_stale = row.is_some_and(|row| row.last_sign_unix_s() < before_unix_s);
            Ok((key.value().to_vec(), is_stale))
        });
        let Piece { stale, next } = piece(found, budget)?;
        let stale = stale.into_iter().filter_map(|key| self.readable(device_of(&key))).collect();
        Ok(Piece { stale, next })
    }

    fn old_tombstones(
        &self,
        behind: Behind,
        before_unix_s: u64,
        budget: usize,
    ) -> Result<Piece<Vec<u8>>, StoreError> {
        let read = self.registrations.begin_read()?;
        let times = match read.open_table(TOMBSTONE_TIMES) {
            // Nothing was forgotten yet.
            Err(TableError::TableDoesNotExist(_)) => return Ok(Piece { stale: Vec::new(), next: None }),
            times => times?.range::<&[u8]>((from(&behind), Bound::Unbounded))?,
        };
        let found = times.map(|found| {
            let (key, at) = found?;
            Ok((key.value().to_vec(), at.value() < before_unix_s))
        });
        piece(found, budget)
    }
}

fn from(behind: &Behind) -> Bound<&[u8]> {
    behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
}

/// The next keys, as many as the budget allows, and of them those that are stale.
fn piece(
    found: impl Iterator<Item = Result<(Vec<u8>, bool), StoreError>>,
    budget: usize,
) -> Result<Piece<Vec<u8>>, StoreError> {
    let mut stale = Vec::new();
    let mut last = None;
    for (seen, found) in found.enumerate() {
        if seen == budget {
            return Ok(Piece { stale, next: last });
        }
        let (key, is_stale) = found?;
        if is_stale {
            stale.push(key.clone());
        }
        last = Some(key);
    }
    Ok(Piece { stale, next: None })
}
