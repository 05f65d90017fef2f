//! What an earlier life has left in sealed segments is read while the gateway already works, so that a start takes as
//! long with a large spool as with an empty one. Until a segment is read from end to end the spool counts as holding
//! something as old as what came when the file was begun may be. A disk that does not give it now is asked again: only
//! what reads wrongly is damage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use poste_journal::{Damage, FrameAt, Recovery, Replay};
use tracing::{error, info, warn};

use super::index::Index;
use super::record::{self, RecordError};
use super::{Spool, SpoolError, say_lost, say_unreadable};

/// How long an end waits for a disk that is just being asked.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The thread that reads. It ends when everything is read, or with this.
#[derive(Debug)]
pub(super) struct Survey {
    spool: Arc<Spool>,
    thread: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    thread: JoinHandle<()>,
    /// The other end goes with the thread.
    ended: Receiver<()>,
}

impl Survey {
    /// Reads what the index has not read.
    pub(super) fn begin(spool: &Arc<Spool>) -> Result<Self, SpoolError> {
        let thread = if spool.index.lock().has_unread() {
            let spool = Arc::clone(spool);
            let builder = std::thread::Builder::new().name("gateway-survey".to_owned());
            let (alive, ended) = channel();
            let reading = move || {
                let _alive = alive;
                run(&spool);
            };
            Some(Reading { thread: builder.spawn(reading).map_err(SpoolError::Thread)?, ended })
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
        let Some(Reading { thread, ended }) = self.thread.take() else { return };
        if ended.recv_timeout(END_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // It changes nothing, and ends as soon as the disk answers.
            warn!("the disk holds up the thread that reads the spool, going on without it");
        } else if thread.join().is_err() {
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
    #[cfg(test)]
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
    let visit = |at, payload: &[u8]| match record::sent(payload) {
        Ok(sent) => found.push((at, sent)),
        Err(RecordError::Version(version)) => newer = Some(version),
        Err(RecordError::Form) => unreadable += 1,
    };
    let goes_on = || !spool.survey.lock().stopped;
    let scanned = spool.reader.scan_while(segment, visit, &goes_on);
    if let Some(version) = newer {
        let why = format!(
            "a file of the spool holds records of version {version}, and this program reads only version {}: use the \
             newer program to drain it",
            record::VERSION
        );
        error!(segment, cause = why, "some of the spool does not go to the archive; it is kept");
        spool.version.not_ready(why);
    }
    let why = match scanned {
        // It was ended.
        Ok(None) => return,
        Ok(Some(report)) if !report.unreadable => {
            let mut index = spool.index.lock();
            if newer.is_some() {
                return index.read_but_newer(segment, &found);
            }
            // What was never durable may stand at the end of the last file.
            let is_tail = |damage: &Damage| damage.offset > 0 && damage.offset + damage.bytes == report.bytes;
            let torn = index.was_last(segment) && report.damaged.last().is_some_and(is_tail);
            index.read_through(segment, &found);
            let lost = report.damaged.len() as u64 - u64::from(torn) + unreadable;
            if lost > 0 {
                index.damaged(segment, lost);
                drop(index);
                say_lost(segment, lost, &"it is damaged; each stretch counts as one");
            }
            return;
        }
        Ok(Some(_)) => "a part of it cannot be read".to_owned(),
        Err(error) => error.to_string(),
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
            // The last one: of the others none was read. Nobody knows whether it is damaged.
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
