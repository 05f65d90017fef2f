//! Every way in which a call can end, and what it means for a claim.

use std::time::Duration;

use futures::future::join_all;
use poste_doubles::gorush::{Fault, Gorush, Settings};
use poste_provider::{
    FailureReason, GorushProvider, GorushSettings, Outcome, PushProvider, PushService, Refused, Unknown,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{apns, notification, sender, start};

async fn send(provider: &GorushProvider, token: &str) -> Outcome {
    provider.send(notification(apns(), token)).await
}

/// The outcome of one notification under `fault`; afterwards the same sender works.
async fn under(fault: Fault, change: impl FnOnce(&mut GorushSettings)) -> (Gorush, Outcome) {
    let (gorush, provider) = start(Settings::default(), change).await;
    gorush.set_fault(Some(fault));
    let outcome = send(&provider, "a").await;
    assert_eq!(gorush.calls().len(), 1, "{fault:?}: nothing that may have arrived is sent again");
    gorush.set_fault(None);
    assert_eq!(send(&provider, "b").await, Outcome::Sent, "after {fault:?}");
    (gorush, outcome)
}

#[tokio::test]
async fn what_gorush_takes_is_sent() {
    let (gorush, provider) = start(Settings::default(), |_| {}).await;
    provider.check().await.unwrap();
    for service in [apns(), PushService::Fcm, PushService::Apns { topic: String::new() }] {
        assert_eq!(provider.send(notification(service, "a")).await, Outcome::Sent);
    }
    let pushes = gorush.wait_for_pushes(3).await;
    assert!(pushes.iter().all(|push| push.has_rung && push.token == "a"));
    assert_eq!(pushes.iter().map(|push| push.platform).collect::<Vec<_>>(), [1, 2, 1]);
}

#[tokio::test]
async fn a_gorush_that_is_down_refuses_and_the_same_is_sent_once_when_it_is_back() {
    let (gorush, provider) = start(Settings::default(), |_| {}).await;
    gorush.go_down().await;
    assert_eq!(send(&provider, "a").await, Outcome::Refused(Refused::Unreachable));
    assert!(provider.check().await.unwrap_err().to_string().contains("cannot be reached"));
    gorush.come_back().await.unwrap();
    assert_eq!(send(&provider, "a").await, Outcome::Sent);
    gorush.settle().await;
    assert_eq!(gorush.pushes().len(), 1);
}

#[tokio::test]
async fn a_gorush_that_is_back_before_the_retry_costs_nothing() {
    let (gorush, provider) = start(Settings::default(), |settings| {
        settings.retries = 100;
        settings.retry_pause = Duration::from_millis(10);
    })
    .await;
    gorush.go_down().await;
    let (outcome, ()) = tokio::join!(send(&provider, "a"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gorush.come_back().await.unwrap();
    });
    assert_eq!(outcome, Outcome::Sent);
    assert_eq!(gorush.calls().len(), 1);
}

#[tokio::test]
async fn a_connection_that_ended_while_it_was_idle_is_replaced() {
    let (gorush, provider) = start(Settings::default(), |settings| settings.retries = 0).await;
    for _ in 0..3 {
        assert_eq!(send(&provider, "a").await, Outcome::Sent);
        gorush.go_down().await;
        gorush.come_back().await.unwrap();
    }
    gorush.settle().await;
    assert_eq!(gorush.pushes().len(), 3);
}

#[tokio::test]
async fn a_400_is_surely_not_sent() {
    let (gorush, outcome) = under(Fault::BadRequest, |_| {}).await;
    assert_eq!(outcome, Outcome::Refused(Refused::BadRequest));
    gorush.settle().await;
    assert_eq!(gorush.pushes().len(), 1, "only the later one");
}

#[tokio::test]
async fn any_other_end_is_unknown() {
    for (fault, unknown) in [
        (Fault::ServerError, Unknown::Status(500)),
        (Fault::CloseBeforeAnswer, Unknown::ConnectionLost),
        (Fault::CloseInAnswer, Unknown::ConnectionLost),
        (Fault::Gibberish, Unknown::BadAnswer),
        (Fault::WrongCount(-1), Unknown::CountedTooFew),
    ] {
        assert_eq!(under(fault, |_| {}).await.1, Outcome::Unknown(unknown), "{fault:?}");
    }
}

#[tokio::test]
async fn a_slow_answer_is_unknown_and_a_long_one_is_not_read() {
    let (_, outcome) = under(Fault::Slow(Duration::from_secs(60)), |settings| {
        settings.call_timeout = Duration::from_millis(100);
    })
    .await;
    assert_eq!(outcome, Outcome::Unknown(Unknown::Timeout));
    let (_, outcome) = under(Fault::LongAnswer(100_000), |settings| settings.max_answer_bytes = 10_000).await;
    assert_eq!(outcome, Outcome::Unknown(Unknown::BadAnswer));
}

#[tokio::test]
async fn counting_more_than_there_is_changes_nothing() {
    assert_eq!(under(Fault::WrongCount(5), |_| {}).await.1, Outcome::Sent);
}

#[tokio::test]
async fn what_does_not_speak_http_leaves_the_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = sender(format!("http://{}", listener.local_addr().unwrap()), |_| {});
    let (outcome, ()) = tokio::join!(send(&provider, "a"), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
    });
    assert_eq!(outcome, Outcome::Unknown(Unknown::ConnectionLost));
}

#[tokio::test]
async fn failures_in_a_sync_answer_are_hints_about_one_notification_each() {
    let (gorush, provider) = start(Settings { is_sync: true, ..Settings::default() }, |_| {}).await;
    let tokens = ["a", "baddev-1", "b", "baddev-2", "c"];
    let outcomes = join_all(tokens.iter().map(|token| send(&provider, token))).await;
    for (token, outcome) in tokens.iter().zip(outcomes) {
        let expected = if token.starts_with("baddev") {
            Outcome::Unknown(Unknown::ReportedFailed(FailureReason::Unregistered))
        } else {
            Outcome::Sent
        };
        assert_eq!(outcome, expected, "{token}");
    }
    assert_eq!(gorush.pushes().len(), 5);
}

#[tokio::test]
async fn a_service_that_gorush_has_switched_off_does_not_spoil_the_other() {
    let double = Settings { is_ios_enabled: false, ..Settings::default() };
    let (gorush, provider) = start(double, |settings| settings.max_calls = 1).await;
    let outcomes = join_all((0..40).map(|number| {
        let service = if number % 2 == 0 { apns() } else { PushService::Fcm };
        provider.send(notification(service, &number.to_string()))
    }))
    .await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let expected = if number % 2 == 0 { Outcome::Unknown(Unknown::CountedTooFew) } else { Outcome::Sent };
        assert_eq!(outcome, expected, "{number}");
    }
    assert!(gorush.calls().len() < 40, "notifications that wait travel together");
}

#[tokio::test]
async fn what_is_too_large_for_anybody_never_leaves() {
    let (gorush, provider) = start(Settings::default(), |_| {}).await;
    let mut large = notification(apns(), "a");
    large.data.push(("encryptedMessage".into(), "0".repeat(200_000)));
    assert_eq!(provider.send(large).await, Outcome::Refused(Refused::TooLarge));
    assert!(gorush.calls().is_empty());
}
