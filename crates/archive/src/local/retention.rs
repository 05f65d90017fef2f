//! Retention: which records are taken away (J7). The floor is durable first, then everything below it is hidden, and
//! only then whole segments are removed whose newest record is below it.

use std::sync::mpsc::{SyncSender, sync_channel};

use super::part::{Part, SealedPart, SegmentId};
use super::sealed;
use super::shared::{AskError, Cause, Shared};
use super::view::View;
use super::writer::Command;
use crate::record::Space;
use crate::store::{Retention, Retired, StoreError};

/// All spaces, each with its floor.
const SPACES: [Space; 1] = [Space::Waku1];

impl Shared {
    /// Raises the floor of a space: what is below is not answered any more when this returns. Segments that are wholly
    /// below their floors are removed as far as that is possible at once; the rest follows.
    pub(super) fn retire(
        &self,
        writer: &SyncSender<Command>,
        space: Space,
        floor_ns: i64,
    ) -> Result<Retired, StoreError> {
        let mut hidden = 0;
        if self.floor_ns(space).is_none_or(|floor| floor < floor_ns) {
            hidden = self.ask(|| {
                let _nothing_is_stored = self.floor_gate.write();
                let (view, is_whole) = self.whole_view();
                let retired_seq = match is_whole {
                    true => self.last_seq_below(&view, space, floor_ns)?,
                    false => *self.head.borrow(),
                };
                let hidden = self.hidden_by(&view, space, floor_ns)?;
                // Who reads in order of arrival must learn of the loss, also after a restart.
                self.meta.update(|meta| {
                    let floor = meta.floors.entry(space).or_insert(floor_ns);
                    *floor = (*floor).max(floor_ns);
                    meta.retired_seq = meta.retired_seq.max(retired_seq);
                })?;
                self.hide_below(space, floor_ns);
                Ok(Some(hidden))
            })?;
        }
        let retired = self.remove_retired(writer)?;
        Ok(Retired { floor_ns: self.floor_ns(space), hidden, ..retired })
    }

    /// What [`Shared::retire`] would do.
    pub(super) fn would_retire(&self, space: Space, floor_ns: i64) -> Result<Retired, StoreError> {
        let floor_ns = self.floor_ns(space).map_or(floor_ns, |floor| floor.max(floor_ns));
        self.ask(|| {
            let view = self.view();
            let hidden = self.hidden_by(&view, space, floor_ns)?;
            let mut retired = Retired { floor_ns: Some(floor_ns), hidden, ..Retired::default() };
            let floor_of = |other| if other == space { Some(floor_ns) } else { self.floor_ns(other) };
            for part in view.parts().iter().filter(|part| is_below(part, floor_of)) {
                if let Part::Sealed(sealed) = part.as_ref() {
                    count(sealed, &mut retired);
                }
            }
            Ok(Some(retired))
        })
    }

    /// How many records a new floor hides.
    fn hidden_by(&self, view: &View, space: Space, floor_ns: i64) -> Result<u64, AskError> {
        let before = self.floor_ns(space).unwrap_or(i64::MIN);
        let mut hidden = 0;
        for part in view.parts() {
            let Some(span) = part.span(space) else { continue };
            if span.newest.time_ns < before || span.oldest.time_ns >= floor_ns {
                continue;
            }
            hidden += match part.as_ref() {
                _ if before <= span.oldest.time_ns && span.newest.time_ns < floor_ns => span.records,
                Part::Open(open) => {
                    let index = open.index.read();
                    let entries = index.space(space).into_iter().flat_map(|index| index.entries());
                    let times = entries.map(|(_, entry)| entry.position.time_ns);
                    times.filter(|time_ns| (before..floor_ns).contains(time_ns)).count() as u64
                }
                Part::Sealed(sealed) => sealed::count_between(sealed, space, before, floor_ns)?,
            };
        }
        Ok(hidden)
    }

