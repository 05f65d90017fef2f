//! No token in any log, at any level, whatever goes wrong.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use poste_doubles::gorush::{Fault, Providers, Settings};
use poste_provider::{PushProvider, PushService};
use tracing_subscriber::fmt::MakeWriter;

use super::{apns, notification, start};

const TOKEN: &str = "baddev-secret-device-token-0123456789";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_token_is_ever_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
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
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("gorush does not answer"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
