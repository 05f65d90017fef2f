//! From frames to places: reads segments, derives every record from its body (J4), and makes index files. Hashing is
//! most of the work, so it is spread over the cores.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use poste_journal::FrameAt;

use super::frame::{self, FrameError};
use super::index::Index;
use super::index_file::{self, IndexEntry, IndexKey, Stretch, Summary};
use super::part::{OpenPart, SealedPart, SegmentId};
use super::shared::Shared;
use crate::record::{Derived, Space};
use crate::store::StoreError;

/// What a frame holds, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) at: FrameAt,
    pub(super) seq: u64,
    pub(super) space: Space,
    pub(super) derived: Derived,
}

/// Takes frames in the order of their segment and gives what they hold, in the same order.
pub(super) struct Derive<F: FnMut(Placed)> {
    frames: Vec<(FrameAt, Bytes)>,
    bytes: usize,
    threads: usize,
    last: Option<(u32, u64)>,
    take: F,
    /// Frames that hold no record of this format.
    pub(super) undecodable: Vec<FrameAt>,
    /// A newer program wrote into the segment.
    pub(super) newer: Option<FrameError>,
}

impl<F: FnMut(Placed)> Derive<F> {
    const BATCH_FRAMES: usize = 16_384;
    const BATCH_BYTES: usize = 16 * 1024 * 1024;

    /// On all cores.
    pub(super) fn new(take: F) -> Self {
        Self::on_cores(std::thread::available_parallelism().map_or(1, NonZero::get).min(8), take)
    }

    /// On so many cores, at least one.
    fn on_cores(threads: usize, take: F) -> Self {
        Self { frames: Vec::new(), bytes: 0, threads, last: None, take, undecodable: Vec::new(), newer: None }
    }

    pub(super) fn frame(&mut self, at: FrameAt, payload: &[u8]) {
        self.frames.push((at, Bytes::copy_from_slice(payload)));
        self.bytes += payload.len();
        if self.frames.len() >= Self::BATCH_FRAMES || self.bytes >= Self::BATCH_BYTES {
            self.flush();
        }
    }

    /// Gives what is left.
    pub(super) fn finish(mut self) -> (Vec<FrameAt>, Option<FrameError>) {
        self.flush();
        (self.undecodable, self.newer)
    }

    fn flush(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        self.bytes = 0;
        let share = frames.len().div_ceil(self.threads).max(256);
        let derive = |chunk: &[(FrameAt, Bytes)]| -> Vec<Result<Placed, FrameError>> {
            chunk.iter().map(|(at, payload)| place(*at, payload)).collect()
        };
        let derived: Vec<Vec<_>> = std::thread::scope(|scope| {
            let mut chunks = frames.chunks(share);
            let first = chunks.next();
            let others: Vec<_> = chunks.map(|chunk| scope.spawn(move || derive(chunk))).collect();
            let first = first.map(derive);
            let others = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            first.into_iter().chain(others).collect()
        });
        for ((at, _), placed) in frames.iter().zip(derived.into_iter().flatten()) {
            let in_order = placed.and_then(|placed| match self.last {
                Some((segment, seq)) if segment == at.segment && placed.seq <= seq => Err(FrameError::Seq),
                _ => Ok(placed),
            });
            match in_order {
                Ok(placed) => {
                    self.last = Some((at.segment, placed.seq));
                    (self.take)(placed);
                }
                Err(error @ (FrameError::Version(_) | FrameError::Space)) => {
                    self.newer.get_or_insert(error);
                }
                Err(error) => {
                    tracing::error!(segment = at.segment, offset = at.offset, %error, "quarantined a record");
                    self.undecodable.push(*at);
                }
            }
        }
    }
}

fn place(at: FrameAt, payload: &Bytes) -> Result<Placed, FrameError> {
    let frame = frame::decode(payload)?;
    let body = payload.slice_ref(frame.body);
    let derived = Derived::of(frame.space, &body).map_err(|_| FrameError::Body)?;
    Ok(Placed { at, seq: frame.seq, space: frame.space, derived })
}

/// Where a frame stands, from its header to its end.
pub(super) fn stretch(at: FrameAt) -> Stretch {
    Stretch { offset: at.offset.into(), bytes: at.end() - u64::from(at.offset) }
}

impl Shared {
    /// Makes the index file of a segment that is indexed in memory.
    pub(super) fn index_open_part(&self, part: &OpenPart) -> Result<SealedPart, StoreError> {
        let quarantined = part.quarantined();
        let spaces = spaces_of(&part.index.read());
        self.write_index(part.id, spaces, quarantined)
    }

