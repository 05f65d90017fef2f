//! An outbox whose archive is away, on a disk that fails on purpose. What goes over the stream is tested with a real
//! archive and a scripted one, in the crate's integration tests.

use std::path::{Path, PathBuf};

use poste_archive::{ArchiveConfig, StoreUrl};
use poste_journal::FaultyDisk;
use poste_rpc::client::Target;
use poste_service::readiness::Readiness;
use poste_service::{Clock, Context};
use poste_wire::{Envelope, Topic};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::spool::SpoolOptions;

const NOW: u32 = 1_600_000_000;

struct Away {
    outbox: Arc<Outbox>,
    spooling: Spooling,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<bool>,
}

/// An outbox that sends nothing yet.
fn start(disk: &FaultyDisk, spool_bytes: u64) -> (Arc<Outbox>, Spooling, Readiness, Metrics) {
    let readiness = Readiness::new();
    let metrics = Metrics::new(&poste_service::metrics::Metrics::new().scope("gateway"));
    let opened = Spool::open(SpoolOptions {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from("/spool"),
        max_bytes: spool_bytes,
        writer_id: "c0ffee".to_owned(),
        clock: Clock::manual(Duration::from_secs(NOW.into())).0,
        max_ttl: Duration::from_secs(86_400),
        ready: readiness.add("gateway.spool"),
        version: readiness.add("gateway.spool_version"),
        metrics: metrics.spool.clone(),
    });
    let [store, queue] = ["gateway.archive_store", "gateway.archive_queue"].map(|name| readiness.add(name));
    let store = KnownStore::open(Arc::new(disk.clone()), Path::new("/spool"), None, store).unwrap();
    let (outbox, spooling) = Outbox::start(opened.unwrap(), 1 << 20, store, queue, metrics.clone()).unwrap();
    (outbox, spooling, readiness, metrics)
}

/// An outbox whose archive refuses connections.
async fn away(disk: &FaultyDisk, spool_bytes: u64) -> Away {
    let (outbox, spooling, readiness, metrics) = start(disk, spool_bytes);
    // A port that was just free: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let archive = Target::lazy(&format!("http://127.0.0.1:{port}")).unwrap();
    let stop = CancellationToken::new();
    let (sending, token) = (Arc::clone(&outbox), stop.clone());
    let running = tokio::spawn(async move { sending.run(&archive, &token).await });
    eventually("the archive to be missed", || !outbox.state.lock().direct).await;
    Away { outbox, spooling, readiness, metrics, stop, running }
}

impl Away {
    fn push(&self, number: u32) -> Result<Receipt, QueueFull> {
        let envelope = Envelope::new(NOW + number + 50, 50, Topic([1; 4]), &[0; 300], number.into());
        self.outbox.push(envelope.rlp().clone(), envelope.sent(), None)
    }

    fn is_ready(&self) -> bool {
        self.readiness.report().checks.iter().all(|check| check.ready)
    }

