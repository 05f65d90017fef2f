//! No token in any log, at any level, whatever goes wrong.

use poste_doubles::gorush::{Fault, Providers, Settings};
use poste_provider::{PushProvider, PushService};

use super::log::Log;
use super::{apns, notification, start};

const TOKEN: &str = "baddev-secret-device-token-0123456789";

#[tokio::test]
async fn no_token_is_ever_logged() {
    let log = Log::default();
    let _guard = log.keep();
    let double =
        Settings { is_sync: true, hide_token: false, providers: Providers::Down, ..Settings::default() };
    let (gorush, provider) = start(Settings { google_retries: Default::default(), ..double }, |_| {}).await;
    for fault in [
        None,
        Some(Fault::BadRequest),
        Some(Fault::ServerError),
        Some(Fault::WrongCount(-1)),
        Some(Fault::CloseInAnswer),
        Some(Fault::Gibberish),
    ] {
        gorush.set_fault(fault);
        for service in [apns(), PushService::Fcm] {
            let outcome = provider.send(notification(service, TOKEN)).await;
            tracing::info!(?outcome, ?provider, "asked");
        }
    }
    gorush.go_down().await;
    provider.send(notification(apns(), TOKEN)).await;
    let text = log.text();
    assert!(text.contains("gorush does not answer"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
