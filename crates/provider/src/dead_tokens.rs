//! Which failures mean that a token is dead.
//!
//! - `Unregistered` means it at once.
//! - `BadToken`, `WrongTopic` and `WrongSender` may be *our* wrong environment or credentials. They mean it only when
//!   the same token has failed so several times over a stretch of time, and enough other pushes of the same service
//!   went well meanwhile.
//! - Nothing else ever means it.
//! - While a large part of all pushes of a service fails, no token of it is called dead at all: one wrong setting must
//!   not wipe every device.
//! - However often gorush tells of a failure, it counts once: set up so, gorush tries each notification that fails again,
//!   dead tokens too, and tells of each try.
//!
//! Everything here is in memory: after a restart the evidence against a token begins anew, which errs on its side.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::notif_id::{Mark, TokenFingerprint};
use crate::notification::Service;
use crate::outcome::FailureReason;

/// Slices of the window over which failures are compared with pushes.
const SLICES: usize = 12;

/// When a token is called dead.
#[derive(Debug, Clone)]
pub struct DeadTokenPolicy {
    /// The time over which failures are compared with pushes. One hour.
    pub window: Duration,
    /// Above this part of the pushes, in percent, failures stop all pruning. 50.
    pub max_failed_percent: u32,
    /// Fewer failures than this in the window never stop it. 20.
    pub min_failures: u32,
    /// Doubtful failures count for nothing with fewer pushes than this in the window. 20.
    pub min_pushes: u32,
    /// So many notifications must fail for a doubtful reason. 5.
    pub doubtful_failures: u32,
    /// The first and the last of them must be so far apart. One hour.
    pub doubtful_span: Duration,
    /// Doubtful tokens that are remembered; beyond that the one that was noticed first is forgotten. 10,000.
    pub max_doubtful: usize,
    /// Failures that are remembered, so that each counts once; beyond that the oldest is forgotten. 10,000.
    pub max_told: usize,
}

impl Default for DeadTokenPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(3600),
            max_failed_percent: 50,
            min_failures: 20,
            min_pushes: 20,
            doubtful_failures: 5,
            doubtful_span: Duration::from_secs(3600),
            max_doubtful: 10_000,
            max_told: 10_000,
        }
    }
}

/// What is to be done about a token after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The token is dead: forget it.
    Dead,
    /// The token stays.
    Keep,
}

/// Judges failures. Shared by the provider, which tells of pushes, and the feedback hook, which tells of failures.
pub struct DeadTokens {
    policy: DeadTokenPolicy,
    metrics: Metrics,
    state: Mutex<State>,
}

struct State {
    apns: Window,
    fcm: Window,
    told: Told,
    doubtful: Doubtful,
}

impl State {
    fn window(&mut self, service: Service) -> &mut Window {
        match service {
            Service::Apns => &mut self.apns,
            Service::Fcm => &mut self.fcm,
        }
    }
}

impl DeadTokens {
    /// Judges by this policy.
    pub fn new(policy: DeadTokenPolicy, metrics: Metrics) -> Self {
        let window = Window::new(policy.window / SLICES as u32);
        let state =
            State { apns: window.clone(), fcm: window, told: Told::default(), doubtful: Doubtful::default() };
        Self { policy, metrics, state: Mutex::new(state) }
    }

    /// Notes that pushes go to gorush. Before they do: a gorush that waits for Apple or Google tells of failures
    /// before it answers the call.
    pub(crate) fn pushed(&self, service: Service, count: u32) {
        self.state.lock().window(service).add(Instant::now(), count, 0);
    }

    /// Takes back what was noted of pushes that gorush did not take.
    pub(crate) fn not_pushed(&self, service: Service, count: u32) {
        self.state.lock().window(service).take_back(count);
    }

    /// Notes a failure, unless it was noted before, and judges the token.
    pub(crate) fn judge(&self, mark: &Mark, reason: FailureReason) -> Verdict {
        let mut state = self.state.lock();
        let is_new = state.told.note(mark, self.policy.max_told);
        let window = state.window(mark.service);
        window.add(Instant::now(), 0, u32::from(is_new));
        let (pushes, failures) = window.sums();
        let is_paused = failures >= self.policy.min_failures
            && u64::from(failures) * 100 > u64::from(pushes) * u64::from(self.policy.max_failed_percent);
        let verdict = match reason {
            FailureReason::Unregistered if !is_paused => Verdict::Dead,
            FailureReason::BadToken | FailureReason::WrongTopic | FailureReason::WrongSender => {
                let evidence = state.doubtful.note(mark, self.policy.max_doubtful);
                let is_enough = evidence.failures >= self.policy.doubtful_failures
                    && evidence.span() >= self.policy.doubtful_span;
                let others_go_well = pushes >= self.policy.min_pushes
                    && u64::from(failures) * 100
                        <= u64::from(pushes) * u64::from(self.policy.max_failed_percent);
                if is_enough && others_go_well { Verdict::Dead } else { Verdict::Keep }
            }
            _ => Verdict::Keep,
        };
        if verdict == Verdict::Dead {
            state.doubtful.forget(&mark.fingerprint);
        }
        drop(state);
        self.metrics.set_pruning_paused(mark.service, is_paused);
        if verdict == Verdict::Dead {
            self.metrics.count_dead(mark.service);
        }
        verdict
    }
}

