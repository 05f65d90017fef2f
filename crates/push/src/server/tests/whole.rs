//! The server with its real store, its real provider and a gorush's stand-in.

use std::path::Path;

use poste_doubles::gorush::{Fault, Feedback, Gorush, Settings as DoubleSettings};
use poste_provider::{
    DeadTokenPolicy, DeadTokens, FeedbackHook, FeedbackSettings, GorushProvider, GorushSettings,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::{Options, RedbStore};

fn open(dir: &Path) -> Arc<RedbStore> {
    Arc::new(RedbStore::open(dir, &SERVER.public(), Options::default()).unwrap())
}

fn provider(gorush: &Gorush) -> (Arc<GorushProvider>, Arc<DeadTokens>, poste_provider::Metrics) {
    let metrics = poste_provider::Metrics::new();
    let dead_tokens = Arc::new(DeadTokens::new(DeadTokenPolicy::default(), metrics.clone()));
    let settings = GorushSettings {
        url: gorush.url(),
        retry_pause: Duration::ZERO,
        call_timeout: Duration::from_millis(300),
        ..GorushSettings::default()
    };
    let key = NotificationKey::new([5; 32]);
    let provider = GorushProvider::start(settings, key, dead_tokens.clone(), metrics.clone()).unwrap();
    (Arc::new(provider), dead_tokens, metrics)
}

/// Registers, asks, notifies, comes again after a crash, takes the registration back.
#[tokio::test]
async fn the_whole_way_and_a_crash_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let gorush = Gorush::start(DoubleSettings::default()).await.unwrap();
    let (receiver, sender) = (Client::new(1), Client::new(2));
    let first = receiver.sealed_registration(&receiver.registration(1));
    let requests = [receiver.notification()];
    {
        let rig = Rig::on(open(dir.path()), provider(&gorush).0).await;
        assert_eq!(receiver.send_registration(&rig, &first).await, Ok(()));
        let info = sender.query(&rig, &receiver.query_topic(), &[&receiver]).await.unwrap();
        assert_eq!((info.len(), &info[0].access_token[..]), (1, client::ACCESS_TOKEN));
        assert_eq!(sender.notify(&rig, b"id", &requests).await, [(true, 0)]);
        // The gateway goes away before the answer leaves.
        rig.world.is_gateway_away.store(true, Ordering::Relaxed);
        let lost = sender.request(b"lost", &requests);
        assert!(rig.bring(client::partitioned(), client::seal(&lost), NOW).await.is_err());
    }
    assert_eq!(gorush.wait_for_pushes(2).await.len(), 2);

    let rig = Rig::on(open(dir.path()), provider(&gorush).0).await;
    assert!(rig.server.wants(receiver.query_topic().topic()));
    assert_eq!(sender.notify(&rig, b"id", &requests).await, [(true, 0)]);
    assert_eq!(sender.notify(&rig, b"lost", &requests).await, [(true, 0)]);
    assert_eq!(receiver.send_registration(&rig, &first).await, Ok(()));
    assert_eq!(receiver.register(&rig, &receiver.unregistration(2)).await, Ok(()));
    assert_eq!(sender.notify(&rig, b"id", &[]).await, []);
    assert_eq!(sender.notify(&rig, b"later", &requests).await, [(false, 3)]);
    assert!(sender.query(&rig, &receiver.query_topic(), &[&receiver]).await.is_err());
    gorush.settle().await;
    assert_eq!(gorush.pushes().len(), 2);
}

