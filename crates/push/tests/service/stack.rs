//! An archive, a gateway and a push server, started for one test; each may be stopped and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use poste_archive::{ArchiveConfig, StoreUrl};
use poste_codec::{PublicKey, SecretKey};
use poste_gateway::GatewayConfig;
use poste_provider::PushProvider;
use poste_push::{ProviderUrl, PushConfig};
use poste_rpc::client::Target;
use poste_rpc::push::v1::{DrainRequest, FeedStats, StatsRequest};
use poste_service::{Context, RunningService};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", DEADLINE.as_secs()),
    }
}

/// Waits until something that has no event of its own is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, looking).await;
}

/// The services of one test. What is not running is none.
pub(crate) struct Stack {
    pub(crate) directory: TempDir,
    archive: Option<RunningService>,
    gateway: Option<RunningService>,
    push: Option<RunningService>,
    pub(crate) archive_address: SocketAddr,
    pub(crate) gateway_address: SocketAddr,
    pub(crate) config: PushConfig,
    /// Instead of the one that the settings name.
    pub(crate) provider: Option<Arc<dyn PushProvider>>,
    context: Context,
}

impl Stack {
    /// All three.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// All three, with these settings of the push server changed.
    pub(crate) async fn with(change: impl FnOnce(&mut PushConfig)) -> Self {
        let directory = TempDir::new().unwrap();
        let archive = start_archive(directory.path().join("archive"), any_port()).await;
        let archive_address = archive.addresses().grpc.unwrap();
        let gateway = start_gateway(directory.path().join("gateway"), any_port(), archive_address).await;
        let gateway_address = gateway.addresses().grpc.unwrap();
        let mut config = PushConfig {
            archive: url(archive_address),
            gateways: vec![url(gateway_address)],
            data: directory.path().join("push"),
            provider: ProviderUrl::Directory(directory.path().join("rings")),
            grpc_listen: any_port(),
            admin_listen: any_port(),
            feedback_listen: any_port(),
            ..PushConfig::default()
        };
        change(&mut config);
        let mut stack = Self {
            directory,
            archive: Some(archive),
            gateway: Some(gateway),
            push: None,
            archive_address,
            gateway_address,
            config,
            provider: None,
            context: Context::new(Duration::from_secs(5)),
        };
        stack.start_push().await;
        stack.is_fault_free("push.archive").await;
        stack
    }

    pub(crate) async fn start_push(&mut self) {
        self.context = Context::new(Duration::from_secs(5));
        let (config, context) = (self.config.clone(), self.context.clone());
        let push = match &self.provider {
            None => poste_push::start(config, context).await,
            Some(provider) => poste_push::start_with_provider(config, Arc::clone(provider), context).await,
        };
        self.push = Some(push.unwrap());
    }

    pub(crate) async fn stop_push(&mut self) {
        self.push.take().unwrap().stop(DEADLINE).await.unwrap();
    }

    /// Starts an archive at the address of the first one, in this directory.
    pub(crate) async fn start_archive(&mut self, directory: &str) {
        let directory = self.directory.path().join(directory);
        self.archive = Some(start_archive(directory, self.archive_address).await);
    }

    pub(crate) async fn stop_archive(&mut self) {
        self.archive.take().unwrap().stop(DEADLINE).await.unwrap();
    }

    pub(crate) fn archive_admin(&self) -> Target {
        target(self.archive.as_ref().expect("the archive runs").addresses().admin.unwrap())
    }

    pub(crate) async fn stop_gateway(&mut self) {
        self.gateway.take().unwrap().stop(DEADLINE).await.unwrap();
    }

    /// Another gateway on the same archive.
    pub(crate) async fn another_gateway(&self, address: SocketAddr) -> RunningService {
        self.strict_gateway(address, GatewayConfig::default().min_pow).await
    }

    /// Another gateway on the same archive, which asks for this proof of work.
    pub(crate) async fn strict_gateway(&self, address: SocketAddr, min_pow: f64) -> RunningService {
        let config =
            gateway_config(self.directory.path().join("another gateway"), address, self.archive_address);
        let config = GatewayConfig { min_pow, ..config };
        poste_gateway::start(config, Context::new(Duration::from_secs(5))).await.unwrap()
    }

