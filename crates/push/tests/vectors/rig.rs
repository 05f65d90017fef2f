//! Our server with a gorush's stand-in, and its answers recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_codec::SecretKey;
use poste_doubles::gorush::{Gorush, Settings as DoubleSettings};
use poste_provider::{DeadTokenPolicy, DeadTokens, GorushProvider, GorushSettings, NotificationKey};
use poste_push::answer::{Answer, PublishError, Publisher};
use poste_push::metrics::Metrics;
use poste_push::server::{Handled, Incoming, Parts, PushServer, Settings};
use poste_push::store::{MemoryStore, RegistrationStore, Retention};
use poste_push::topics::{FeedError, TopicFeed};
use poste_wire::Topic;
use poste_wire::status::{ApplicationMessage, TopicName, frame};
use serde_json::Value;

/// When the vectors are run, since 1970.
const NOW: Duration = Duration::from_secs(1_700_000_000);

#[derive(Debug, Default)]
struct Recorder {
    answers: Mutex<Vec<Answer>>,
    topics: Mutex<BTreeSet<Topic>>,
}

#[tonic::async_trait]
impl Publisher for Recorder {
    async fn publish(&self, answer: Answer) -> Result<(), PublishError> {
        self.answers.lock().push(answer);
        Ok(())
    }
}

#[tonic::async_trait]
impl TopicFeed for Recorder {
    async fn join(&self, topics: &[Topic]) -> Result<(), FeedError> {
        self.topics.lock().extend(topics);
        Ok(())
    }

    async fn leave(&self, topics: &[Topic]) {
        let mut joined = self.topics.lock();
        for topic in topics {
            joined.remove(topic);
        }
    }
}

/// A server among stand-ins.
pub(crate) struct Rig {
    pub(crate) identity: SecretKey,
    pub(crate) store: MemoryStore,
    pub(crate) gorush: Gorush,
    server: PushServer,
    recorder: Arc<Recorder>,
    position: AtomicU64,
}

impl Rig {
    pub(crate) async fn new(identity: SecretKey) -> Self {
        Self::with(identity, MemoryStore::default(), DoubleSettings::default()).await
    }

    /// The same server with another gorush.
    pub(crate) async fn with_gorush(&self, settings: DoubleSettings) -> Self {
        Self::with(self.identity.clone(), self.store.clone(), settings).await
    }

    async fn with(identity: SecretKey, store: MemoryStore, settings: DoubleSettings) -> Self {
        let gorush = Gorush::start(settings).await.expect("a port is free");
        let recorder = Arc::new(Recorder::default());
        let notification_key = NotificationKey::new([1; 32]);
        let metrics = poste_provider::Metrics::new();
        let dead_tokens = Arc::new(DeadTokens::new(DeadTokenPolicy::default(), metrics.clone()));
        let gorush_settings =
            GorushSettings { url: gorush.url(), retry_pause: Duration::ZERO, ..GorushSettings::default() };
        let provider = GorushProvider::start(gorush_settings, notification_key.clone(), dead_tokens, metrics);
        let parts = Parts {
            identity: identity.clone(),
            store: Arc::new(store.clone()),
            provider: Arc::new(provider.expect("the address is one")),
            notification_key,
            publisher: recorder.clone(),
            feed: recorder.clone(),
            metrics: Metrics::default(),
        };
        let server = PushServer::start(parts, Settings::default()).await.expect("the store answers");
        Self { identity, store, gorush, server, recorder, position: AtomicU64::new(1) }
    }

    pub(crate) async fn bring(&self, topic: Topic, data: Vec<u8>) -> Handled {
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        let incoming = Incoming { topic, data: data.into(), made_at: NOW, position };
        self.server.handle(incoming, NOW).await.expect("the recorder takes every answer")
    }

    /// A message inside of a signed envelope of somebody's.
    pub(crate) async fn bring_message(&self, message: &[u8]) -> Handled {
        let server = self.identity.public();
        let signer = SecretKey::from_bytes(&[99; 32]).expect("a key");
        let data = frame::seal_asymmetric(&server, message, &signer, |bytes| bytes.fill(5));
        self.bring(TopicName::partitioned(&server).topic(), data.expect("it is short")).await
    }

    /// The answers since the last call.
    pub(crate) fn take_answers(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.recorder.answers.lock())
    }

    /// The only answer since the last call, as its receiver reads it; none if there was none.
    pub(crate) fn take_answer(&self, receiver: &SecretKey) -> Result<Option<ApplicationMessage>, String> {
        let answers = self.take_answers();
        let [answer] = &answers[..] else {
            return if answers.is_empty() { Ok(None) } else { Err("more than one answer".into()) };
        };
        if answer.topic != TopicName::partitioned(&receiver.public()).topic() {
            return Err("the answer is on another topic".into());
        }
        let [data] = &answer.frames[..] else { return Err("more than one frame".into()) };
        let content: Bytes = frame::open_asymmetric(receiver, data).map_err(|error| error.to_string())?;
        let message = ApplicationMessage::read(content).map_err(|error| error.to_string())?;
        if message.signer != self.identity.public() {
            return Err("the answer is not by the server".into());
        }
        Ok(Some(message))
    }

    /// Forgets all claims and answers.
    pub(crate) async fn forget_requests(&self) {
        let all = NOW.as_secs() + 1;
        let retention =
            Retention { claims_before_unix_s: all, answers_before_unix_s: all, ..Retention::default() };
        self.store.expire(&retention, usize::MAX).await.expect("the store answers");
    }

    /// What gorush was asked for since the call of this number: the next number, and the notification objects in one
    /// order, without what ours differ in on purpose.
    pub(crate) fn pushed_since(&self, call: usize) -> (usize, Vec<String>) {
        let calls = self.gorush.calls();
        let objects = calls[call..].iter().flat_map(|call| {
            assert_eq!(call.content_type.as_deref(), Some("application/json"));
            call.notifications()
        });
        (calls.len(), in_order(objects))
    }
}

/// Notification objects as texts in one order: without `notif_id`, and without the topic of Google's.
pub(crate) fn in_order(objects: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut texts: Vec<String> = objects.into_iter().map(comparable).collect();
    texts.sort();
    texts
}

fn comparable(mut object: Value) -> String {
    let members = object.as_object_mut().expect("a notification is an object");
    members.remove("notif_id");
    if members["platform"] == 2 {
        members.remove("topic");
    }
    object.to_string()
}
