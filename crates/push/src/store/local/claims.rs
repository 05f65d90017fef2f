//! What became of requests. A claim is found under a salted hash of its message, owner and installation, so that the
//! file lists neither; an answer under a hash of its request's id, and sealed with another hash of it, so that only
//! who saw the request can open it.

use rand::Rng;
use redb::{ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::seal::{Kind, SealKey};
use super::writer::Aside;
use super::{Files, META, REQUESTS};
use crate::store::{AnswerId, Checkpoint, Claim, ClaimEnd, ClaimKey, StoreError};

/// What a claim or an answer is found under.
pub(super) type FoundBy = [u8; 32];

/// Claims that have not ended: when they were taken, seconds since 1970.
pub(super) const OPEN: TableDefinition<'_, &FoundBy, u64> = TableDefinition::new("open_claims");
/// Claims that ended: 1 sent, 2 unknown.
pub(super) const ENDED: TableDefinition<'_, &FoundBy, u8> = TableDefinition::new("ended_claims");
/// When they ended, seconds since 1970.
pub(super) const ENDED_AT: TableDefinition<'_, (u64, &FoundBy), ()> =
    TableDefinition::new("ended_claims_by_time");
/// When it was remembered (8 bytes, big-endian seconds since 1970), salt (16 bytes), sealed answer.
pub(super) const ANSWERS: TableDefinition<'_, &FoundBy, &[u8]> = TableDefinition::new("answers");
/// When they were remembered, seconds since 1970.
pub(super) const ANSWERED_AT: TableDefinition<'_, (u64, &FoundBy), ()> =
    TableDefinition::new("answers_by_time");
/// In `META`: id of the archive's store (16 bytes), seq (8 bytes, big-endian).
const CHECKPOINT: &str = "checkpoint";

const SENT: u8 = 1;
const UNKNOWN: u8 = 2;

const ANSWER_SALT_BYTES: usize = 16;
const ANSWER_HEAD_BYTES: usize = 8 + ANSWER_SALT_BYTES;

/// An answer as it lies in the database, without its time.
pub(super) struct SealedAnswer {
    id: FoundBy,
    salt: [u8; ANSWER_SALT_BYTES],
    sealed: Vec<u8>,
}

/// The database of requests, which stands alone.
pub(super) struct Requests;

/// Its tables.
pub(super) struct Tables<'t> {
    pub(super) open: Table<'t, &'static FoundBy, u64>,
    pub(super) ended: Table<'t, &'static FoundBy, u8>,
    pub(super) ended_at: Table<'t, (u64, &'static FoundBy), ()>,
    pub(super) answers: Table<'t, &'static FoundBy, &'static [u8]>,
    pub(super) answered_at: Table<'t, (u64, &'static FoundBy), ()>,
    pub(super) meta: Table<'t, &'static str, &'static [u8]>,
}

impl Aside for Requests {
    type Tables<'t> = Tables<'t>;

    fn tables(transaction: &WriteTransaction) -> Result<Tables<'_>, StoreError> {
        Ok(Tables {
            open: transaction.open_table(OPEN)?,
            ended: transaction.open_table(ENDED)?,
            ended_at: transaction.open_table(ENDED_AT)?,
            answers: transaction.open_table(ANSWERS)?,
            answered_at: transaction.open_table(ANSWERED_AT)?,
            meta: transaction.open_table(META)?,
        })
    }
}

/// Takes claims, one by one: a key that comes twice is won once.
pub(super) fn claim(
    tables: &mut Tables<'_>,
    claims: &[FoundBy],
    at_unix_s: u64,
) -> Result<Vec<Claim>, StoreError> {
    let mut met = Vec::with_capacity(claims.len());
    for id in claims {
        let end = tables.ended.get(id)?.map(|end| end.value());
        met.push(match end {
            Some(SENT) => Claim::Sent,
            Some(_) => Claim::Unknown,
            None if tables.open.get(id)?.is_some() => Claim::Open,
            None => {
                tables.open.insert(id, at_unix_s)?;
                Claim::Won
            }
        });
    }
    Ok(met)
}

/// Ends claims that are open, and remembers an answer.
pub(super) fn finish(
    tables: &mut Tables<'_>,
    ends: &[(FoundBy, ClaimEnd)],
    answer: Option<&SealedAnswer>,
    at_unix_s: u64,
) -> Result<(), StoreError> {
    for (id, end) in ends {
        let was_open = tables.open.remove(id)?.is_some();
        let end = match end {
            ClaimEnd::Refused => continue,
            ClaimEnd::Sent => SENT,
            ClaimEnd::Unknown => UNKNOWN,
        };
        if was_open {
            tables.ended.insert(id, end)?;
            tables.ended_at.insert((at_unix_s, id), ())?;
        }
    }
    if let Some(answer) = answer {
        let stored = [&at_unix_s.to_be_bytes(), answer.salt.as_slice(), &answer.sealed].concat();
        let earlier = tables.answers.insert(&answer.id, stored.as_slice())?;
        if let Some(at) = earlier.and_then(|earlier| time_of(earlier.value())) {
            tables.answered_at.remove((at, &answer.id))?;
        }
        tables.answered_at.insert((at_unix_s, &answer.id), ())?;
    }
    Ok(())
}

