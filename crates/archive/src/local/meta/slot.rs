//! The bytes of a slot file; integers little-endian. Head: magic "POSTEARC" | version u32 | generation u64 | payload
//! length u32 | crc32c u32 of all else up to the payload's end. Payload: store id, 16 bytes | next seq u64 | retired
//! seq u64 | lowest number of a new segment of the live and of the imported lane, u32 each | retention: which are set
//! u8, max age and min age each seconds u64 and nanoseconds u32, max bytes u64 | floors: count u16, each its space and i64 | writers: count u32, each its id and i64 | quarantines: count u32, each
//! lane u8, segment u32, offset u64, bytes u64. Text is its length u8 and its bytes. What follows is of no meaning.
//!
//! Later versions keep the form of the head. Format 2 has the same form as this, format 3. Format 1 was a file of 32
//! bytes: magic | version u32 | store id | crc32c.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use super::{Meta, Quarantine};
use crate::record::Space;
use crate::store::{Lane, Retention, StoreId, WriterId, Writers};

const MAGIC: &[u8; 8] = b"POSTEARC";
const VERSION: u32 = 3;
/// The same bytes; but from when on a writer may hold back was the time of its report, whatever age it takes records of.
const VERSION_2: u32 = 2;
const HEAD_BYTES: usize = 28;
const FORMAT_1_BYTES: usize = 32;
/// No slot is larger: 4,096 writers and 10,000 quarantines fill less than 800,000 bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

const HAS_RETENTION: u8 = 1;
const HAS_MAX_AGE: u8 = 2;
const HAS_MAX_BYTES: u8 = 4;

/// Why a slot is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is not, or not all of it, what was written.
    Torn,
    /// It is whole, but this program does not know its form.
    Newer,
}

/// A whole slot, without what may follow it.
pub(super) fn encode(generation: u64, meta: &Meta) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 1024);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    put_payload(&mut bytes, meta);
    let length = (bytes.len() - HEAD_BYTES) as u32;
    bytes[20..24].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(&bytes[..24], &bytes[HEAD_BYTES..]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The generation and the contents of a slot.
pub(super) fn decode(bytes: &[u8]) -> Result<(u64, Meta), Damage> {
    let mut head = Fields(bytes);
    let magic: [u8; 8] = head.array()?;
    let (version, generation) = (head.u32()?, head.u64()?);
    let (length, crc) = (head.u32()?, head.u32()?);
    let payload = head.take(usize::try_from(length).map_err(|_| Damage::Torn)?)?;
    if &magic != MAGIC || checksum(&bytes[..24], payload) != crc {
        return Err(Damage::Torn);
    }
    if version != VERSION && version != VERSION_2 {
        return Err(Damage::Newer);
    }
    let mut meta = payload_of(Fields(payload))?;
    if version == VERSION_2 {
        let age_ns = i64::try_from(Writers::DEFAULT_INTAKE_AGE.as_nanos()).unwrap_or(i64::MAX);
        meta.writers.values_mut().for_each(|since_ns| *since_ns = since_ns.saturating_sub(age_ns));
    }
    Ok((generation, meta))
}

/// The identity in a `meta` of format 1.
pub(super) fn decode_format_1(bytes: &[u8]) -> Result<StoreId, Damage> {
    let bytes: &[u8; FORMAT_1_BYTES] = bytes.try_into().map_err(|_| Damage::Torn)?;
    if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..28]).to_le_bytes() != bytes[28..] {
        return Err(Damage::Torn);
    }
    if bytes[8..12] != 1u32.to_le_bytes() {
        return Err(Damage::Newer);
    }
    let mut store_id = StoreId([0; 16]);
    store_id.0.copy_from_slice(&bytes[12..28]);
    Ok(store_id)
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), payload)
}

fn put_payload(bytes: &mut Vec<u8>, meta: &Meta) {
    bytes.extend_from_slice(&meta.store_id.0);
    bytes.extend_from_slice(&meta.next_seq.to_le_bytes());
    bytes.extend_from_slice(&meta.retired_seq.to_le_bytes());
    for lane in [Lane::Live, Lane::Imported] {
        bytes.extend_from_slice(&meta.min_number(lane).to_le_bytes());
    }
    put_retention(bytes, meta.retention);
    bytes.extend_from_slice(&(meta.floors.len() as u16).to_le_bytes());
    for (space, floor_ns) in &meta.floors {
        put_text(bytes, space.as_str());
        bytes.extend_from_slice(&floor_ns.to_le_bytes());
    }
    bytes.extend_from_slice(&(meta.writers.len() as u32).to_le_bytes());
    for (writer, since_ns) in &meta.writers {
        put_text(bytes, writer.as_str());
        bytes.extend_from_slice(&since_ns.to_le_bytes());
    }
    bytes.extend_from_slice(&(meta.quarantines.len() as u32).to_le_bytes());
    for place in &meta.quarantines {
        bytes.push(match place.lane {
            Lane::Live => 0,
            Lane::Imported => 1,
        });
        bytes.extend_from_slice(&place.segment.to_le_bytes());
        bytes.extend_from_slice(&place.offset.to_le_bytes());
        bytes.extend_from_slice(&place.bytes.to_le_bytes());
    }
}

