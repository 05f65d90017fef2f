//! More than a gorush takes: bounded queues, bounded calls, deadlines, and stopping.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use poste_doubles::gorush::{Fault, Gorush, Settings};
use poste_provider::{Outcome, PushProvider, PushService, Refused, Unknown};

use super::log::Log;
use super::{apns, notification, start};

const FOREVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_thousand_at_once_arrive_once_each_in_bounded_calls() {
    let (gorush, provider) = start(Settings::default(), |_| {}).await;
    let outcomes =
        join_all((0..1000).map(|number| provider.send(notification(apns(), &number.to_string())))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Sent));
    let calls = gorush.calls();
    assert!(calls.iter().all(|call| call.notifications().len() <= 100));
    assert!(calls.len() < 100, "{} calls: notifications that wait travel together", calls.len());
    gorush.settle().await;
    let mut numbers: Vec<u32> = gorush.pushes().iter().map(|push| push.token.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_gorush_with_a_smaller_limit_gets_smaller_calls() {
    let (gorush, provider) =
        start(Settings { max_notifications: 3, ..Settings::default() }, |settings| settings.max_calls = 1)
            .await;
    for _ in 0..2 {
        let outcomes =
            join_all((0..50).map(|number| provider.send(notification(apns(), &number.to_string())))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Sent));
    }
    let refused = gorush.calls().iter().filter(|call| call.status == 400).count();
    assert_eq!(refused, 1, "the limit is learned from the first refusal");
    gorush.settle().await;
    assert_eq!(gorush.pushes().len(), 100);
}

#[tokio::test]
async fn a_limit_that_gorush_gave_up_is_forgotten() {
    let log = Log::default();
    let _guard = log.keep();
    let (gorush, provider) = start(Settings { max_notifications: 3, ..Settings::default() }, |settings| {
        settings.max_calls = 1;
        settings.limit_retry = Duration::ZERO;
    })
    .await;
    let send_many = async || {
        let all =
            join_all((0..50).map(|number| provider.send(notification(apns(), &number.to_string())))).await;
        assert!(all.iter().all(|outcome| *outcome == Outcome::Sent), "{all:?}");
    };
    send_many().await;
    assert!(
        gorush.calls().iter().filter(|call| call.status == 200).all(|call| call.notifications().len() <= 3)
    );
    gorush.go_down().await;
    let address = gorush.url().trim_start_matches("http://").parse().unwrap();
    let corrected = Gorush::start_at(address, Settings::default()).await.unwrap();
    send_many().await;
    send_many().await;
    let calls = corrected.calls();
    assert!(calls.iter().all(|call| call.status == 200));
    assert!(calls.iter().any(|call| call.notifications().len() > 4), "as many again as the settings say");
    for said in ["raise core.max_notification", "takes more notifications in a call again"] {
        assert_eq!(log.text().matches(said).count(), 1, "{said}: {}", log.text());
    }
}

#[tokio::test]
async fn a_400_for_many_is_tried_in_parts_before_anybody_is_refused() {
    let (gorush, provider) = start(Settings::default(), |settings| settings.max_calls = 1).await;
    gorush.set_fault(Some(Fault::BadRequest));
    let outcomes =
        join_all((0..8).map(|number| provider.send(notification(apns(), &number.to_string())))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Refused(Refused::BadRequest)));
    let alone = gorush.calls().iter().filter(|call| call.notifications().len() == 1).count();
    assert_eq!(alone, 8);
}

#[tokio::test]
async fn more_than_the_queue_holds_wait_for_room() {
    let (gorush, provider) = start(Settings::default(), |settings| {
        settings.max_calls = 1;
        settings.max_batch = 3;
        settings.queue = 5;
        settings.queue_timeout = FOREVER;
    })
    .await;
    let outcomes =
        join_all((0..50).map(|number| provider.send(notification(apns(), &number.to_string())))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Sent), "{outcomes:?}");
    gorush.settle().await;
    assert_eq!(gorush.pushes().len(), 50);
}

