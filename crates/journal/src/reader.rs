//! Reads frames back by their place, from any thread, and verifies each.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, read_exact_at};
use crate::error::JournalError;
use crate::segment::{FRAME_HEADER_BYTES, FrameAt, SegmentKey, file_name};

/// Reads frames of a journal. Clones share their open files; it outlives the [`crate::Journal`].
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    journal_id: [u8; 16],
    open: Mutex<BTreeMap<u32, Arc<dyn DiskFile>>>,
}

impl Reader {
    /// Frames this close to each other are read by one call.
    const GAP_BYTES: u64 = 16 * 1024;
    /// The most that one call reads for several frames.
    const RUN_BYTES: u64 = 1024 * 1024;
    /// A process has a limit of open files; segments beyond this many are opened again when needed.
    const OPEN_FILES: usize = 512;

    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, journal_id: [u8; 16]) -> Self {
        Self { shared: Arc::new(Shared { disk, dir, journal_id, open: Mutex::default() }) }
    }

    /// The payload of one frame.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when what stands there does not verify, [`JournalError::Io`] when the disk
    /// does not give it.
    pub fn read(&self, at: FrameAt) -> Result<Bytes, JournalError> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES + at.payload_bytes as usize];
        match self.read_range(at.segment, u64::from(at.offset), &mut bytes) {
            Ok(()) => self.payload(at, &Bytes::from(bytes), 0),
            Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::UnexpectedEof => {
                Err(damaged(at))
            }
            Err(error) => Err(error),
        }
    }

    /// The payloads of several frames, in the order asked for. Neighbours in a file share one read (and the
    /// memory behind their payloads); an error of one frame is its own.
    #[must_use]
    pub fn read_many(&self, frames: &[FrameAt]) -> Vec<Result<Bytes, JournalError>> {
        let mut payloads = Vec::with_capacity(frames.len());
        let mut rest = frames;
        while let Some(first) = rest.first() {
            let run = run_length(rest);
            let end = rest[run - 1].end();
            let mut bytes = vec![0; (end - u64::from(first.offset)) as usize];
            match self.read_range(first.segment, u64::from(first.offset), &mut bytes) {
                Ok(()) => {
                    let bytes = Bytes::from(bytes);
                    payloads.extend(
                        rest[..run]
                            .iter()
                            .map(|&at| self.payload(at, &bytes, (at.offset - first.offset) as usize)),
                    );
                }
                Err(error) if run == 1 => payloads.push(Err(error)),
                Err(_) => payloads.extend(rest[..run].iter().map(|&at| self.read(at))),
            }
            rest = &rest[run..];
        }
        payloads
    }

    fn payload(&self, at: FrameAt, bytes: &Bytes, start: usize) -> Result<Bytes, JournalError> {
        let key = SegmentKey::new(&self.shared.journal_id, at.segment);
        let (body, end) =
            (start + FRAME_HEADER_BYTES, start + FRAME_HEADER_BYTES + at.payload_bytes as usize);
        let header = &bytes[start..body];
        let stated = key.payload_bytes(u64::from(at.offset), header, u64::from(at.payload_bytes));
        if stated != Some(at.payload_bytes) || !key.verifies(header, &bytes[body..end]) {
            return Err(damaged(at));
        }
        Ok(bytes.slice(body..end))
    }

    fn read_range(&self, segment: u32, offset: u64, bytes: &mut [u8]) -> Result<(), JournalError> {
        let path = self.shared.dir.join(file_name(segment));
        let file = self.file(segment).map_err(JournalError::io("open", &path))?;
        read_exact_at(file.as_ref(), bytes, offset).map_err(JournalError::io("read", &path))
    }

    fn file(&self, segment: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&segment) {
            return Ok(Arc::clone(file));
        }
        let file = self.shared.disk.open(&self.shared.dir.join(file_name(segment)))?;
        if open.len() >= Self::OPEN_FILES {
            open.pop_first();
        }
        open.insert(segment, Arc::clone(&file));
        Ok(file)
    }
}

fn damaged(at: FrameAt) -> JournalError {
    JournalError::Damaged { segment: at.segment, offset: at.offset }
}

/// How many of the first frames can be read by one call.
fn run_length(frames: &[FrameAt]) -> usize {
    let first = frames[0];
    let mut end = first.end();
    let mut run = 1;
    for next in &frames[1..] {
        let offset = u64::from(next.offset);
        let close = next.segment == first.segment && offset >= end && offset - end <= Reader::GAP_BYTES;
        if !close || next.end() - u64::from(first.offset) > Reader::RUN_BYTES {
            break;
        }
        end = next.end();
        run += 1;
    }
    run
}
