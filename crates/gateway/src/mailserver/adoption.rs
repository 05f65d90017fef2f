//! Adoption: gateways that will not come back may have left envelopes in their spools. Each such spool whose directory
//! nobody has locked is drained into the archive under its own writer id; then the archive hears its goodbye and waits
//! for that gateway no longer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use poste_journal::{JournalError, RealDisk};
use poste_rpc::client::Target;
use poste_service::Clock;
use poste_service::readiness::Readiness;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::outbox::Outbox;
use crate::metrics::Metrics;
use crate::spool::{self, Spool, SpoolError, SpoolOptions};

/// How often each directory is tried, and how often it is looked whether the archive can be reached for it.
const INTERVAL: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long one spool may be had at a time, another attempt goes on where this one has ended; and at most, when nothing
/// comes of shorter ones. A gateway that starts waits for its own for longer than the last, and what it takes to end one.
const STRETCH: Duration = Duration::from_secs(10);
const LONGEST_STRETCH: Duration = Duration::from_secs(20);
/// How long a spool that is not empty yet is left alone after a stretch: its own gateway may have come back, and waits for
/// the directory.
const GIVE_WAY: Duration = Duration::from_secs(3);
/// Nothing is added to a spool that is adopted: it waits for the archive in the spool, not in memory.
const QUEUE_BYTES: usize = 0;

/// The spools of other gateways that this one may adopt.
#[derive(Debug)]
pub(crate) struct Adoption {
    /// Data directories.
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) archive: Target,
    /// This gateway's own: as long as it has no stream to the archive, nothing is tried.
    pub(crate) outbox: Arc<Outbox>,
    /// The bound of a spool's files.
    pub(crate) max_bytes: u64,
    pub(crate) clock: Clock,
    /// The longest ttl of envelopes in a spool.
    pub(crate) max_ttl: Duration,
    pub(crate) metrics: Metrics,
}

/// How far the adoption of one spool has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adopted {
    /// Not at all, or as far as it can now.
    Stuck,
    /// A stretch; more is to be drained of the files that were found at its beginning.
    Unfinished { files: usize },
    /// The archive has heard its goodbye.
    Parted,
}

/// What is known of one directory.
#[derive(Debug, Clone, Copy)]
struct Attempts {
    last: Option<Instant>,
    adopted: Adopted,
    /// How long the next may take.
    stretch: Duration,
}

impl Attempts {
    fn none() -> Self {
        Self { last: None, adopted: Adopted::Stuck, stretch: STRETCH }
    }

    fn is_due(&self) -> bool {
        let pause = if matches!(self.adopted, Adopted::Unfinished { .. }) { GIVE_WAY } else { INTERVAL };
        self.last.is_none_or(|last| last.elapsed() >= pause)
    }

    fn add(&mut self, adopted: Adopted) {
        self.stretch = match (self.adopted, adopted) {
            // Files are drained as a whole: what was done of one is done again.
            (Adopted::Unfinished { files: before }, Adopted::Unfinished { files }) if files >= before => {
                (self.stretch * 2).min(LONGEST_STRETCH)
            }
            _ => STRETCH,
        };
        (self.adopted, self.last) = (adopted, Some(Instant::now()));
    }
}