#[tokio::test]
async fn who_finds_no_room_in_the_queue_in_time_is_refused() {
    let (gorush, provider) = start(Settings::default(), |settings| {
        settings.max_calls = 1;
        settings.max_batch = 1;
        settings.queue = 5;
        settings.call_timeout = Duration::from_secs(2);
        settings.queue_timeout = Duration::from_millis(200);
    })
    .await;
    gorush.set_fault(Some(Fault::Slow(FOREVER)));
    let outcomes =
        join_all((0..20).map(|number| provider.send(notification(apns(), &number.to_string())))).await;
    let count = |expected| outcomes.iter().filter(|outcome| **outcome == expected).count();
    assert_eq!(count(Outcome::Refused(Refused::Busy)), 19, "{outcomes:?}");
    assert_eq!(count(Outcome::Unknown(Unknown::Timeout)), 1, "{outcomes:?}");
    gorush.set_fault(None);
    assert_eq!(provider.send(notification(apns(), "next")).await, Outcome::Sent);
}

#[tokio::test]
async fn what_waited_too_long_is_refused_and_never_sent() {
    let (gorush, provider) = start(Settings::default(), |settings| {
        settings.max_calls = 1;
        settings.call_timeout = Duration::from_millis(400);
        settings.queue_timeout = Duration::from_millis(100);
    })
    .await;
    gorush.set_fault(Some(Fault::Slow(FOREVER)));
    let late = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        provider.send(notification(apns(), "late")).await
    };
    let (first, late) = tokio::join!(provider.send(notification(apns(), "first")), late);
    assert_eq!(first, Outcome::Unknown(Unknown::Timeout));
    assert_eq!(late, Outcome::Refused(Refused::Busy));
    gorush.set_fault(None);
    assert_eq!(provider.send(notification(apns(), "next")).await, Outcome::Sent);
    gorush.settle().await;
    let tokens: Vec<_> = gorush.pushes().into_iter().map(|push| push.token).collect();
    assert_eq!(tokens, ["first", "next"]);
}

#[tokio::test]
async fn a_slow_service_holds_up_no_push_of_the_other() {
    for (slow, other) in [(PushService::Fcm, apns()), (apns(), PushService::Fcm)] {
        let what = format!("{slow:?} is slow");
        let mut double = Settings { is_sync: true, ..Settings::default() };
        match slow {
            PushService::Fcm => double.google_delay = FOREVER,
            PushService::Apns { .. } => double.apple_delay = FOREVER,
        }
        let (_gorush, provider) = start(double, |settings| {
            settings.max_batch = 1;
            settings.call_timeout = FOREVER;
            settings.queue_timeout = Duration::from_secs(5);
        })
        .await;
        let all_of = |service: &PushService| {
            join_all((0..20).map(|number| provider.send(notification(service.clone(), &number.to_string()))))
        };
        // The slow ones come first, and most of them wait for a call until they are refused.
        let mut slow = std::pin::pin!(all_of(&slow));
        tokio::select! {
            biased;
            outcomes = &mut slow => panic!("{what}, and yet {outcomes:?}"),
            outcomes = all_of(&other) => {
                assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Sent), "{what}: {outcomes:?}");
            }
        }
    }
}

#[tokio::test]
async fn stopping_ends_what_was_taken_and_refuses_the_rest() {
    let (gorush, provider) = start(Settings::default(), |settings| {
        settings.max_calls = 1;
        settings.max_batch = 1;
    })
    .await;
    gorush.set_fault(Some(Fault::Slow(Duration::from_millis(50))));
    let provider = Arc::new(provider);
    let waiting: Vec<_> = (0..3)
        .map(|number| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.send(notification(apns(), &number.to_string())).await })
        })
        .collect();
    gorush.wait_for_pushes(1).await;
    provider.stop().await;
    for outcome in join_all(waiting).await {
        assert_eq!(outcome.unwrap(), Outcome::Sent);
    }
    let outcome = provider.send(notification(apns(), "later")).await;
    assert_eq!(outcome, Outcome::Refused(Refused::Stopping));
    assert_eq!(gorush.pushes().len(), 3);
}

#[tokio::test]
async fn dropping_the_sender_ends_its_calls() {
    let (gorush, provider) = start(Settings::default(), |_| {}).await;
    gorush.set_fault(Some(Fault::Slow(FOREVER)));
    let mut sending = provider.send(notification(apns(), "a"));
    tokio::select! {
        _ = &mut sending => panic!("gorush does not answer"),
        _ = gorush.wait_for_pushes(1) => {}
    }
    drop(sending);
    drop(provider);
    tokio::time::timeout(Duration::from_secs(5), gorush.go_down()).await.expect("no call holds on");
}
