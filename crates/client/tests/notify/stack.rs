//! A gateway and its archive, started for one test, and how tests wait.

use std::net::SocketAddr;
use std::time::Duration;

use poste_archive::{ArchiveConfig, StoreUrl};
use poste_client::notify::{Channel, ChannelOptions};
use poste_gateway::GatewayConfig;
use poste_push::{ProviderUrl, PushConfig};
use poste_rlpx::Enode;
use poste_service::{Context, RunningService};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", DEADLINE.as_secs()),
    }
}

/// The network of one test.
pub(crate) struct Stack {
    archive: RunningService,
    gateway: RunningService,
    config: GatewayConfig,
    directory: TempDir,
}

impl Stack {
    pub(crate) async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ArchiveConfig {
            store: StoreUrl::Local(directory.path().join("archive")),
            grpc_listen: any_port,
            admin_listen: any_port,
            ..ArchiveConfig::default()
        };
        let archive = poste_archive::start(config, context()).await.unwrap();
        let mut config = GatewayConfig {
            rlpx_listen: any_port,
            grpc_listen: any_port,
            admin_listen: any_port,
            archive: format!("http://{}", archive.addresses().grpc.unwrap()),
            data: directory.path().join("gateway"),
            ..GatewayConfig::default()
        };
        let gateway = poste_gateway::start(config.clone(), context()).await.unwrap();
        let enode: Enode = gateway.addresses().enode.as_ref().unwrap().parse().unwrap();
        // The port for another start.
        config.rlpx_listen.set_port(enode.endpoint.unwrap().tcp_port);
        Self { archive, gateway, config, directory }
    }

    pub(crate) fn enode(&self) -> Enode {
        self.gateway.addresses().enode.as_ref().unwrap().parse().unwrap()
    }

    pub(crate) async fn channel(&self) -> Channel {
        soon("a connection", Channel::connect(ChannelOptions::new(self.enode()))).await.unwrap()
    }

    /// Stops the gateway and starts it on the same port.
    pub(crate) async fn restart_gateway(self) -> Self {
        self.gateway.stop(DEADLINE).await.unwrap();
        let gateway = poste_gateway::start(self.config.clone(), context()).await.unwrap();
        Self { gateway, ..self }
    }

    /// A push server on this network, which writes notifications into a directory.
    pub(crate) async fn push_server(&self) -> RunningService {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let directory = self.directory.path().join("notifications");
        let config = PushConfig {
            archive: self.config.archive.clone(),
            gateways: vec![format!("http://{}", self.gateway.addresses().grpc.unwrap())],
            data: self.directory.path().join("push"),
            provider: ProviderUrl::Directory(directory),
            grpc_listen: any_port,
            admin_listen: any_port,
            feedback_listen: any_port,
            ..PushConfig::default()
        };
        poste_push::start(config, context()).await.unwrap()
    }

    /// How many notifications push servers have written.
    pub(crate) fn notifications(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("notifications")).unwrap().count()
    }

    /// Stops everything.
    pub(crate) async fn end(self) {
        self.gateway.stop(DEADLINE).await.unwrap();
        self.archive.stop(DEADLINE).await.unwrap();
    }
}

fn context() -> Context {
    Context::new(Duration::from_secs(5))
}
