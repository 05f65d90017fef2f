//! The sender and the feedback hook against a gorush.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

mod feedback;
mod log;
mod outcomes;
mod overload;
mod recorded;
mod secrecy;

use std::sync::Arc;
use std::time::Duration;

use poste_doubles::gorush::{Gorush, Settings};
use poste_provider::{
    DeadTokenPolicy, DeadTokens, DeviceToken, GorushProvider, GorushSettings, Metrics, Notification,
    NotificationKey, PushService, Reference,
};

fn key() -> NotificationKey {
    NotificationKey::new([9; 32])
}

/// A sender with short deadlines, towards `url`.
fn sender(url: String, change: impl FnOnce(&mut GorushSettings)) -> GorushProvider {
    let mut settings = GorushSettings {
        url,
        retry_pause: Duration::from_millis(20),
        call_timeout: Duration::from_secs(5),
        ..GorushSettings::default()
    };
    change(&mut settings);
    let metrics = Metrics::new();
    let dead_tokens = Arc::new(DeadTokens::new(DeadTokenPolicy::default(), metrics.clone()));
    GorushProvider::start(settings, key(), dead_tokens, metrics).unwrap()
}

async fn start(double: Settings, change: impl FnOnce(&mut GorushSettings)) -> (Gorush, GorushProvider) {
    let gorush = Gorush::start(double).await.unwrap();
    let provider = sender(gorush.url(), change);
    (gorush, provider)
}

fn apns() -> PushService {
    PushService::Apns { topic: "some.app".into() }
}

fn notification(service: PushService, token: &str) -> Notification {
    Notification {
        reference: Reference::new(b"row 17").unwrap(),
        sent_at: Duration::from_secs(1_700_000_000),
        token: DeviceToken::new(token),
        service,
        message: "You have a new message".into(),
        data: vec![("chatId".into(), "0x01".into())],
        collapse_id: None,
        expires: None,
    }
}
