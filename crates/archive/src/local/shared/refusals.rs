//! Why records are not taken, and telling it to whoever watches.

use super::Shared;
use crate::store::{Lane, Writable};

/// Why records are not taken; the first that applies is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::local) enum Cause {
    Stopped,
    /// The journal of a lane is poisoned.
    Disk(Lane),
    /// Duplicates could not be found.
    Unindexed,
    /// Index files cannot be written, and memory is not endless.
    IndexesBehind,
    /// By the retention's limits.
    Size,
}

impl Shared {
    /// Sets or takes back a reason why records are not taken.
    pub(in crate::local) fn refuse(&self, cause: Cause, reason: Option<String>) {
        let mut refusals = self.refusals.lock();
        match reason {
            Some(reason) => refusals.insert(cause, reason),
            None => refusals.remove(&cause),
        };
        let first = refusals.values().next().cloned();
        self.writable.send_if_modified(|writable| {
            let now = first.map_or(Writable::Yes, Writable::No);
            let changed = *writable != now;
            *writable = now;
            changed
        });
        drop(refusals);
        self.metrics.writable.set(i64::from(self.writable.borrow().is_yes()));
    }

    pub(in crate::local) fn refusal_of(&self, cause: Cause) -> Option<String> {
        self.refusals.lock().get(&cause).cloned()
    }

    pub(in crate::local) fn takes_records(&self) -> bool {
        self.refusals.lock().is_empty()
    }

    /// Why records are not taken now.
    pub(in crate::local) fn refusal(&self) -> Option<String> {
        self.refusals.lock().values().next().cloned()
    }
}
