//! A store that this program serves itself: on a disk that fails on purpose, on one that only says that it has synced, or
//! because a test wants to hold the store in its hands.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use poste_archive::store::ArchiveStore;
use poste_archive::{ArchiveConfig, LocalOptions, LocalStore};
use poste_journal::{Disk, DiskFile, RealDisk};
use poste_rpc::client::Target;
use poste_service::{Clock, Context, RunningService};
use serde_json::json;

use crate::audit::Client;

const STOP: Duration = Duration::from_secs(30);

/// A store that is served over gRPC by this process.
#[derive(Debug)]
pub struct Served {
    running: RunningService,
}

impl Served {
    /// Serves a store on a free port of 127.0.0.1.
    pub async fn start(store: Arc<dyn ArchiveStore>) -> Result<Self> {
        let ephemeral = ([127, 0, 0, 1], 0).into();
        let config =
            ArchiveConfig { grpc_listen: ephemeral, admin_listen: ephemeral, ..ArchiveConfig::default() };
        let running = poste_archive::start_with_store(store, config, Context::new(STOP)).await?;
        Ok(Self { running })
    }

    /// `host:port` of its gRPC.
    pub fn address(&self) -> Result<String> {
        Ok(self.running.addresses().grpc.context("an archive has an address")?.to_string())
    }

    /// A client on a connection of its own.
    pub fn client(&self) -> Result<Client> {
        let target = Target::lazy(&format!("http://{}", self.address()?))?;
        Ok(poste_rpc::archive::client(target.channel()))
    }

    /// Stops serving and closes the store. Fails when the store could not end well.
    pub async fn stop(self) -> Result<()> {
        self.running.stop(STOP).await.map_err(anyhow::Error::from_boxed)
    }

    /// Serves until the process is killed.
    pub async fn ended(mut self) -> Result<()> {
        self.running.ended().await.map_err(anyhow::Error::from_boxed)
    }
}

/// Serves an archive in that directory, on a disk that loses whatever the kernel has not written by itself when the power
/// goes. For the control: a test of power cuts that does not find loss here can find none anywhere.
#[expect(clippy::print_stdout, reason = "the ready line")]
pub async fn unsynced(directory: &Path) -> Result<()> {
    let options = LocalOptions { disk: Arc::new(Unsynced), ..LocalOptions::new(directory, Clock::system()) };
    let store = tokio::task::spawn_blocking(move || LocalStore::open(options)).await??;
    let served = Served::start(Arc::new(store)).await?;
    println!("{}", json!({ "event": "ready", "grpc": { "archive": served.address()? } }));
    served.ended().await
}

/// The disk of this machine, but every sync only says that it was done.
#[derive(Debug)]
struct Unsynced;

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl Disk for Unsynced {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(RealDisk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(RealDisk.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for UnsyncedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.0.forget_cached()
    }
}
