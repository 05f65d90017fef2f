//! Archive, gateway and push servers as processes of their own, each of which can go away and come back where it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use poste_codec::PublicKey;
use poste_doubles::gorush::{self, Gorush};
use poste_rpc::client::Target;
use poste_rpc::push::v1::StatsRequest;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::process::Process;
use crate::stack::{poste, start};

/// How long a service may take to stop.
const STOP: Duration = Duration::from_secs(60);
/// How long a push server may be behind its archive after a start.
const CATCH_UP: Duration = Duration::from_secs(30);

/// `poste serve …`, with addresses that stay the same over restarts. It is killed when dropped.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    arguments: Vec<String>,
    /// A flag for a listener, and where the ready line tells its address.
    listeners: &'static [(&'static str, &'static str)],
    process: Option<Process>,
    ready: Value,
}

impl Service {
    fn start(
        name: &'static str,
        arguments: Vec<String>,
        listeners: &'static [(&'static str, &'static str)],
    ) -> Result<Self> {
        let mut service = Self { name, arguments, listeners, process: None, ready: Value::Null };
        service.restart()?;
        Ok(service)
    }

    /// Starts it again after [`Service::kill`] or [`Service::stop`], on the same data and at the same addresses.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = poste()?;
        command.args(["serve", self.name, "--ephemeral-ports"]).args(&self.arguments);
        for (flag, pointer) in self.listeners {
            if let Some(address) = self.ready.pointer(pointer).and_then(Value::as_str) {
                command.args([flag, address]);
            }
        }
        let (process, ready) = start(self.name, &mut command)?;
        (self.process, self.ready) = (Some(process), ready);
        Ok(())
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("it runs")?.kill()
    }

    /// Asks it to stop (SIGTERM); it must end with 0.
    pub fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("it runs")?;
        process.terminate()?;
        process.succeed(STOP).map(drop)
    }

    /// A text of the ready line, by its JSON pointer.
    pub fn ready(&self, pointer: &str) -> Result<&str> {
        let found = self.ready.pointer(pointer).and_then(Value::as_str);
        found.with_context(|| format!("no {pointer} in {}", self.ready))
    }
}

/// A push server.
#[derive(Debug)]
pub struct PushService {
    /// Its process.
    pub service: Service,
    /// What clients know it by.
    pub key: PublicKey,
    data: PathBuf,
}

impl PushService {
    /// Starts it again; it must be the same server.
    pub fn restart(&mut self) -> Result<()> {
        self.service.restart()?;
        ensure!(key(&self.service)? == self.key, "another identity after the restart");
        Ok(())
    }

    /// Waits until it has dealt with everything that its archive has.
    pub async fn caught_up(&self) -> Result<()> {
        let target = Target::lazy(&format!("http://{}", self.service.ready("/admin/push")?))?;
        let mut admin = poste_rpc::push::admin_client(target.channel());
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let stats = admin.stats(StatsRequest {}).await?.into_inner();
            let feed = stats.feed.context("what it has read")?;
            if feed.connected && feed.in_progress == 0 && feed.seq >= feed.head {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "it does not catch up: {feed:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where its files are.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

fn key(service: &Service) -> Result<PublicKey> {
    let text = service.ready("/push_key")?;
    let compressed: [u8; 33] = hex::decode(text)?.try_into().ok().context("33 bytes")?;
    Ok(PublicKey::from_compressed(&compressed)?)
}

/// An archive, a gateway, and a stand-in for gorush.
#[derive(Debug)]
pub struct Services {
    /// `poste serve archive`.
    pub archive: Service,
    /// `poste serve gateway`.
    pub gateway: Service,
    /// What devices rang.
    pub gorush: Gorush,
    data: TempDir,
}

impl Services {
    /// Starts all of them.
    pub async fn start() -> Result<Self> {
        let data = tempfile::tempdir()?;
        let store = format!("local://{}", data.path().join("archive").display());
        let archive = Service::start(
            "archive",
            vec!["--store".to_owned(), store],
            &[("--archive-grpc-listen", "/grpc/archive"), ("--archive-admin-listen", "/admin/archive")],
        )?;
        let gateway = data.path().join("gateway").display().to_string();
        let gateway = Service::start(
            "gateway",
            [
                ["--gateway-data", &gateway],
                ["--gateway-archive", &format!("http://{}", archive.ready("/grpc/archive")?)],
                ["--gateway-rlpx-listen", "127.0.0.1:0"],
            ]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
            &[("--gateway-grpc-listen", "/grpc/gateway")],
        )?;
        let gorush = Gorush::start(gorush::Settings::default()).await?;
        Ok(Self { archive, gateway, gorush, data })
    }

    /// Starts a push server of this name, with further arguments.
    pub fn push(&self, name: &str, arguments: &[&str]) -> Result<PushService> {
        self.push_in(&self.data.path().join(name), arguments)
    }

    /// Starts a push server whose files are in this directory.
    pub fn push_in(&self, directory: &Path, arguments: &[&str]) -> Result<PushService> {
        let data = directory.display().to_string();
        let archive = format!("http://{}", self.archive.ready("/grpc/archive")?);
        let gateway = format!("http://{}", self.gateway.ready("/grpc/gateway")?);
        let provider = self.gorush.url();
        let arguments = [
            &["--push-data", &data, "--push-archive", &archive, "--push-gateways", &gateway],
            &["--push-provider", &provider][..],
            arguments,
        ]
        .concat();
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let service = Service::start("push", arguments, &[("--push-feedback-listen", "/feedback")])?;
        let key = key(&service)?;
        Ok(PushService { service, key, data: directory.to_owned() })
    }

    /// The address of the node.
    pub fn enode(&self) -> Result<&str> {
        self.gateway.ready("/enode")
    }
}
