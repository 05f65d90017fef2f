//! Administration of a server in a network that is nothing but this file: what one publishes, the other gets.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use poste_codec::SecretKey;
use poste_provider::{DirectoryProvider, NotificationKey};
use poste_wire::Topic;
use poste_wire::status::{HashedPublicKey, InstallationId};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tonic::Code;

use super::*;
use crate::answer::{Answer, AnswerKind, PublishError};
use crate::metrics::Metrics;
use crate::running::LoopbackMail;
use crate::server::{Handled, Incoming, Parts, Settings};
use crate::store::{
    Caps, DeviceData, DeviceId, MemoryStore, NewRegistration, Registered, TokenType, TopicKeys,
};
use crate::topics::{FeedError, TopicFeed};
use crate::upkeep::NotUnregistered;

const START: Duration = Duration::from_secs(1_700_000_000);

/// Brings what is published to the server, and to whoever listens.
#[derive(Debug, Default)]
struct Network {
    server: OnceLock<Arc<PushServer>>,
    listeners: Mutex<Vec<(Topic, mpsc::Sender<Bytes>)>>,
    is_away: AtomicBool,
    /// It loses what the server answers.
    is_deaf: AtomicBool,
    /// It keeps back what is said to the server.
    is_slow: AtomicBool,
    kept_back: Mutex<Vec<Incoming>>,
    is_paused: AtomicBool,
    in_progress: AtomicUsize,
    ended: Notify,
}

#[derive(Debug, Clone)]
struct Net(Arc<Network>);

