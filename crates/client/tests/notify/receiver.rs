//! A receiver and real push servers on a network in memory, in a time that passes when everybody waits.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use poste_client::notify::register::Refusal;
use poste_client::notify::{
    Device, Mail, Network, Profile, Receiver, ReceiverError, ReceiverEvent, RegistrationAnswer, Standing,
};
use poste_codec::{PublicKey, SecretKey};
use poste_provider::{DirectoryProvider, NotificationKey};
use poste_push::answer::{Answer, PublishError, Publisher};
use poste_push::server::{Incoming, Parts, PushServer, Settings};
use poste_push::store::MemoryStore;
use poste_push::topics::{FeedError, TopicFeed};
use poste_wire::Topic;
use poste_wire::status::proto::ContactCodeAdvertisement;
use poste_wire::status::{ApplicationMessage, InstallationId, PushMessage, TopicName, frame, transport};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The time of day that servers see.
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn public(byte: u8) -> PublicKey {
    key(byte).public()
}

/// What happens to the network and the servers.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// Answers that get lost.
    lose: Arc<AtomicUsize>,
    /// Keys of servers that do not run, each a byte that is repeated.
    dead: Arc<parking_lot::Mutex<BTreeSet<u8>>>,
    /// Nothing comes or goes; what servers say is kept.
    cut: Arc<AtomicBool>,
    /// The how many-th publishing from now on finds the connection lost, and all that has come with it; 0 if none.
    breaks_at: Arc<AtomicUsize>,
}

/// Brings answers to the receiver.
#[derive(Debug)]
struct Answers {
    faults: Faults,
    to: mpsc::Sender<Mail>,
}