    /// Stops everything in the order of the binary.
    pub(crate) async fn end(mut self) {
        for service in [self.push.take(), self.gateway.take(), self.archive.take()].into_iter().flatten() {
            service.stop(DEADLINE).await.unwrap();
        }
    }

    fn push(&self) -> &RunningService {
        self.push.as_ref().expect("the push server runs")
    }

    /// The key that clients know the server by.
    pub(crate) fn server_key(&self) -> PublicKey {
        let key = hex::decode(self.push().addresses().push_key.as_ref().unwrap()).unwrap();
        PublicKey::from_compressed(key.as_slice().try_into().unwrap()).unwrap()
    }

    pub(crate) fn feedback(&self) -> SocketAddr {
        self.push().addresses().feedback.unwrap()
    }

    fn admin(&self) -> Target {
        target(self.push().addresses().admin.unwrap())
    }

    /// How the server stands with the stream.
    pub(crate) async fn feed(&self) -> FeedStats {
        let mut admin = poste_rpc::push::admin_client(self.admin().channel());
        admin.stats(StatsRequest {}).await.unwrap().into_inner().feed.unwrap()
    }

    /// Pauses, which returns when nothing is in progress, or resumes.
    pub(crate) async fn drain(&self, resume: bool) -> FeedStats {
        let mut admin = poste_rpc::push::admin_client(self.admin().channel());
        let drained = admin.drain(DrainRequest { resume });
        soon("Drain", drained).await.unwrap().into_inner().feed.unwrap()
    }

    /// Why a check is not ready, if so.
    pub(crate) fn fault(&self, name: &str) -> Option<String> {
        let report = self.context.readiness.report();
        report.checks.into_iter().find(|check| check.name == name).unwrap().reason
    }

    pub(crate) async fn is_fault_free(&self, name: &str) {
        eventually(&format!("{name} to be ready"), async || self.fault(name).is_none()).await;
    }

    pub(crate) async fn has_fault(&self, name: &str, containing: &str) {
        eventually(&format!("{name} to say {containing:?}"), async || {
            self.fault(name).is_some_and(|reason| reason.contains(containing))
        })
        .await;
    }

    /// A metric of the push server: its name without prefix and `_total`, and its labels.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> u64 {
        let text = self.context.metrics.encode().unwrap();
        let begins = ["_total", ""].map(|suffix| format!("poste_push_{name}{suffix}{labels} "));
        let values = text.lines().filter_map(|line| begins.iter().find_map(|begin| line.strip_prefix(begin)));
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// How often devices rang.
    pub(crate) fn rings(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("rings")).map_or(0, Iterator::count)
    }
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// An address where nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind(any_port()).unwrap().local_addr().unwrap()
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

pub(crate) fn target(address: SocketAddr) -> Target {
    Target::lazy(&url(address)).unwrap()
}

pub(crate) fn random_key() -> SecretKey {
    SecretKey::random(|bytes| rand::Rng::fill_bytes(&mut rand::rng(), bytes))
}

async fn start_archive(directory: PathBuf, address: SocketAddr) -> RunningService {
    let config = ArchiveConfig {
        store: StoreUrl::Local(directory),
        grpc_listen: address,
        admin_listen: any_port(),
        ..ArchiveConfig::default()
    };
    poste_archive::start(config, Context::new(Duration::from_secs(5))).await.unwrap()
}

async fn start_gateway(directory: PathBuf, address: SocketAddr, archive: SocketAddr) -> RunningService {
    let config = gateway_config(directory, address, archive);
    poste_gateway::start(config, Context::new(Duration::from_secs(5))).await.unwrap()
}

fn gateway_config(directory: PathBuf, address: SocketAddr, archive: SocketAddr) -> GatewayConfig {
    GatewayConfig {
        rlpx_listen: any_port(),
        grpc_listen: address,
        admin_listen: any_port(),
        archive: url(archive),
        data: directory,
        ..GatewayConfig::default()
    }
}
