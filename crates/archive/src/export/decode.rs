//! The bytes of an export file into records. The bytes may be anybody's: nothing is allocated by their word.

use bytes::{Buf, Bytes, BytesMut};
use poste_wire::Hash;

use super::{
    CRC_BYTES, Damage, FORMAT_VERSION, FRAME_HEAD_BYTES, Flaw, HEADER_FIXED_BYTES, Header, KIND_CHECKPOINT,
    KIND_END, KIND_RECORD, MAGIC, MAX_RECORD_BYTES, MAX_SPACE_BYTES, Place, RECORD_FIXED_BYTES, TOTALS_BYTES,
    Totals,
};
use crate::record::Position;
use crate::store::StoreId;

/// Reads one export file from pieces of any size. It holds back at most one frame, and what was pushed and not yet
/// asked for.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    buffer: BytesMut,
    header: Option<Header>,
    place: Place,
    ended: bool,
    sound_bytes: u64,
    /// Nothing is sound behind the first damage.
    damage: Option<Damage>,
}

/// What an export file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The first one.
    Header(Header),
    /// One record.
    Record {
        /// Its place, as the file has it.
        position: Position,
        /// Its bytes.
        body: Bytes,
    },
    /// Everything before is what was written.
    Checkpoint(Totals),
    /// Nothing follows.
    End(Totals),
}

