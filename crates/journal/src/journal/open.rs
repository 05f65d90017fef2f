//! Opening a journal: every segment is read in order, its frames are handed to the caller, and damage is
//! told apart from a torn tail (J3).

use std::collections::BTreeMap;

use super::{Damage, Journal, OpenSegment, Options, create_segment};
use crate::error::JournalError;
use crate::lock::DirectoryLock;
use crate::reader::Reader;
use crate::scan::{damage, read_header, scan};
use crate::segment::{
    FORMAT_VERSION, FrameAt, HEADER_BYTES, HeaderState, MAX_FILE_BYTES, SegmentKey, file_name, number_of,
};

/// Takes what the journal holds when it is opened.
pub trait Replay {
    /// Whether the frames of a sealed segment are wanted. A caller that keeps an index beside it says no.
    /// The open segment is always read.
    fn wanted(&mut self, _segment: u32) -> bool {
        true
    }

    /// One frame, in the order in which it was written.
    fn frame(&mut self, at: FrameAt, payload: &[u8]);
}

impl<F: FnMut(FrameAt, &[u8])> Replay for F {
    fn frame(&mut self, at: FrameAt, payload: &[u8]) {
        self(at, payload);
    }
}

/// What [`Journal::open`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// How many segments there are.
    pub segments: u32,
    /// How many frames were read.
    pub frames: u64,
    /// The torn tail that was cut from the last segment: written, but never durable, when the process or
    /// the machine stopped.
    pub cut: Option<Damage>,
    /// Damage that is no torn tail. It stays on disk, and each may be a gap.
    pub quarantined: Vec<Damage>,
    /// Segments of which the disk did not give some part, in order. That part is among the quarantined, but nobody knows
    /// that it is damaged: [`Reader::scan`] may read it later.
    pub unreadable: Vec<u32>,
}

impl Journal {
    /// Opens the journal in a directory that this process has locked, or begins one there. Everything that
    /// is replayed is durable. `now_ms` is the unix time in milliseconds.
    ///
    /// # Errors
    /// [`JournalError::Foreign`] and [`JournalError::Version`] for files that are not of this journal or this
    /// format, [`JournalError::Io`] when the disk refuses.
    pub fn open(
        lock: DirectoryLock,
        options: Options,
        now_ms: u64,
        replay: &mut dyn Replay,
    ) -> Result<(Self, Recovery), JournalError> {
        let numbers = segment_numbers(&lock)?;
        let mut recovery = Recovery::default();
        let mut next_number = options.min_number.max(1);
        let mut sealed = BTreeMap::new();
        let mut open = None;
        for (index, &number) in numbers.iter().enumerate() {
            next_number = next_number.max(number.saturating_add(1));
            let last = index + 1 == numbers.len();
            if !last && !replay.wanted(number) {
                let path = lock.dir().join(file_name(number));
                let file = lock.disk().open(&path).map_err(JournalError::io("open", &path))?;
                sealed.insert(number, file.len().map_err(JournalError::io("read", &path))?);
                recovery.segments += 1;
                continue;
            }
            let Some(segment) = read_segment(&lock, &options, number, last, replay, &mut recovery)? else {
                continue;
            };
            recovery.segments += 1;
            if segment.usable && last {
                open = Some(segment.open);
            } else {
                sealed.insert(number, segment.open.written);
            }
        }
        let segment = match open {
            Some(segment) => segment,
            None => {
                recovery.segments += 1;
                let number = next_number;
                next_number = number.saturating_add(1);
                create_segment(&lock, &options.journal_id, number, now_ms)?
            }
        };
        // A process that was killed may have made a file whose name is not durable yet.
        lock.disk().sync_dir(lock.dir()).map_err(JournalError::io("fsync", lock.dir()))?;
        let reader = Reader::new(lock.disk().clone(), lock.dir().to_path_buf(), options.journal_id);
        let journal = Self { lock, options, segment, next_number, sealed, poisoned: false, reader };
        Ok((journal, recovery))
    }
}

struct ReadSegment {
    open: OpenSegment,
    /// Nothing in it is damaged: if it is the last one, writing goes on in it.
    usable: bool,
}