#[tonic::async_trait]
impl Publisher for Answers {
    async fn publish(&self, answer: Answer) -> Result<(), PublishError> {
        let lost =
            self.faults.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if lost.is_err() {
            for data in answer.frames {
                let made_at = NOW.as_secs() as u32;
                self.to.try_send(Mail { topic: answer.topic, data: data.into(), made_at }).unwrap();
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Everything;

#[tonic::async_trait]
impl TopicFeed for Everything {
    async fn join(&self, _: &[Topic]) -> Result<(), FeedError> {
        Ok(())
    }

    async fn leave(&self, _: &[Topic]) {}
}

/// Topics and frames.
type Published = Arc<parking_lot::Mutex<Vec<(Topic, Vec<u8>)>>>;

/// The network as one receiver sees it, with its servers.
#[derive(Debug)]
struct Air {
    faults: Faults,
    servers: Vec<(u8, PushServer)>,
    answers: mpsc::Receiver<Mail>,
    /// Answers that are in history only.
    stored: Vec<Mail>,
    subscribed: BTreeSet<Topic>,
    published: Published,
    position: u64,
}

impl Air {
    async fn with_servers(keys: &[u8]) -> (Self, Faults) {
        let faults = Faults::default();
        let (to, answers) = mpsc::channel(1000);
        let mut servers = Vec::new();
        for byte in keys {
            let provider = DirectoryProvider::open(std::env::temp_dir(), poste_provider::Metrics::new());
            let parts = Parts {
                identity: key(*byte),
                store: Arc::new(MemoryStore::default()),
                provider: Arc::new(provider.unwrap()),
                notification_key: NotificationKey::new([1; 32]),
                publisher: Arc::new(Answers { faults: faults.clone(), to: to.clone() }),
                feed: Arc::new(Everything),
                metrics: poste_push::metrics::Metrics::default(),
            };
            servers.push((*byte, PushServer::start(parts, Settings::default()).await.unwrap()));
        }
        let air = Self {
            faults: faults.clone(),
            servers,
            answers,
            stored: Vec::new(),
            subscribed: BTreeSet::new(),
            published: Arc::default(),
            position: 0,
        };
        (air, faults)
    }

    fn works(&self) -> io::Result<()> {
        if self.faults.cut.load(Ordering::SeqCst) { Err(io::Error::other("cut")) } else { Ok(()) }
    }
}

impl Network for Air {
    type Error = io::Error;

    async fn subscribe(&mut self, topics: &[Topic]) -> io::Result<()> {
        self.works()?;
        self.subscribed.extend(topics);
        Ok(())
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> io::Result<()> {
        self.subscribed.retain(|topic| !topics.contains(topic));
        Ok(())
    }

    async fn publish(&mut self, topic: Topic, frame: Vec<u8>) -> io::Result<()> {
        self.works()?;
        let left = &self.faults.breaks_at;
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Ok(1) {
            self.stored.extend(std::iter::from_fn(|| self.answers.try_recv().ok()));
            return Err(io::Error::other("lost"));
        }
        self.published.lock().push((topic, frame.clone()));
        self.position += 1;
        for (byte, server) in &self.servers {
            if !self.faults.dead.lock().contains(byte) {
                let data = frame.clone().into();
                server
                    .handle(Incoming { topic, data, made_at: NOW, position: self.position }, NOW)
                    .await
                    .unwrap();
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> io::Result<Mail> {
        self.works()?;
        loop {
            let mail = self.answers.recv().await.expect("the servers live");
            if self.subscribed.contains(&mail.topic) {
                return Ok(mail);
            }
        }
    }

    async fn history(
        &mut self,
        topics: &[Topic],
        _: u32,
        mut take: impl FnMut(Mail) + Send,
    ) -> io::Result<Option<String>> {
        self.works()?;
        self.stored.extend(std::iter::from_fn(|| self.answers.try_recv().ok()));
        for mail in self.stored.drain(..) {
            assert!(topics.contains(&mail.topic));
            take(mail);
        }
        Ok(None)
    }
}

fn profile() -> Profile {
    Profile::open_to_all(Device::Firebase { token: "token".into() })
}

fn device() -> Option<InstallationId> {
    Some(InstallationId::from_random([7; 16]))
}

async fn open(air: Air, directory: &Path) -> Receiver<Air> {
    Receiver::open(air, key(1), directory, device(), None).await.unwrap()
}

/// What happens until, and with, the event.
async fn until(receiver: &mut Receiver<Air>, is_it: impl Fn(&ReceiverEvent) -> bool) -> Vec<ReceiverEvent> {
    let mut events = Vec::new();
    loop {
        let step = tokio::time::timeout(Duration::from_secs(1_000_000), receiver.step());
        let event = step.await.unwrap_or_else(|_| panic!("it never came, after {events:?}")).unwrap();
        let ends = is_it(&event);
        events.push(event);
        if ends {
            return events;
        }
    }
}

fn advertised(expected: usize) -> impl Fn(&ReceiverEvent) -> bool {
    move |event| matches!(event, ReceiverEvent::Advertised { servers } if *servers == expected)
}

fn sent(server: u8, version: u64, attempt: u32) -> ReceiverEvent {
    ReceiverEvent::Sent { server: public(server), version, attempt }
}

fn registered(server: u8, version: u64) -> ReceiverEvent {
    ReceiverEvent::Answered(RegistrationAnswer::Registered { server: public(server), version })
}

#[tokio::test(start_paused = true)]
async fn a_lost_first_answer_ends_registered() {
    let dir = TempDir::new().unwrap();
    let (air, faults) = Air::with_servers(&[11]).await;
    faults.lose.store(1, Ordering::SeqCst);
    let began = Instant::now();
    let mut receiver = open(air, dir.path()).await;
    receiver.register(profile(), &[public(11)], &[]).await.unwrap();
    let events = until(&mut receiver, advertised(1)).await;
    let expected =
        [sent(11, 1, 1), sent(11, 2, 2), registered(11, 2), ReceiverEvent::Advertised { servers: 1 }];
    assert_eq!(events, expected);
    assert_eq!(began.elapsed().as_secs(), 30);
    assert!(receiver.is_settled());
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_holds_up_nobody_and_joins_when_it_comes_back() {
    let dir = TempDir::new().unwrap();
    let (air, faults) = Air::with_servers(&[11, 12, 13]).await;
    faults.dead.lock().insert(12);
    let began = Instant::now();
    let mut receiver = open(air, dir.path()).await;
    let servers = [11, 12, 13].map(public);
    receiver.register(profile(), &servers, &[]).await.unwrap();
    until(&mut receiver, advertised(2)).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    until(&mut receiver, |event| *event == sent(12, 2, 2)).await;
    faults.dead.lock().clear();
    let events = until(&mut receiver, advertised(3)).await;
    assert!(events.contains(&registered(12, 3)), "{events:?}");
    assert_eq!(began.elapsed().as_secs(), 150);
    // Told once, and of one version: contacts' clients would drop the others.
    assert_eq!(events.iter().filter(|event| matches!(event, ReceiverEvent::Advertised { .. })).count(), 1);
    let state = receiver.state();
    assert!(
        state.servers().all(|(_, standing)| standing == Standing::Registered { version: 3 }),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_lost_its_state_overtakes_what_the_server_has() {
    let [lost, new] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (air, _) = Air::with_servers(&[11]).await;
    let mut receiver = open(air, lost.path()).await;
    receiver.register(profile(), &[public(11)], &[]).await.unwrap();
    until(&mut receiver, advertised(1)).await;
    let mut receiver = open(receiver.into_network(), new.path()).await;
    receiver.register(profile(), &[public(11)], &[]).await.unwrap();
    let events = until(&mut receiver, advertised(1)).await;
    let refused = RegistrationAnswer::Refused { server: public(11), error: Refusal::VersionMismatch };
    assert_eq!(events[..2], [sent(11, 1, 1), ReceiverEvent::Answered(refused)]);
    assert!(receiver.state().version() > 1_600_000_000, "beyond the time of day");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_while_the_network_was_away_is_found() {
    let dir = TempDir::new().unwrap();
    let (air, faults) = Air::with_servers(&[11]).await;
    let mut receiver = open(air, dir.path()).await;
    receiver.register(profile(), &[public(11)], &[]).await.unwrap();
    faults.cut.store(true, Ordering::SeqCst);
    let is_disconnected = |event: &ReceiverEvent| matches!(event, ReceiverEvent::Disconnected { .. });
    until(&mut receiver, |event| matches!(event, ReceiverEvent::NotSent { .. })).await;
    // The next attempt gets through, and then the answer does not.
    faults.cut.store(false, Ordering::SeqCst);
    until(&mut receiver, |event| *event == sent(11, 2, 2)).await;
    faults.cut.store(true, Ordering::SeqCst);
    until(&mut receiver, is_disconnected).await;
    faults.cut.store(false, Ordering::SeqCst);
    let events = until(&mut receiver, advertised(1)).await;
    assert!(events.contains(&registered(11, 2)), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_got_lost_with_a_connection_that_broke_while_publishing_is_found() {
    let dir = TempDir::new().unwrap();
    let (air, faults) = Air::with_servers(&[11, 12]).await;
    faults.breaks_at.store(2, Ordering::SeqCst);
    let began = Instant::now();
    let mut receiver = open(air, dir.path()).await;
    receiver.register(profile(), &[11, 12].map(public), &[]).await.unwrap();
    let events = until(&mut receiver, advertised(1)).await;
    let [ReceiverEvent::Sent { server, .. }, ReceiverEvent::NotSent { .. }, found, _] = &events[..] else {
        panic!("{events:?}")
    };
    let (server, version) = (*server, 1);
    assert_eq!(*found, ReceiverEvent::Answered(RegistrationAnswer::Registered { server, version }));
    assert!(began.elapsed() < Duration::from_secs(30), "before it would be sent again");
}

/// A future that is dropped after so many polls.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (std::pin::pin!(future), polls);
    std::future::poll_fn(|context| {
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_told_wherever_the_step_that_took_it_was_dropped() {
    for polls in 1..10 {
        let dir = TempDir::new().unwrap();
        let (air, _) = Air::with_servers(&[11]).await;
        let mut receiver = open(air, dir.path()).await;
        receiver.register(profile(), &[public(11)], &[]).await.unwrap();
        until(&mut receiver, |event| *event == sent(11, 1, 1)).await;
        let first = dropped_after(polls, receiver.step()).await.map(Result::unwrap);
        let events = until(&mut receiver, advertised(1)).await;
        let count = first.iter().chain(&events).filter(|event| **event == registered(11, 1)).count();
        assert_eq!(count, 1, "dropped after {polls} polls: {first:?} {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn contacts_are_told_from_time_to_time_and_after_a_start() {
    let dir = TempDir::new().unwrap();
    let (air, _) = Air::with_servers(&[11]).await;
    let published = Arc::clone(&air.published);
    let hour = Duration::from_secs(3600);
    let mut receiver = Receiver::open(air, key(1), dir.path(), device(), Some(hour)).await.unwrap();
    receiver.register(profile(), &[public(11)], &[]).await.unwrap();
    until(&mut receiver, advertised(1)).await;
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(until(&mut receiver, advertised(1)).await.len(), 1);
    }
    assert_eq!(began.elapsed().as_secs(), 7200);

    let mut receiver = open(receiver.into_network(), dir.path()).await;
    receiver.register_again().await.unwrap();
    let events = until(&mut receiver, advertised(1)).await;
    assert_eq!(events[..2], [sent(11, 2, 1), registered(11, 2)]);

    let contact_code = TopicName::contact_code(&public(1));
    let published = published.lock();
    let advertisements: Vec<_> =
        published.iter().filter(|(topic, _)| *topic == contact_code.topic()).collect();
    assert_eq!(advertisements.len(), 4);
    let symmetric = contact_code.derive_key();
    let content = frame::open_symmetric(&symmetric, &advertisements[3].1).unwrap();
    let message = ApplicationMessage::read(transport::unwrap(content)).unwrap();
    let infos = ContactCodeAdvertisement::read(message.payload).unwrap().push_notification_info;
    assert_eq!((infos.len(), infos[0].version), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_device_is_forgotten_by_all_that_know_it() {
    let dir = TempDir::new().unwrap();
    let (air, faults) = Air::with_servers(&[11, 12]).await;
    let published = Arc::clone(&air.published);
    let mut receiver = open(air, dir.path()).await;
    receiver.register(profile(), &[public(11), public(12)], &[]).await.unwrap();
    until(&mut receiver, advertised(2)).await;
    faults.dead.lock().insert(12);
    receiver.unregister().await.unwrap();
    let left = |server| ReceiverEvent::Answered(RegistrationAnswer::Left { server: public(server) });
    until(&mut receiver, |event| *event == left(11)).await;
    let count = published.lock().len();
    assert_eq!(receiver.state().servers().collect::<Vec<_>>(), [(public(12), Standing::Leaving)]);
    // A process that starts later goes on.
    let mut receiver = open(receiver.into_network(), dir.path()).await;
    faults.dead.lock().clear();
    until(&mut receiver, |event| *event == left(12)).await;
    assert!(receiver.is_settled() && receiver.state().profile().is_none());
    assert_eq!(published.lock().len(), count + 1, "nobody is told of anything");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up_after_twelve_times() {
    let dir = TempDir::new().unwrap();
    let (air, faults) = Air::with_servers(&[11]).await;
    faults.dead.lock().insert(11);
    let mut receiver = open(air, dir.path()).await;
    receiver.register(profile(), &[], &[public(11)]).await.unwrap();
    until(&mut receiver, |event| *event == sent(11, 12, 12)).await;
    assert_eq!(receiver.given_up(), [public(11)]);
    let silence = tokio::time::timeout(Duration::from_secs(10_000_000), receiver.step()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test]
async fn a_directory_is_of_one_key_and_device_and_a_registration_of_some_servers() {
    let dir = TempDir::new().unwrap();
    let (air, _) = Air::with_servers(&[]).await;
    let mut receiver = open(air, dir.path()).await;
    let error = receiver.register(profile(), &[], &[]).await.unwrap_err();
    assert!(matches!(error, ReceiverError::Servers(0)), "{error}");
    let error = receiver.register(profile(), &[11, 12, 13, 14].map(public), &[]).await.unwrap_err();
    assert!(matches!(error, ReceiverError::Servers(4)), "{error}");
    receiver.register(profile(), &[public(11)], &[]).await.unwrap();
    let (air, _) = Air::with_servers(&[]).await;
    let error = Receiver::open(air, key(1), dir.path(), None, None).await.unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(receiver);
    let other = Some(InstallationId::from_random([8; 16]));
    let (air, _) = Air::with_servers(&[]).await;
    let error = Receiver::open(air, key(1), dir.path(), other, None).await.unwrap_err();
    assert!(matches!(error, ReceiverError::OtherInstallation(_)), "{error}");
    let (air, _) = Air::with_servers(&[]).await;
    let error = Receiver::open(air, key(2), dir.path(), None, None).await.unwrap_err();
    assert!(matches!(error, ReceiverError::State(_)), "{error}");
}
