//! The way to devices: the provider that the settings name, and what it reports later.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use poste_provider::{
    DeadTokenPolicy, DeadTokens, DirectoryProvider, Feedback, FeedbackHook, FeedbackSettings, GorushProvider,
    GorushSettings, Metrics, NotificationKey, PushProvider, Registrar, SettingsError,
};
use poste_service::metrics::Scope;
use prometheus_client::registry::Metric;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::config::ProviderUrl;
use crate::server::PushServer;

/// What the end may take: of the provider, and of what was reported.
const PROVIDER_PATIENCE: Duration = Duration::from_millis(500);
const REPORTS_PATIENCE: Duration = Duration::from_millis(500);

/// Why there is no provider.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// It is no address of a gorush.
    #[error(transparent)]
    Address(#[from] SettingsError),
    /// The directory cannot be made.
    #[error("{}: {source}", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A provider, and where its reports arrive.
#[derive(Debug)]
pub(super) struct WayOut {
    provider: Arc<dyn PushProvider>,
    gorush: Option<Arc<GorushProvider>>,
    hook: FeedbackHook,
    reports: mpsc::Receiver<Feedback>,
}

impl WayOut {
    /// The provider of a URL, or the given one.
    pub(super) async fn open(
        url: &ProviderUrl,
        given: Option<Arc<dyn PushProvider>>,
        key: &NotificationKey,
        scope: &Scope,
    ) -> Result<Self, ProviderError> {
        let metrics = Metrics::new();
        metrics.register(&mut InScope(scope));
        let dead_tokens = Arc::new(DeadTokens::new(DeadTokenPolicy::default(), metrics.clone()));
        let (hook, reports) = FeedbackHook::new(
            FeedbackSettings::default(),
            key.clone(),
            Arc::clone(&dead_tokens),
            metrics.clone(),
        );
        let mut gorush = None;
        let provider: Arc<dyn PushProvider> = match (given, url) {
            (Some(given), _) => given,
            (None, ProviderUrl::Gorush(url)) => {
                let settings = GorushSettings { url: url.clone(), ..GorushSettings::default() };
                let started = GorushProvider::start(settings, key.clone(), dead_tokens, metrics)?;
                gorush.insert(Arc::new(started)).clone()
            }
            (None, ProviderUrl::Directory(path)) => Arc::new(directory(path.clone(), metrics).await?),
        };
        Ok(Self { provider, gorush, hook, reports })
    }

    pub(super) fn provider(&self) -> Arc<dyn PushProvider> {
        Arc::clone(&self.provider)
    }

    /// Takes reports until the end.
    pub(super) fn serve(self, listener: TcpListener, server: Arc<PushServer>) -> Serving {
        let stop = CancellationToken::new();
        let hook = AbortOnDropHandle::new(tokio::spawn(self.hook.serve(listener, stop.clone())));
        let mut reports = self.reports;
        let following_up = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if let Err(error) = server.take_feedback(&report).await {
                    warn!(%error, "a failed push was not followed up; the next one to that token will fail again");
                }
            }
        }));
        Serving { gorush: self.gorush, stop, hook, following_up }
    }
}

/// The way out at work.
#[derive(Debug)]
pub(super) struct Serving {
    gorush: Option<Arc<GorushProvider>>,
    stop: CancellationToken,
    hook: AbortOnDropHandle<()>,
    following_up: AbortOnDropHandle<()>,
}

impl Serving {
    /// Ends when nobody sends any more, and what was reported until then is followed up. Needs the store.
    pub(super) async fn end(self) {
        let Self { gorush, stop, hook, following_up } = self;
        if let Some(gorush) = gorush {
            // Whoever waited for an outcome has it, or has given up.
            let _ = timeout(PROVIDER_PATIENCE, gorush.stop()).await;
        }
        stop.cancel();
        // The hook goes first, and with it the last sender of reports.
        let ended = timeout(REPORTS_PATIENCE, async { (hook.await, following_up.await) }).await;
        if ended.is_err() {
            warn!("not all failed pushes were followed up; the next ones to those tokens will fail again");
        }
    }
}

async fn directory(path: PathBuf, metrics: Metrics) -> Result<DirectoryProvider, ProviderError> {
    let opening = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || DirectoryProvider::open(path, metrics))
    };
    let opened = opening.await.unwrap_or_else(|failed| Err(io::Error::other(failed)));
    opened.map_err(|source| ProviderError::Directory { path, source })
}

/// The provider's metrics are those of the push server.
struct InScope<'s>(&'s Scope);

impl Registrar for InScope<'_> {
    fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) {
        self.0.register(name, help, metric);
    }
}

#[cfg(test)]
mod tests {
    use poste_provider::{DeviceToken, FailureReason, Reference, Service, Verdict};
    use poste_service::metrics::Metrics;

    use super::*;
    use crate::server::tests::client::Client;
    use crate::server::tests::{NOW, Rig};
    use crate::store::RegistrationStore;

    #[tokio::test]
    async fn what_is_reported_at_the_end_is_followed_up() {
        let rig = Rig::new().await;
        let directory = tempfile::tempdir().unwrap();
        let key = NotificationKey::new([5; 32]);
        let url = ProviderUrl::Directory(directory.path().to_owned());
        let scope = Metrics::new().scope("push");
        let (reporter, reports) = mpsc::channel(8);
        let way_out = WayOut { reports, ..WayOut::open(&url, None, &key, &scope).await.unwrap() };
        let receivers = [Client::new(1), Client::new(2)];
        for receiver in &receivers {
            receiver.register(&rig, &receiver.registration(1)).await.unwrap();
            let dead = Feedback {
                reference: Reference::new(receiver.hash().as_bytes()).unwrap(),
                sent_at: NOW + Duration::from_secs(2),
                service: Service::Apns,
                token: key.fingerprint(&DeviceToken::new("device token")),
                reason: FailureReason::Unregistered,
                verdict: Verdict::Dead,
            };
            reporter.try_send(dead).unwrap();
        }
        drop(reporter);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let Rig { server, store, .. } = rig;
        way_out.serve(listener, Arc::new(server)).end().await;
        for receiver in &receivers {
            assert!(store.registrations(&receiver.hash()).await.unwrap().is_empty());
        }
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nothing is taken any more");
    }
}