/// Makes every open claim unknown: whoever had it is gone.
pub(super) fn end_open_claims(tables: &mut Tables<'_>) -> Result<u64, StoreError> {
    let mut count = 0;
    while let Some((id, at)) = tables.open.pop_first()? {
        tables.ended.insert(id.value(), UNKNOWN)?;
        tables.ended_at.insert((at.value(), id.value()), ())?;
        count += 1;
    }
    Ok(count)
}

/// Raises the checkpoint, or replaces that of another archive.
pub(super) fn set_checkpoint(tables: &mut Tables<'_>, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let stored = tables.meta.get(CHECKPOINT)?.map(|stored| decode_checkpoint(stored.value())).transpose()?;
    let is_behind = |stored: &Checkpoint| {
        stored.archive_store_id == checkpoint.archive_store_id && stored.seq >= checkpoint.seq
    };
    if stored.as_ref().is_some_and(is_behind) {
        return Ok(());
    }
    reset_checkpoint(tables, checkpoint)
}

/// Replaces the checkpoint.
pub(super) fn reset_checkpoint(tables: &mut Tables<'_>, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let bytes = [checkpoint.archive_store_id.as_slice(), &checkpoint.seq.to_be_bytes()].concat();
    tables.meta.insert(CHECKPOINT, bytes.as_slice())?;
    Ok(())
}

impl Files {
    /// What claims would meet.
    pub(super) fn claims(&self, keys: &[ClaimKey]) -> Result<Vec<Option<Claim>>, StoreError> {
        let read = self.requests.begin_read()?;
        let (open, ended) = (read.open_table(OPEN)?, read.open_table(ENDED)?);
        let met = keys.iter().map(|key| {
            let id = self.claim_id(key);
            Ok(match ended.get(&id)?.map(|end| end.value()) {
                Some(SENT) => Some(Claim::Sent),
                Some(_) => Some(Claim::Unknown),
                None => open.get(&id)?.map(|_| Claim::Open),
            })
        });
        met.collect()
    }

    pub(super) fn claim_ids(&self, claims: &[ClaimKey]) -> Vec<FoundBy> {
        claims.iter().map(|claim| self.claim_id(claim)).collect()
    }

    /// Every part but the last has a fixed or a written length: no two keys give the same bytes.
    pub(super) fn claim_id(&self, claim: &ClaimKey) -> FoundBy {
        let length = claim.message_id.len() as u64;
        let hash = Sha256::new_with_prefix(self.salt)
            .chain_update(b"claim")
            .chain_update(length.to_be_bytes())
            .chain_update(&claim.message_id)
            .chain_update(claim.device.key.as_bytes())
            .chain_update(claim.device.installation.as_str());
        hash.finalize().into()
    }

    pub(super) fn seal_answer(&self, id: &AnswerId, text: &[u8]) -> SealedAnswer {
        let mut salt = [0; ANSWER_SALT_BYTES];
        rand::rng().fill_bytes(&mut salt);
        let found_by = self.answer_id(id);
        let sealed = self.answer_key(id, &salt).seal(Kind::Answer, &found_by, text);
        SealedAnswer { id: found_by, salt, sealed }
    }

    /// The remembered answer.
    pub(super) fn answer(&self, id: &AnswerId) -> Result<Option<Vec<u8>>, StoreError> {
        let found_by = self.answer_id(id);
        let read = self.requests.begin_read()?;
        let Some(stored) = read.open_table(ANSWERS)?.get(&found_by)? else { return Ok(None) };
        let corrupt = || StoreError::corrupt(REQUESTS, "an answer is damaged");
        let (head, sealed) = stored.value().split_first_chunk::<ANSWER_HEAD_BYTES>().ok_or_else(corrupt)?;
        let key = self.answer_key(id, head[8..].try_into().expect("the rest is the salt"));
        let text = key.open(Kind::Answer, &found_by, sealed).ok_or_else(corrupt)?;
        Ok(Some(text.to_vec()))
    }

    /// How far the archive was read.
    pub(super) fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let meta = self.requests.begin_read()?.open_table(META)?;
        meta.get(CHECKPOINT)?.map(|stored| decode_checkpoint(stored.value())).transpose()
    }

    fn answer_id(&self, id: &AnswerId) -> FoundBy {
        Sha256::new_with_prefix(self.salt).chain_update(b"answer").chain_update(id.0).finalize().into()
    }

    /// The salt makes the key another one each time, so that it seals one text.
    fn answer_key(&self, id: &AnswerId, salt: &[u8; ANSWER_SALT_BYTES]) -> SealKey {
        let hash = Sha256::new_with_prefix(self.salt)
            .chain_update(b"answer key")
            .chain_update(salt)
            .chain_update(id.0);
        SealKey::new(Zeroizing::new(hash.finalize().into()))
    }
}

/// When an answer was remembered.
pub(super) fn time_of(stored: &[u8]) -> Option<u64> {
    stored.first_chunk().copied().map(u64::from_be_bytes)
}

fn decode_checkpoint(bytes: &[u8]) -> Result<Checkpoint, StoreError> {
    let parts = bytes.split_first_chunk::<16>().and_then(|(id, seq)| Some((*id, seq.try_into().ok()?)));
    let (archive_store_id, seq) =
        parts.ok_or_else(|| StoreError::corrupt(REQUESTS, "the checkpoint is damaged"))?;
    Ok(Checkpoint { archive_store_id, seq: u64::from_be_bytes(seq) })
}
