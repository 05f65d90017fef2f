//! Verification: every frame is read and derived anew and compared with the index, every block of every index file is
//! read. What is damaged goes to quarantine; an index file that does not agree with its segment is made anew. What the
//! disk does not give is counted and passed over: it may give it later, and everything else is worth knowing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::build::{Derive, Placed, stretch};
use super::index_file::{IndexError, Stretch};
use super::part::{OpenPart, Part, PartError, SealedPart, SegmentId};
use super::shared::Shared;
use crate::record::Space;
use crate::store::{Lane, Progress, ProgressFn, StoreError, Verification};

/// More findings are counted, but not told one by one.
const MAX_FINDINGS: usize = 1000;
/// Frames of an open segment that are read at a time.
const OPEN_FRAMES: usize = 4096;

impl Shared {
    /// Verifies everything that is there now; one at a time.
    pub(super) fn verify(&self, progress: &ProgressFn) -> Result<Verification, StoreError> {
        if self.verifying.swap(true, Ordering::AcqRel) {
            let reason = "another verification is running: wait until it is done".to_owned();
            return Err(StoreError::Unreadable { path: self.dir.clone(), reason });
        }
        let found = Run::new(self, progress).all();
        self.verifying.store(false, Ordering::Release);
        Ok(found)
    }
}

struct Run<'a> {
    shared: &'a Shared,
    progress: &'a ProgressFn,
    told: Progress,
    result: Verification,
}

impl<'a> Run<'a> {
    fn new(shared: &'a Shared, progress: &'a ProgressFn) -> Self {
        let told = Progress { done_bytes: 0, total_bytes: shared.file_bytes() };
        Self { shared, progress, told, result: Verification::default() }
    }

    fn all(mut self) -> Verification {
        let (view, missing) = self.shared.view_and_missing();
        for &id in &missing {
            self.result.unindexed += 1;
            self.find(id, "it was passed over: its index is being made anew");
        }
        for part in view.parts() {
            let goes_on = match part.as_ref() {
                Part::Open(open) => self.open(part, open),
                Part::Sealed(sealed) => self.sealed(part, sealed),
            };
            if !goes_on {
                return self.result;
            }
        }
        self.result.complete = missing.is_empty();
        self.result
    }

    /// Reads every frame that the index in memory knows. False when the verification is to end.
    fn open(&mut self, part: &Arc<Part>, open: &OpenPart) -> bool {
        let known: Vec<(Space, super::index::Entry)> = {
            let index = open.index.read();
            index
                .spaces()
                .flat_map(|(space, index)| index.entries().map(move |(_, entry)| (space, *entry)))
                .collect()
        };
        let mut unreadable = None;
        for some in known.chunks(OPEN_FRAMES) {
            let frames: Vec<_> = some.iter().map(|(_, entry)| entry.at).collect();
            let mut bytes = 0;
            let payloads = self.shared.reader(open.id.lane).read_many(&frames);
            for ((space, entry), payload) in some.iter().zip(payloads) {
                let sound = match payload {
                    Ok(payload) => {
                        bytes += payload.len() as u64;
                        let head = super::frame::head_bytes(*space).min(payload.len());
                        let derived = crate::record::Derived::of(*space, &payload.slice(head..));
                        derived.is_ok_and(|derived| derived.position == entry.position)
                    }
                    Err(poste_journal::JournalError::Damaged { .. }) => false,
                    Err(_) if self.is_gone(open.id) => return true,
                    Err(error) => {
                        unreadable.get_or_insert(error);
                        continue;
                    }
                };
                if sound {
                    self.result.records += 1;
                } else {
                    self.damaged(part, stretch(entry.at));
                }
            }
            self.result.bytes += bytes;
            if !self.advance(bytes) {
                return false;
            }
        }
        if let Some(error) = unreadable {
            self.unreadable(open.id, &error.to_string());
        }
        true
    }

