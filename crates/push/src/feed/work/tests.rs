use std::path::PathBuf;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use poste_rpc::client::Target;
use poste_service::Clock;
use poste_service::metrics::Metrics;
use poste_service::readiness::Readiness;
use poste_wire::status::segment::split;

use super::*;
use crate::answer::AnswerKind;
use crate::feed::places::PATIENCE;
use crate::feed::{Feed, FeedChecks, FeedSettings, MAX_LONG_QUERIES, MAX_QUERIES};
use crate::query::Found;
use crate::server::tests::client::{Client, partitioned, seal};
use crate::server::tests::{Event, NOW, Rig, World};
use crate::store::{MemoryStore, RegistrationStore};

/// Places for three requests.
const MAX_IN_PROGRESS: usize = 4;

/// What works, on a feed that nothing comes from.
struct Bench {
    work: Work,
    world: Arc<World>,
    store: MemoryStore,
    stop: CancellationToken,
    seq: u64,
}

impl Bench {
    async fn of(rig: Rig) -> Self {
        let readiness = Readiness::new();
        let [archive, store, intake, feed] =
            ["archive", "store", "intake", "feed"].map(|name| readiness.add(name));
        let settings = FeedSettings {
            archive: Target::lazy("http://127.0.0.1:1").unwrap(),
            archive_store: None,
            data: PathBuf::new(),
            max_topics: 4,
            max_in_progress: MAX_IN_PROGRESS,
            clock: Clock::manual(NOW).0,
        };
        let checks = FeedChecks { archive, store, intake, feed };
        let scope = Metrics::new().scope("push");
        let Feed(shared) = Feed::open(settings, &MemoryStore::default(), checks, &scope).await.unwrap();
        let stop = CancellationToken::new();
        let Rig { server, world, store, .. } = rig;
        let work = Work::new(shared, Arc::new(server), stop.clone());
        Self { work, world, store, stop, seq: 0 }
    }

    /// A message for the server comes.
    fn begin(&mut self, message: &[u8]) {
        self.seq += 1;
        self.work.shared.state.lock().in_progress.insert(self.seq, Instant::now());
        let made_s = u32::try_from(NOW.as_secs()).unwrap();
        let envelope = Envelope::new(made_s + 15, 15, partitioned(), &seal(message), 0);
        let record = Record { seq: self.seq, body: envelope.rlp().clone(), ..Record::default() };
        self.work.begin(partitioned(), record);
    }

    /// Waits until it is so, while the paused clock stands still.
    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let began = std::time::Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < Duration::from_secs(30), "it never came to be so");
            tokio::task::yield_now().await;
        }
    }

    fn in_progress(&self) -> usize {
        self.work.shared.state.lock().in_progress.len()
    }

    fn may_take(&self) -> bool {
        self.work.shared.state.lock().may_take(MAX_IN_PROGRESS)
    }

    fn answers(&self, kind: AnswerKind) -> usize {
        let events = self.world.events.lock();
        events.iter().filter(|event| matches!(event, Event::Published(answer) if answer.kind == kind)).count()
    }
}

