//! What condemns a token and what does not.

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
    assert_eq!(judge.judge(&failed("b", 60 * 60), FailureReason::BadToken), Verdict::Keep, "another token");
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
async fn a_failure_counts_once_however_often_gorush_tells_of_it() {
    let judge = judge();
    judge.pushed(Service::Apns, 100);
    for device in 0..13 {
        for time in 0..4 {
            let verdict = judge.judge(&failed(&format!("{device}"), 0), FailureReason::Unregistered);
            assert_eq!(verdict, Verdict::Dead, "device {device}, told {time} times before");
        }
    }
    assert_eq!(judge.state.lock().apns.sums(), (100, 13));
    judge.judge(&failed("0", 1), FailureReason::Unregistered);
    assert_eq!(judge.state.lock().apns.sums(), (100, 14), "another notification");
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
async fn what_is_remembered_is_bounded() {
    let policy = DeadTokenPolicy { max_doubtful: 10, max_told: 20, ..DeadTokenPolicy::default() };
    let judge = DeadTokens::new(policy, Metrics::new());
    for device in 0..1000 {
        judge.judge(&failed(&format!("{device}"), 0), FailureReason::WrongTopic);
    }
    let state = judge.state.lock();
    assert_eq!((state.doubtful.evidence.len(), state.doubtful.order.len()), (10, 10));
    assert_eq!((state.told.failures.len(), state.told.order.len()), (20, 20));
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
