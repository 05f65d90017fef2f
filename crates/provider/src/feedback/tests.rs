//! What the hook believes, and what becomes of it.

use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::dead_tokens::DeadTokenPolicy;

const SENT_AT: Duration = Duration::from_millis(1_700_000_000_000);

fn key() -> NotificationKey {
    NotificationKey::new([3; 32])
}

fn hook(queue: usize) -> (FeedbackHook, mpsc::Receiver<Feedback>) {
    let metrics = Metrics::new();
    let dead_tokens = Arc::new(DeadTokens::new(DeadTokenPolicy::default(), metrics.clone()));
    let settings = FeedbackSettings { queue, ..FeedbackSettings::default() };
    FeedbackHook::new(settings, key(), dead_tokens, metrics)
}

fn notif_id(key: &NotificationKey, token: &str) -> String {
    let mark = Mark {
        service: Service::Apns,
        sent_at: SENT_AT,
        fingerprint: key.fingerprint(&DeviceToken::new(token)),
        reference: Reference::new(b"row 17").unwrap(),
    };
    key.seal(&mark)
}

fn report(notif_id: &str, error: &str) -> Vec<u8> {
    let report = serde_json::json!({
        "notif_id": notif_id, "type": "failed-push", "platform": "ios", "token": "*****", "message": "hi",
        "error": error,
    });
    report.to_string().into_bytes()
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_all_that_the_decision_needs() {
    let (hook, mut events) = hook(1);
    assert_eq!(hook.take(&report(&notif_id(&key(), "dead"), "Unregistered")).await, StatusCode::OK);
    let event = events.recv().await.unwrap();
    assert_eq!(event.reference.as_bytes(), b"row 17");
    assert_eq!((event.service, event.sent_at), (Service::Apns, SENT_AT));
    assert_eq!((event.reason, event.verdict), (FailureReason::Unregistered, Verdict::Dead));

    let (dead, newer) = (DeviceToken::new("dead"), DeviceToken::new("newer"));
    let (before, after) = (SENT_AT - Duration::from_secs(1), SENT_AT + Duration::from_millis(1));
    assert!(event.condemns(&key(), &dead, before));
    assert!(!event.condemns(&key(), &newer, before), "the device has another token now");
    assert!(!event.condemns(&key(), &dead, after), "the device has registered it again since");
    let kept = Feedback { verdict: Verdict::Keep, ..event };
    assert!(!kept.condemns(&key(), &dead, before));
}

#[tokio::test(start_paused = true)]
async fn forged_and_unreadable_feedback_is_counted_and_ignored() {
    let (hook, mut events) = hook(1);
    let forged = notif_id(&NotificationKey::new([4; 32]), "dead");
    for id in ["", "n-1", &forged, &"0".repeat(10_000)] {
        assert_eq!(hook.take(&report(id, "Unregistered")).await, StatusCode::FORBIDDEN, "{id}");
    }
    for body in [&b""[..], b"hello", b"[1]", b"{\"notif_id\":1}", &[0xff; 100]] {
        assert!(hook.take(body).await.is_client_error());
    }
    assert_eq!(hook.0.metrics.feedback_forged.get(), 4);
    assert_eq!(hook.0.metrics.feedback_unreadable.get(), 5);
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_failure_is_no_event() {
    let (hook, mut events) = hook(1);
    let body =
        serde_json::json!({ "notif_id": notif_id(&key(), "a"), "type": "succeeded-push", "error": "" });
    assert_eq!(hook.take(body.to_string().as_bytes()).await, StatusCode::OK);
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test(start_paused = true)]
async fn events_that_nobody_takes_in_time_are_counted_as_lost() {
    let (hook, mut events) = hook(1);
    let body = report(&notif_id(&key(), "a"), "BadDeviceToken");
    assert_eq!(hook.take(&body).await, StatusCode::OK);
    assert_eq!(hook.take(&body).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(hook.0.metrics.feedback_dropped.get(), 1);
    assert_eq!(events.recv().await.unwrap().verdict, Verdict::Keep);
    assert_eq!(hook.take(&body).await, StatusCode::OK);
}
