//! Payloads that are written together and become durable by one fdatasync.

use crate::error::JournalError;
use crate::segment::{FRAME_HEADER_BYTES, FrameAt, MAX_PAYLOAD_BYTES, SegmentKey};

/// Payloads on their way into the journal, laid out as they will stand in the file. Reusable.
#[derive(Debug, Default)]
pub struct Group {
    bytes: Vec<u8>,
    /// Where each frame begins in `bytes`.
    starts: Vec<u32>,
}

impl Group {
    /// The most bytes of one group: with a full segment before it every offset fits 32 bits.
    pub(crate) const MAX_BYTES: usize = 1 << 30;

    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one payload, given in parts that are joined.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`] when the payload is empty or larger than [`MAX_PAYLOAD_BYTES`], or when the
    /// group would exceed 1 GiB; the group is unchanged then.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), JournalError> {
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let frame_bytes = FRAME_HEADER_BYTES + payload_bytes;
        if payload_bytes == 0
            || payload_bytes > MAX_PAYLOAD_BYTES
            || self.bytes.len() + frame_bytes > Self::MAX_BYTES
        {
            return Err(JournalError::TooLarge { bytes: payload_bytes, max: MAX_PAYLOAD_BYTES });
        }
        self.starts.push(self.bytes.len() as u32);
        self.bytes.reserve(frame_bytes);
        self.bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        Ok(())
    }

    /// How many payloads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// True without a payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Size in the file, frame headers included.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all payloads and keeps the memory for the next group.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Completes the frame headers for a group that will stand at `offset` of a segment.
    pub(crate) fn seal(&mut self, key: SegmentKey, segment: u32, offset: u64) -> Vec<FrameAt> {
        let mut places = Vec::with_capacity(self.starts.len());
        for (index, &start) in self.starts.iter().enumerate() {
            let start = start as usize;
            let end = self.starts.get(index + 1).map_or(self.bytes.len(), |&next| next as usize);
            let at = offset + start as u64;
            let (header, payload) = self.bytes[start..end].split_at_mut(FRAME_HEADER_BYTES);
            header.copy_from_slice(&key.frame_header(at, payload));
            places.push(FrameAt { segment, offset: at as u32, payload_bytes: payload.len() as u32 });
        }
        places
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
