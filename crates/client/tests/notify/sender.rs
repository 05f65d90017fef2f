//! A sender, receivers and real push servers on a network in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use poste_client::notify::known::{KnownFile, MAX_CONTACTS};
use poste_client::notify::send::{Failure, Notification, NotificationKind, OwnDevicesError, SendSettings};
use poste_client::notify::{
    Device, Profile, Receiver, SendReport, Sender, SenderError, SenderEvent, Standing,
};
use poste_codec::{PublicKey, SecretKey};
use poste_wire::status::{HashedPublicKey, MessageId, TopicName};
use rand::Rng;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::world::{Client, Server, World};

/// Far beyond what any sending takes.
const PATIENCE: Duration = Duration::from_secs(3600);

fn key() -> SecretKey {
    SecretKey::random(|bytes| rand::rng().fill_bytes(bytes))
}

/// One who is to be notified, one who notifies, and some servers.
struct Scene {
    world: Arc<World>,
    servers: Vec<Arc<Server>>,
    contact: PublicKey,
    receiver: Receiver<Client>,
    own: SecretKey,
    sender: Sender<Client>,
    _receiver_state: TempDir,
    sender_state: TempDir,
}

impl Scene {
    /// The receiver's device is registered with so many servers, for everybody.
    async fn new(servers: usize) -> Self {
        Self::with(servers, |_| Profile::open_to_all(device())).await
    }

    /// With what the receiver wants of this sender.
    async fn with(count: usize, profile: impl FnOnce(PublicKey) -> Profile) -> Self {
        let world = World::new();
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(world.serve(key()).await);
        }
        let (identity, own) = (key(), key());
        let [receiver_state, sender_state] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let contact = identity.public();
        let receiver =
            Receiver::open(world.client(), identity, receiver_state.path(), None, None).await.unwrap();
        let sender = open(&world, &own, &sender_state).await;
        let mut scene = Self {
            world,
            servers,
            contact,
            receiver,
            own,
            sender,
            _receiver_state: receiver_state,
            sender_state,
        };
        let profile = profile(scene.own.public());
        scene.register(profile).await;
        scene
    }

    async fn register(&mut self, profile: Profile) {
        let servers: Vec<_> = self.servers.iter().map(|server| server.public).collect();
        self.receiver.register(profile, &servers, &[]).await.unwrap();
        let registered = |(_, standing)| matches!(standing, Standing::Registered { .. });
        while !self.receiver.state().servers().all(registered) {
            self.receiver.step().await.unwrap();
        }
    }

    /// Gives the receiver the time to tell its contacts of all its servers.
    async fn tell_contacts(&mut self) {
        while let Ok(event) = timeout(Duration::from_secs(1), self.receiver.step()).await {
            event.unwrap();
        }
    }

    async fn notify(&mut self, message: u32) -> SendReport {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&message.to_be_bytes());
        let notification = Notification { kind: NotificationKind::OneToOne, message: MessageId(id) };
        self.sender.notify(&self.contact, notification, SendSettings::default(), PATIENCE).await.unwrap()
    }

    fn rang(&self) -> Vec<usize> {
        self.servers.iter().map(|server| server.rang()).collect()
    }

    fn server(&self, public: &PublicKey) -> &Server {
        self.servers.iter().find(|server| server.public == *public).unwrap()
    }

    /// How often servers were asked about the receiver, in both forms.
    fn queries(&self) -> [usize; 2] {
        let hash = HashedPublicKey::of(&self.contact);
        [TopicName::query(&hash), TopicName::query_as_specified(&hash)]
            .map(|name| self.world.published(&name))
    }
}

async fn open(world: &Arc<World>, own: &SecretKey, state: &TempDir) -> Sender<Client> {
    let file = KnownFile::new(state.path(), own.public());
    Sender::open(world.client(), own.clone(), file).await.unwrap()
}

fn device() -> Device {
    Device::Firebase { token: "token of a device".into() }
}

