//! The whole way round: a push that fails comes back to our hook and names the token that is to go.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use poste_doubles::gorush::{Fault, Feedback as HookOf, Gorush, Providers, Settings};
use poste_provider::{
    DeadTokenPolicy, DeadTokens, DeviceToken, FailureReason, Feedback, FeedbackHook, FeedbackSettings,
    GorushProvider, GorushSettings, Metrics, Outcome, PushProvider, PushService, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{apns, key, notification};

struct Loop {
    gorush: Gorush,
    provider: GorushProvider,
    events: mpsc::Receiver<Feedback>,
    hook_address: std::net::SocketAddr,
    _stop: DropGuard,
}

async fn start(double: Settings, settings: FeedbackSettings) -> Loop {
    let metrics = Metrics::new();
    let dead_tokens = Arc::new(DeadTokens::new(DeadTokenPolicy::default(), metrics.clone()));
    let (hook, events) = FeedbackHook::new(settings, key(), dead_tokens.clone(), metrics.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook_address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(hook.serve(listener, stop.clone()));
    let feedback = HookOf { url: format!("http://{hook_address}/feedback"), headers: Vec::new() };
    let gorush = Gorush::start(Settings { feedback: Some(feedback), ..double }).await.unwrap();
    let settings = GorushSettings { url: gorush.url(), ..GorushSettings::default() };
    let provider = GorushProvider::start(settings, key(), dead_tokens, metrics).unwrap();
    Loop { gorush, provider, events, hook_address, _stop: stop.drop_guard() }
}

#[tokio::test]
async fn a_dead_token_comes_back_as_one() {
    for is_sync in [false, true] {
        let double = Settings { is_sync, ..Settings::default() };
        let mut around = start(double, FeedbackSettings::default()).await;
        for service in [apns(), PushService::Fcm] {
            let kind = service.service();
            let sent = notification(service, "baddev-1234567890-1234567890");
            let sent_at = sent.sent_at;
            around.provider.send(sent).await;
            let event = around.events.recv().await.unwrap();
            assert_eq!(event.service, kind);
            assert_eq!((event.reason, event.verdict), (FailureReason::Unregistered, Verdict::Dead));
            assert_eq!((event.reference.as_bytes(), event.sent_at), (&b"row 17"[..], sent_at));
            let dead = DeviceToken::new("baddev-1234567890-1234567890");
            assert!(event.condemns(&key(), &dead, sent_at));
            assert!(!event.condemns(&key(), &DeviceToken::new("newer"), sent_at));
        }
        assert_eq!(around.provider.send(notification(apns(), "alive")).await, Outcome::Sent);
        around.gorush.settle().await;
        assert!(around.events.try_recv().is_err(), "success is not reported");
    }
}

#[tokio::test]
async fn an_answer_that_counts_too_few_takes_back_no_more_than_was_passed_over() {
    let mut around = start(Settings::default(), FeedbackSettings::default()).await;
    around.gorush.set_fault(Some(Fault::WrongCount(-1)));
    let tokens = (0..60).map(|number| format!("{}{number}", if number < 25 { "baddev" } else { "alive" }));
    let sent = tokens.map(|token| around.provider.send(notification(apns(), &token)));
    join_all(sent).await;
    around.gorush.settle().await;
    for number in 0..25 {
        let event = around.events.recv().await.unwrap();
        assert_eq!(event.verdict, Verdict::Dead, "failure {number} of 25 among 60 pushes");
    }
}

#[tokio::test]
async fn providers_that_cannot_be_reached_condemn_no_token() {
    let double = Settings {
        providers: Providers::Down,
        google_retries: Duration::from_millis(10),
        ..Settings::default()
    };
    let mut around = start(double, FeedbackSettings::default()).await;
    for service in [apns(), PushService::Fcm] {
        assert_eq!(around.provider.send(notification(service, "a")).await, Outcome::Sent);
        let event = around.events.recv().await.unwrap();
        assert_eq!((event.reason, event.verdict), (FailureReason::Unavailable, Verdict::Keep));
    }
}

#[tokio::test]
async fn the_hook_bounds_what_strangers_send() {
    let settings = FeedbackSettings {
        max_body_bytes: 1000,
        request_timeout: Duration::from_millis(200),
        queue_wait: Duration::ZERO,
        ..FeedbackSettings::default()
    };
    let mut around = start(Settings::default(), settings).await;
    let address = around.hook_address;
    let ask = async |request: String| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A connection that is cut at its deadline ends without an answer.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    };
    let post = |body: &str, len: usize| {
        format!("POST /feedback HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\r\n{body}")
    };
    let forged = r#"{"notif_id":"n-1","type":"failed-push","platform":"ios","error":"Unregistered"}"#;
    assert!(ask(post(forged, forged.len())).await.starts_with("HTTP/1.1 403"));
    let long = "x".repeat(1100);
    assert!(ask(post(&long, long.len())).await.starts_with("HTTP/1.1 413"));
    assert!(ask(post("hello", 5)).await.starts_with("HTTP/1.1 400"));
    assert!(ask("GET /feedback HTTP/1.1\r\nhost: x\r\n\r\n".into()).await.starts_with("HTTP/1.1 405"));
    assert_eq!(ask(post("{", 500)).await, "", "a body that never comes");
    assert!(ask("POST".into()).await.is_empty(), "a head that never comes");
    assert!(around.events.try_recv().is_err());
}
