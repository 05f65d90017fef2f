//! Records into the bytes of an export file.

use super::{
    CRC_BYTES, FORMAT_VERSION, FRAME_HEAD_BYTES, Flaw, HEADER_FIXED_BYTES, Header, KIND_CHECKPOINT, KIND_END,
    KIND_RECORD, MAGIC, MAX_SPACE_BYTES, Place, RECORD_FIXED_BYTES, Totals,
};
use crate::record::{MAX_BODY_BYTES, Position};

/// Writes one export file, or the rest of one. What it writes is appended to the buffer of each call.
#[derive(Debug, Clone)]
pub struct Encoder {
    place: Place,
}

impl Encoder {
    /// Begins a file.
    ///
    /// # Errors
    /// [`Flaw::SpaceName`] when the space's name does not have 1 to 128 bytes.
    pub fn begin(header: &Header, out: &mut Vec<u8>) -> Result<Self, Flaw> {
        let Header { store_id, space, from_ns, to_ns } = header;
        let space_bytes = u8::try_from(space.len()).map_err(|_| Flaw::SpaceName)?;
        if !(1..=MAX_SPACE_BYTES).contains(&space.len()) {
            return Err(Flaw::SpaceName);
        }
        let begin = out.len();
        out.reserve(HEADER_FIXED_BYTES + space.len() + CRC_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&store_id.0);
        out.extend_from_slice(&from_ns.to_le_bytes());
        out.extend_from_slice(&to_ns.to_le_bytes());
        out.push(space_bytes);
        out.extend_from_slice(space.as_bytes());
        let crc = crc32c::crc32c(&out[begin..]);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(Self { place: Place::default() })
    }

    /// Goes on with a file that stands at `place`.
    #[must_use]
    pub fn resume(place: Place) -> Self {
        Self { place }
    }

    /// Adds a record, and a checkpoint when one is due.
    ///
    /// # Errors
    /// [`Flaw::Order`] for a record that is not behind the last one, [`Flaw::Length`] for an empty or too large body;
    /// nothing is written then.
    pub fn record(&mut self, position: Position, body: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
        if self.place.last.is_some_and(|last| position <= last) {
            return Err(Flaw::Order);
        }
        if !(1..=MAX_BODY_BYTES).contains(&body.len()) {
            return Err(Flaw::Length(u32::try_from(body.len()).unwrap_or(u32::MAX)));
        }
        let mut fixed = [0; RECORD_FIXED_BYTES];
        fixed[..8].copy_from_slice(&position.time_ns.to_le_bytes());
        fixed[8..].copy_from_slice(&position.id.0);
        // Due already only in a file that was cut off between a record and its checkpoint.
        self.checkpoint_if_due(out);
        let begin = out.len();
        frame(KIND_RECORD, [&fixed, body], out);
        self.place.pass(position, &out[begin..]);
        self.checkpoint_if_due(out);
        Ok(())
    }

    /// Ends the file.
    pub fn end(mut self, out: &mut Vec<u8>) -> Totals {
        self.checkpoint_if_due(out);
        frame(KIND_END, [&self.place.totals.to_bytes(), &[]], out);
        self.place.totals
    }

    /// Where the file stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    fn checkpoint_if_due(&mut self, out: &mut Vec<u8>) {
        if self.place.checkpoint_is_due() {
            frame(KIND_CHECKPOINT, [&self.place.totals.to_bytes(), &[]], out);
            self.place.pass_checkpoint();
        }
    }
}

/// One frame; its payload is given in two parts.
fn frame(kind: u8, payload: [&[u8]; 2], out: &mut Vec<u8>) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("a body is checked to be at most 1 MiB");
    let mut head = [0; FRAME_HEAD_BYTES - CRC_BYTES];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4] = kind;
    let crc = payload.iter().fold(crc32c::crc32c(&head), |crc, part| crc32c::crc32c_append(crc, part));
    out.reserve(FRAME_HEAD_BYTES + length as usize);
    out.extend_from_slice(&head);
    out.extend_from_slice(&crc.to_le_bytes());
    payload.iter().for_each(|part| out.extend_from_slice(part));
}