    /// The highest seq of a record that a new floor hides; 0 when it hides none.
    fn last_seq_below(&self, view: &View, space: Space, floor_ns: i64) -> Result<u64, AskError> {
        let before = self.floor_ns(space).unwrap_or(i64::MIN);
        let mut last_seq = 0;
        for part in view.parts() {
            let Some(span) = part.span(space) else { continue };
            if span.newest.time_ns < before || span.oldest.time_ns >= floor_ns {
                continue;
            }
            let below = match part.as_ref() {
                _ if span.newest.time_ns < floor_ns => span.last_seq,
                Part::Open(open) => {
                    let index = open.index.read();
                    let entries = index.space(space).into_iter().flat_map(|index| index.entries());
                    let below = entries.filter(|(_, entry)| entry.position.time_ns < floor_ns);
                    below.map(|(_, entry)| entry.seq).max().unwrap_or(0)
                }
                Part::Sealed(sealed) => sealed::last_seq_below(sealed, space, before, floor_ns)?,
            };
            last_seq = last_seq.max(below);
        }
        Ok(last_seq)
    }

    /// Removes every segment whose records are all below their floors.
    pub(super) fn remove_retired(&self, writer: &SyncSender<Command>) -> Result<Retired, StoreError> {
        let view = self.view();
        let mut retired = Retired::default();
        let mut gone: Vec<SegmentId> = Vec::new();
        for part in view.parts().iter().filter(|part| is_below(part, |space| self.floor_ns(space))) {
            match part.as_ref() {
                Part::Sealed(sealed) => {
                    gone.push(part.id());
                    count(sealed, &mut retired);
                }
                // It is removed when it has been sealed and indexed.
                Part::Open(_) if !is_empty(part) && part.id().number == self.open_number(part.id().lane) => {
                    send(writer, Command::Seal(part.id().lane))?;
                }
                Part::Open(_) => {}
            }
        }
        if !gone.is_empty() {
            self.meta.update(|meta| {
                for id in &gone {
                    meta.forget_segment(id.lane, id.number);
                }
            })?;
            self.to_remove.lock().extend(&gone);
            self.change_view(|view| view.without(&gone));
            self.change_topics(|spaces| {
                for (&space, topics) in spaces.iter_mut().flatten() {
                    if let Some(floor_ns) = self.floor_ns(space) {
                        topics.retire(super::topics::day_of(floor_ns));
                    }
                }
            });
        }
        // What could not be removed before is tried again.
        let to_remove: Vec<SegmentId> = self.to_remove.lock().iter().copied().collect();
        if to_remove.is_empty() {
            return Ok(retired);
        }
        let (reply, removed) = sync_channel(1);
        send(writer, Command::Remove(to_remove, reply))?;
        let removed = removed.recv().map_err(|_| StoreError::Closed)?;
        for &id in &removed.segments {
            self.to_remove.lock().remove(&id);
            // An index file without its segment is removed at the next start, if not now.
            let path = super::index_path(&self.dir, id);
            let _ = self.disk.remove(&path);
        }
        if let Some(error) = removed.error {
            return Err(error.into());
        }
        if gone.is_empty() {
            return Ok(retired);
        }
        tracing::info!(
            segments = gone.len(),
            records = retired.records,
            bytes = retired.bytes,
            "retired old records"
        );
        Ok(retired)
    }