    /// Ends as a gateway does.
    async fn end(self) {
        self.stop.cancel();
        assert!(!soon("the outbox to end", self.running).await.unwrap(), "there is nobody to say goodbye to");
        soon("the spool's thread to end", self.spooling.end()).await;
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap_or_else(|_| panic!("waited 10 s for {what}"))
}

/// Waits until something that has no event of its own is so.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, looking).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_confirmed_from_the_spool_and_held_back() {
    let disk = FaultyDisk::new(1);
    let away = away(&disk, 1 << 20).await;
    assert_eq!(away.outbox.held_back_ns(), None);
    let receipts: Vec<Receipt> = (3..103).map(|number| away.push(number).unwrap()).collect();
    for receipt in receipts {
        assert_eq!(soon("the spool", receipt.stored()).await, Stored::Yes);
    }
    let size = away.outbox.size();
    assert_eq!((size.count, size.unconfirmed, size.connected), (100, 0, false));
    // Whoever has to know it is told although nobody looks at the receipt.
    let (told, learned) = oneshot::channel();
    let envelope = Envelope::new(NOW + 250, 50, Topic([1; 4]), &[0; 300], 200);
    let learn: Learn = Box::new(|stored| told.send(stored).unwrap());
    drop(away.outbox.push(envelope.rlp().clone(), envelope.sent(), Some(learn)).unwrap());
    assert_eq!(soon("the spool", learned).await, Ok(Stored::Yes));
    assert_eq!(away.outbox.held_back_ns(), Some(i64::from(NOW + 3) * NANOS));
    assert_eq!(away.metrics.spool.spooled.get(), 101);
    disk.crash();
    // The disk is another one now: nothing more can be kept, and the end comes all the same.
    away.end().await;
    let again = self::away(&disk, 1 << 20).await;
    assert_eq!(again.outbox.size().count, 101, "what was confirmed is there");
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_an_end_keeps_what_it_can() {
    let disk = FaultyDisk::new(2);
    let away = away(&disk, 40_000).await;
    let mut receipts = Vec::new();
    eventually("the spool to be full", || {
        receipts.extend(away.push(receipts.len() as u32).ok());
        away.outbox.spool.is_faulty()
    })
    .await;
    assert_eq!(away.push(1_000_000).unwrap_err(), QueueFull);
    assert!(!away.is_ready());
    assert_eq!(away.metrics.spool.full_state.get(), 1);
    let spooled = away.metrics.spool.spooled.get() as usize;
    assert!((80..120).contains(&spooled), "{spooled} envelopes in 40,000 bytes");
    for receipt in &receipts[..spooled] {
        assert_eq!(soon("the spool", receipt.stored()).await, Stored::Yes);
    }
    let unconfirmed = away.outbox.size().unconfirmed;
    assert_eq!(spooled + unconfirmed, receipts.len());
    // Nobody is left without an answer, and nothing holds up the end.
    for receipt in &receipts[spooled..] {
        assert_eq!(soon("a refusal", receipt.stored()).await, Stored::NoRoom);
    }
    assert_eq!((away.outbox.size().count, away.outbox.size().unconfirmed), (spooled, 0));
    away.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_held_back_and_outlives_a_stream_that_is_cut_short() {
    let disk = FaultyDisk::new(5);
    let away = away(&disk, 1 << 20).await;
    disk.set_capacity(Some(0));
    let receipt = away.push(0).unwrap();
    eventually("the disk to refuse", || away.outbox.spool.is_faulty()).await;
    assert_eq!(away.outbox.held_back_ns(), None, "not for long");
    away.running.abort();
    // As a stream does that takes them after a long absence of the archive.
    {
        let mut state = away.outbox.state.lock();
        let batch = state.take(1, usize::MAX);
        let long_ago = Instant::now().checked_sub(2 * HELD_BACK_AFTER).unwrap();
        state.send(1, batch.into_iter().map(|pending| Pending { arrived: long_ago, ..pending }).collect());
    }
    assert_eq!(away.outbox.held_back_ns(), Some(i64::from(NOW) * NANOS));
    disk.set_capacity(None);
    eventually("the disk to take something", || !away.outbox.spool.is_faulty()).await;
    soon("the spool's thread to end", away.spooling.end()).await;
    assert_eq!(soon("the spool", receipt.stored()).await, Stored::Yes);
    assert_eq!(away.outbox.size().count, 1);
}

fn archive_config(dir: PathBuf) -> ArchiveConfig {
    let any_port = ([127, 0, 0, 1], 0).into();
    let store = StoreUrl::Local(dir);
    ArchiveConfig { store, grpc_listen: any_port, admin_listen: any_port, ..ArchiveConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_goodbye_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let config = archive_config(dir.path().to_owned());
    let service = poste_archive::start(config, Context::new(Duration::from_secs(5))).await.unwrap();
    let archive = Target::lazy(&format!("http://{}", service.addresses().grpc.unwrap())).unwrap();
    let (outbox, spooling, ..) = start(&FaultyDisk::new(6), 1 << 20);
    let envelope = Envelope::new(NOW + 50, 50, Topic([1; 4]), b"data", 1);
    let receipt = outbox.push(envelope.rlp().clone(), envelope.sent(), None).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(soon("the goodbye", outbox.run(&archive, &stop)).await);
    assert_eq!(receipt.stored().await, Stored::Yes);
    // A packet that is still being looked at must not bring anything for which the archive does not wait.
    assert_eq!(outbox.push(envelope.rlp().clone(), envelope.sent(), None).unwrap_err(), QueueFull);
    soon("the spool's thread to end", spooling.end()).await;
    service.stop(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_stops_acceptance_until_it_takes_something() {
    let disk = FaultyDisk::new(3);
    let away = away(&disk, 1 << 20).await;
    assert_eq!(soon("the spool", away.push(0).unwrap().stored()).await, Stored::Yes);
    disk.set_capacity(Some(600));
    let waiting = away.push(1).unwrap();
    eventually("the disk to refuse", || away.outbox.spool.is_faulty()).await;
    assert_eq!(away.push(2).unwrap_err(), QueueFull);
    assert!(!away.is_ready());
    disk.set_capacity(None);
    assert_eq!(soon("the disk to be tried again", waiting.stored()).await, Stored::Yes);
    assert_eq!(soon("the spool", away.push(3).unwrap().stored()).await, Stored::Yes);
    assert!(away.is_ready());
    away.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_that_fails_confirms_nothing_and_loses_nothing() {
    let disk = FaultyDisk::new(4);
    let away = away(&disk, 1 << 20).await;
    disk.fail_next_syncs(2);
    let mut receipts: Vec<Receipt> = Vec::new();
    for number in 0..20 {
        // Once the disk has refused, nothing more is taken until it has come back.
        let mut receipt = away.push(number);
        eventually("the spool to take envelopes", || {
            if receipt.is_err() {
                receipt = away.push(number);
            }
            receipt.is_ok()
        })
        .await;
        receipts.push(receipt.unwrap());
    }
    for receipt in receipts {
        assert_eq!(soon("the disk to be tried again", receipt.stored()).await, Stored::Yes);
    }
    away.end().await;
    disk.crash();
    let again = self::away(&disk, 1 << 20).await;
    assert_eq!(again.outbox.size().count, 20);
    again.end().await;
}
