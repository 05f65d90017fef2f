//! Reads frames back by their place, from any thread, and verifies each.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, read_exact_at};
use crate::error::JournalError;
use crate::scan::{Damage, damage, read_header, scan_while};
use crate::segment::{
    FORMAT_VERSION, FRAME_HEADER_BYTES, FrameAt, HEADER_BYTES, HeaderState, MAX_FILE_BYTES, SegmentKey,
    file_name,
};

/// What [`Reader::scan`] found in a segment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ScanReport {
    /// How many valid frames.
    pub frames: u64,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// Stretches that hold no valid frame, in order; a damaged header is one.
    pub damaged: Vec<Damage>,
    /// True when the disk could not read some part, which counts as damaged. Another attempt may read it.
    pub unreadable: bool,
}

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

    /// A reader of the journal in `dir`, also where no [`crate::Journal`] is open. Whoever removes a segment closes
    /// only the files of the journal's own readers.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, journal_id: [u8; 16]) -> Self {
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
                Err(_) => payloads.extend(rest[..run].iter().map(|&at| self.read(at))),
            }
            rest = &rest[run..];
        }
        payloads
    }

    /// Reads a sealed segment from end to end, in big pieces, and visits every valid frame in the order in which it
    /// was written. It needs no open journal, changes nothing, and reads past damage.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the file cannot be opened, [`JournalError::Foreign`] and [`JournalError::Version`]
    /// when it is not of this journal or this format.
    pub fn scan(&self, segment: u32, visit: impl FnMut(FrameAt, &[u8])) -> Result<ScanReport, JournalError> {
        Ok(self.scan_while(segment, visit, &|| true)?.unwrap_or_default())
    }

    /// As [`Reader::scan`], as long as it `goes_on`, which is asked before every read of the disk (of 1 MiB, or of 4 KiB
    /// where the disk refuses). None when it was ended.
    ///
    /// # Errors
    /// As [`Reader::scan`].
    pub fn scan_while(
        &self,
        segment: u32,
        mut visit: impl FnMut(FrameAt, &[u8]),
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Option<ScanReport>, JournalError> {
        let path = self.shared.dir.join(file_name(segment));
        let file = self.file(segment).map_err(JournalError::io("open", &path))?;
        let bytes = file.len().map_err(JournalError::io("read", &path))?;
        let mut report = ScanReport { bytes, ..ScanReport::default() };
        match read_header(file.as_ref(), &path, bytes) {
            Ok(HeaderState::Good(header))
                if header.journal_id != self.shared.journal_id || header.number != segment =>
            {
                return Err(JournalError::Foreign { path });
            }
            Ok(HeaderState::OtherVersion(version)) => {
                return Err(JournalError::Version { path, version, known: FORMAT_VERSION });
            }
            Ok(HeaderState::Good(_)) => {}
            damaged => {
                report.unreadable = damaged.is_err();
                report.damaged.push(damage(segment, &(0..HEADER_BYTES.min(bytes))));
            }
        }
        let readable = bytes.min(MAX_FILE_BYTES);
        let key = SegmentKey::new(&self.shared.journal_id, segment);
        let visit = |offset: u64, payload: &[u8]| {
            visit(FrameAt { segment, offset: offset as u32, payload_bytes: payload.len() as u32 }, payload);
        };
        let Some(found) = scan_while(file.as_ref(), key, readable, visit, goes_on) else { return Ok(None) };
        report.frames = found.frames;
        report.unreadable |= found.unreadable;
        if report.unreadable {
            self.forget(segment);
        }
        report.damaged.extend(found.damaged.iter().map(|range| damage(segment, range)));
        if readable < bytes {
            report.damaged.push(damage(segment, &(readable..bytes)));
        }
        Ok(Some(report))
    }

    /// When a segment was begun, unix milliseconds; every frame in it was written later. None when its header is damaged.
    ///
    /// # Errors
    /// As [`Reader::scan`], and [`JournalError::Io`] when the header cannot be read.
    pub fn created_ms(&self, segment: u32) -> Result<Option<u64>, JournalError> {
        let path = self.shared.dir.join(file_name(segment));
        let file = self.file(segment).map_err(JournalError::io("open", &path))?;
        let bytes = file.len().map_err(JournalError::io("read", &path))?;
        match read_header(file.as_ref(), &path, bytes) {
            Ok(HeaderState::Good(header))
                if header.journal_id != self.shared.journal_id || header.number != segment =>
            {
                Err(JournalError::Foreign { path })
            }
            Ok(HeaderState::OtherVersion(version)) => {
                Err(JournalError::Version { path, version, known: FORMAT_VERSION })
            }
            Ok(HeaderState::Good(header)) => Ok(Some(header.created_ms)),
            Ok(HeaderState::Damaged) => Ok(None),
            Err(error) => {
                self.forget(segment);
                Err(error)
            }
        }
    }

    /// Closes the file of a segment; a read that is under way still ends as it would have.
    pub(crate) fn forget(&self, segment: u32) {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment);
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
        read_exact_at(file.as_ref(), bytes, offset).map_err(|error| {
            // After a disk has gone and come back only a file that is opened anew may be readable.
            self.forget(segment);
            JournalError::io("read", &path)(error)
        })
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
