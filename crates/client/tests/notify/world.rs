//! A network in memory on which receivers, senders and real push servers meet. Everything arrives at once; time passes
//! when everybody waits.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use poste_client::notify::{Mail, Network};
use poste_codec::{PublicKey, SecretKey};
use poste_provider::{Notification, NotificationKey, Outcome, PushProvider, Unavailable};
use poste_push::answer::{Answer, PublishError, Publisher};
use poste_push::server::{Incoming, Parts, PushServer, Settings};
use poste_push::store::MemoryStore;
use poste_push::topics::{FeedError, TopicFeed};
use poste_wire::Topic;
use poste_wire::status::TopicName;
use tokio::sync::Notify;

/// Everybody's network.
#[derive(Debug, Default)]
pub(crate) struct World {
    clients: Mutex<Vec<Arc<Inbox>>>,
    servers: Mutex<Vec<Arc<Server>>>,
    stored: Mutex<Vec<Mail>>,
    /// Topics on which nothing arrives.
    pub(crate) deaf: Mutex<BTreeSet<Topic>>,
    /// Whether clients have lost their connection.
    pub(crate) is_cut: AtomicBool,
    /// How many subscriptions fail.
    pub(crate) unheard: AtomicUsize,
    /// How long a client waits until what it has published is confirmed.
    pub(crate) confirmation: Mutex<Duration>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A new client's way to the network.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let inbox = Arc::<Inbox>::default();
        self.clients.lock().push(inbox.clone());
        Client { world: self.clone(), inbox }
    }

    /// Starts a push server.
    pub(crate) async fn serve(self: &Arc<Self>, key: SecretKey) -> Arc<Server> {
        let around = Arc::new(Around { world: Arc::downgrade(self), ..Around::default() });
        let public = key.public();
        let parts = Parts {
            identity: key,
            store: Arc::new(MemoryStore::default()),
            provider: around.clone(),
            notification_key: NotificationKey::new([1; 32]),
            publisher: around.clone(),
            feed: around.clone(),
            metrics: poste_push::metrics::Metrics::default(),
        };
        let push = PushServer::start(parts, Settings::default()).await.unwrap();
        let server = Arc::new(Server { public, push, around });
        self.servers.lock().push(server.clone());
        server
    }

    /// On how many topics something arrives at clients.
    pub(crate) fn subscriptions(&self) -> usize {
        self.clients.lock().iter().map(|inbox| inbox.topics.lock().len()).sum()
    }

    /// Clients have new connections, on which nothing was asked for.
    pub(crate) fn connect_anew(&self) {
        for inbox in self.clients.lock().iter() {
            inbox.topics.lock().clear();
            inbox.mails.lock().clear();
        }
        self.is_cut.store(false, Ordering::SeqCst);
    }

    /// Clients have lost their connections.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.clients.lock().iter().for_each(|inbox| inbox.arrived.notify_one());
    }

    fn connected(&self) -> io::Result<()> {
        if self.is_cut.load(Ordering::SeqCst) {
            Err(io::Error::other("the connection is lost"))
        } else {
            Ok(())
        }
    }

    /// How often something was published on a topic.
    pub(crate) fn published(&self, name: &TopicName) -> usize {
        self.stored.lock().iter().filter(|mail| mail.topic == name.topic()).count()
    }

    fn carry(&self, topic: Topic, data: Vec<u8>) -> Mail {
        let made_at = now().as_secs().try_into().unwrap();
        let mail = Mail { topic, data: data.into(), made_at };
        self.stored.lock().push(mail.clone());
        self.clients.lock().iter().for_each(|inbox| inbox.put(&mail));
        mail
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// What came for a client.
#[derive(Debug, Default)]
struct Inbox {
    topics: Mutex<BTreeSet<Topic>>,
    mails: Mutex<VecDeque<Mail>>,
    arrived: Notify,
}

impl Inbox {
    fn put(&self, mail: &Mail) {
        if self.topics.lock().contains(&mail.topic) {
            self.mails.lock().push_back(mail.clone());
            self.arrived.notify_one();
        }
    }
}

/// A client's way to the network.
#[derive(Debug)]
pub(crate) struct Client {
    world: Arc<World>,
    inbox: Arc<Inbox>,
}

impl Network for Client {
    type Error = io::Error;

    async fn subscribe(&mut self, topics: &[Topic]) -> io::Result<()> {
        let left = |left: usize| left.checked_sub(1);
        if self.world.unheard.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Err(io::Error::other("the connection was lost long ago"));
        }
        self.inbox.topics.lock().extend(topics);
        Ok(())
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> io::Result<()> {
        self.inbox.topics.lock().retain(|topic| !topics.contains(topic));
        Ok(())
    }

    async fn publish(&mut self, topic: Topic, frame: Vec<u8>) -> io::Result<()> {
        self.world.connected()?;
        if self.world.deaf.lock().contains(&topic) {
            return Ok(());
        }
        let mail = self.world.carry(topic, frame);
        let servers = self.world.servers.lock().clone();
        for server in servers {
            server.hear(&mail).await;
        }
        let confirmation = *self.world.confirmation.lock();
        if !confirmation.is_zero() {
            tokio::time::sleep(confirmation).await;
        }
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Mail> {
        loop {
            self.world.connected()?;
            if let Some(mail) = self.inbox.mails.lock().pop_front() {
                return Ok(mail);
            }
            self.inbox.arrived.notified().await;
        }
    }

    async fn history(
        &mut self,
        topics: &[Topic],
        since: u32,
        take: impl FnMut(Mail) + Send,
    ) -> io::Result<Option<String>> {
        let stored = self.world.stored.lock();
        let wanted = stored.iter().filter(|mail| topics.contains(&mail.topic) && mail.made_at >= since);
        wanted.cloned().for_each(take);
        Ok(None)
    }
}

/// A push server and its faults.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) public: PublicKey,
    push: PushServer,
    around: Arc<Around>,
}

impl Server {
    /// How many notifications were handed to its provider.
    pub(crate) fn rang(&self) -> usize {
        self.around.rang.load(Ordering::SeqCst)
    }

    /// Whether it hears anything.
    pub(crate) fn run(&self, runs: bool) {
        self.around.is_down.store(!runs, Ordering::SeqCst);
    }

    /// Whether its answers arrive.
    pub(crate) fn answer(&self, answers: bool) {
        self.around.is_mute.store(!answers, Ordering::SeqCst);
    }

    async fn hear(&self, mail: &Mail) {
        if self.around.is_down.load(Ordering::SeqCst) {
            return;
        }
        let (topic, data, made_at) =
            (mail.topic, mail.data.clone(), Duration::from_secs(mail.made_at.into()));
        self.push.handle(Incoming { topic, data, made_at, position: 1 }, now()).await.unwrap();
    }
}

/// Everything around a server.
#[derive(Debug, Default)]
struct Around {
    world: Weak<World>,
    rang: AtomicUsize,
    is_down: AtomicBool,
    is_mute: AtomicBool,
}

#[tonic::async_trait]
impl Publisher for Around {
    async fn publish(&self, answer: Answer) -> Result<(), PublishError> {
        if let Some(world) = self.world.upgrade().filter(|_| !self.is_mute.load(Ordering::SeqCst)) {
            answer.frames.into_iter().for_each(|frame| drop(world.carry(answer.topic, frame)));
        }
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

impl PushProvider for Around {
    fn send(&self, _: Notification) -> BoxFuture<'_, Outcome> {
        self.rang.fetch_add(1, Ordering::SeqCst);
        async { Outcome::Sent }.boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        async { Ok(()) }.boxed()
    }
}
