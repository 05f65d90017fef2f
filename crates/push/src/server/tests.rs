//! A server among recorders, and what it makes of whatever arrives. The steps of the protocol have tests of their own,
//! which use the same surroundings.

mod attempts;
mod bad_input;
pub(crate) mod client;
pub(crate) mod crashes;
mod limits;
mod many_entries;
mod whole;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use poste_provider::{Notification, Outcome, Unavailable};
use poste_wire::status::segment::{self, split};
use poste_wire::status::{ApplicationMessage, HashedPublicKey, MessageType};
use tokio::sync::Semaphore;

use super::*;
use crate::answer::Answer;
use crate::store::{Caps, MemoryStore};
use crate::topics::FeedError;
use client::{Client, SERVER};

/// When tests happen, since 1970.
pub(crate) const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Everything around a server, recorded.
#[derive(Debug)]
pub(crate) struct World {
    /// In their order: joined topics and published answers.
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) sent: Mutex<Vec<Notification>>,
    pub(crate) outcome: Mutex<Outcome>,
    /// The provider ends as many sends as there are permits.
    pub(crate) gate: Semaphore,
    pub(crate) is_feed_away: AtomicBool,
    pub(crate) is_gateway_away: AtomicBool,
    /// So many frames of answers, and then they are refused.
    pub(crate) takes_frames: AtomicUsize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Joined(Vec<Topic>),
    Left(Vec<Topic>),
    Published(Answer),
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            events: Mutex::default(),
            sent: Mutex::default(),
            outcome: Mutex::new(Outcome::Sent),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            is_feed_away: AtomicBool::new(false),
            is_gateway_away: AtomicBool::new(false),
            takes_frames: AtomicUsize::new(usize::MAX),
        })
    }

    /// The answers published since the last call.
    pub(crate) fn take_answers(&self) -> Vec<Answer> {
        let events = std::mem::take(&mut *self.events.lock());
        let answers = events.into_iter().filter_map(|event| match event {
            Event::Published(answer) => Some(answer),
            Event::Joined(_) | Event::Left(_) => None,
        });
        answers.collect()
    }

    pub(crate) fn sent_count(&self) -> usize {
        self.sent.lock().len()
    }
}

#[derive(Debug)]
struct Around(Arc<World>);

#[tonic::async_trait]
impl TopicFeed for Around {
    async fn join(&self, topics: &[Topic]) -> Result<(), FeedError> {
        if self.0.is_feed_away.load(Ordering::Relaxed) {
            return Err(FeedError("away".into()));
        }
        self.0.events.lock().push(Event::Joined(topics.to_vec()));
        Ok(())
    }

    async fn leave(&self, topics: &[Topic]) {
        self.0.events.lock().push(Event::Left(topics.to_vec()));
    }
}

#[tonic::async_trait]
impl Publisher for Around {
    async fn publish(&self, answer: Answer) -> Result<(), PublishError> {
        if self.0.is_gateway_away.load(Ordering::Relaxed) {
            return Err(PublishError::Away("away".into()));
        }
        let takes = |frames: usize| frames.checked_sub(answer.frames.len());
        if self.0.takes_frames.fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes).is_err() {
            return Err(PublishError::Refused("too little proof of work".into()));
        }
        self.0.events.lock().push(Event::Published(answer));
        Ok(())
    }
}

impl PushProvider for Around {
    fn send(&self, notification: Notification) -> BoxFuture<'_, Outcome> {
        async move {
            self.0.sent.lock().push(notification);
            self.0.gate.acquire().await.unwrap().forget();
            *self.0.outcome.lock()
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        async { Ok(()) }.boxed()
    }
}

async fn start(
    world: &Arc<World>,
    store: Arc<dyn RegistrationStore>,
    provider: Arc<dyn PushProvider>,
    settings: Settings,
) -> PushServer {
    let around = Arc::new(Around(world.clone()));
    let parts = Parts {
        identity: SERVER.clone(),
        store,
        provider,
        notification_key: NotificationKey::new([5; 32]),
        publisher: around.clone(),
        feed: around,
        metrics: Metrics::default(),
    };
    PushServer::start(parts, settings).await.unwrap()
}

/// A server and its surroundings.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) server: PushServer,
    pub(crate) store: MemoryStore,
    pub(crate) world: Arc<World>,
    position: AtomicU64,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(MemoryStore::new(Caps::default()), Settings::default()).await
    }

    pub(crate) async fn with(store: MemoryStore, settings: Settings) -> Self {
        let world = World::new();
        let provider = Arc::new(Around(world.clone()));
        let server = start(&world, Arc::new(store.clone()), provider, settings).await;
        Self { server, store, world, position: AtomicU64::new(1) }
    }

    /// With another store and another provider than those of the rig.
    pub(crate) async fn on(store: Arc<dyn RegistrationStore>, provider: Arc<dyn PushProvider>) -> Self {
        let world = World::new();
        let server = start(&world, store, provider, Settings::default()).await;
        Self { server, store: MemoryStore::default(), world, position: AtomicU64::new(1) }
    }

    /// The same store with everything else anew, as after a crash.
    pub(crate) async fn restarted(self) -> Self {
        self.store.restart();
        Self::with(self.store, self.server.settings).await
    }

    /// Data on a topic at a time; the envelope was made at the same time.
    pub(crate) async fn bring(
        &self,
        topic: Topic,
        data: impl Into<Bytes>,
        now: Duration,
    ) -> Result<Handled, PublishError> {
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        let incoming = Incoming { topic, data: data.into(), made_at: now, position };
        self.server.handle(incoming, now).await
    }

    /// A message sealed to the server, on the topic where requests travel.
    pub(crate) async fn bring_sealed(&self, message: &[u8]) -> Handled {
        self.bring(client::partitioned(), client::seal(message), NOW).await.unwrap()
    }
}