#[tonic::async_trait]
impl Publisher for Net {
    async fn publish(&self, answer: Answer) -> Result<(), PublishError> {
        if self.0.is_away.load(Ordering::Relaxed) {
            return Err(PublishError::Away("the gateway is away".into()));
        }
        let server = self.0.server.get().unwrap();
        for frame in answer.frames.into_iter().map(Bytes::from) {
            if server.wants(answer.topic) {
                let incoming =
                    Incoming { topic: answer.topic, data: frame.clone(), made_at: START, position: 1 };
                if self.0.is_slow.load(Ordering::Relaxed) {
                    self.0.kept_back.lock().push(incoming);
                    continue;
                }
                // As from a stream: the one who publishes does not wait for what comes of it.
                let server = Arc::clone(server);
                tokio::spawn(async move { server.handle(incoming, START).await.unwrap() });
            }
            let listeners = self.0.listeners.lock();
            for (_, mail) in listeners.iter().filter(|(topic, _)| *topic == answer.topic) {
                if !self.0.is_deaf.load(Ordering::Relaxed) {
                    mail.try_send(frame.clone()).unwrap();
                }
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl TopicFeed for Net {
    async fn join(&self, _topics: &[Topic]) -> Result<(), FeedError> {
        Ok(())
    }

    async fn leave(&self, _topics: &[Topic]) {}
}

#[tonic::async_trait]
impl Running for Net {
    fn status(&self) -> FeedStatus {
        let is_away = self.0.is_away.load(Ordering::Relaxed);
        FeedStatus {
            connected: !is_away,
            topics: self.0.server.get().map_or(0, |server| server.topics().len() as u64),
            seq: 41,
            head: 42,
            store_id: Some([7; 16]),
            in_progress: self.0.in_progress.load(Ordering::Relaxed),
            paused: self.0.is_paused.load(Ordering::Relaxed),
            last_error: is_away.then(|| "connection refused".to_owned()),
            ..FeedStatus::default()
        }
    }

    fn pause(&self, paused: bool) {
        self.0.is_paused.store(paused, Ordering::Relaxed);
    }

    async fn drained(&self) {
        while self.0.in_progress.load(Ordering::Relaxed) > 0 {
            self.0.ended.notified().await;
        }
    }

    fn listen(&self, topic: Topic) -> LoopbackMail {
        let (sender, mail) = mpsc::channel(16);
        self.0.listeners.lock().push((topic, sender));
        let network = Arc::clone(&self.0);
        LoopbackMail::new(mail, move || network.listeners.lock().retain(|(joined, _)| *joined != topic))
    }
}

struct Rig {
    network: Arc<Network>,
    store: MemoryStore,
    inside: Inside,
    admin: AdminGrpc,
    notifications: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        Self::with(MemoryStore::default()).await
    }

    async fn with(store: MemoryStore) -> Self {
        let network = Arc::<Network>::default();
        let net = Arc::new(Net(Arc::clone(&network)));
        let notifications = tempfile::tempdir().unwrap();
        let directory = DirectoryProvider::open(notifications.path(), poste_provider::Metrics::new());
        let provider = Loopback::new(Arc::new(directory.unwrap()));
        let parts = Parts {
            identity: SecretKey::from_bytes(&[200; 32]).unwrap(),
            store: Arc::new(store.clone()),
            provider: Arc::new(provider.clone()),
            notification_key: NotificationKey::new([5; 32]),
            publisher: net.clone(),
            feed: net.clone(),
            metrics: Metrics::default(),
        };
        let server = Arc::new(PushServer::start(parts, Settings::default()).await.unwrap());
        network.server.set(Arc::clone(&server)).unwrap();
        let inside = Inside {
            server,
            store: Arc::new(store.clone()),
            provider,
            publisher: net.clone(),
            feed: net,
            clock: Clock::manual(START).0,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self { network, store, admin: AdminGrpc::new(inside.clone()), inside, notifications }
    }

    /// The outcome of each step of a self-test, and its problem.
    async fn self_test(&self) -> Vec<(String, v1::StepOutcome, String)> {
        let steps = self.admin.self_test(Request::new(v1::SelfTestRequest {})).await.unwrap().into_inner();
        let steps: Vec<_> = steps.map(Result::unwrap).collect().await;
        steps.into_iter().map(|step| (step.step.clone(), step.outcome(), step.problem)).collect()
    }
}

fn owner() -> HashedPublicKey {
    HashedPublicKey([9; 64])
}

fn device(installation: &str) -> DeviceId {
    DeviceId { key: owner(), installation: InstallationId::any(installation).unwrap() }
}

async fn register(store: &MemoryStore, installation: &str, token_type: TokenType) {
    let registration = NewRegistration {
        device: device(installation),
        version: 3,
        token_type,
        data: DeviceData::new(b"a secret token".to_vec()),
        topic_keys: TopicKeys::new(&[1; 32], &[2; 32]),
        at_unix_s: START.as_secs(),
    };
    assert!(matches!(store.register(registration).await.unwrap(), Registered::Done(_)));
}

fn asks(installation_id: Option<&str>) -> Request<v1::ForgetRequest> {
    let hashed_key = Bytes::copy_from_slice(owner().as_bytes());
    Request::new(v1::ForgetRequest { hashed_key, installation_id: installation_id.map(str::to_owned) })
}

#[tokio::test]
async fn who_it_is_and_how_much_it_keeps() {
    let rig = Rig::start().await;
    register(&rig.store, "one", TokenType::Apn).await;
    let push = PushGrpc::new(rig.inside.clone());
    let info = push.server_info(Request::new(v1::ServerInfoRequest {})).await.unwrap().into_inner();
    assert_eq!(info.public_key[..], rig.inside.server.public.to_compressed());
    assert_eq!((info.topics, info.accepting), (2, true));
    rig.network.is_away.store(true, Ordering::Relaxed);
    let info = push.server_info(Request::new(v1::ServerInfoRequest {})).await.unwrap().into_inner();
    assert!(!info.accepting);

    let stats = rig.admin.stats(Request::new(v1::StatsRequest {})).await.unwrap().into_inner();
    assert_eq!(stats.store.unwrap().registrations, 1);
    let feed = stats.feed.unwrap();
    assert_eq!((feed.seq, feed.head, &feed.archive_store_id[..]), (41, 42, &[7; 16][..]));
    assert_eq!((feed.connected, feed.last_error.as_str()), (false, "connection refused"));
}

#[tokio::test]
async fn a_persons_devices_are_shown_without_secrets_and_forgotten() {
    let rig = Rig::start().await;
    register(&rig.store, "one", TokenType::Apn).await;
    register(&rig.store, "two", TokenType::Firebase).await;
    rig.store.note_successes(vec![device("two")], START.as_secs() + 5).await.unwrap();
    let show = async |hashed_key: &[u8]| {
        let hashed_key = Bytes::copy_from_slice(hashed_key);
        rig.admin.registration(Request::new(v1::RegistrationRequest { hashed_key })).await
    };
    let shown = show(owner().as_bytes()).await.unwrap().into_inner();
    let [one, two] = &shown.devices[..] else { panic!("two devices: {shown:?}") };
    let began = 1_700_000_000_000_000_000;
    assert_eq!((one.installation_id.as_str(), one.version, one.token_type()), ("one", 3, v1::TokenType::Apn));
    assert_eq!((one.registered_ns, one.reached_ns, one.data_bytes), (began, None, 14));
    assert_eq!((two.token_type(), two.reached_ns), (v1::TokenType::Firebase, Some(began + 5_000_000_000)));
    assert_eq!(show(&[9; 32]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(show(&[8; 64]).await.unwrap_err().code(), Code::NotFound);

    for unknown in ["", "three"] {
        let refused = rig.admin.forget(asks(Some(unknown))).await.unwrap_err();
        let code = if unknown.is_empty() { Code::InvalidArgument } else { Code::NotFound };
        assert_eq!(refused.code(), code, "{unknown:?}: {refused}");
    }
    assert_eq!(rig.admin.forget(asks(Some("one"))).await.unwrap().into_inner().forgotten, 1);
    assert_eq!(rig.admin.forget(asks(None)).await.unwrap().into_inner().forgotten, 1);
    assert_eq!(rig.admin.forget(asks(None)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rig.store.version(&device("one")).await.unwrap(), Some(3), "older ones stay rejected");
}

#[tokio::test]
async fn a_drain_waits_for_what_is_at_work_and_a_resume_for_nothing() {
    let rig = Rig::start().await;
    rig.network.in_progress.store(1, Ordering::Relaxed);
    let drain = |resume| {
        let admin = rig.admin.clone();
        async move { admin.drain(Request::new(v1::DrainRequest { resume })).await }
    };
    let draining = tokio::spawn(drain(false));
    while !rig.inside.feed.status().paused {
        tokio::task::yield_now().await;
    }
    assert!(!draining.is_finished());
    rig.network.in_progress.store(0, Ordering::Relaxed);
    rig.network.ended.notify_one();
    let feed = draining.await.unwrap().unwrap().into_inner().feed.unwrap();
    assert_eq!((feed.paused, feed.in_progress), (true, 0));
    assert_eq!(rig.self_test().await[1].1, v1::StepOutcome::Failed, "nothing would answer");

    rig.network.in_progress.store(1, Ordering::Relaxed);
    assert!(!drain(true).await.unwrap().into_inner().feed.unwrap().paused);
    rig.inside.stop.cancel();
    assert_eq!(drain(false).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_self_test_goes_all_the_way_and_leaves_nothing() {
    let rig = Rig::start().await;
    let steps = rig.self_test().await;
    for (step, outcome, problem) in &steps {
        assert_eq!((*outcome, problem.as_str()), (v1::StepOutcome::Passed, ""), "{step}");
    }
    let names: Vec<_> = steps.iter().map(|(step, ..)| step.as_str()).collect();
    assert_eq!(names, ["provider", "feed", "register", "query", "notify", "ring", "unregister"]);
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.ended_claims), (0, 1));
    assert!(rig.network.listeners.lock().is_empty());
    assert_eq!(
        std::fs::read_dir(rig.notifications.path()).unwrap().count(),
        0,
        "no device was asked to ring"
    );
    assert_eq!(rig.self_test().await.len(), 7, "another one may follow");
}

#[tokio::test]
async fn a_self_test_names_the_step_that_fails() {
    let rig = Rig::start().await;
    std::fs::remove_dir(rig.notifications.path()).unwrap();
    let outcomes = |steps: &[(String, v1::StepOutcome, String)]| {
        steps.iter().map(|(_, outcome, _)| *outcome).collect::<Vec<_>>()
    };
    let steps = rig.self_test().await;
    let [provider, others @ ..] = &outcomes(&steps)[..] else { panic!("steps") };
    assert_eq!(*provider, v1::StepOutcome::Failed);
    assert!(others.iter().all(|outcome| *outcome == v1::StepOutcome::Passed), "{steps:?}");

    rig.network.is_away.store(true, Ordering::Relaxed);
    let steps = rig.self_test().await;
    assert!(steps[1].2.contains("connection refused"), "{steps:?}");
    assert!(outcomes(&steps)[2..].iter().all(|outcome| *outcome == v1::StepOutcome::Skipped), "{steps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_self_test_without_an_answer_forgets_what_it_registered() {
    let rig = Rig::start().await;
    rig.network.is_deaf.store(true, Ordering::Relaxed);
    let steps = rig.self_test().await;
    let (_, outcome, problem) = &steps[2];
    assert_eq!((*outcome, problem.as_str()), (v1::StepOutcome::Failed, "nothing came within 20 s"));
    until_the_next_may_begin(&rig).await;
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_comes_after_the_self_test_does_not_stay() {
    let rig = Rig::start().await;
    rig.network.is_slow.store(true, Ordering::Relaxed);
    let steps = rig.self_test().await;
    assert_eq!(steps[2].1, v1::StepOutcome::Failed);
    until_the_next_may_begin(&rig).await;
    let late = std::mem::take(&mut *rig.network.kept_back.lock());
    assert_eq!(late.len(), 1);
    for incoming in late {
        let handled = rig.inside.server.handle(incoming, START).await.unwrap();
        assert_eq!(handled, Handled::Answered(AnswerKind::Registration));
    }
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (0, 1));
    assert_eq!(rig.inside.server.topics().len(), 2);
}

/// It ends with the process, at once.
#[tokio::test]
async fn what_a_self_test_leaves_behind_is_cleared_up_at_the_next_start_or_by_the_next_one() {
    let rig = Rig::start().await;
    let leaves_something_behind = async || {
        let client = client::Client::of(&rig.inside.server.identity);
        let version = rig.store.version(&client.device()).await.unwrap();
        let client = client.behind(version);
        rig.inside.publisher.publish(client.registration("token").unwrap().envelopes).await.unwrap();
        let is_there = async {
            while rig.store.counts().await.unwrap().registrations == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), is_there).await.expect("it is registered");
    };
    leaves_something_behind().await;
    clear_up(&rig.inside.server, START).await.unwrap();
    assert_eq!(rig.store.counts().await.unwrap().registrations, 0);
    assert_eq!(rig.inside.server.topics().len(), 2);

    leaves_something_behind().await;
    let steps = rig.self_test().await;
    assert!(steps.iter().all(|(_, outcome, _)| *outcome == v1::StepOutcome::Passed), "{steps:?}");
    let counts = rig.store.counts().await.unwrap();
    assert_eq!((counts.registrations, counts.tombstones), (0, 1));
}

/// Whoever has no version here is registered by whatever comes late.
#[tokio::test]
async fn a_device_whose_version_finds_no_room_is_not_unregistered() {
    let caps = Caps { all_tombstones: 0, ..Caps::default() };
    let rig = Rig::with(MemoryStore::new(caps)).await;
    let unregistered = rig.inside.server.unregister_device(&device("one"), 1, START).await;
    assert!(matches!(unregistered, Err(NotUnregistered::Full)), "{unregistered:?}");
    register(&rig.store, "two", TokenType::Apn).await;
    rig.inside.server.unregister_device(&device("two"), 1, START).await.unwrap();
    assert_eq!(rig.store.counts().await.unwrap().registrations, 1, "a version that is known already");
}

#[tokio::test]
async fn a_self_test_that_is_stopped_ends_before_the_store_does() {
    let rig = Rig::start().await;
    rig.network.is_slow.store(true, Ordering::Relaxed);
    let _steps = rig.admin.self_test(Request::new(v1::SelfTestRequest {})).await.unwrap();
    while rig.network.kept_back.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    rig.inside.stop.cancel();
    rig.inside.tasks.close();
    rig.inside.tasks.wait().await;
    assert_eq!(rig.store.counts().await.unwrap().tombstones, 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_tells_how_much_is_at_work() {
    let rig = Rig::start().await;
    rig.network.in_progress.store(3, Ordering::Relaxed);
    for (of_the_call, waits) in
        [(None, 60_000), (Some("2H"), 60_000), (Some("9S"), 8500), (Some("?"), 60_000)]
    {
        let mut request = Request::new(v1::DrainRequest { resume: false });
        if let Some(deadline) = of_the_call {
            request.metadata_mut().insert("grpc-timeout", deadline.parse().unwrap());
        }
        let began = Instant::now();
        let late = rig.admin.drain(request).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert!(late.message().contains("3 are still at work"), "{late}");
        // Timers have a resolution of a millisecond.
        assert_eq!(began.elapsed().as_millis() / 10, waits / 10, "{of_the_call:?}");
    }
}

#[tokio::test]
async fn one_self_test_at_a_time_and_none_beyond_the_end() {
    let rig = Rig::start().await;
    rig.network.is_deaf.store(true, Ordering::Relaxed);
    let mut running = rig.admin.self_test(Request::new(v1::SelfTestRequest {})).await.unwrap().into_inner();
    assert_eq!(running.next().await.unwrap().unwrap().step, "provider");
    let second = rig.admin.self_test(Request::new(v1::SelfTestRequest {})).await;
    assert_eq!(second.err().unwrap().code(), Code::ResourceExhausted);
    rig.inside.stop.cancel();
    let ends: Vec<_> = running.collect().await;
    assert_eq!(ends.last().unwrap().as_ref().unwrap_err().code(), Code::Unavailable);
    until_the_next_may_begin(&rig).await;
}

/// The permit is given back at the very end.
async fn until_the_next_may_begin(rig: &Rig) {
    let _permit = rig.admin.self_tests.acquire().await.unwrap();
}