impl Decoder {
    /// At the beginning of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands over the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece, or none until more bytes are pushed.
    ///
    /// # Errors
    /// The first [`Damage`], again and again.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, Damage> {
        if let Some(damage) = &self.damage {
            return Err(damage.clone());
        }
        let before = self.buffer.len();
        let piece = if self.header.is_none() { self.header_piece() } else { self.frame_piece() };
        match piece {
            Ok(piece) => {
                self.sound_bytes += (before - self.buffer.len()) as u64;
                Ok(piece)
            }
            Err(flaw) => {
                let damage = Damage { at: self.sound_bytes, flaw };
                self.damage = Some(damage.clone());
                self.buffer = BytesMut::new();
                Err(damage)
            }
        }
    }

    /// Says that the file has no more bytes than those that were pushed, all of which were asked for.
    ///
    /// # Errors
    /// [`Flaw::Unfinished`] when its end has not come, [`Flaw::Length`] when it stands in what its last frame claims,
    /// or the damage that was met.
    pub fn finish(&self) -> Result<Totals, Damage> {
        match &self.damage {
            Some(damage) => Err(damage.clone()),
            None if self.ended && self.buffer.is_empty() => Ok(self.place.totals),
            None => {
                let flaw = self.swallowed_end().map_or(Flaw::Unfinished, Flaw::Length);
                Err(Damage { at: self.sound_bytes, flaw })
            }
        }
    }

    /// The length of a frame that claims more bytes than there are, although the last of them are an end: so the file
    /// was not cut off, but the length is damaged.
    fn swallowed_end(&self) -> Option<u32> {
        let length = u32::from_le_bytes(*self.buffer.first_chunk()?);
        let end = self.buffer.last_chunk::<{ FRAME_HEAD_BYTES + TOTALS_BYTES }>()?;
        let crc = crc32c::crc32c(&end[..FRAME_HEAD_BYTES - CRC_BYTES]);
        let crc = crc32c::crc32c_append(crc, &end[FRAME_HEAD_BYTES..]);
        let is_end = end[..4] == (TOTALS_BYTES as u32).to_le_bytes()
            && end[4] == KIND_END
            && end[5..FRAME_HEAD_BYTES] == crc.to_le_bytes();
        (self.header.is_some() && is_end).then_some(length)
    }

    /// The header, once it was read.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Where the pieces stand that were read so far.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The bytes of the pieces that were read so far: from the file's beginning, all of them sound.
    #[must_use]
    pub fn sound_bytes(&self) -> u64 {
        self.sound_bytes
    }

    fn header_piece(&mut self) -> Result<Option<Piece>, Flaw> {
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer[..known] != MAGIC[..known] {
            return Err(Flaw::NotAnExport);
        }
        let Some(fixed) = self.buffer.get(..HEADER_FIXED_BYTES) else { return Ok(None) };
        let version = u32::from_le_bytes(array(&fixed[8..]));
        if version != FORMAT_VERSION {
            return Err(Flaw::Version(version));
        }
        let space_bytes = usize::from(fixed[44]);
        if !(1..=MAX_SPACE_BYTES).contains(&space_bytes) {
            return Err(Flaw::SpaceName);
        }
        let checked = HEADER_FIXED_BYTES + space_bytes;
        let Some(header) = self.buffer.get(..checked + CRC_BYTES) else { return Ok(None) };
        if crc32c::crc32c(&header[..checked]) != u32::from_le_bytes(array(&header[checked..])) {
            return Err(Flaw::Checksum);
        }
        let space = std::str::from_utf8(&header[HEADER_FIXED_BYTES..checked]).map_err(|_| Flaw::SpaceName)?;
        let header = Header {
            store_id: StoreId(array(&header[12..])),
            space: space.to_owned(),
            from_ns: i64::from_le_bytes(array(&header[28..])),
            to_ns: i64::from_le_bytes(array(&header[36..])),
        };
        self.buffer.advance(checked + CRC_BYTES);
        self.header = Some(header.clone());
        Ok(Some(Piece::Header(header)))
    }

    fn frame_piece(&mut self) -> Result<Option<Piece>, Flaw> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if self.ended {
            return Err(Flaw::BehindTheEnd);
        }
        let Some(head) = self.buffer.get(..FRAME_HEAD_BYTES) else { return Ok(None) };
        let length = u32::from_le_bytes(array(head));
        let kind = head[4];
        let payload_bytes = length as usize;
        let fits = match kind {
            KIND_RECORD => (RECORD_FIXED_BYTES + 1..=MAX_RECORD_BYTES).contains(&payload_bytes),
            KIND_CHECKPOINT | KIND_END => payload_bytes == TOTALS_BYTES,
            _ => return Err(Flaw::Kind(kind)),
        };
        if !fits {
            return Err(Flaw::Length(length));
        }
        let Some(frame) = self.buffer.get(..FRAME_HEAD_BYTES + payload_bytes) else { return Ok(None) };
        let crc = crc32c::crc32c(&frame[..FRAME_HEAD_BYTES - CRC_BYTES]);
        let crc = crc32c::crc32c_append(crc, &frame[FRAME_HEAD_BYTES..]);
        if crc != u32::from_le_bytes(array(&frame[FRAME_HEAD_BYTES - CRC_BYTES..])) {
            return Err(Flaw::Checksum);
        }
        // A checkpoint stands where one is due, and nowhere else.
        if (kind == KIND_CHECKPOINT) != self.place.checkpoint_is_due() {
            return Err(Flaw::CheckpointPlace);
        }
        if kind == KIND_RECORD {
            return self.record_piece(payload_bytes).map(Some);
        }
        if frame[FRAME_HEAD_BYTES..] != self.place.totals.to_bytes() {
            return Err(Flaw::Totals);
        }
        self.buffer.advance(FRAME_HEAD_BYTES + TOTALS_BYTES);
        let totals = self.place.totals;
        if kind == KIND_END {
            self.ended = true;
            return Ok(Some(Piece::End(totals)));
        }
        self.place.pass_checkpoint();
        Ok(Some(Piece::Checkpoint(totals)))
    }

    fn record_piece(&mut self, payload_bytes: usize) -> Result<Piece, Flaw> {
        let payload = &self.buffer[FRAME_HEAD_BYTES..];
        let position =
            Position { time_ns: i64::from_le_bytes(array(payload)), id: Hash(array(&payload[8..])) };
        if self.place.last.is_some_and(|last| position <= last) {
            return Err(Flaw::Order);
        }
        let in_range = |header: &Header| (header.from_ns..=header.to_ns).contains(&position.time_ns);
        if !self.header.as_ref().is_some_and(in_range) {
            return Err(Flaw::Range);
        }
        let mut frame = self.buffer.split_to(FRAME_HEAD_BYTES + payload_bytes).freeze();
        self.place.pass(position, &frame);
        Ok(Piece::Record { position, body: frame.split_off(FRAME_HEAD_BYTES + RECORD_FIXED_BYTES) })
    }
}

/// The first bytes of a slice that was checked to be long enough.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("the length was checked")
}