/// On a bench where a provider that answers nobody has all the requests that it gets.
async fn with_a_provider_that_hangs() -> (Bench, Client, Client) {
    let rig = Rig::new().await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    rig.world.take_answers();
    let gate = &rig.world.gate;
    gate.forget_permits(gate.available_permits());
    let mut bench = Bench::of(rig).await;
    for message in 0..3 {
        bench.begin(&sender.request(&[message], &[receiver.notification()]));
    }
    bench.until(|bench| bench.world.sent_count() == 3).await;
    (bench, receiver, sender)
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_holds_up_nobody_but_its_requests() {
    let (mut bench, receiver, sender) = with_a_provider_that_hangs().await;
    let began = Instant::now();
    for message in 3..20 {
        bench.begin(&sender.request(&[message], &[receiver.notification()]));
    }
    bench.begin(&sender.sealed_registration(&sender.registration(1)));
    bench.until(|bench| bench.answers(AnswerKind::Registration) == 1).await;
    bench.until(|bench| bench.work.shared.state.lock().for_the_provider.count == 17).await;
    assert!(bench.may_take() && began.elapsed() == Duration::ZERO);

    tokio::time::sleep(PATIENCE).await;
    bench.until(|bench| bench.answers(AnswerKind::Request) == 17).await;
    let began = Instant::now();
    for message in 20..200 {
        bench.begin(&sender.request(&[message], &[receiver.notification()]));
    }
    bench.until(|bench| bench.answers(AnswerKind::Request) == 197).await;
    assert!(bench.may_take() && began.elapsed() == Duration::ZERO, "nobody waits any more");
    assert_eq!((bench.in_progress(), bench.world.sent_count()), (3, 3));

    // What is being sent is not said to be refused, whoever asks again: the first request gets the report.
    bench.begin(&Client::new(3).request(&[0], &[receiver.notification()]));
    bench.until(|bench| bench.in_progress() == 3).await;
    assert_eq!(bench.answers(AnswerKind::Request), 197);

    // What was turned away may be asked for again.
    bench.world.gate.add_permits(100);
    bench.until(|bench| bench.in_progress() == 0).await;
    bench.begin(&sender.request(&[199], &[receiver.notification()]));
    bench.until(|bench| bench.world.sent_count() == 4).await;
    bench.work.all().await;
}

/// Queries about somebody with so much to read that it takes for ever.
#[tokio::test(start_paused = true)]
async fn queries_that_wait_hold_up_nobody_else() {
    let rig = Rig::new().await;
    let (owner, other) = (Client::new(1), Client::new(2));
    owner.register(&rig, &owner.registration(1)).await.unwrap();
    rig.world.take_answers();
    let mut bench = Bench::of(rig).await;
    let server = Arc::clone(&bench.work.server);
    let mut reading = Box::pin(server.look_ups.of(owner.hash(), async || std::future::pending().await));
    assert!((&mut reading).now_or_never().is_none());
    for asker in 10..30 {
        bench.begin(&Client::new(asker).query_message(&[&owner]));
    }
    bench.begin(&other.sealed_registration(&other.registration(1)));
    bench.begin(&other.request(b"id", &[owner.notification()]));
    bench
        .until(|bench| bench.answers(AnswerKind::Registration) + bench.answers(AnswerKind::Request) == 2)
        .await;
    assert!(bench.may_take() && bench.answers(AnswerKind::Query) == 0);
    drop(reading);
    bench.until(|bench| bench.answers(AnswerKind::Query) == 20).await;
    bench.work.all().await;
    assert_eq!(bench.in_progress(), 0);
}

/// Queries about somebody with much to read, which take the whole lane of those: more than may wait.
#[tokio::test(start_paused = true)]
async fn queries_about_owners_with_much_to_read_hold_up_no_other_query() {
    let rig = Rig::new().await;
    let (owner, other, asker) = (Client::new(1), Client::new(2), Client::new(3));
    for client in [&owner, &other] {
        client.register(&rig, &client.registration(1)).await.unwrap();
    }
    rig.world.take_answers();
    let mut bench = Bench::of(rig).await;
    let server = Arc::clone(&bench.work.server);
    let long = async || Ok(Found { bytes: usize::MAX, ..Found::default() });
    server.look_ups.of(owner.hash(), long).await.unwrap();
    let mut reading = Box::pin(server.look_ups.of(owner.hash(), async || std::future::pending().await));
    assert!((&mut reading).now_or_never().is_none());
    let query = asker.query_message(&[&owner]);
    for _ in 0..1 + MAX_LONG_QUERIES + 20 {
        bench.begin(&query);
    }
    bench.until(|bench| bench.in_progress() == 1 + MAX_LONG_QUERIES).await;
    assert_eq!(bench.work.shared.state.lock().for_long_queries.count, MAX_LONG_QUERIES);
    assert!(bench.may_take());
    bench.begin(&asker.query_message(&[&other]));
    bench.begin(&other.sealed_registration(&other.registration(2)));
    bench
        .until(|bench| bench.answers(AnswerKind::Query) + bench.answers(AnswerKind::Registration) == 2)
        .await;
    assert_eq!(bench.in_progress(), 1 + MAX_LONG_QUERIES);
    drop(reading);
    bench.work.all().await;
    assert_eq!((bench.in_progress(), bench.answers(AnswerKind::Query)), (0, 1 + MAX_LONG_QUERIES + 1));
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_many_queries_waits_and_no_query_is_lost() {
    let rig = Rig::new().await;
    let owner = Client::new(1);
    owner.register(&rig, &owner.registration(1)).await.unwrap();
    rig.world.take_answers();
    let mut bench = Bench::of(rig).await;
    let query = Client::new(2).query_message(&[&owner]);
    let places = bench.work.places.clone();
    let place = places.of_queries(false, || None::<()>).await.unwrap();
    bench.begin(&query);
    bench.until(|bench| bench.work.shared.state.lock().for_queries.count == 1).await;
    bench.work.shared.state.lock().for_queries.count += MAX_QUERIES - 1;
    assert!(!bench.may_take());
    // One that was taken at the same time.
    bench.begin(&query);
    bench.until(|bench| bench.work.shared.state.lock().for_queries.count == MAX_QUERIES + 1).await;
    bench.work.shared.state.lock().for_queries.count -= MAX_QUERIES - 1;
    assert!(bench.may_take());
    drop(place);
    bench.work.all().await;
    assert_eq!((bench.in_progress(), bench.answers(AnswerKind::Query)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_provider_at_a_stop_has_the_time_of_the_drain() {
    let (mut bench, receiver, sender) = with_a_provider_that_hangs().await;
    bench.begin(&sender.request(&[3], &[receiver.notification()]));
    bench.until(|bench| bench.work.shared.state.lock().for_the_provider.count == 1).await;
    bench.stop.cancel();
    tokio::time::sleep(PATIENCE / 2).await;
    assert_eq!(bench.in_progress(), 4);
    bench.world.gate.add_permits(4);
    bench.work.all().await;
    assert_eq!((bench.in_progress(), bench.world.sent_count()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_all_gateways_refuse_for_hours_is_given_up() {
    let rig = Rig::new().await;
    rig.world.takes_frames.store(0, Ordering::Relaxed);
    let mut bench = Bench::of(rig).await;
    let client = Client::new(1);
    let pieces = split(client.sealed_registration(&client.registration(1)), 200);
    for piece in &pieces {
        bench.begin(piece);
        bench
            .until(|bench| {
                bench.work.shared.state.lock().for_another_attempt.count == 1 || bench.in_progress() == 0
            })
            .await;
    }
    let began = Instant::now();
    assert_eq!((bench.in_progress(), bench.work.server.checkpoint(100, NOW)), (1, 0));
    bench.work.all().await;
    let minutes = began.elapsed().as_secs() / 60;
    assert!((360..=361).contains(&minutes), "{minutes} min");
    assert_eq!((bench.in_progress(), bench.work.server.checkpoint(100, NOW)), (0, 100));
    assert_eq!(bench.work.shared.metrics.given_up.get(), 1);
    assert_eq!(bench.store.counts().await.unwrap().registrations, 1, "what it asked for was done");
}

#[tokio::test(start_paused = true)]
async fn hours_in_which_no_gateway_could_be_asked_are_no_refusal() {
    let rig = Rig::new().await;
    rig.world.takes_frames.store(0, Ordering::Relaxed);
    let mut bench = Bench::of(rig).await;
    let client = Client::new(1);
    bench.begin(&client.sealed_registration(&client.registration(1)));
    bench.until(|bench| bench.work.shared.state.lock().for_another_attempt.count == 1).await;
    bench.world.is_gateway_away.store(true, Ordering::Relaxed);
    let tried = bench.work.shared.metrics.retries.get();
    tokio::time::advance(2 * REFUSED_FOR).await;
    bench.until(|bench| bench.work.shared.metrics.retries.get() > tried).await;
    bench.world.is_gateway_away.store(false, Ordering::Relaxed);
    let began = Instant::now();
    bench.work.all().await;
    let minutes = began.elapsed().as_secs() / 60;
    assert!((360..=361).contains(&minutes), "{minutes} min");
    assert_eq!(bench.work.shared.metrics.given_up.get(), 1);
}