impl Adoption {
    /// Tries every directory once the archive can be reached, and every minute, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut attempts = vec![Attempts::none(); self.directories.len()];
        while !self.directories.is_empty() {
            let _ = timeout(LOOK_INTERVAL, stop.cancelled()).await;
            for (data, attempts) in self.directories.iter().zip(&mut attempts) {
                if stop.is_cancelled() {
                    return;
                }
                if self.outbox.size().connected && attempts.is_due() {
                    let adopted = self.adopt(&spool::directory(data), *attempts, &stop).await;
                    attempts.add(adopted);
                }
            }
        }
    }

    /// Drains one spool for a while, if it is there and nobody has it. When the archive has heard its goodbye before, only
    /// what was added since matters.
    async fn adopt(&self, dir: &Path, attempts: Attempts, stop: &CancellationToken) -> Adopted {
        let parted = attempts.adopted == Adopted::Parted;
        let as_before = if parted { Adopted::Parted } else { Adopted::Stuck };
        let disk = Arc::new(RealDisk);
        let options = SpoolOptions {
            disk: disk.clone(),
            dir: dir.to_owned(),
            max_bytes: self.max_bytes,
            writer_id: String::new(),
            clock: self.clock.clone(),
            max_ttl: self.max_ttl,
            ready: Readiness::new().add("adopted"),
            version: Readiness::new().add("adopted"),
            metrics: self.metrics.adopting().spool,
        };
        let (dir, own) = (dir.to_owned(), self.outbox.store().clone());
        let end = Instant::now() + attempts.stretch;
        let opening = tokio::task::spawn_blocking(move || {
            if !spool::is_spool(&dir) {
                return Ok(None);
            }
            let opened = Spool::open(options)?;
            let store = own.for_spool(disk, &dir, Readiness::new().add("adopted"))?;
            Ok(Some((opened, store)))
        });
        let opened = tokio::select! {
            opened = opening => opened,
            // It is given back as soon as it is open.
            () = stop.cancelled() => return as_before,
        };
        let ((spool, writer), store) = match opened {
            Ok(Ok(Some(opened))) => opened,
            // There is none, or somebody has it.
            Ok(Ok(None) | Err(SpoolError::Journal(JournalError::Locked { .. }))) => return as_before,
            Ok(Err(error)) => {
                warn!(cause = %error, "a spool cannot be adopted");
                return as_before;
            }
            Err(failed) => {
                warn!(cause = %failed, "a spool cannot be adopted");
                return as_before;
            }
        };
        let files = spool.files();
        let started = Outbox::start(
            (Arc::clone(&spool), writer),
            QUEUE_BYTES,
            store,
            Readiness::new().add("adopted"),
            self.metrics.adopting(),
        );
        let (outbox, spooling) = match started {
            Ok(started) => started,
            Err(error) => {
                warn!(cause = %error, "a spool cannot be adopted");
                return as_before;
            }
        };
        let mut adopted = as_before;
        if !spool.is_empty() || !parted {
            // Nothing will be pushed: it ends when all is drained, or when the archive is away.
            let ending = CancellationToken::new();
            ending.cancel();
            adopted = tokio::select! {
                outcome = timeout_at(end, outbox.run(&self.archive, &ending)) => match outcome {
                    Ok(true) => Adopted::Parted,
                    Ok(false) => Adopted::Stuck,
                    Err(_) => Adopted::Unfinished { files },
                },
                () = stop.cancelled() => Adopted::Stuck,
            }
        }
        spooling.end().await;
        let (drained, files_left) = (spool.settled(), spool.files());
        if drained > 0 || files_left > 0 {
            info!(drained, files_left, "drained the spool of a gateway that is gone");
        }
        adopted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailserver::{KnownStore, Spooling};
    use crate::spool::SpoolWriter;
    use poste_archive::{ArchiveConfig, StoreUrl};
    use poste_journal::FaultyDisk;
    use poste_service::Context;
    use poste_wire::{Envelope, Topic};

    const NOW: u32 = 1_600_000_000;

    fn options(disk: Arc<dyn poste_journal::Disk>, dir: PathBuf, metrics: &Metrics) -> SpoolOptions {
        SpoolOptions {
            disk,
            dir,
            max_bytes: 1 << 20,
            writer_id: "c0ffee".to_owned(),
            clock: Clock::system(),
            max_ttl: Duration::from_secs(86_400),
            ready: Readiness::new().add("spool"),
            version: Readiness::new().add("version"),
            metrics: metrics.spool.clone(),
        }
    }

    /// A gateway's outbox, and what it adopts from `data` with.
    fn adoption(data: &Path, archive: &str, metrics: &Metrics) -> (Adoption, Spooling) {
        let disk: Arc<dyn poste_journal::Disk> = Arc::new(FaultyDisk::new(1));
        let own = Spool::open(options(Arc::clone(&disk), "/own".into(), metrics)).unwrap();
        let store = KnownStore::open(disk, Path::new("/own"), None, Readiness::new().add("store")).unwrap();
        let queue = Readiness::new().add("queue");
        let (outbox, spooling) = Outbox::start(own, 1 << 20, store, queue, metrics.clone()).unwrap();
        let adoption = Adoption {
            directories: vec![data.to_owned()],
            archive: Target::lazy(archive).unwrap(),
            outbox,
            max_bytes: 64 << 20,
            clock: Clock::system(),
            max_ttl: Duration::from_secs(86_400),
            metrics: metrics.clone(),
        };
        (adoption, spooling)
    }

    fn envelopes(count: u32, bytes: usize) -> Vec<Envelope> {
        let data = vec![7; bytes];
        (0..count).map(|n| Envelope::new(NOW + 50, 50, Topic([1; 4]), &data, n.into())).collect()
    }

    fn fill(dir: &Path, envelopes: &[Envelope], metrics: &Metrics) -> (Arc<Spool>, SpoolWriter) {
        let (spool, mut writer) = Spool::open(options(Arc::new(RealDisk), dir.to_owned(), metrics)).unwrap();
        writer.write(envelopes.iter().map(|envelope| (envelope.rlp(), envelope.sent()))).unwrap();
        (spool, writer)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_spool_that_somebody_has_is_left_alone_and_one_that_cannot_be_drained_is_given_back() {
        let data = tempfile::tempdir().unwrap();
        let dir = spool::directory(data.path());
        let metrics = Metrics::new(&poste_service::metrics::Metrics::new().scope("gateway"));
        // A port that was just free: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let archive = format!("http://127.0.0.1:{port}");
        let (adoption, spooling) = adoption(data.path(), &archive, &metrics);
        let stop = CancellationToken::new();
        assert_eq!(adoption.adopt(&dir, Attempts::none(), &stop).await, Adopted::Stuck);
        assert!(!dir.exists(), "nothing is made where there is nothing");

        let (spool, writer) = fill(&dir, &envelopes(1, 10), &metrics);
        assert_eq!(adoption.adopt(&dir, Attempts::none(), &stop).await, Adopted::Stuck, "its gateway runs");
        assert_eq!(spool.size().envelopes, 1);
        writer.close();
        assert_eq!(
            adoption.adopt(&dir, Attempts::none(), &stop).await,
            Adopted::Stuck,
            "the archive is away"
        );
        let (spool, writer) = fill(&dir, &[], &metrics);
        assert_eq!(spool.size().envelopes, 1);
        writer.close();
        spooling.end().await;
    }

    #[test]
    fn stretches_of_which_nothing_comes_grow() {
        let mut attempts = Attempts::none();
        for (files, seconds) in [(9, 10), (9, 20), (9, 20), (8, 10), (8, 20)] {
            attempts.add(Adopted::Unfinished { files });
            assert_eq!(attempts.stretch, Duration::from_secs(seconds), "{files}");
        }
        assert!(
            LONGEST_STRETCH + Duration::from_secs(5) < crate::LOCK_PATIENCE,
            "its own gateway can wait for it"
        );
        assert!(!attempts.is_due());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_does_not_wait_for_a_spool_to_open() {
        let data = tempfile::tempdir().unwrap();
        let dir = spool::directory(data.path());
        let metrics = Metrics::new(&poste_service::metrics::Metrics::new().scope("gateway"));
        fill(&dir, &envelopes(100, 1000), &metrics).1.close();
        let (adoption, spooling) = adoption(data.path(), "http://127.0.0.1:9", &metrics);
        let stop = CancellationToken::new();
        let adopting = adoption.adopt(&dir, Attempts::none(), &stop);
        tokio::pin!(adopting);
        // It has begun, and has not gone on since.
        assert!(futures::poll!(&mut adopting).is_pending());
        stop.cancel();
        let adopted = timeout(Duration::from_secs(10), adopting).await;
        assert_eq!(adopted, Ok(Adopted::Stuck));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let again = loop {
            match Spool::open(options(Arc::new(RealDisk), dir.clone(), &metrics)) {
                Err(SpoolError::Journal(JournalError::Locked { .. })) => {
                    assert!(std::time::Instant::now() < deadline);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        assert_eq!(again.0.size().envelopes, 100);
        spooling.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn its_own_gateway_may_have_the_directory_between_two_stretches() {
        let (data, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = spool::directory(data.path());
        let metrics = Metrics::new(&poste_service::metrics::Metrics::new().scope("gateway"));
        let any_port = ([127, 0, 0, 1], 0).into();
        let config = ArchiveConfig {
            store: StoreUrl::Local(store.path().to_owned()),
            grpc_listen: any_port,
            admin_listen: any_port,
            ..ArchiveConfig::default()
        };
        let service = poste_archive::start(config, Context::new(Duration::from_secs(5))).await.unwrap();
        let archive = format!("http://{}", service.addresses().grpc.unwrap());
        let (adoption, spooling) = adoption(data.path(), &archive, &metrics);
        for posted in envelopes(3000, 1000).chunks(100) {
            fill(&dir, posted, &metrics).1.close();
        }
        let (mut attempts, mut stretches) = (Attempts::none(), 0);
        attempts.stretch = Duration::ZERO;
        while attempts.adopted != Adopted::Parted {
            attempts.adopted = adoption.adopt(&dir, attempts, &CancellationToken::new()).await;
            // Nobody has it now.
            fill(&dir, &[], &metrics).1.close();
            attempts.stretch += Duration::from_millis(20);
            stretches += 1;
            assert!(stretches < 100, "{attempts:?}");
        }
        assert!(stretches > 1, "no stretch at all is enough for nothing");
        let (spool, writer) = fill(&dir, &[], &metrics);
        assert!(spool.is_empty());
        writer.close();
        assert_eq!(metrics.spool.lost.get(), 0);
        spooling.end().await;
        service.stop(Duration::from_secs(10)).await.unwrap();
    }
}