fn put_retention(bytes: &mut Vec<u8>, retention: Option<Retention>) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let set = flag(retention.is_some(), HAS_RETENTION);
    let Retention { max_age, max_bytes, min_age } = retention.unwrap_or_default();
    bytes.push(set | flag(max_age.is_some(), HAS_MAX_AGE) | flag(max_bytes.is_some(), HAS_MAX_BYTES));
    for age in [max_age.unwrap_or_default(), min_age] {
        bytes.extend_from_slice(&age.as_secs().to_le_bytes());
        bytes.extend_from_slice(&age.subsec_nanos().to_le_bytes());
    }
    bytes.extend_from_slice(&max_bytes.unwrap_or_default().to_le_bytes());
}

/// A text of at most 255 bytes.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

fn payload_of(mut fields: Fields<'_>) -> Result<Meta, Damage> {
    let store_id = StoreId(fields.array()?);
    let (next_seq, retired_seq) = (fields.u64()?, fields.u64()?);
    let min_numbers = [fields.u32()?, fields.u32()?];
    let retention = fields.retention()?;
    let mut floors = BTreeMap::new();
    for _ in 0..fields.u16()? {
        floors.insert(fields.text::<Space>()?, fields.i64()?);
    }
    let mut writers = BTreeMap::new();
    for _ in 0..fields.count(Writers::MAX)? {
        writers.insert(fields.text::<WriterId>()?, fields.i64()?);
    }
    let mut quarantines = BTreeSet::new();
    for _ in 0..fields.count(Meta::MAX_QUARANTINES)? {
        let lane = match fields.u8()? {
            0 => Lane::Live,
            1 => Lane::Imported,
            _ => return Err(Damage::Newer),
        };
        let (segment, offset, bytes) = (fields.u32()?, fields.u64()?, fields.u64()?);
        quarantines.insert(Quarantine { lane, segment, offset, bytes });
    }
    if !fields.0.is_empty() {
        return Err(Damage::Newer);
    }
    Ok(Meta { store_id, next_seq, retired_seq, floors, writers, quarantines, retention, min_numbers })
}

/// Bytes that are still to be read. That they end too early is damage.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Damage::Torn)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damage::Torn)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Damage> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Damage> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, Damage> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// How many of something follow; more than `max` were written by a program with other bounds.
    fn count(&mut self, max: usize) -> Result<u32, Damage> {
        let count = self.u32()?;
        if count as usize > max { Err(Damage::Newer) } else { Ok(count) }
    }

    /// A name; one that says nothing to this program was written by a newer one.
    fn text<T: FromStr>(&mut self) -> Result<T, Damage> {
        let length = usize::from(self.u8()?);
        let text = str::from_utf8(self.take(length)?).map_err(|_| Damage::Newer)?;
        text.parse().map_err(|_| Damage::Newer)
    }

    fn retention(&mut self) -> Result<Option<Retention>, Damage> {
        let set = self.u8()?;
        let (max_age, min_age, max_bytes) = (self.duration()?, self.duration()?, self.u64()?);
        if set & !(HAS_RETENTION | HAS_MAX_AGE | HAS_MAX_BYTES) != 0 {
            return Err(Damage::Newer);
        }
        let retention = Retention {
            max_age: (set & HAS_MAX_AGE != 0).then_some(max_age),
            max_bytes: (set & HAS_MAX_BYTES != 0).then_some(max_bytes),
            min_age,
        };
        Ok((set & HAS_RETENTION != 0).then_some(retention))
    }

    fn duration(&mut self) -> Result<Duration, Damage> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        // Anything larger would carry over into the seconds, which may overflow.
        if nanos >= 1_000_000_000 {
            return Err(Damage::Newer);
        }
        Ok(Duration::new(seconds, nanos))
    }
}
