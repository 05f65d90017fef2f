//! The provider as the server sees it: notifications of a self-test's own token end here, all others go on.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use poste_provider::{Notification, Outcome, PushProvider, Unavailable};
use tokio::sync::mpsc;

/// Rings of one token that are kept for whoever looks; what comes beyond is dropped.
const RINGS: usize = 8;

/// A provider that keeps what is for devices of self-tests. Clones are the same.
#[derive(Clone)]
pub(crate) struct Loopback {
    provider: Arc<dyn PushProvider>,
    devices: Arc<Devices>,
}

/// By device token.
type Devices = Mutex<HashMap<String, mpsc::Sender<Notification>>>;

impl Loopback {
    pub(crate) fn new(provider: Arc<dyn PushProvider>) -> Self {
        Self { provider, devices: Arc::default() }
    }

    /// A device of this token, until it is dropped. The token has to be one that nobody else can have.
    pub(super) fn device(&self, token: String) -> LoopbackDevice {
        let (sender, rings) = mpsc::channel(RINGS);
        self.devices.lock().insert(token.clone(), sender);
        LoopbackDevice { token, rings, devices: Arc::clone(&self.devices) }
    }

    fn device_of(&self, notification: &Notification) -> Option<mpsc::Sender<Notification>> {
        self.devices.lock().get(notification.token.expose()).cloned()
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl PushProvider for Loopback {
    fn send(&self, notification: Notification) -> BoxFuture<'_, Outcome> {
        let Some(device) = self.device_of(&notification) else { return self.provider.send(notification) };
        // A full one has what it waits for.
        drop(device.try_send(notification));
        async { Outcome::Sent }.boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.provider.check()
    }
}

/// A device that is not there.
pub(super) struct LoopbackDevice {
    token: String,
    rings: mpsc::Receiver<Notification>,
    devices: Arc<Devices>,
}

impl LoopbackDevice {
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The next notification; waits for it. Cancel safe.
    pub(super) async fn ring(&mut self) -> Notification {
        match self.rings.recv().await {
            Some(notification) => notification,
            // The other end goes when this device does.
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for LoopbackDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopbackDevice").finish_non_exhaustive()
    }
}

impl Drop for LoopbackDevice {
    fn drop(&mut self) {
        self.devices.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use poste_provider::{DeviceToken, DirectoryProvider, Metrics, PushService, Reference};

    use super::*;

    fn notification(token: &str) -> Notification {
        Notification {
            reference: Reference::new(b"row").unwrap(),
            sent_at: Duration::ZERO,
            token: DeviceToken::new(token),
            service: PushService::Fcm,
            message: "You have a new message".into(),
            data: Vec::new(),
            collapse_id: None,
            expires: None,
        }
    }

    #[tokio::test]
    async fn only_what_is_for_a_device_that_is_there_stays_here() {
        let directory = tempfile::tempdir().unwrap();
        let passed_on = || std::fs::read_dir(directory.path()).unwrap().count();
        let provider = DirectoryProvider::open(directory.path(), Metrics::new()).unwrap();
        let loopback = Loopback::new(Arc::new(provider));
        loopback.check().await.unwrap();

        let mut device = loopback.device("ours".into());
        assert_eq!(loopback.send(notification("theirs")).await, Outcome::Sent);
        assert_eq!(passed_on(), 1);
        for _ in 0..2 * RINGS {
            assert_eq!(loopback.clone().send(notification("ours")).await, Outcome::Sent);
        }
        assert_eq!(device.ring().await.token.expose(), "ours");
        assert_eq!(passed_on(), 1);
        drop(device);
        assert_eq!(loopback.send(notification("ours")).await, Outcome::Sent);
        assert_eq!(passed_on(), 2);
    }
}
