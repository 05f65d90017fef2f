//! The writing side of a spool: groups of envelopes become durable, segments that are settled go, and after an error the
//! disk is tried until it takes something again. It has one owner, and everything in it blocks.

use std::sync::Arc;

use bytes::Bytes;
use poste_journal::{ErrorKind, Group, Journal, JournalError};
use poste_service::Clock;
use tracing::warn;

use super::record::{self, OVERHEAD_BYTES};
use super::survey::Survey;
use super::{Fault, Spool, SpoolError};

/// What a frame takes in its file besides its payload, and a new segment besides its frames: about.
const FRAME_BYTES: u64 = 12;
const SEGMENT_BYTES: u64 = 64;
/// What a disk must take at least before it counts as mended; as much as it refused last, if that was more.
const PROBE_BYTES: usize = 64 * 1024;

/// The one who writes into a spool.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    /// It ends before the directory is given back.
    survey: Survey,
    journal: Journal,
    spool: Arc<Spool>,
    group: Group,
    max_bytes: u64,
    clock: Clock,
    /// There may be segments to remove: those that could not be, and those that are being read.
    untidy: bool,
}

impl SpoolWriter {
    pub(super) fn new(
        journal: Journal,
        spool: Arc<Spool>,
        max_bytes: u64,
        clock: Clock,
    ) -> Result<Self, SpoolError> {
        let survey = Survey::begin(&spool)?;
        let group = Group::new();
        let mut writer = Self { survey, journal, spool, group, max_bytes, clock, untidy: false };
        writer.tidy();
        Ok(writer)
    }

    /// What an envelope takes in the spool's files.
    pub(crate) fn file_bytes(body: &Bytes) -> u64 {
        FRAME_BYTES + (OVERHEAD_BYTES + body.len()) as u64
    }

    /// How much more its files may take.
    pub(crate) fn room(&self) -> u64 {
        self.max_bytes.saturating_sub(self.journal.file_bytes() + SEGMENT_BYTES)
    }

    /// Whether [`SpoolWriter::maintain`] has something to try again.
    pub(crate) fn is_untidy(&self) -> bool {
        self.untidy || self.journal.is_poisoned()
    }

    /// Makes envelopes durable, each given as its encoding and its creation time (unix seconds). After an error none of
    /// them is in the spool.
    pub(crate) fn write<'a>(
        &mut self,
        envelopes: impl Iterator<Item = (&'a Bytes, u32)>,
    ) -> Result<(), JournalError> {
        self.group.clear();
        let mut times = Vec::new();
        for (body, sent) in envelopes {
            self.group.push(&record::parts(body))?;
            times.push(sent);
        }
        let appended = self.journal.append(&mut self.group, unix_millis(&self.clock))?;
        self.journal.sync()?;
        let mut index = self.spool.index.lock();
        for (at, sent) in appended.frames.into_iter().zip(times) {
            index.add(at, sent);
        }
        drop(index);
        self.measure();
        Ok(())
    }

    /// Removes the segments in which everything is settled; the open one too, so that a restart finds nothing.
    pub(crate) fn tidy(&mut self) {
        self.untidy = self.spool.index.lock().has_unread();
        // On a full disk these make the room that sealing needs.
        self.remove_settled();
        if self.spool.index.lock().is_settled(self.journal.open_segment()) && !self.journal.is_poisoned() {
            match self.journal.seal(unix_millis(&self.clock)) {
                Ok(None) => {}
                Ok(Some(_)) => self.remove_settled(),
                Err(error) => {
                    self.untidy = true;
                    warn!(cause = %error, "the newest file of the spool is drained and cannot be closed, trying again");
                }
            }
        }
        self.measure();
    }

    /// One that cannot be removed keeps none of the others.
    fn remove_settled(&mut self) {
        for (segment, _) in self.journal.segments() {
            let (settled, damaged) = {
                let index = self.spool.index.lock();
                (index.is_settled(segment), index.is_damaged(segment))
            };
            let gone = match (settled, damaged) {
                (false, _) => continue,
                (true, false) => self.journal.remove(segment),
                (true, true) => self.journal.set_aside(segment),
            };
            match gone {
                Ok(_) => {
                    // Not before: what is lost in a file is found again as long as it is here.
                    let lost = self.spool.index.lock().forget(segment);
                    self.spool.metrics.lost.inc_by(lost);
                }
                Err(error) => {
                    self.untidy = true;
                    warn!(segment, cause = %error, "a drained file of the spool cannot be removed, trying again");
                }
            }
        }
    }

    /// Tries again what did not work: a disk that refused, files that could not be removed, a bound that was reached.
    pub(crate) fn maintain(&mut self) {
        self.tidy();
        let fault = self.spool.fault.lock().clone();
        let (mended, needed) = match fault {
            None if !self.journal.is_poisoned() => return,
            Some(Fault::Full { needed }) => (Ok(()), needed),
            None | Some(Fault::Disk(_)) => (self.try_disk(), 0),
        };
        let has_room = self.journal.file_bytes() < self.max_bytes / 10 * 9 && self.room() >= needed;
        self.spool.set_fault(match mended {
            Ok(()) if has_room => None,
            Ok(()) => Some(Fault::Full { needed }),
            Err(error) => Some(Fault::of(&error)),
        });
        self.measure();
    }

    fn try_disk(&mut self) -> Result<(), JournalError> {
        let reopened = self.journal.reopen(unix_millis(&self.clock))?;
        for damage in reopened.quarantined {
            // Counted when it is drained, frame by frame.
            self.spool.index.lock().damaged(damage.segment, 0);
        }
        self.journal.probe(self.group.file_bytes().max(PROBE_BYTES))
    }

    /// Gives the directory back.
    pub(crate) fn close(mut self) {
        self.tidy();
        drop(self.survey);
        match self.journal.close() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => warn!(cause = %error, "the spool was not closed well"),
        }
    }

    /// What comes next goes into another segment.
    #[cfg(test)]
    pub(super) fn seal(&mut self) {
        self.journal.seal(unix_millis(&self.clock)).expect("the disk works");
    }

    fn measure(&self) {
        self.spool.metrics.bytes.set(i64::try_from(self.journal.file_bytes()).unwrap_or(i64::MAX));
        self.spool.measure();
    }
}

pub(super) fn unix_millis(clock: &Clock) -> u64 {
    u64::try_from(clock.now().as_millis()).unwrap_or(u64::MAX)
}