impl fmt::Debug for DeadTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadTokens").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Pushes and failures of the recent past, in slices of equal length.
#[derive(Debug, Clone)]
struct Window {
    slice: Duration,
    started: Instant,
    /// Newest last; each with its number since `started`, pushes, failures.
    slices: VecDeque<(u64, u32, u32)>,
}

impl Window {
    fn new(slice: Duration) -> Self {
        Self { slice: slice.max(Duration::from_millis(1)), started: Instant::now(), slices: VecDeque::new() }
    }

    fn add(&mut self, now: Instant, pushes: u32, failures: u32) {
        let number = u64::try_from(now.duration_since(self.started).as_millis() / self.slice.as_millis())
            .unwrap_or(u64::MAX);
        while self.slices.front().is_some_and(|(oldest, ..)| oldest + SLICES as u64 <= number) {
            self.slices.pop_front();
        }
        if self.slices.back().is_none_or(|(newest, ..)| *newest < number) {
            self.slices.push_back((number, 0, 0));
        }
        if let Some((_, sum_pushes, sum_failures)) = self.slices.back_mut() {
            *sum_pushes = sum_pushes.saturating_add(pushes);
            *sum_failures = sum_failures.saturating_add(failures);
        }
    }

    /// Takes pushes back, from the newest slices: they were added a moment ago.
    fn take_back(&mut self, mut pushes: u32) {
        for (_, noted, _) in self.slices.iter_mut().rev() {
            let taken = pushes.min(*noted);
            *noted -= taken;
            pushes -= taken;
        }
    }

    fn sums(&self) -> (u32, u32) {
        self.slices.iter().fold((0, 0), |(pushes, failures), slice| {
            (u32::saturating_add(pushes, slice.1), u32::saturating_add(failures, slice.2))
        })
    }
}

/// The notifications that failed last.
#[derive(Default)]
struct Told {
    failures: HashSet<Failure>,
    /// In the order in which they were told.
    order: VecDeque<Failure>,
}

/// A token is pushed to at most once at one time: it, and when its notification was sent.
type Failure = (Service, [u8; 16], Duration);

impl Told {
    /// Notes a failure, and says whether it is new.
    fn note(&mut self, mark: &Mark, max: usize) -> bool {
        let failure = (mark.service, mark.fingerprint.0, mark.sent_at);
        if !self.failures.insert(failure) {
            return false;
        }
        self.order.push_back(failure);
        if self.order.len() > max.max(1)
            && let Some(oldest) = self.order.pop_front()
        {
            self.failures.remove(&oldest);
        }
        true
    }
}

/// Tokens that failed for a reason that may be ours.
#[derive(Default)]
struct Doubtful {
    evidence: HashMap<[u8; 16], Evidence>,
    /// In the order in which they were first noted.
    order: VecDeque<[u8; 16]>,
}

#[derive(Debug, Clone, Copy)]
struct Evidence {
    failures: u32,
    /// When the first and the last of the failed notifications were sent, since 1970.
    first: Duration,
    last: Duration,
}

impl Evidence {
    fn span(&self) -> Duration {
        self.last.saturating_sub(self.first)
    }
}

impl Doubtful {
    /// Notes a failure once for each notification.
    fn note(&mut self, mark: &Mark, max: usize) -> Evidence {
        let token = mark.fingerprint.0;
        if let Some(evidence) = self.evidence.get_mut(&token) {
            if mark.sent_at > evidence.last {
                evidence.failures = evidence.failures.saturating_add(1);
                evidence.last = mark.sent_at;
            }
            return *evidence;
        }
        while self.order.len() >= max.max(1) {
            if let Some(oldest) = self.order.pop_front() {
                self.evidence.remove(&oldest);
            }
        }
        let evidence = Evidence { failures: 1, first: mark.sent_at, last: mark.sent_at };
        self.evidence.insert(token, evidence);
        self.order.push_back(token);
        evidence
    }

    fn forget(&mut self, token: &TokenFingerprint) {
        if self.evidence.remove(&token.0).is_some() {
            self.order.retain(|noted| *noted != token.0);
        }
    }
}

#[cfg(test)]
mod tests;
