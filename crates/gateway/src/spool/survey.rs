//! What an earlier life has left in sealed segments is read while the gateway already works, so that a start takes as
//! long with a large spool as with an empty one. Until a segment is read from end to end the spool counts as holding
//! something of any time. A disk that does not give it now is asked again: only what reads wrongly is damage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use poste_journal::{FrameAt, Recovery, Replay};
use tracing::{error, info};

use super::index::Index;
use super::record::{self, RecordError};
use super::{Spool, SpoolError, say_lost, say_unreadable};

/// The thread that reads. It ends when everything is read, or with this.
#[derive(Debug)]
pub(super) struct Survey {
    spool: Arc<Spool>,
    thread: Option<JoinHandle<()>>,
}

impl Survey {
    /// Reads what the index has not read.
    pub(super) fn begin(spool: &Arc<Spool>) -> Result<Self, SpoolError> {
        let thread = if spool.index.lock().has_unread() {
            let spool = Arc::clone(spool);
            let builder = std::thread::Builder::new().name("gateway-survey".to_owned());
            Some(builder.spawn(move || run(&spool)).map_err(SpoolError::Thread)?)
        } else {
            None
        };
        Ok(Self { spool: Arc::clone(spool), thread })
    }
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.spool.survey.lock().stopped = true;
        self.spool.surveyed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the thread that reads the spool has failed");
        }
    }
}

/// How far it has come.
#[derive(Debug)]
pub(super) struct Progress {
    looked_through: bool,
    stopped: bool,
}

impl Progress {
    pub(super) fn new(index: &Index) -> Self {
        Self { looked_through: !index.has_unread(), stopped: false }
    }

    /// The disk was asked for everything once, or is not asked any more.
    pub(super) fn is_done(&self) -> bool {
        self.looked_through || self.stopped
    }
}

fn run(spool: &Spool) {
    loop {
        let next = spool.index.lock().next_unread();
        let mut progress = spool.survey.lock();
        // Those that were never tried come first.
        if !progress.looked_through && next.is_none_or(|(_, due)| due.is_some()) {
            progress.looked_through = true;
            spool.surveyed.notify_all();
            info!(
                envelopes = spool.size().envelopes,
                "looked through the spool; what it holds goes to the archive"
            );
        }
        let Some((segment, due)) = next else { return };
        if progress.stopped {
            return;
        }
        if let Some(due) = due.filter(|due| *due > Instant::now()) {
            spool.surveyed.wait_until(&mut progress, due);
            continue;
        }
        drop(progress);
        read(spool, segment);
        spool.measure();
    }
}

/// Reads one segment from end to end, as far as the disk gives it.
fn read(spool: &Spool, segment: u32) {
    let mut found: Vec<(FrameAt, u32)> = Vec::new();
    let (mut unreadable, mut newer) = (0, None);
    let scanned = spool.reader.scan(segment, |at, payload| match record::sent(payload) {
        Ok(sent) => found.push((at, sent)),
        Err(RecordError::Version(version)) => newer = Some(version),
        Err(RecordError::Form) => unreadable += 1,
    });
    let why = match (scanned, newer) {
        (Ok(report), None) if !report.unreadable => {
            let mut index = spool.index.lock();
            index.read_through(segment, &found);
            let lost = report.damaged.len() as u64 + unreadable;
            if lost > 0 {
                index.damaged(segment, lost);
                drop(index);
                say_lost(segment, lost, &"it is damaged; each stretch counts as one");
            }
            return;
        }
        (_, Some(version)) => format!("records of version {version}: use the newer program to drain it"),
        (Ok(_), None) => "a part of it cannot be read".to_owned(),
        (Err(error), None) => error.to_string(),
    };
    let pause = spool.index.lock().read_in_part(segment, &found, Instant::now());
    say_unreadable(segment, pause, &why);
}

/// What is found when a spool is opened.
#[derive(Default)]
pub(super) struct Found {
    index: Index,
    /// Frames that are no records, by segment.
    formless: BTreeMap<u32, u64>,
    /// The version of a record that is of a newer program.
    pub(super) newer: Option<u8>,
}

impl Replay for Found {
    fn wanted(&mut self, sealed: u32) -> bool {
        self.index.add_unread(sealed);
        false
    }

    fn frame(&mut self, at: FrameAt, payload: &[u8]) {
        match record::sent(payload) {
            Ok(sent) => self.index.add(at, sent),
            Err(RecordError::Version(version)) => self.newer = Some(version),
            Err(RecordError::Form) => *self.formless.entry(at.segment).or_default() += 1,
        }
    }
}

impl Found {
    /// How many envelopes stood in a damaged stretch nobody knows: it counts as one.
    pub(super) fn into_index(self, recovery: &Recovery) -> Index {
        let Self { mut index, formless: mut lost, .. } = self;
        for damage in &recovery.quarantined {
            *lost.entry(damage.segment).or_default() += 1;
        }
        for segment in &recovery.unreadable {
            // Nobody knows whether it is damaged.
            lost.remove(segment);
            index.read_again(*segment);
        }
        for (segment, lost) in lost {
            index.damaged(segment, lost);
            say_lost(segment, lost, &"it is damaged; each stretch counts as one");
        }
        index
    }
}
