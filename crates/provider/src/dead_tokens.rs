//! Which failures mean that a token is dead.
//!
//! - `Unregistered` means it at once.
//! - `BadToken`, `WrongTopic` and `WrongSender` may be *our* wrong environment or credentials. They mean it only when
//!   the same token has failed so several times over a stretch of time, and enough other pushes of the same service
//!   went well meanwhile.
//! - Nothing else ever means it.
//! - While a large part of all pushes of a service fails, no token of it is called dead at all: one wrong setting must
//!   not wipe every device.
//!
//! Everything here is in memory: after a restart the evidence against a token begins anew, which errs on its side.

use std::collections::{HashMap, VecDeque};
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
        let state = State { apns: window.clone(), fcm: window, doubtful: Doubtful::default() };
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

    /// Notes a failure, and judges the token.
    pub(crate) fn judge(&self, mark: &Mark, reason: FailureReason) -> Verdict {
        let mut state = self.state.lock();
        let window = state.window(mark.service);
        window.add(Instant::now(), 0, 1);
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
    /// Notes a failure once for each notification: gorush tells each of its own retries.
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
mod tests {
    use super::*;
    use crate::notif_id::NotificationKey;
    use crate::notification::{DeviceToken, Reference};

    fn judge() -> DeadTokens {
        DeadTokens::new(DeadTokenPolicy::default(), Metrics::new())
    }

    fn failed(token: &str, sent_at_secs: u64) -> Mark {
        let key = NotificationKey::new([1; 32]);
        Mark {
            service: Service::Apns,
            sent_at: Duration::from_secs(sent_at_secs),
            fingerprint: key.fingerprint(&DeviceToken::new(token)),
            reference: Reference::new(b"row").unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unregistered_token_is_dead_at_once() {
        assert_eq!(judge().judge(&failed("a", 0), FailureReason::Unregistered), Verdict::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubtful_token_is_dead_after_repeated_failures_among_successes() {
        let judge = judge();
        judge.pushed(Service::Apns, 100);
        for minute in [0, 20, 40, 50] {
            let verdict = judge.judge(&failed("a", minute * 60), FailureReason::BadToken);
            assert_eq!(verdict, Verdict::Keep, "minute {minute}");
        }
        assert_eq!(
            judge.judge(&failed("b", 60 * 60), FailureReason::BadToken),
            Verdict::Keep,
            "another token"
        );
        assert_eq!(
            judge.judge(&failed("a", 59 * 60), FailureReason::BadToken),
            Verdict::Keep,
            "too short a time"
        );
        assert_eq!(judge.judge(&failed("a", 59 * 60), FailureReason::BadToken), Verdict::Keep, "told twice");
        assert_eq!(judge.judge(&failed("a", 60 * 60), FailureReason::BadToken), Verdict::Dead);
        assert_eq!(judge.judge(&failed("a", 61 * 60), FailureReason::BadToken), Verdict::Keep, "begun anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubtful_token_stays_while_all_tokens_fail_or_nobody_knows() {
        let judge = judge();
        for minute in 0..120 {
            judge.pushed(Service::Apns, 1);
            let verdict = judge.judge(&failed("a", minute * 60), FailureReason::BadToken);
            assert_eq!(verdict, Verdict::Keep, "minute {minute}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_most_pushes_fail_no_token_is_called_dead_until_they_go_well_again() {
        let judge = judge();
        judge.pushed(Service::Apns, 30);
        let mut verdicts =
            (0..30).map(|device| judge.judge(&failed(&format!("{device}"), 0), FailureReason::Unregistered));
        assert!(verdicts.by_ref().take(19).all(|verdict| verdict == Verdict::Dead), "too few to tell");
        assert!(verdicts.all(|verdict| verdict == Verdict::Keep), "the breaker is open");
        let mut elsewhere = failed("x", 0);
        elsewhere.service = Service::Fcm;
        assert_eq!(
            judge.judge(&elsewhere, FailureReason::Unregistered),
            Verdict::Dead,
            "the other service works"
        );
        tokio::time::advance(Duration::from_secs(2 * 3600)).await;
        judge.pushed(Service::Apns, 30);
        assert_eq!(judge.judge(&failed("y", 0), FailureReason::Unregistered), Verdict::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_that_were_not_taken_do_not_count() {
        let judge = judge();
        judge.pushed(Service::Apns, 20);
        tokio::time::advance(Duration::from_secs(5 * 60)).await;
        judge.pushed(Service::Apns, 30);
        judge.not_pushed(Service::Apns, 40);
        assert_eq!(judge.state.lock().apns.sums(), (10, 0));
        judge.not_pushed(Service::Apns, 40);
        assert_eq!(judge.state.lock().apns.sums(), (0, 0), "never below none");
        judge.pushed(Service::Apns, 5);
        judge.not_pushed(Service::Fcm, 5);
        assert_eq!(judge.state.lock().apns.sums(), (5, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_doubtful_tokens_is_bounded() {
        let policy = DeadTokenPolicy { max_doubtful: 10, ..DeadTokenPolicy::default() };
        let judge = DeadTokens::new(policy, Metrics::new());
        for device in 0..1000 {
            judge.judge(&failed(&format!("{device}"), 0), FailureReason::WrongTopic);
        }
        let state = judge.state.lock();
        assert_eq!((state.doubtful.evidence.len(), state.doubtful.order.len()), (10, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn other_failures_never_condemn_a_token() {
        let judge = judge();
        judge.pushed(Service::Apns, 10_000);
        for hour in 0..100 {
            for reason in [
                FailureReason::BadPayload,
                FailureReason::Throttled,
                FailureReason::Credentials,
                FailureReason::Unavailable,
                FailureReason::Other,
            ] {
                assert_eq!(judge.judge(&failed("a", hour * 3600), reason), Verdict::Keep);
            }
        }
    }
}