    /// Reads the whole segment and its index file. False when the verification is to end.
    fn sealed(&mut self, part: &Arc<Part>, sealed: &SealedPart) -> bool {
        let file = sealed.file();
        let checked = file.and_then(|file| {
            file.verify().map_err(|error| PartError { id: sealed.id, error })?;
            Ok(file)
        });
        let file = match checked {
            Ok(file) => Some(file),
            Err(error) => {
                self.index_differs(sealed, error);
                None
            }
        };
        let mut found = 0_u64;
        let mut differs: Option<IndexError> = None;
        let mut derive = Derive::new(|placed: Placed| {
            let Some(file) = &file else { return };
            let index = file.space(placed.space);
            let entry = index.map_or(Ok(None), |index| index.find(&placed.derived.position));
            match entry {
                Ok(Some(entry)) if entry.offset == placed.at.offset && entry.seq == placed.seq => found += 1,
                Ok(_) if sealed.is_quarantined(placed.at.offset) => {}
                Ok(_) => {
                    let text = format!("it lacks the record at offset {}", placed.at.offset);
                    differs.get_or_insert(IndexError::Invalid(text));
                }
                Err(error) => {
                    differs.get_or_insert(error);
                }
            }
        });
        let (mut done, mut goes_on) = (0, true);
        let (shared, progress, told) = (self.shared, self.progress, &mut self.told);
        let scanned = shared.reader(sealed.id.lane).scan(sealed.id.number, |at, payload| {
            if !goes_on {
                return;
            }
            derive.frame(at, payload);
            if at.end() - done >= 4 * 1024 * 1024 {
                told.done_bytes += at.end() - done;
                done = at.end();
                goes_on = progress(*told) && !shared.is_closing();
            }
        });
        let (undecodable, newer) = derive.finish();
        let report = match scanned {
            Ok(report) => report,
            Err(_) if self.is_gone(sealed.id) => return true,
            Err(error) => {
                self.unreadable(sealed.id, &error.to_string());
                return self.advance(sealed.summary.segment_bytes + sealed.summary.file_bytes);
            }
        };
        if !goes_on {
            return false;
        }
        if let Some(reason) = newer {
            self.unreadable(sealed.id, &format!("it holds {reason}"));
        }
        self.result.bytes += report.bytes;
        self.result.records += found;
        let damaged = report.damaged.iter();
        let damaged = damaged.map(|damage| Stretch { offset: damage.offset, bytes: damage.bytes });
        if report.unreadable {
            // What the disk refuses now it may give later: nothing is given up for it.
            self.unreadable(sealed.id, "the disk could not read a part of it");
        } else {
            for stretch in damaged.chain(undecodable.into_iter().map(stretch)) {
                self.damaged(part, stretch);
            }
            let known: u64 = sealed.summary.spaces.iter().map(|space| u64::from(space.records)).sum();
            if found < known && differs.is_none() && file.is_some() && !sealed.has_quarantined() {
                let lost = known - found;
                differs =
                    Some(IndexError::Invalid(format!("it names {lost} records that the segment lacks")));
                let end = Stretch {
                    offset: report.bytes,
                    bytes: sealed.summary.segment_bytes - report.bytes.min(sealed.summary.segment_bytes),
                };
                if end.bytes > 0 {
                    self.damaged(part, end);
                }
            }
        }
        if let Some(error) = differs {
            self.index_differs(sealed, PartError { id: sealed.id, error });
        }
        self.advance(report.bytes.saturating_sub(done) + sealed.summary.file_bytes)
    }

    /// Whether it was retired since, and not only lost its index.
    fn is_gone(&self, id: SegmentId) -> bool {
        let (view, missing) = self.shared.view_and_missing();
        view.find(id).is_none() && !missing.contains(&id)
    }

    fn damaged(&mut self, part: &Arc<Part>, stretch: Stretch) {
        if self.shared.quarantine(part, stretch) {
            self.result.quarantined += 1;
            let Stretch { offset, bytes } = stretch;
            self.find(part.id(), &format!("{bytes} bytes at offset {offset} are damaged"));
        }
    }

    fn index_differs(&mut self, sealed: &SealedPart, error: PartError) {
        let finding = format!("its index file: {}", error.error);
        // An error that says nothing about the file is no reason to make it anew.
        match self.shared.mistrust(error) {
            Ok(()) => {
                self.result.indexes_rebuilt += 1;
                self.find(sealed.id, &finding);
            }
            Err(_) => self.unreadable(sealed.id, &finding),
        }
    }

    fn unreadable(&mut self, id: SegmentId, why: &str) {
        self.result.unreadable += 1;
        self.find(id, why);
    }

    fn find(&mut self, id: SegmentId, finding: &str) {
        if self.result.findings.len() < MAX_FINDINGS {
            self.result.findings.push(format!("{} segment {}: {finding}", lane_name(id.lane), id.number));
        }
    }

    fn advance(&mut self, bytes: u64) -> bool {
        self.told.done_bytes += bytes;
        self.told.total_bytes = self.told.total_bytes.max(self.told.done_bytes);
        (self.progress)(self.told) && !self.shared.is_closing()
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Live => "live",
        Lane::Imported => "imported",
    }
}
