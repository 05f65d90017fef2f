//! The push server as it runs, in a process of its own, between an archive, a gateway and the double of gorush, which run in
//! the process that measures.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use poste_archive::{ArchiveConfig, StoreUrl};
use poste_doubles::gorush::{Call, Gorush, Settings};
use poste_gateway::GatewayConfig;
use poste_push::{ProviderUrl, PushConfig};
use poste_rpc::archive::v1::{QueryRequest, TopicSet, query_request};
use poste_rpc::client::Target;
use poste_rpc::gateway::v1::PublishRequest;
use poste_rpc::push::v1::DrainRequest;
use poste_service::config::Secret;
use poste_service::{Context, RunningService};
use poste_wire::status::TopicName;
use poste_wire::{Envelope, Topic};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::people::{asker, request_envelope, server};
use crate::report::{memory_mib, processor_time_of};

/// How long anything may take before it is given up.
const DEADLINE: Duration = Duration::from_secs(60);
/// Of requests: clients' own.
const TTL_S: u32 = 15;
const POW: f64 = 0.002;
/// Requests on their way to the gateway at a time.
const AT_ONCE: usize = 64;
/// Between two looks whether an answer has come.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// All but the push server.
pub(crate) struct Neighbours {
    archive: RunningService,
    gateway: RunningService,
    pub(crate) gorush: Gorush,
    to_gateway: Channel,
    _directory: TempDir,
}

/// A push server's process. Dropping it kills it.
pub(crate) struct Server {
    process: Child,
    admin: Target,
}