/// The server that has notified the only device.
fn notified_by(report: &SendReport) -> PublicKey {
    let [device] = &report.devices[..] else { panic!("one device: {report:?}") };
    device.outcome.unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_is_asked_about_once_a_day_and_notified_by_one_server() {
    let mut scene = Scene::new(2).await;
    let began = Instant::now();
    let report = scene.notify(1).await;
    assert_eq!(began.elapsed(), Duration::from_secs(3), "all answers to the query are waited for");
    let server = notified_by(&report);
    assert_eq!((scene.server(&server).rang(), scene.rang().iter().sum::<usize>()), (1, 1));
    assert_eq!(scene.sender.known().infos(&scene.contact).len(), 2, "both servers have answered");

    // Another run of the program knows it too.
    scene.sender = open(&scene.world, &scene.own, &scene.sender_state).await;
    scene.notify(2).await;
    assert_eq!((scene.rang().iter().sum::<usize>(), scene.queries()), (2, [1, 0]));
}

/// Whichever of the servers would be asked first: they do not know of each other.
#[tokio::test(start_paused = true)]
async fn what_was_notified_does_not_ring_again_through_another_server() {
    const MESSAGES: u32 = 8;
    let mut scene = Scene::new(2).await;
    for message in 0..MESSAGES {
        let server = notified_by(&scene.notify(message).await);
        for again in 0..2 {
            let report = scene.notify(message).await;
            assert_eq!((notified_by(&report), report.devices[0].is_earlier), (server, true), "{again}");
            // Another run of the program.
            scene.sender = open(&scene.world, &scene.own, &scene.sender_state).await;
        }
        assert_eq!(scene.rang().iter().sum::<usize>(), message as usize + 1);
    }
}

/// The process ends after it has asked, and knows no answer: nothing is written any more.
#[tokio::test(start_paused = true)]
async fn who_was_asked_before_a_crash_is_asked_first_after_it() {
    const MESSAGES: u32 = 8;
    let mut scene = Scene::new(2).await;
    scene.sender.query(&scene.contact).await.unwrap();
    for message in 0..MESSAGES {
        scene.servers.iter().for_each(|server| server.answer(false));
        timeout(Duration::from_secs(1), scene.notify(message)).await.unwrap_err();
        let rang = scene.rang();
        assert_eq!(rang.iter().sum::<usize>(), message as usize + 1);
        scene.servers.iter().for_each(|server| server.answer(true));
        scene.sender = open(&scene.world, &scene.own, &scene.sender_state).await;
        let report = scene.notify(message).await;
        assert!(report.is_notified() && report.devices[0].failed.is_empty(), "{report:?}");
        assert_eq!(scene.rang(), rang, "message {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_process_has_sent_meanwhile_is_not_sent_again() {
    let mut scene = Scene::new(2).await;
    let mut other = open(&scene.world, &scene.own, &scene.sender_state).await;
    for message in 0..8 {
        assert!(scene.notify(message).await.is_notified());
        std::mem::swap(&mut scene.sender, &mut other);
        assert!(scene.notify(message).await.devices[0].is_earlier);
        assert_eq!(scene.rang().iter().sum::<usize>(), message as usize + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_advertised_spares_the_query() {
    let mut scene = Scene::new(2).await;
    scene.tell_contacts().await;
    let found = scene.sender.discover(&scene.contact, 0).await.unwrap();
    assert!(found.advertisements >= 1 && found.incomplete.is_none(), "{found:?}");
    assert_eq!(scene.sender.known().infos(&scene.contact).len(), 2);
    assert!(scene.notify(1).await.is_notified());
    assert_eq!(scene.queries(), [0, 0]);

    // From then on also what comes while the sender waits for something else.
    let before = scene.sender.known().infos(&scene.contact);
    scene.register(Profile { block_mentions: true, ..Profile::open_to_all(device()) }).await;
    scene.tell_contacts().await;
    assert!(scene.notify(2).await.is_notified());
    let after = scene.sender.known().infos(&scene.contact);
    assert!(after.iter().all(|row| row.info.version > before[0].info.version), "{after:?}");
    assert_eq!(after.len(), 2);
    assert_eq!(scene.queries(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_a_followed_contact_advertises_is_taken_while_nothing_is_sent() {
    let mut scene = Scene::new(2).await;
    let before = scene.world.subscriptions();
    scene.sender.follow(&[scene.contact, key().public()]).await.unwrap();
    assert_eq!(scene.world.subscriptions(), before + 2);
    timeout(Duration::from_secs(60), scene.sender.step()).await.unwrap_err();
    scene.tell_contacts().await;
    let event = timeout(Duration::from_secs(60), scene.sender.step()).await.unwrap().unwrap();
    assert_eq!(event, SenderEvent::Advertised { contact: scene.contact });
    let infos = scene.sender.known().infos(&scene.contact);
    assert!(infos.len() == 2 && infos.iter().all(|row| row.is_advertised), "{infos:?}");

    // It is kept, and spares the query.
    scene.sender = open(&scene.world, &scene.own, &scene.sender_state).await;
    assert_eq!(scene.sender.known().infos(&scene.contact), infos);
    assert!(scene.notify(1).await.is_notified());
    assert_eq!(scene.queries(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_is_followed_no_more_is_not_heard() {
    let mut scene = Scene::new(1).await;
    let before = scene.world.subscriptions();
    scene.sender.follow(&[scene.contact]).await.unwrap();
    scene.sender.follow(&[]).await.unwrap();
    assert_eq!(scene.world.subscriptions(), before);
    scene.tell_contacts().await;
    timeout(Duration::from_secs(60), scene.sender.step()).await.unwrap_err();
    assert!(scene.sender.known().infos(&scene.contact).is_empty());
    let many: Vec<_> = (0..=MAX_CONTACTS).map(|_| key().public()).collect();
    let refused = scene.sender.follow(&many).await;
    assert!(matches!(refused, Err(SenderError::TooManyContacts(1001))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_advertised_while_the_connection_was_lost_comes_from_history() {
    let mut scene = Scene::new(1).await;
    scene.sender.follow(&[scene.contact]).await.unwrap();
    scene.world.cut();
    let event = scene.sender.step().await.unwrap();
    assert!(matches!(event, SenderEvent::Disconnected { .. }), "{event:?}");
    scene.world.connect_anew();
    scene.tell_contacts().await;
    let event = timeout(Duration::from_secs(60), scene.sender.step()).await.unwrap().unwrap();
    assert_eq!(event, SenderEvent::Advertised { contact: scene.contact });
    assert_eq!(scene.sender.known().infos(&scene.contact).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outdated_token_is_asked_for_again() {
    let friend = key().public();
    let contacts = |of: &[PublicKey]| Profile {
        contacts_only: true,
        contacts: of.iter().copied().collect::<BTreeSet<_>>(),
        ..Profile::open_to_all(device())
    };
    let mut scene = Scene::with(1, |own| contacts(&[own, friend])).await;
    assert!(scene.notify(1).await.is_notified());
    // Without the friend there is a new token, which the friend does not get.
    scene.register(contacts(&[scene.own.public()])).await;
    let report = scene.notify(2).await;
    assert_eq!(report.devices[0].failed, [(scene.servers[0].public, Failure::WrongToken)]);
    assert!(report.is_notified());
    assert_eq!((scene.rang(), scene.queries()), (vec![2], [2, 0]));

    // And then without us: nothing we could show will do.
    scene.register(contacts(&[friend])).await;
    let began = Instant::now();
    let report = scene.notify(3).await;
    assert_eq!(report.devices[0].outcome, Err(Failure::WrongToken));
    assert_eq!(report.devices[0].failed.len(), 1, "the server has answered the query, with nothing for us");
    assert_eq!(began.elapsed(), Duration::from_secs(6), "a query on both topics");
    assert_eq!(scene.rang(), [2]);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_notify_learns_no_device() {
    let contacts = BTreeSet::from([key().public()]);
    let profile = Profile { contacts_only: true, contacts, ..Profile::open_to_all(device()) };
    let mut scene = Scene::with(1, |_| profile).await;
    let queried = scene.sender.query(&scene.contact).await.unwrap();
    let (server, shown) = &queried.answers[0];
    assert_eq!((*server, shown.infos.len(), shown.not_allowed.len()), (scene.servers[0].public, 0, 1));
    let report = scene.notify(1).await;
    assert!(report.devices.is_empty() && !report.is_notified());
}

#[tokio::test(start_paused = true)]
async fn when_a_server_is_down_the_next_one_notifies() {
    let mut scene = Scene::new(2).await;
    scene.sender.query(&scene.contact).await.unwrap();
    scene.servers[0].run(false);
    // Which one is asked first is random.
    for message in 1.. {
        let began = Instant::now();
        let report = scene.notify(message).await;
        assert_eq!(notified_by(&report), scene.servers[1].public);
        let failed = &report.devices[0].failed;
        if !failed.is_empty() {
            assert_eq!(*failed, [(scene.servers[0].public, Failure::NoAnswer)]);
            assert_eq!(began.elapsed(), Duration::from_secs(3));
            break;
        }
    }
}

/// Each server has notified, but nobody can know.
#[tokio::test(start_paused = true)]
async fn without_answers_a_device_may_ring_once_through_each_of_three_servers_and_no_more() {
    let mut scene = Scene::new(3).await;
    scene.sender.query(&scene.contact).await.unwrap();
    assert_eq!(scene.rang().len(), SendSettings::default().silent_servers);
    scene.servers.iter().for_each(|server| server.answer(false));
    let began = Instant::now();
    let report = scene.notify(1).await;
    assert_eq!(report.devices[0].outcome, Err(Failure::NoAnswer));
    assert_eq!(report.devices[0].failed.len(), 3);
    assert_eq!(began.elapsed(), Duration::from_secs(12), "three servers, the last one twice");
    assert_eq!(scene.rang(), [1, 1, 1], "each once, though the last one was asked twice");
    scene.servers.iter().for_each(|server| server.answer(true));
    assert!(scene.notify(1).await.is_notified());
    assert_eq!(scene.rang(), [1, 1, 1], "the same message notifies no more");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_follows_the_specification_is_found_too() {
    let mut scene = Scene::new(1).await;
    scene.world.deaf.lock().insert(TopicName::query(&HashedPublicKey::of(&scene.contact)).topic());
    let began = Instant::now();
    let queried = scene.sender.query(&scene.contact).await.unwrap();
    assert!(queried.has_infos());
    assert_eq!((began.elapsed(), scene.queries()), (Duration::from_secs(6), [0, 1]));
}

#[tokio::test(start_paused = true)]
async fn who_has_unregistered_is_forgotten() {
    let mut scene = Scene::new(2).await;
    assert!(scene.notify(1).await.is_notified());
    scene.receiver.unregister().await.unwrap();
    while !scene.receiver.is_settled() {
        scene.receiver.step().await.unwrap();
    }
    let report = scene.notify(2).await;
    assert_eq!(report.devices[0].outcome, Err(Failure::NotRegistered));
    assert_eq!(report.devices[0].failed.len(), 2, "both were asked");
    assert!(scene.sender.known().infos(&scene.contact).is_empty());
    assert!(scene.notify(3).await.devices.is_empty(), "and asked about in vain");
    assert_eq!(scene.rang().iter().sum::<usize>(), 1);
}

#[tokio::test(start_paused = true)]
async fn own_devices_are_not_notified_and_nobody_is_asked() {
    let mut scene = Scene::new(1).await;
    scene.contact = scene.own.public();
    let notification = Notification { kind: NotificationKind::OneToOne, message: MessageId([1; 32]) };
    let sending = scene.sender.notify(&scene.contact, notification, SendSettings::default(), PATIENCE).await;
    assert!(matches!(sending, Err(SenderError::OwnDevices(OwnDevicesError))));
    assert_eq!(scene.queries(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_for_a_while_loses_nothing() {
    let mut scene = Scene::new(1).await;
    scene.sender.query(&scene.contact).await.unwrap();
    scene.world.is_cut.store(true, Ordering::SeqCst);
    let world = scene.world.clone();
    let mending = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(2900)).await;
        world.is_cut.store(false, Ordering::SeqCst);
    });
    let began = Instant::now();
    let report = scene.notify(1).await;
    mending.await.unwrap();
    assert_eq!(notified_by(&report), scene.servers[0].public);
    assert_eq!(report.trouble.as_deref(), Some("the connection is lost"));
    assert_eq!((began.elapsed(), scene.rang()), (Duration::from_secs(3), vec![1]));
    let report = scene.notify(2).await;
    assert!(report.is_notified());
    assert_eq!(report.trouble, None);

    scene.world.is_cut.store(true, Ordering::SeqCst);
    let report = scene.notify(3).await;
    assert_eq!(report.devices[0].outcome, Err(Failure::NoAnswer));
    assert!(report.trouble.is_some());
    assert!(matches!(scene.sender.query(&scene.contact).await, Err(SenderError::Network(_))));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_whose_answer_would_not_come() {
    let mut scene = Scene::new(2).await;
    scene.sender.query(&scene.contact).await.unwrap();
    let began = Instant::now();
    scene.world.unheard.store(1, Ordering::SeqCst);
    assert!(scene.notify(1).await.is_notified());
    assert_eq!((began.elapsed(), scene.rang().iter().sum::<usize>()), (Duration::ZERO, 1));
    scene.world.unheard.store(2, Ordering::SeqCst);
    let report = scene.notify(2).await;
    assert!(report.is_notified() && report.trouble.is_some());
    assert_eq!(scene.rang().iter().sum::<usize>(), 2, "the first server was not asked");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_while_others_were_published_counts() {
    let mut scene = Scene::new(2).await;
    scene.sender.query(&scene.contact).await.unwrap();
    *scene.world.confirmation.lock() = Duration::from_secs(10);
    let report = scene.notify(1).await;
    assert_eq!(report.devices[0].failed, []);
    assert_eq!(scene.rang().iter().sum::<usize>(), 1);
}

#[tokio::test(start_paused = true)]
async fn topics_of_answers_are_left_however_it_ends() {
    let mut scene = Scene::new(1).await;
    let before = scene.world.subscriptions();
    scene.world.is_cut.store(true, Ordering::SeqCst);
    assert!(scene.sender.query(&scene.contact).await.is_err());
    assert_eq!(scene.world.subscriptions(), before, "after an error");
    scene.world.is_cut.store(false, Ordering::SeqCst);
    scene.notify(1).await;
    assert_eq!(scene.world.subscriptions(), before, "after a sending");
    timeout(Duration::from_secs(1), scene.sender.query(&scene.contact)).await.unwrap_err();
    assert_eq!(scene.world.subscriptions(), before + 1, "somebody has lost patience");
    scene.notify(2).await;
    assert_eq!(scene.world.subscriptions(), before, "and comes back");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_said_with_the_report() {
    let mut scene = Scene::new(1).await;
    scene.sender.query(&scene.contact).await.unwrap();
    std::fs::remove_dir_all(scene.sender_state.path()).unwrap();
    // A file in the place of the directory.
    std::fs::write(scene.sender_state.path(), "").unwrap();
    let report = scene.notify(1).await;
    assert!(report.is_notified());
    assert!(report.not_kept.is_some());
    std::fs::remove_file(scene.sender_state.path()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn patience_has_an_end() {
    let mut scene = Scene::new(1).await;
    scene.sender.query(&scene.contact).await.unwrap();
    scene.servers[0].run(false);
    let began = Instant::now();
    let notification = Notification { kind: NotificationKind::OneToOne, message: MessageId([1; 32]) };
    let patience = Duration::from_secs(2);
    let sending = scene.sender.notify(&scene.contact, notification, SendSettings::default(), patience);
    let report = sending.await.unwrap();
    assert_eq!(report.devices[0].outcome, Err(Failure::GivenUp));
    assert_eq!(began.elapsed(), patience);
}
