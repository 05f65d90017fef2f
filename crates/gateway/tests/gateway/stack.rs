//! A gateway and its archive, started for one test, and how tests wait.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use poste_archive::{ArchiveConfig, StoreUrl};
use poste_gateway::GatewayConfig;
use poste_rlpx::Enode;
use poste_rpc::client::Target;
use poste_rpc::gateway::v1::{NodeInfoRequest, NodeInfoResponse};
use poste_service::clock::ManualClock;
use poste_service::config::Secret;
use poste_service::{Clock, Context, RunningService};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::panics;
use crate::proxy::Proxy;

/// What the clock says at first, unix seconds.
pub(crate) const NOW: u32 = 1_600_000_000;
/// What requests for mail are sealed with.
pub(crate) const PASSWORD: &str = "a password of the tests";
/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(10);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", DEADLINE.as_secs()),
    }
}

/// Waits until something that has no event of its own is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, looking).await;
}

/// The two services of one test.
pub(crate) struct Stack {
    pub(crate) clock: ManualClock,
    time: Clock,
    archive: Option<RunningService>,
    archive_address: SocketAddr,
    gateway: Option<RunningService>,
    config: GatewayConfig,
    context: Context,
    directory: TempDir,
}

impl Stack {
    /// With the settings of the tests.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With these settings changed.
    pub(crate) async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        panics::watch().await;
        let (time, clock) = Clock::manual(Duration::from_secs(NOW.into()));
        let directory = TempDir::new().unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let archive = start_archive(directory.path().join("archive"), any_port, &time).await;
        let archive_address = archive.addresses().grpc.unwrap();
        let mut config = GatewayConfig {
            rlpx_listen: any_port,
            grpc_listen: any_port,
            admin_listen: any_port,
            archive: format!("http://{archive_address}"),
            data: directory.path().join("gateway"),
            mail_password: Secret::new(PASSWORD),
            ..GatewayConfig::default()
        };
        change(&mut config);
        let context = context(&time);
        let gateway = Some(poste_gateway::start(config.clone(), context.clone()).await.unwrap());
        let archive = Some(archive);
        Self { clock, time, archive, archive_address, gateway, config, context, directory }
    }

    /// With its archive behind a proxy, which can cut it off while it goes on for others.
    pub(crate) async fn behind_a_proxy() -> (Self, Proxy) {
        let mut proxy = None;
        let stack = Self::with(|config| {
            let archive = config.archive.strip_prefix("http://").unwrap().parse().unwrap();
            let made = Proxy::start(archive);
            config.archive = format!("http://{}", made.address);
            proxy = Some(made);
        })
        .await;
        stack.reaches_archive(true).await;
        (stack, proxy.unwrap())
    }

    /// Another gateway on the same archive, with these settings changed. It has to be ended first.
    pub(crate) async fn sibling(&self, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut config = GatewayConfig {
            archive: format!("http://{}", self.archive_address),
            data: directory.path().join("gateway"),
            ..self.config.clone()
        };
        change(&mut config);
        let context = context(&self.time);
        let gateway = Some(poste_gateway::start(config.clone(), context.clone()).await.unwrap());
        let (clock, time, archive_address) = (self.clock.clone(), self.time.clone(), self.archive_address);
        let sibling =
            Self { clock, time, archive: None, archive_address, gateway, config, context, directory };
        sibling.reaches_archive(true).await;
        sibling
    }

    /// Stops the gateway; its directory stays.
    pub(crate) async fn halt_gateway(&mut self) {
        self.gateway.take().unwrap().stop(2 * DEADLINE).await.unwrap();
    }

    /// Starts it again, on its directory, with these settings changed.
    pub(crate) async fn start_gateway_with(&mut self, change: impl FnOnce(&mut GatewayConfig)) {
        change(&mut self.config);
        self.start_gateway().await;
    }

    /// Starts it again, on its directory.
    pub(crate) async fn start_gateway(&mut self) {
        self.context = context(&self.time);
        let started = poste_gateway::start(self.config.clone(), self.context.clone()).await;
        self.gateway = Some(started.unwrap());
    }

    /// The gateway's directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.config.data.clone()
    }

    /// The files of the spool that hold envelopes.
    pub(crate) fn spool_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("spool")).unwrap().map(|entry| entry.unwrap());
        let holds = |entry: &std::fs::DirEntry| {
            entry.file_name().to_string_lossy().starts_with("segment-")
                && entry.metadata().unwrap().len() > 64
        };
        entries.filter(holds).map(|entry| entry.path()).collect()
    }

    fn gateway(&self) -> &RunningService {
        self.gateway.as_ref().expect("the gateway runs")
    }

    /// Where peers connect.
    pub(crate) fn enode(&self) -> Enode {
        self.gateway().addresses().enode.as_ref().unwrap().parse().unwrap()
    }

    /// The gateway's gRPC.
    pub(crate) fn grpc(&self) -> Target {
        Target::lazy(&format!("http://{}", self.gateway().addresses().grpc.unwrap())).unwrap()
    }

    /// The gateway's administration.
    pub(crate) fn admin(&self) -> Target {
        Target::lazy(&format!("http://{}", self.gateway().addresses().admin.unwrap())).unwrap()
    }

    /// The archive's gRPC.
    pub(crate) fn archive(&self) -> Target {
        Target::lazy(&format!("http://{}", self.archive_address)).unwrap()
    }

    /// The archive's administration.
    pub(crate) fn archive_admin(&self) -> Target {
        let archive = self.archive.as_ref().expect("the archive runs");
        Target::lazy(&format!("http://{}", archive.addresses().admin.unwrap())).unwrap()
    }

    /// What the gateway says about itself.
    pub(crate) async fn node_info(&self) -> NodeInfoResponse {
        let mut admin = poste_rpc::gateway::admin_client(self.admin().channel());
        soon("NodeInfo", admin.node_info(NodeInfoRequest {})).await.unwrap().into_inner()
    }

    /// Waits until the gateway has seen that the archive is away, or back.
    pub(crate) async fn reaches_archive(&self, expected: bool) {
        let looking = async {
            while self.node_info().await.archive_reachable != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the gateway to notice the archive", looking).await;
    }

    /// Waits until the archive has everything that was accepted.
    pub(crate) async fn drained(&self) {
        let looking = async {
            while self.node_info().await.pending_envelopes > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the spool to be drained", looking).await;
    }

    /// Why the gateway's queue for the archive takes nothing, if so.
    pub(crate) fn queue_fault(&self) -> Option<String> {
        self.fault("gateway.archive_queue")
    }

    /// Why the archive's store is not written to, if so.
    pub(crate) fn store_fault(&self) -> Option<String> {
        self.fault("gateway.archive_store")
    }

    /// Whether the gateway's process would be ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.context.readiness.serving();
        self.context.readiness.report().ready
    }

    /// Why the archive counts as away, if so. It does not decide whether the gateway is ready.
    pub(crate) fn archive_fault(&self) -> Option<String> {
        self.fault("gateway.archive")
    }

    /// Why the gateway's spool takes nothing, if so.
    pub(crate) fn spool_fault(&self) -> Option<String> {
        self.fault("gateway.spool")
    }

    fn fault(&self, name: &str) -> Option<String> {
        let report = self.context.readiness.report();
        let check = report.checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.ready, check.reason.is_none());
        check.reason.clone()
    }

    /// A metric of the gateway: its name without prefix and `_total`, and its label, such as `reason="eof"`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let text = self.context.metrics.encode().unwrap();
        let labels = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        let begins = ["_total", ""].map(|suffix| format!("poste_gateway_{name}{suffix}{labels} "));
        let values = text.lines().filter_map(|line| begins.iter().find_map(|begin| line.strip_prefix(begin)));
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// Waits until a metric has a value, and fails when it has passed it.
    pub(crate) async fn counted(&self, name: &str, label: &str, value: u64) {
        eventually(&format!("{name} {label} to become {value}"), || self.metric(name, label) >= value).await;
        assert_eq!(self.metric(name, label), value, "{name} {label}");
    }

    /// Waits until a gauge has come down to a value.
    pub(crate) async fn counted_down(&self, name: &str, value: u64) {
        eventually(&format!("{name} to come down to {value}"), || self.metric(name, "") == value).await;
    }

    /// Waits until the pool holds so many envelopes.
    pub(crate) async fn pool_holds(&self, count: u64) {
        let looking = async {
            while self.node_info().await.pool_envelopes != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the pool to be swept", looking).await;
    }

    /// Stops the archive; the gateway stays.
    pub(crate) async fn stop_archive(&mut self) {
        self.archive.take().unwrap().stop(DEADLINE).await.unwrap();
    }

    /// Starts an archive again, on the same directory and port.
    pub(crate) async fn start_archive(&mut self) {
        self.start_archive_in("archive").await;
    }

    /// Starts an archive on the same port, in this directory.
    pub(crate) async fn start_archive_in(&mut self, directory: &str) {
        let directory = self.directory.path().join(directory);
        self.archive = Some(start_archive(directory, self.archive_address, &self.time).await);
    }

    /// Stops the gateway only.
    pub(crate) async fn stop_gateway(self) -> (Duration, Option<RunningService>, TempDir) {
        let began = std::time::Instant::now();
        self.gateway.expect("the gateway runs").stop(2 * DEADLINE).await.unwrap();
        (began.elapsed(), self.archive, self.directory)
    }

    /// Stops everything; nothing may have panicked.
    pub(crate) async fn end(mut self) {
        if self.gateway.is_some() {
            self.halt_gateway().await;
        }
        if let Some(archive) = self.archive.take() {
            archive.stop(DEADLINE).await.unwrap();
        }
        panics::assert_none();
    }
}

async fn start_archive(directory: PathBuf, address: SocketAddr, time: &Clock) -> RunningService {
    let config = ArchiveConfig {
        store: StoreUrl::Local(directory),
        grpc_listen: address,
        admin_listen: ([127, 0, 0, 1], 0).into(),
        ..ArchiveConfig::default()
    };
    poste_archive::start(config, context(time)).await.unwrap()
}

fn context(time: &Clock) -> Context {
    Context { clock: time.clone(), ..Context::new(Duration::from_secs(5)) }
}
