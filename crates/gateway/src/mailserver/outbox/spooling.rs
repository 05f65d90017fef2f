//! The spool's thread: while the archive is away, what waits in memory is written in groups, each made durable by one
//! fsync, and confirmed. It also removes what is drained, and tries again what the disk has refused.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::{Outbox, Pending, State, Stored, age};
use crate::acceptance::Refusal;
use crate::spool::{Fault, SpoolWriter};

/// Envelopes and bytes of one group.
const GROUP_RECORDS: usize = 4096;
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Between two attempts to mend what is wrong.
const MEND_INTERVAL: Duration = Duration::from_secs(1);
/// How long a spool may take nothing while the archive is away before what waits is refused: nobody is left without an
/// answer.
const REFUSE_AFTER: Duration = Duration::from_secs(3);

enum Task {
    Write(Vec<Pending>),
    /// Remove what is drained, note the archive's store, and mend.
    Maintain,
    End,
}

/// Until the outbox is closed.
pub(super) fn run(outbox: &Outbox, mut writer: SpoolWriter) {
    loop {
        match outbox.next_task(&writer) {
            Task::Write(group) => outbox.spool(&mut writer, group),
            Task::Maintain => {
                writer.maintain();
                outbox.store.note();
            }
            Task::End => {
                outbox.store.note();
                return writer.close();
            }
        }
    }
}

impl Outbox {
    /// Waits for something to do.
    fn next_task(&self, writer: &SpoolWriter) -> Task {
        let mut state = self.state.lock();
        loop {
            if std::mem::take(&mut state.untidy) {
                return Task::Maintain;
            }
            let faulty = self.spool.is_faulty();
            if faulty {
                self.refuse_stuck(&mut state);
            }
            if !faulty && !state.direct && !state.waiting.is_empty() {
                let mut room = writer.room();
                let mut group = state.take(GROUP_RECORDS, GROUP_BYTES);
                let fits = group.iter().take_while(|pending| {
                    let bytes = SpoolWriter::file_bytes(&pending.body);
                    let fits = bytes <= room;
                    room = room.saturating_sub(bytes);
                    fits
                });
                let fits = fits.count();
                state.put_back(group.split_off(fits));
                if group.is_empty() {
                    let needed =
                        state.waiting.front().map_or(0, |first| SpoolWriter::file_bytes(&first.body));
                    self.spool.set_fault(Some(Fault::Full { needed }));
                    continue;
                }
                state.in_hand = age(&group);
                return Task::Write(group);
            }
            if state.closing {
                return Task::End;
            }
            if !faulty && !writer.is_untidy() && self.store.is_noted() {
                self.spooling.wait(&mut state);
            } else if self.spooling.wait_for(&mut state, MEND_INTERVAL).timed_out() {
                return Task::Maintain;
            }
        }
    }

    /// What waits and is taken by nobody for long is refused: its sender tries again later.
    fn refuse_stuck(&self, state: &mut State) {
        if state.direct || state.waiting.is_empty() {
            state.stuck = None;
            return;
        }
        if state.stuck.get_or_insert_with(Instant::now).elapsed() < REFUSE_AFTER {
            return;
        }
        state.stuck = None;
        let refused = std::mem::take(&mut state.waiting);
        warn!(count = refused.len(), "envelopes are refused that neither the archive nor the spool takes");
        for pending in refused {
            self.metrics.refused(Refusal::ArchiveFull);
            state.resolve(pending, Stored::NoRoom);
        }
        self.after_settling(state);
    }

    fn spool(&self, writer: &mut SpoolWriter, group: Vec<Pending>) {
        let written = writer.write(group.iter().map(|pending| (&pending.body, pending.sent)));
        let mut state = self.state.lock();
        state.in_hand = None;
        match written {
            Ok(()) => {
                state.stuck = None;
                self.metrics.spool.spooled.inc_by(group.len() as u64);
                for pending in group {
                    state.resolve(pending, Stored::Yes);
                }
                self.after_settling(&mut state);
                drop(state);
                // The stream, if there is one, has something to drain and to report.
                self.arrived.notify_one();
            }
            Err(error) => {
                state.put_back(group);
                drop(state);
                self.spool.set_fault(Some(Fault::of(&error)));
            }
        }
    }
}