impl Neighbours {
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let directory = TempDir::new_in(directory)?;
        let config = ArchiveConfig {
            store: StoreUrl::Local(directory.path().join("archive")),
            grpc_listen: any_port(),
            admin_listen: any_port(),
            ..ArchiveConfig::default()
        };
        let archive = poste_archive::start(config, context()).await?;
        let config = GatewayConfig {
            rlpx_listen: any_port(),
            grpc_listen: any_port(),
            admin_listen: any_port(),
            archive: url(archive.addresses().grpc)?,
            data: directory.path().join("gateway"),
            ..GatewayConfig::default()
        };
        let gateway = poste_gateway::start(config, context()).await?;
        let gorush = Gorush::start(Settings::default()).await?;
        let to_gateway = Target::lazy(&url(gateway.addresses().grpc)?)?.channel();
        Ok(Self { archive, gateway, gorush, to_gateway, _directory: directory })
    }

    /// Publishes the data of an envelope for the server, as a client does by its node.
    pub(crate) async fn publish(&self, data: Bytes) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let topic = TopicName::partitioned(&server().public()).topic();
        let envelope = Envelope::new(u32::try_from(now)? + TTL_S, TTL_S, topic, &data, 0);
        let request = PublishRequest { envelope: envelope.rlp().clone(), mine_to_pow: Some(POW) };
        poste_rpc::gateway::client(self.to_gateway.clone()).publish(request).await?;
        Ok(())
    }

    /// The same with many, some of them side by side.
    pub(crate) async fn publish_all(&self, all: Vec<Bytes>) -> Result<()> {
        let publishing = stream::iter(all).map(|data| self.publish(data)).buffer_unordered(AT_ONCE);
        publishing.try_collect().await
    }

    /// Waits until the request of this number is answered.
    pub(crate) async fn is_answered(&self, number: u32) -> Result<()> {
        let topic = TopicName::partitioned(&asker(number).public()).topic();
        let mut client =
            poste_rpc::archive::client(Target::lazy(&url(self.archive.addresses().grpc)?)?.channel());
        let began = Instant::now();
        while client.query(all_of(topic)).await?.into_inner().records.is_empty() {
            anyhow::ensure!(began.elapsed() < DEADLINE, "no answer came");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until gorush was called for so many notifications since it had been for `before`. Gives its calls.
    pub(crate) async fn calls(&self, before: usize, count: usize) -> Result<Vec<Call>> {
        let pushes = self.gorush.wait_for_pushes(before + count);
        tokio::time::timeout(DEADLINE, pushes).await.context("devices that did not ring")?;
        Ok(self.gorush.calls())
    }

    /// Starts a push server on a directory with registrations.
    pub(crate) fn serve(&self, data: &Path) -> Result<Server> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(data)
            .args([
                url(self.archive.addresses().grpc)?,
                url(self.gateway.addresses().grpc)?,
                self.gorush.url(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let admin = lines.next().context("it ended before it served")??;
        Ok(Server { process, admin: Target::lazy(&admin)? })
    }
}

impl Server {
    /// Publishes a backlog while the server pauses, lets it work that off, and gives the processor time that it took until all
    /// was answered.
    pub(crate) async fn work_off(
        &self,
        neighbours: &Neighbours,
        backlog: Vec<Bytes>,
        notifications: usize,
    ) -> Result<Duration> {
        self.drain(false).await?;
        let rung = neighbours.gorush.pushes().len();
        neighbours.publish_all(backlog).await?;
        let before = self.processor_time()?;
        self.drain(true).await?;
        neighbours.calls(rung, notifications).await?;
        // Returns when nothing is in progress.
        self.drain(false).await?;
        let took = self.processor_time()? - before;
        self.drain(true).await?;
        Ok(took)
    }

    async fn drain(&self, resume: bool) -> Result<()> {
        let mut admin = poste_rpc::push::admin_client(self.admin.channel());
        admin.drain(DrainRequest { resume }).await?;
        Ok(())
    }

    pub(crate) fn processor_time(&self) -> Result<Duration> {
        processor_time_of(self.process.id())
    }

    /// Resident memory now, and at its highest.
    pub(crate) fn memory_mib(&self) -> Result<[f64; 2]> {
        let id = self.process.id();
        Ok([memory_mib(id, "VmRSS")?, memory_mib(id, "VmHWM")?])
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        self.process.wait()?;
        Ok(())
    }

    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The process of [`Neighbours::serve`]: prints the address of its administration, and serves until its input ends.
pub(crate) fn serve(data: PathBuf, [archive, gateway, gorush]: [String; 3]) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let config = PushConfig {
            archive,
            gateways: vec![gateway],
            data,
            identity: Some(Secret::new(hex::encode(server().to_bytes()))),
            provider: ProviderUrl::Gorush(gorush),
            grpc_listen: any_port(),
            admin_listen: any_port(),
            feedback_listen: any_port(),
            notifications_per_minute: 0,
            ..PushConfig::default()
        };
        let service = poste_push::start(config, context()).await?;
        println!("{}", url(service.addresses().admin)?);
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
        service.stop(DEADLINE).await.map_err(anyhow::Error::from_boxed)
    })
}

/// Requests with so many entries each, of numbers from `first` on, for devices all over the store.
pub(crate) fn requests(first: u32, count: u32, entries: u32, registrations: u32) -> Vec<Bytes> {
    let receiver = move |number: u32| number.wrapping_mul(2_654_435_761) % registrations;
    let request = |number: u32| {
        let entries = (0..entries).map(|entry| receiver(number.wrapping_mul(entries).wrapping_add(entry)));
        request_envelope(number, entries)
    };
    (0..count).map(|number| request(first.wrapping_add(number))).collect()
}

fn all_of(topic: Topic) -> QueryRequest {
    let topics = TopicSet { topics: vec![Bytes::copy_from_slice(&topic.0)] };
    QueryRequest {
        space: "waku1".into(),
        to_ns: i64::MAX,
        filter: Some(query_request::Filter::Topics(topics)),
        ..QueryRequest::default()
    }
}

fn context() -> Context {
    Context::new(Duration::from_secs(5))
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn url(address: Option<SocketAddr>) -> Result<String> {
    Ok(format!("http://{}", address.context("it listens nowhere")?))
}