/// Whatever a gorush does, a device rings at most once, and the report says what is known.
#[tokio::test]
async fn each_failure_of_a_gorush_has_its_report() {
    const SUCCESS: (bool, i32) = (true, 0);
    const UNKNOWN: (bool, i32) = (false, 0);
    const INTERNAL_ERROR: (bool, i32) = (false, 2);
    let gorush = Gorush::start(DoubleSettings::default()).await.unwrap();
    let rig = Rig::on(Arc::new(MemoryStore::default()), provider(&gorush).0).await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    let requests = [receiver.notification()];
    for (number, (fault, report, later)) in [
        (Fault::BadRequest, INTERNAL_ERROR, SUCCESS),
        (Fault::ServerError, UNKNOWN, UNKNOWN),
        (Fault::WrongCount(-1), UNKNOWN, UNKNOWN),
        (Fault::WrongCount(1), SUCCESS, SUCCESS),
        (Fault::CloseBeforeAnswer, UNKNOWN, UNKNOWN),
        (Fault::CloseInAnswer, UNKNOWN, UNKNOWN),
        (Fault::Gibberish, UNKNOWN, UNKNOWN),
        (Fault::Slow(Duration::from_millis(600)), UNKNOWN, UNKNOWN),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("message {number}");
        let before = gorush.pushes().len();
        gorush.set_fault(Some(fault));
        assert_eq!(sender.notify(&rig, id.as_bytes(), &requests).await, [report], "{fault:?}");
        gorush.set_fault(None);
        assert_eq!(sender.notify(&rig, id.as_bytes(), &requests).await, [later], "{fault:?}");
        gorush.settle().await;
        let rang = gorush.pushes().len() - before;
        assert!(rang <= 1 && (later != SUCCESS || rang == 1), "{fault:?} rang {rang} times");
    }
    let before = gorush.pushes().len();
    gorush.go_down().await;
    assert_eq!(sender.notify(&rig, b"down", &requests).await, [INTERNAL_ERROR]);
    assert_eq!(sender.notify(&rig, b"down", &requests).await, [INTERNAL_ERROR]);
    gorush.come_back().await.unwrap();
    assert_eq!(sender.notify(&rig, b"down", &requests).await, [SUCCESS]);
    assert_eq!(sender.notify(&rig, b"down", &requests).await, [SUCCESS]);
    gorush.settle().await;
    assert_eq!(gorush.pushes().len(), before + 1, "once");
}

/// One gorush call carries all devices of a request, and gorush drops some of them.
#[tokio::test]
async fn devices_that_gorush_drops_are_not_called_notified() {
    for (is_sync, is_android_enabled) in [(false, false), (true, true), (true, false)] {
        let settings = DoubleSettings { is_sync, is_android_enabled, ..DoubleSettings::default() };
        let gorush = Gorush::start(settings).await.unwrap();
        let rig = Rig::on(Arc::new(MemoryStore::default()), provider(&gorush).0).await;
        let sender = Client::new(9);
        let (good, other) = (Client::new(1), Client::new(2));
        good.register(&rig, &good.registration(1)).await.unwrap();
        let mut registration = other.registration(1);
        match is_android_enabled {
            // Its platform is switched off there.
            false => registration.token_type = 2,
            // Its token is refused.
            true => registration.device_token = "baddevice".into(),
        }
        other.register(&rig, &registration).await.unwrap();
        let requests = [good.notification(), other.notification()];
        for _ in 0..2 {
            // Of the second nobody knows, so nobody tries again.
            assert_eq!(sender.notify(&rig, b"id", &requests).await, [(true, 0), (false, 0)]);
        }
        gorush.settle().await;
        assert_eq!(gorush.pushes().len(), 1 + usize::from(is_android_enabled), "each once at most");
    }
}

/// From a push that failed at Apple to NOT_REGISTERED for the next sender.
#[tokio::test]
async fn a_dead_token_ends_in_not_registered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/feedback", listener.local_addr().unwrap());
    let settings = DoubleSettings {
        feedback: Some(Feedback { url, headers: Vec::new() }),
        dead_prefix: "device".into(),
        ..DoubleSettings::default()
    };
    let gorush = Gorush::start(settings).await.unwrap();
    let (provider, dead_tokens, metrics) = provider(&gorush);
    let key = NotificationKey::new([5; 32]);
    let (hook, mut events) = FeedbackHook::new(FeedbackSettings::default(), key, dead_tokens, metrics);
    let stop = CancellationToken::new();
    let hook = tokio::spawn(hook.serve(listener, stop.clone()));

    let rig = Rig::on(Arc::new(MemoryStore::default()), provider).await;
    let (receiver, sender) = (Client::new(1), Client::new(2));
    receiver.register(&rig, &receiver.registration(1)).await.unwrap();
    let request = sender.request(b"id", &[receiver.notification()]);
    let later = NOW + Duration::from_secs(5);
    rig.bring(client::partitioned(), client::seal(&request), later).await.unwrap();
    assert!(sender.read_reports(&rig, b"id")[0].success, "gorush took it");
    let event = events.recv().await.unwrap();
    assert_eq!(rig.server.take_feedback(&event).await.unwrap(), 1);
    assert_eq!(sender.notify(&rig, b"next", &[receiver.notification()]).await, [(false, 3)]);
    stop.cancel();
    hook.await.unwrap();
}
