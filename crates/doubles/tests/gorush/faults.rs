//! Faults on demand, and rules that no recording shows.

use std::time::{Duration, Instant};

use poste_doubles::gorush::{Fault, Gorush, Settings};

use super::hook::Hook;
use super::post;

const ONE: &str = r#"{"notifications":[{"tokens":["a"],"platform":1,"message":"m"}]}"#;

async fn start(settings: Settings) -> Gorush {
    Gorush::start(settings).await.unwrap()
}

#[tokio::test]
async fn faults_begin_and_end_on_demand() {
    let gorush = start(Settings::default()).await;
    for (fault, status, body) in [
        (Fault::BadRequest, 400, r#"{"code":400,"message":"Missing notifications field."}"#),
        (Fault::ServerError, 500, ""),
        (Fault::WrongCount(-1), 200, r#"{"counts":0,"logs":[],"success":"ok"}"#),
        (Fault::WrongCount(3), 200, r#"{"counts":4,"logs":[],"success":"ok"}"#),
        (Fault::Gibberish, 200, "<html>it works</html>"),
        (Fault::LongAnswer(3), 200, "   "),
    ] {
        gorush.set_fault(Some(fault));
        let answer = post(&gorush, ONE).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{fault:?}");
    }
    for fault in [Fault::CloseBeforeAnswer, Fault::CloseInAnswer] {
        gorush.set_fault(Some(fault));
        post(&gorush, ONE).await.unwrap_err();
    }
    gorush.set_fault(Some(Fault::Slow(Duration::from_millis(50))));
    let started = Instant::now();
    post(&gorush, ONE).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(50));

    gorush.set_fault(None);
    assert_eq!(post(&gorush, ONE).await.unwrap().status, 200);
    gorush.settle().await;
    assert_eq!(gorush.calls().len(), 10);
    assert_eq!(gorush.pushes().len(), 8, "a refused call pushes nothing");
}

#[tokio::test]
async fn it_goes_down_and_comes_back_on_the_same_port() {
    let gorush = start(Settings::default()).await;
    let url = gorush.url();
    post(&gorush, ONE).await.unwrap();
    gorush.go_down().await;
    post(&gorush, ONE).await.unwrap_err();
    gorush.come_back().await.unwrap();
    post(&gorush, ONE).await.unwrap();
    assert_eq!(gorush.url(), url);
    assert_eq!(gorush.wait_for_pushes(2).await.len(), 2);
}

#[tokio::test]
async fn a_full_queue_is_a_500() {
    let settings = Settings { queue: 2, apple_delay: Duration::from_secs(3600), ..Settings::default() };
    let gorush = start(settings).await;
    for status in [200, 200, 500] {
        assert_eq!(post(&gorush, ONE).await.unwrap().status, status);
    }
}

#[tokio::test]
async fn a_disabled_platform_is_dropped_without_a_word() {
    let gorush = start(Settings { is_ios_enabled: false, ..Settings::default() }).await;
    let both = r#"{"notifications":[{"tokens":["a"],"platform":1},{"tokens":["b"],"platform":2}]}"#;
    assert_eq!(post(&gorush, both).await.unwrap().body, r#"{"counts":1,"logs":[],"success":"ok"}"#);
    gorush.settle().await;
    let pushes = gorush.pushes();
    assert_eq!(pushes.iter().map(|push| push.token.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_topic_is_a_broadcast_to_google_and_a_name_to_apple() {
    let gorush = start(Settings { is_sync: true, ..Settings::default() }).await;
    for (platform, expected) in [(1, vec!["a"]), (2, vec!["some.app", "a"])] {
        let body =
            format!(r#"{{"notifications":[{{"tokens":["a"],"platform":{platform},"topic":"some.app"}}]}}"#);
        let before = gorush.pushes().len();
        assert_eq!(post(&gorush, &body).await.unwrap().body, r#"{"counts":2,"logs":[],"success":"ok"}"#);
        let pushes = gorush.pushes();
        assert_eq!(pushes[before..].iter().map(|push| push.token.as_str()).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn messages_are_masked_if_asked_and_html_is_escaped() {
    let hook = Hook::start(&[]).await;
    for (hide_messages, shown) in [(true, "(message redacted)"), (false, r"\u003cb\u003e \u0026 more")] {
        let feedback = Some(hook.feedback.clone());
        let gorush = start(Settings { hide_messages, feedback, ..Settings::default() }).await;
        let body = r#"{"notifications":[{"tokens":["baddev"],"platform":1,"message":"<b> & more"}]}"#;
        post(&gorush, body).await.unwrap();
        gorush.settle().await;
        let told = hook.told().pop().unwrap().body;
        assert!(told.contains(&format!("\"message\":\"{shown}\"")), "{told}");
    }
}

#[tokio::test]
async fn an_object_with_too_many_android_tokens_fails_without_a_word() {
    let gorush = start(Settings { is_sync: true, ..Settings::default() }).await;
    let tokens = vec!["baddev"; 501];
    let body = serde_json::json!({ "notifications": [{ "tokens": tokens, "platform": 2 }] }).to_string();
    assert_eq!(post(&gorush, &body).await.unwrap().body, r#"{"counts":501,"logs":[],"success":"ok"}"#);
    assert!(gorush.pushes().is_empty());
}