    /// Makes the index file of a sealed segment from the segment alone. `None` when the store is closing.
    /// What the disk refuses is an error, unless it is to be given up.
    pub(super) fn index_segment(
        &self,
        id: SegmentId,
        give_up_unreadable: bool,
        cores: usize,
    ) -> Result<Option<SealedPart>, StoreError> {
        let mut entries: Vec<IndexEntry> = Vec::new();
        let mut done_bytes = 0;
        let mut derive = Derive::on_cores(cores, |placed: Placed| {
            // One space today; the file could hold more.
            let Space::Waku1 = placed.space;
            entries.push(entry_of(&placed));
        });
        let report = self.reader(id.lane).scan(id.number, |at, payload| {
            if self.is_closing() {
                return;
            }
            derive.frame(at, payload);
            let end = at.end();
            if end - done_bytes >= 1024 * 1024 {
                self.indexing_progress(end - done_bytes);
                done_bytes = end;
            }
        })?;
        let (undecodable, newer) = derive.finish();
        if self.is_closing() {
            return Ok(None);
        }
        if let Some(reason) = newer {
            return Err(StoreError::Corrupt(format!("segment {} holds {reason}", id.number)));
        }
        if report.unreadable && !give_up_unreadable {
            // What the disk refuses now it may give later: no index is made that leaves it out for ever.
            let reason = "a part of it cannot be read".to_owned();
            return Err(StoreError::Unreadable { path: super::segment_path(&self.dir, id), reason });
        }
        self.indexing_progress(report.bytes.saturating_sub(done_bytes));
        let damaged = report.damaged.iter();
        let damaged = damaged.map(|damage| Stretch { offset: damage.offset, bytes: damage.bytes });
        let quarantined = damaged.chain(undecodable.into_iter().map(stretch)).collect();
        self.write_index(id, vec![(Space::Waku1, entries)], quarantined).map(Some)
    }

    fn write_index(
        &self,
        id: SegmentId,
        mut spaces: Vec<(Space, Vec<IndexEntry>)>,
        quarantined: Vec<Stretch>,
    ) -> Result<SealedPart, StoreError> {
        // A record whose place was put into quarantine may have been stored again behind it: that one counts.
        let noted = self.noted_places(id);
        for (_, entries) in &mut spaces {
            if !noted.is_empty() {
                entries.retain(|entry| !covers(&noted, entry.offset.into()));
            }
        }
        spaces.retain(|(_, entries)| !entries.is_empty());
        let path = super::index_path(&self.dir, id);
        let key = IndexKey { store_id: self.store_id, lane: id.lane, segment: id.number };
        let segment_bytes = self.segment_len(id)?;
        let summary: Summary =
            index_file::write(self.disk.as_ref(), &path, key, segment_bytes, spaces, &quarantined)
                .map_err(|error| StoreError::Unreadable { path: path.clone(), reason: error.to_string() })?;
        let quarantined = super::open::known_quarantine(&self.meta, id, &summary);
        Ok(SealedPart::new(id, Arc::clone(&self.disk), path, self.store_id, summary, quarantined))
    }

    /// What is noted as damaged in a segment, in order and disjoint.
    fn noted_places(&self, id: SegmentId) -> Vec<Range<u64>> {
        let mut places: Vec<Range<u64>> = Vec::new();
        self.meta.with(|meta| {
            for place in meta.quarantines_of(id.lane, id.number) {
                let end = place.offset.saturating_add(place.bytes);
                match places.last_mut() {
                    Some(last) if place.offset <= last.end => last.end = last.end.max(end),
                    _ => places.push(place.offset..end),
                }
            }
        });
        places
    }

    fn segment_len(&self, id: SegmentId) -> Result<u64, StoreError> {
        let path = super::segment_path(&self.dir, id);
        let len = self.disk.open(&path).and_then(|file| file.len());
        len.map_err(|error| StoreError::Unreadable { path, reason: error.to_string() })
    }
}

fn covers(places: &[Range<u64>], offset: u64) -> bool {
    let before = places.partition_point(|place| place.start <= offset);
    before > 0 && places[before - 1].end > offset
}

fn spaces_of(index: &Index) -> Vec<(Space, Vec<IndexEntry>)> {
    let entries = |index: &super::index::SpaceIndex| {
        let entry = |(topic, entry): (_, &super::index::Entry)| IndexEntry {
            position: entry.position,
            topic,
            seq: entry.seq,
            offset: entry.at.offset,
            payload_bytes: entry.at.payload_bytes,
        };
        index.entries().map(entry).collect()
    };
    index.spaces().map(|(space, index)| (space, entries(index))).collect()
}

fn entry_of(placed: &Placed) -> IndexEntry {
    IndexEntry {
        position: placed.derived.position,
        topic: placed.derived.topic,
        seq: placed.seq,
        offset: placed.at.offset,
        payload_bytes: placed.at.payload_bytes,
    }
}