#[tokio::test]
async fn a_server_listens_where_it_listened_before_a_restart() {
    let rig = Rig::new().await;
    let (a, b) = (Client::new(1), Client::new(2));
    for client in [&a, &b] {
        client.register(&rig, &client.registration(1)).await.unwrap();
    }
    let mut before = rig.server.topics();
    let rig = rig.restarted().await;
    let mut after = rig.server.topics();
    before.sort();
    after.sort();
    assert_eq!((before.len(), &before), (6, &after));
    for name in [a.query_topic(), TopicName::query_as_specified(&HashedPublicKey::of(&b.key.public()))] {
        assert!(rig.server.wants(name.topic()));
    }
    assert!(rig.world.events.lock().is_empty(), "the feed is told of changes only");
    assert_eq!(a.query(&rig, &a.query_topic(), &[&a]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn both_forms_of_the_query_topic_are_heard() {
    let rig = Rig::new().await;
    let (owner, asker) = (Client::new(1), Client::new(2));
    owner.register(&rig, &owner.registration(1)).await.unwrap();
    let hash = HashedPublicKey::of(&owner.key.public());
    for topic in [TopicName::query(&hash), TopicName::query_as_specified(&hash)] {
        let info = asker.query(&rig, &topic, &[&owner]).await.unwrap();
        assert_eq!(info.len(), 1);
        assert_eq!(info[0].access_token, client::ACCESS_TOKEN);
    }
    let other = TopicName::query(&HashedPublicKey::of(&asker.key.public()));
    assert_eq!(asker.query(&rig, &other, &[&owner]).await, Err(Handled::Unanswered(Unanswered::NotForUs)));
}

/// What everybody can read is no place for what is meant for the server, and answers are nothing to it.
#[tokio::test]
async fn each_kind_has_its_place() {
    let rig = Rig::new().await;
    let (owner, asker) = (Client::new(1), Client::new(2));
    owner.register(&rig, &owner.registration(1)).await.unwrap();
    let other = Handled::Unanswered(Unanswered::OtherKind);
    for message in
        [owner.sealed_registration(&owner.registration(2)), asker.request(b"id", &[owner.notification()])]
    {
        let data = client::seal_symmetric(&owner.query_topic(), &message);
        assert_eq!(rig.bring(owner.query_topic().topic(), data, NOW).await, Ok(other));
    }
    for kind in [
        MessageType::Unknown,
        MessageType::ContactCodeAdvertisement,
        MessageType::PushNotificationRegistrationResponse,
        MessageType::PushNotificationQueryResponse,
        MessageType::PushNotificationResponse,
    ] {
        let message = ApplicationMessage::write(kind, &b""[..], &asker.key);
        assert_eq!(rig.bring_sealed(&message).await, other, "{kind:?}");
    }
    // A payload is read as what the kind says, whatever it was signed as.
    let request = asker.request(b"id", &[owner.notification()]);
    let payload = ApplicationMessage::read(request.into()).unwrap().payload;
    let as_registration =
        ApplicationMessage::write(MessageType::PushNotificationRegistration, payload, &asker.key);
    assert_eq!(rig.bring_sealed(&as_registration).await, Handled::Unanswered(Unanswered::Unsealed));
    assert_eq!(rig.world.sent_count(), 0);
}

#[tokio::test]
async fn a_registration_in_segments_is_joined_in_any_order() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let mut registration = client.registration(1);
    registration.muted_chat_list = (0..2500).map(|n: u32| n.to_be_bytes().repeat(16).into()).collect();
    let message = client.sealed_registration(&registration);
    assert!(message.len() > 165_000);
    let pieces = split(message, 50_000);
    assert_eq!(rig.server.checkpoint(1, NOW), 1);
    let kept = Handled::Unanswered(Unanswered::Segment);
    for at in [2, 0, 3] {
        assert_eq!(rig.bring_sealed(&pieces[at]).await, kept);
    }
    assert_eq!(rig.server.checkpoint(100, NOW), 0, "a restart has to read from the first segment on");
    assert_eq!(rig.bring_sealed(&pieces[0]).await, Handled::Unanswered(Unanswered::BadSegment), "twice");
    assert_eq!(rig.bring_sealed(&pieces[1]).await, Handled::Answered(AnswerKind::Registration));
    assert_eq!(client.read_registration_answers(&rig), [Ok(())]);
    assert_eq!(rig.server.checkpoint(100, NOW), 100);
    let device = client.device();
    let row = rig.store.find(vec![device]).await.unwrap().remove(0).unwrap();
    assert!(row.data.as_bytes().len() > 165_000);
}

#[tokio::test]
async fn an_answer_that_was_not_published_is_given_when_the_message_comes_again() {
    let rig = Rig::new().await;
    let client = Client::new(1);
    let message = client.sealed_registration(&client.registration(1));
    let pieces = split(message, 100);
    rig.world.is_gateway_away.store(true, Ordering::Relaxed);
    let mut handled = Vec::new();
    for piece in &pieces {
        handled.push(rig.bring(client::partitioned(), client::seal(piece), NOW).await);
    }
    assert!(handled.last().unwrap().is_err());
    assert_eq!(rig.server.checkpoint(100, NOW), 0, "not dealt with");
    rig.world.is_gateway_away.store(false, Ordering::Relaxed);
    for piece in &pieces {
        rig.bring_sealed(piece).await;
    }
    assert_eq!(client.read_registration_answers(&rig), [Ok(())], "no VERSION_MISMATCH");
    assert_eq!(rig.server.checkpoint(100, NOW), 100);
}
