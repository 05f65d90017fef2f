//! A server on its real store, with a provider and a publisher that take everything.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use poste_provider::{Notification, NotificationKey, Outcome, PushProvider, Unavailable};
use poste_push::answer::{Answer, PublishError, Publisher};
use poste_push::metrics::Metrics;
use poste_push::server::{Handled, Incoming, LimitSettings, Parts, PushServer, Rate, Settings};
use poste_push::store::{NewRegistration, Options, RedbStore, Registered, RegistrationStore};
use poste_push::topics::{FeedError, TopicFeed};
use poste_wire::Topic;
use poste_wire::status::TopicName;

use crate::people::{NOW, server};

/// How many registrations are handed to the store at once.
const WRITTEN_AT_ONCE: usize = 512;
/// How many messages are handled in one second of the server's clock: the store orders by that.
const A_SECOND: u64 = 500;

/// Takes everything, and counts it.
#[derive(Debug, Default)]
pub(crate) struct Around {
    pub(crate) notifications: AtomicU64,
}

impl PushProvider for Around {
    fn send(&self, _: Notification) -> BoxFuture<'_, Outcome> {
        self.notifications.fetch_add(1, Ordering::Relaxed);
        async { Outcome::Sent }.boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        async { Ok(()) }.boxed()
    }
}

#[tonic::async_trait]
impl Publisher for Around {
    async fn publish(&self, _: Answer) -> Result<(), PublishError> {
        Ok(())
    }
}

#[tonic::async_trait]
impl TopicFeed for Around {
    async fn join(&self, _: &[Topic]) -> Result<(), FeedError> {
        Ok(())
    }

    async fn leave(&self, _: &[Topic]) {}
}

pub(crate) struct Rig {
    pub(crate) server: PushServer,
    pub(crate) store: RedbStore,
    pub(crate) around: Arc<Around>,
    topic: Topic,
    handled: AtomicU64,
}

impl Rig {
    pub(crate) async fn open(directory: &Path) -> Result<Self> {
        let identity = server();
        let store = RedbStore::open(directory, &identity.public(), Options::default())?;
        let around = Arc::new(Around::default());
        let parts = Parts {
            store: Arc::new(store.clone()),
            provider: around.clone(),
            notification_key: NotificationKey::new([5; 32]),
            publisher: around.clone(),
            feed: around.clone(),
            metrics: Metrics::default(),
            identity: identity.clone(),
        };
        // As they are, but that all happens at one time here.
        let limits = LimitSettings { notifications: Rate::UNLIMITED, ..LimitSettings::default() };
        let settings = Settings { limits, ..Settings::default() };
        let server = PushServer::start(parts, settings).await?;
        let topic = TopicName::partitioned(&identity.public()).topic();
        Ok(Self { server, store, around, topic, handled: AtomicU64::new(0) })
    }

    /// The time at which a message is handled that comes behind so many.
    pub(crate) fn time(number: u64) -> Duration {
        NOW + Duration::from_secs(number / A_SECOND)
    }

    /// Handles a message to its end. It must be answered.
    pub(crate) async fn handle(&self, data: Bytes) -> Result<()> {
        let now = Self::time(self.handled.fetch_add(1, Ordering::Relaxed));
        let incoming = Incoming { topic: self.topic, data, made_at: now, position: 1 };
        let handled = self.server.handle(incoming, now).await?;
        ensure!(matches!(handled, Handled::Answered(_)), "{handled:?}");
        Ok(())
    }

    /// Handles messages, so many side by side.
    pub(crate) async fn handle_all(&self, messages: &[Bytes], at_once: usize) -> Result<()> {
        let handled = stream::iter(messages.to_vec()).map(|data| self.handle(data)).buffer_unordered(at_once);
        let mut handled = std::pin::pin!(handled);
        while let Some(handled) = handled.next().await {
            handled?;
        }
        Ok(())
    }
}

/// Writes registrations to a store.
pub(crate) async fn write(
    store: &RedbStore,
    registrations: impl Iterator<Item = NewRegistration>,
) -> Result<()> {
    let written =
        stream::iter(registrations).map(|new| store.register(new)).buffer_unordered(WRITTEN_AT_ONCE);
    let mut written = std::pin::pin!(written);
    while let Some(outcome) = written.next().await {
        let outcome = outcome?;
        ensure!(matches!(outcome, Registered::Done(_)), "{outcome:?}");
    }
    Ok(())
}
