//! Reads a segment from end to end: every valid frame, and every stretch that holds none.

use std::io;
use std::ops::Range;
use std::path::Path;

use crate::disk::{DiskFile, read_exact_at};
use crate::error::JournalError;
use crate::segment::{FRAME_HEADER_BYTES, HEADER_BYTES, Header, HeaderState, SegmentKey};

/// A stretch of a segment that holds no valid frame. It may be a gap: records may have stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment.
    pub segment: u32,
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// How long it is, bytes.
    pub bytes: u64,
}

pub(crate) fn damage(segment: u32, range: &Range<u64>) -> Damage {
    Damage { segment, offset: range.start, bytes: range.end - range.start }
}

/// What a segment holds beside its frames.
#[derive(Debug)]
pub(crate) struct Scan {
    /// How many valid frames.
    pub(crate) frames: u64,
    /// Where the last valid frame ends (the end of the header when there is none).
    pub(crate) end: u64,
    /// Stretches without a valid frame, in order. One that reaches the end of the file may be a torn tail.
    pub(crate) damaged: Vec<Range<u64>>,
    /// True when the disk could not read some part: then nothing may be cut.
    pub(crate) unreadable: bool,
}

/// Visits every valid frame behind the header as (offset, payload). `len` is the length of the file.
pub(crate) fn scan(file: &dyn DiskFile, key: SegmentKey, len: u64, visit: impl FnMut(u64, &[u8])) -> Scan {
    scan_while(file, key, len, visit, &|| true).expect("it goes on to the end")
}

/// The same, as long as it `goes_on`, which is asked before every read; none when it was ended.
pub(crate) fn scan_while(
    file: &dyn DiskFile,
    key: SegmentKey,
    len: u64,
    mut visit: impl FnMut(u64, &[u8]),
    goes_on: &dyn Fn() -> bool,
) -> Option<Scan> {
    let mut window =
        Window { file, len, start: 0, buffer: Vec::new(), unreadable: false, goes_on, ended: false };
    let mut scan = Scan { frames: 0, end: HEADER_BYTES, damaged: Vec::new(), unreadable: false };
    let mut offset = HEADER_BYTES;
    while offset < len && !window.ended {
        if let Some(payload) = window.frame(key, offset) {
            visit(offset, payload);
            offset += (FRAME_HEADER_BYTES + payload.len()) as u64;
            scan.frames += 1;
            scan.end = offset;
        } else {
            let next = (offset + 1..len).find(|&at| window.frame(key, at).is_some() || window.ended);
            let next = next.unwrap_or(len);
            scan.damaged.push(offset..next);
            offset = next;
        }
    }
    scan.unreadable = window.unreadable;
    (!window.ended).then_some(scan)
}

/// The header of a segment file of `len` bytes; a file that is too short for one is damaged.
pub(crate) fn read_header(file: &dyn DiskFile, path: &Path, len: u64) -> Result<HeaderState, JournalError> {
    let mut bytes = [0; HEADER_BYTES as usize];
    if len < HEADER_BYTES {
        return Ok(HeaderState::Damaged);
    }
    match read_exact_at(file, &mut bytes, 0) {
        Ok(()) => Ok(Header::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(HeaderState::Damaged),
        Err(error) => Err(JournalError::io("read", path)(error)),
    }
}

/// A moving window over a file, filled by big sequential reads.
struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    /// Offset in the file of the buffer's first byte.
    start: u64,
    buffer: Vec<u8>,
    unreadable: bool,
    goes_on: &'a dyn Fn() -> bool,
    /// It went on no longer: what the buffer holds since is nothing.
    ended: bool,
}

impl Window<'_> {
    const READ_BYTES: u64 = 1024 * 1024;
    const BLOCK_BYTES: usize = 4096;

    /// The payload of the frame at `offset`, if a valid one stands there.
    fn frame(&mut self, key: SegmentKey, offset: u64) -> Option<&[u8]> {
        let body = offset + FRAME_HEADER_BYTES as u64;
        let room = self.len.checked_sub(body)?;
        let header = self.bytes(offset, FRAME_HEADER_BYTES);
        let payload_bytes = key.payload_bytes(offset, header, room)? as usize;
        let frame = self.bytes(offset, FRAME_HEADER_BYTES + payload_bytes);
        let (header, payload) = frame.split_at(FRAME_HEADER_BYTES);
        key.verifies(header, payload).then_some(payload)
    }

    /// `count` bytes at `offset`; the caller has checked that the file is long enough.
    fn bytes(&mut self, offset: u64, count: usize) -> &[u8] {
        let held = self.start + self.buffer.len() as u64;
        if offset < self.start || offset + count as u64 > held {
            self.fill(offset, count);
        }
        let at = (offset - self.start) as usize;
        &self.buffer[at..at + count]
    }

    fn fill(&mut self, offset: u64, count: usize) {
        let take = (count as u64).max(Self::READ_BYTES).min(self.len - offset);
        self.start = offset;
        self.buffer.resize(take as usize, 0);
        self.ended = self.ended || !(self.goes_on)();
        if self.ended {
            // An empty frame is none.
            return self.buffer.fill(0);
        }
        if read_exact_at(self.file, &mut self.buffer, offset).is_ok() {
            return;
        }
        // Some of it cannot be read: take what can, block by block, and treat the rest as damage.
        for (index, block) in self.buffer.chunks_mut(Self::BLOCK_BYTES).enumerate() {
            self.ended = self.ended || !(self.goes_on)();
            if self.ended {
                block.fill(0);
                continue;
            }
            let result: io::Result<()> =
                read_exact_at(self.file, block, offset + (index * Self::BLOCK_BYTES) as u64);
            if result.is_err() {
                block.fill(0);
                self.unreadable = true;
            }
        }
    }
}
