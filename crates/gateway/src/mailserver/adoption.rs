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
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::outbox::{KnownStore, Outbox};
use crate::metrics::Metrics;
use crate::spool::{self, Spool, SpoolError, SpoolOptions};

/// How often each directory is tried, and how often it is looked whether the archive can be reached for it.
const INTERVAL: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long one spool may be drained at a stretch; another attempt goes on where this one has ended.
const PATIENCE: Duration = Duration::from_secs(600);
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
    pub(crate) store: KnownStore,
    /// The bound of a spool's files.
    pub(crate) max_bytes: u64,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

impl Adoption {
    /// Tries every directory once the archive can be reached, and every minute, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        // When each was tried, and whether the archive has heard its goodbye.
        let mut tried: Vec<(Option<Instant>, bool)> = vec![(None, false); self.directories.len()];
        while !self.directories.is_empty() {
            let _ = timeout(LOOK_INTERVAL, stop.cancelled()).await;
            for (data, (last, parted)) in self.directories.iter().zip(&mut tried) {
                if stop.is_cancelled() {
                    return;
                }
                if self.outbox.size().connected && last.is_none_or(|last| last.elapsed() >= INTERVAL) {
                    *parted = self.adopt(&spool::directory(data), *parted, &stop).await;
                    *last = Some(Instant::now());
                }
            }
        }
    }

    /// Drains one spool, if it is there and nobody has it. `parted`: the archive has heard its goodbye, and only what was
    /// added since matters. Returns whether it has now.
    async fn adopt(&self, dir: &Path, parted: bool, stop: &CancellationToken) -> bool {
        let options = SpoolOptions {
            disk: Arc::new(RealDisk),
            dir: dir.to_owned(),
            max_bytes: self.max_bytes,
            writer_id: String::new(),
            clock: self.clock.clone(),
            ready: Readiness::new().add("adopted"),
            metrics: self.metrics.adopting().spool,
        };
        let opening = tokio::task::spawn_blocking(move || {
            let opened = spool::is_spool(&options.dir).then(|| Spool::open(options)).transpose();
            if let Ok(Some((spool, _))) = &opened {
                spool.look_through();
            }
            opened
        });
        let (spool, writer) = match opening.await {
            Ok(Ok(Some(opened))) => opened,
            // There is none, or somebody has it.
            Ok(Ok(None) | Err(SpoolError::Journal(JournalError::Locked { .. }))) => return parted,
            Ok(Err(error)) => {
                warn!(cause = %error, "a spool cannot be adopted");
                return parted;
            }
            Err(failed) => {
                warn!(cause = %failed, "a spool cannot be adopted");
                return parted;
            }
        };
        let before = spool.size().envelopes;
        let started = Outbox::start(
            (Arc::clone(&spool), writer),
            QUEUE_BYTES,
            self.store.clone(),
            Readiness::new().add("adopted"),
            self.metrics.adopting(),
        );
        let (outbox, spooling) = match started {
            Ok(started) => started,
            Err(error) => {
                warn!(cause = %error, "a spool cannot be adopted");
                return parted;
            }
        };
        let mut heard = parted;
        if before > 0 || !parted {
            // Nothing will be pushed: it ends when all is drained, or when the archive is away.
            let ending = CancellationToken::new();
            ending.cancel();
            tokio::select! {
                outcome = timeout(PATIENCE, outbox.run(&self.archive, &ending)) => heard = outcome.unwrap_or(false),
                () = stop.cancelled() => heard = false,
            }
        }
        spooling.end().await;
        let left = spool.size().envelopes;
        if before > 0 {
            info!(drained = before.saturating_sub(left), left, "drained the spool of a gateway that is gone");
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_journal::FaultyDisk;
    use poste_wire::{Envelope, Topic};

    fn options(disk: Arc<dyn poste_journal::Disk>, dir: PathBuf, metrics: &Metrics) -> SpoolOptions {
        SpoolOptions {
            disk,
            dir,
            max_bytes: 1 << 20,
            writer_id: "c0ffee".to_owned(),
            clock: Clock::system(),
            ready: Readiness::new().add("spool"),
            metrics: metrics.spool.clone(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_spool_that_somebody_has_is_left_alone_and_one_that_cannot_be_drained_is_given_back() {
        let data = tempfile::tempdir().unwrap();
        let dir = spool::directory(data.path());
        let metrics = Metrics::new(&poste_service::metrics::Metrics::new().scope("gateway"));
        let own = Spool::open(options(Arc::new(FaultyDisk::new(1)), "/own".into(), &metrics)).unwrap();
        let (store, ready) = (KnownStore::default(), Readiness::new().add("queue"));
        let (outbox, spooling) = Outbox::start(own, 1 << 20, store.clone(), ready, metrics.clone()).unwrap();
        // A port that was just free: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let adoption = Adoption {
            directories: vec![data.path().to_owned()],
            archive: Target::lazy(&format!("http://127.0.0.1:{port}")).unwrap(),
            outbox,
            store,
            max_bytes: 1 << 20,
            clock: Clock::system(),
            metrics: metrics.clone(),
        };
        let stop = CancellationToken::new();
        assert!(!adoption.adopt(&dir, false, &stop).await);
        assert!(!dir.exists(), "nothing is made where there is nothing");

        let (spool, mut writer) = Spool::open(options(Arc::new(RealDisk), dir.clone(), &metrics)).unwrap();
        let envelope = Envelope::new(100, 50, Topic([1; 4]), b"data", 1);
        writer.write([(envelope.rlp(), envelope.sent())].into_iter()).unwrap();
        assert!(!adoption.adopt(&dir, false, &stop).await, "its gateway runs");
        assert_eq!(spool.size().envelopes, 1);
        writer.close();
        assert!(!adoption.adopt(&dir, false, &stop).await, "the archive is away");
        let (spool, writer) = Spool::open(options(Arc::new(RealDisk), dir, &metrics)).unwrap();
        assert_eq!(spool.size().envelopes, 1);
        writer.close();
        spooling.end().await;
    }
}