    /// Does what the retention says, at this time.
    pub(super) fn keep_retention(&self, writer: &SyncSender<Command>) -> Result<(), StoreError> {
        let Retention { max_age, max_bytes, min_age } = self.retentions.lock().in_force();
        let now_ns = self.unix_nanos();
        let before = |age: std::time::Duration| now_ns.saturating_sub(nanos(age));
        if let Some(max_age) = max_age {
            for space in SPACES {
                let floor_ns = before(max_age);
                // Each step of the floor costs a write of the meta file, so it goes by minutes, or a sixtieth of the age.
                let step = nanos(max_age / 60).min(60_000_000_000);
                let due = self.floor_ns(space).is_none_or(|floor| floor_ns.saturating_sub(floor) >= step);
                if due && self.oldest_ns(space).is_some_and(|oldest| oldest < floor_ns) {
                    self.retire(writer, space, floor_ns)?;
                }
            }
        }
        // While something waits to be removed nobody knows how much more has to go.
        if let Some(max_bytes) = max_bytes
            && self.file_bytes() > max_bytes
            && self.to_remove.lock().is_empty()
        {
            self.make_room(writer, max_bytes, before(min_age))?;
        }
        self.remove_retired(writer)?;
        let full = max_bytes.is_some_and(|max_bytes| self.file_bytes() > max_bytes);
        let reason = "archive.max_size is reached, and nothing is older than archive.min_age: raise one of them, or \
                      prune";
        if full && self.refusal_of(Cause::Size).is_none() {
            tracing::error!("the archive takes no records: {reason}");
        }
        self.refuse(Cause::Size, full.then(|| reason.to_owned()));
        Ok(())
    }

    /// Retires the oldest sealed segments until the files are small enough, but nothing younger than `latest_ns`.
    fn make_room(
        &self,
        writer: &SyncSender<Command>,
        max_bytes: u64,
        latest_ns: i64,
    ) -> Result<(), StoreError> {
        let view = self.view();
        for space in SPACES {
            let newest_ns = |part: &'_ SealedPart| Some(part.span(space)?.newest.time_ns);
            let mut sealed: Vec<(i64, &SealedPart)> = view
                .parts()
                .iter()
                .filter_map(|part| match part.as_ref() {
                    Part::Sealed(sealed) => Some((newest_ns(sealed)?, sealed)),
                    Part::Open(_) => None,
                })
                .collect();
            sealed.sort_unstable_by_key(|&(newest_ns, _)| newest_ns);
            let mut excess = self.file_bytes().saturating_sub(max_bytes);
            let mut floor_ns = None;
            for (newest_ns, part) in sealed {
                if excess == 0 || newest_ns >= latest_ns {
                    break;
                }
                floor_ns = Some(newest_ns + 1);
                let mut freed = Retired::default();
                count(part, &mut freed);
                excess = excess.saturating_sub(freed.bytes);
            }
            if let Some(floor_ns) = floor_ns {
                self.retire(writer, space, floor_ns)?;
            }
        }
        Ok(())
    }

    fn oldest_ns(&self, space: Space) -> Option<i64> {
        let view = self.view();
        view.parts().iter().filter_map(|part| Some(part.span(space)?.oldest.time_ns)).min()
    }
}

/// Whether a segment may go: all that it holds is below these floors.
fn is_below(part: &Part, floor_of: impl Fn(Space) -> Option<i64>) -> bool {
    let below = |space: Space| {
        let floor = floor_of(space);
        part.span(space).is_none_or(|span| floor.is_some_and(|floor| span.newest.time_ns < floor))
    };
    // Where nothing is left but damage, the file is what tells of the gap.
    let tells_of_a_gap = is_empty(part) && !part.quarantined().is_empty();
    !tells_of_a_gap && SPACES.into_iter().all(below)
}

fn is_empty(part: &Part) -> bool {
    SPACES.into_iter().all(|space| part.span(space).is_none())
}

/// Adds what removing a segment gives back.
fn count(sealed: &SealedPart, retired: &mut Retired) {
    retired.records += sealed.summary.spaces.iter().map(|space| u64::from(space.records)).sum::<u64>();
    retired.bytes += sealed.summary.segment_bytes + sealed.summary.file_bytes;
}

fn send(writer: &SyncSender<Command>, command: Command) -> Result<(), StoreError> {
    writer.send(command).map_err(|_| StoreError::Closed)
}

fn nanos(age: std::time::Duration) -> i64 {
    i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)
}
