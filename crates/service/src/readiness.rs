//! Whether a process should get work: named checks as cheap handles, and the phase of its life.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// The checks of a process. Cheap to clone; every service adds its own.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// In the order in which they were added.
    checks: Vec<CheckReport>,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not everything accepts connections yet.
    #[default]
    Starting,
    /// Everything accepts connections.
    Serving,
    /// It was told to stop.
    Draining,
}

impl Readiness {
    /// No checks, starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check. It is not ready until its handle says so.
    pub fn add(&self, name: impl Into<String>) -> Check {
        self.push(name.into(), false)
    }

    /// Adds a check that is listed with the others and does not decide: the process can do its work without what it
    /// checks.
    pub fn add_informational(&self, name: impl Into<String>) -> Check {
        self.push(name.into(), true)
    }

    fn push(&self, name: String, informational: bool) -> Check {
        let mut state = self.0.lock();
        let reason = Some("starting".into());
        state.checks.push(CheckReport { name, ready: false, informational, reason });
        Check { readiness: self.clone(), index: state.checks.len() - 1 }
    }

    /// From now on the checks decide.
    pub fn serving(&self) {
        self.0.lock().phase = Phase::Serving;
    }

    /// From now on the process is not ready.
    pub fn draining(&self) {
        self.0.lock().phase = Phase::Draining;
    }

    /// Whether it is serving and every check that decides is ready, and each check by itself.
    pub fn report(&self) -> Report {
        let state = self.0.lock();
        let checks = state.checks.clone();
        let ready =
            state.phase == Phase::Serving && checks.iter().all(|check| check.ready || check.informational);
        Report { ready, phase: state.phase, checks }
    }
}

/// The handle of one check. Cheap to clone; the last word counts.
#[derive(Clone, Debug)]
pub struct Check {
    readiness: Readiness,
    index: usize,
}

impl Check {
    /// What it checks is fine.
    pub fn ready(&self) {
        self.set(None);
    }

    /// What it checks is not; `why` is for people and must not name peers, topics or keys.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, reason: Option<String>) {
        // Checks are never removed, so the index holds.
        let check = &mut self.readiness.0.lock().checks[self.index];
        (check.ready, check.reason) = (reason.is_none(), reason);
    }
}

/// What `/readyz` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the process should get work.
    pub ready: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// Every check, in the order in which they were added.
    pub checks: Vec<CheckReport>,
}

/// One check of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Its name, for example `gateway.archive`.
    pub name: String,
    /// Its state.
    pub ready: bool,
    /// Whether the process may be ready while this is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub informational: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_serving_and_every_check() {
        let readiness = Readiness::new();
        assert!(!readiness.report().ready, "starting");
        readiness.serving();
        assert!(readiness.report().ready);

        let archive = readiness.add("gateway.archive");
        let spool = readiness.add("gateway.queue");
        archive.ready();
        assert!(!readiness.report().ready, "a new check begins as not ready");
        spool.ready();
        assert!(readiness.report().ready);
        archive.clone().not_ready("cannot be reached");
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.checks[0].reason.as_deref(), Some("cannot be reached"));
        assert_eq!(report.checks[1].reason, None);

        archive.ready();
        let neighbour = readiness.add_informational("gateway.neighbour");
        neighbour.not_ready("is away");
        let report = readiness.report();
        assert!(report.ready && !report.checks[2].ready, "{report:?}");
        assert_eq!(report.checks[2].reason.as_deref(), Some("is away"));

        readiness.draining();
        assert_eq!((readiness.report().ready, readiness.report().phase), (false, Phase::Draining));
    }
}