/// Replays one segment; `None` when it is the last, never held a frame and is gone now.
fn read_segment(
    lock: &DirectoryLock,
    options: &Options,
    number: u32,
    last: bool,
    replay: &mut dyn Replay,
    recovery: &mut Recovery,
) -> Result<Option<ReadSegment>, JournalError> {
    let path = lock.dir().join(file_name(number));
    let file = lock.disk().open(&path).map_err(JournalError::io("open", &path))?;
    if last {
        // What only the cache holds is made durable before anybody sees it (J1), and what the cache shows
        // but an fsync has lost is not believed.
        file.sync_data().map_err(JournalError::io("fsync", &path))?;
        file.forget_cached().map_err(JournalError::io("drop the cache of", &path))?;
    }
    let mut len = file.len().map_err(JournalError::io("read", &path))?;
    let mut unreadable = false;
    let header = match read_header(file.as_ref(), &path, len) {
        Err(error) if !last => {
            // The frames behind it are found without it.
            tracing::error!(segment = number, %error, "the header of a sealed segment cannot be read");
            unreadable = true;
            HeaderState::Damaged
        }
        header => header?,
    };
    match header {
        HeaderState::OtherVersion(version) => {
            return Err(JournalError::Version { path, version, known: FORMAT_VERSION });
        }
        HeaderState::Good(header) if header.journal_id != options.journal_id || header.number != number => {
            return Err(JournalError::Foreign { path });
        }
        HeaderState::Damaged if last && len <= HEADER_BYTES => {
            // A segment begins to take frames after its header is durable. A later segment begins after this one
            // took some: before another one, the same is damage.
            tracing::info!(segment = number, "removed a segment that was never begun");
            lock.disk().remove(&path).map_err(JournalError::io("remove", &path))?;
            lock.disk().sync_dir(lock.dir()).map_err(JournalError::io("fsync", lock.dir()))?;
            return Ok(None);
        }
        HeaderState::Good(_) | HeaderState::Damaged => {}
    }
    let key = SegmentKey::new(&options.journal_id, number);
    let readable = len.min(MAX_FILE_BYTES);
    let found = scan(file.as_ref(), key, readable, |offset, payload| {
        let at = FrameAt { segment: number, offset: offset as u32, payload_bytes: payload.len() as u32 };
        replay.frame(at, payload);
    });
    recovery.frames += found.frames;
    if unreadable || found.unreadable {
        recovery.unreadable.push(number);
    }
    let mut damaged: Vec<Damage> = found.damaged.iter().map(|range| damage(number, range)).collect();
    if readable < len {
        damaged.push(damage(number, &(readable..len)));
    }
    let mut created_ms = 0;
    match header {
        HeaderState::Good(header) => created_ms = header.created_ms,
        _ => damaged.insert(0, damage(number, &(0..HEADER_BYTES.min(len)))),
    }
    let may_cut = last && matches!(header, HeaderState::Good(_)) && !found.unreadable && readable == len;
    if let Some(tail) = damaged.pop_if(|tail| may_cut && tail.offset == found.end) {
        tracing::warn!(segment = number, bytes = tail.bytes, "cut a torn tail from the journal");
        file.truncate(found.end).map_err(JournalError::io("truncate", &path))?;
        file.sync_data().map_err(JournalError::io("fsync", &path))?;
        len = found.end;
        recovery.cut = Some(tail);
    }
    for gap in &damaged {
        tracing::error!(
            segment = gap.segment,
            offset = gap.offset,
            bytes = gap.bytes,
            "damage in the journal: kept in quarantine, records may be missing"
        );
    }
    let usable = damaged.is_empty();
    recovery.quarantined.append(&mut damaged);
    let open = OpenSegment { number, key, created_ms, path, file, written: len, durable: len };
    Ok(Some(ReadSegment { open, usable }))
}

fn segment_numbers(lock: &DirectoryLock) -> Result<Vec<u32>, JournalError> {
    let names = lock.disk().list(lock.dir()).map_err(JournalError::io("list", lock.dir()))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
