//! Archive and gateway in this process, over the same gRPC as apart, on a clock that the replay moves.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use poste_archive::{ArchiveConfig, StoreUrl};
use poste_gateway::{GatewayConfig, node_key};
use poste_rlpx::Enode;
use poste_rpc::archive::v1::{
    AppendBatch, AppendGoodbye, AppendOpen, AppendOutcome, AppendRequest, NewRecord, append_request,
    append_response,
};
use poste_rpc::client::Target;
use poste_rpc::gateway::v1::PublishRequest;
use poste_service::clock::ManualClock;
use poste_service::config::{HumanDuration, Secret};
use poste_service::{Clock, Context, RunningService};
use poste_wire::Envelope;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::PATIENCE;
use crate::recording::Session;

/// How long a service may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// The stack that a session is replayed against.
pub(crate) struct Stack {
    pub(crate) enode: Enode,
    gateway: RunningService,
    archive: RunningService,
    publisher: Target,
    clock: ManualClock,
    now: Duration,
    _data: TempDir,
}

impl Stack {
    /// Starts it as the genuine server was set up, with what that had stored.
    pub(crate) async fn start(session: &Session, now: Duration) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let (clock, handle) = Clock::manual(now);
        let context = Context { clock, ..Context::new(STOP) };
        let ephemeral = ([127, 0, 0, 1], 0).into();
        let config = ArchiveConfig {
            store: StoreUrl::Local(data.path().join("archive")),
            grpc_listen: ephemeral,
            admin_listen: ephemeral,
            ..ArchiveConfig::default()
        };
        let archive = poste_archive::start(config, context.for_service()).await?;
        let address = archive.addresses().grpc.context("the archive has no gRPC listener")?;
        let address = format!("http://{address}");
        let stored = session.archive.iter().map(|stored| stored.rlp.clone());
        let stored = stored.collect::<Option<Vec<_>>>().context("a stored envelope without its bytes")?;
        timeout(PATIENCE, append(&address, stored)).await.context("the archive does not answer")??;

        let config = GatewayConfig {
            rlpx_listen: ephemeral,
            grpc_listen: ephemeral,
            admin_listen: ephemeral,
            archive: address,
            data: data.path().join("gateway"),
            min_pow: session.server.min_pow,
            mail_password: Secret::new(session.mail_password.as_str()),
            mail_interval: HumanDuration::from_secs(session.server.rate_limit_seconds),
            ..GatewayConfig::default()
        };
        std::fs::create_dir(&config.data)?;
        let key = hex::encode(*session.server_node_private.to_bytes());
        std::fs::write(config.data.join(node_key::FILE_NAME), key)?;
        let gateway = poste_gateway::start(config, context.for_service()).await?;
        let addresses = gateway.addresses();
        let enode: Enode = addresses.enode.as_deref().context("the gateway has no enode")?.parse()?;
        ensure!(enode.key == session.server_node_private.public(), "the gateway has another node key");
        let publisher = addresses.grpc.context("the gateway has no gRPC listener")?;
        let publisher = Target::lazy(&format!("http://{publisher}"))?;
        Ok(Self { enode, gateway, archive, publisher, clock: handle, now, _data: data })
    }

    /// Moves the clock to `now` since 1970; it never runs backwards.
    pub(crate) fn set_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.clock.set(self.now);
    }

    /// The time on the clock, unix seconds.
    pub(crate) fn unix_now(&self) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.now.as_secs())?)
    }

    /// Hands an envelope to the gateway from inside; it goes to every peer.
    pub(crate) async fn publish(&self, envelope: &Envelope) -> anyhow::Result<()> {
        let request = PublishRequest { envelope: envelope.rlp().clone(), mine_to_pow: None };
        let mut client = poste_rpc::gateway::client(self.publisher.channel());
        timeout(PATIENCE, client.publish(request)).await.context("Publish does not answer")??;
        Ok(())
    }

    /// Stops both, the gateway first.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.gateway.stop(STOP).await.map_err(anyhow::Error::from_boxed)?;
        self.archive.stop(STOP).await.map_err(anyhow::Error::from_boxed)
    }
}

/// Puts envelopes into the archive as a gateway does.
async fn append(address: &str, bodies: Vec<Bytes>) -> anyhow::Result<()> {
    if bodies.is_empty() {
        return Ok(());
    }
    let target = Target::lazy(address)?;
    let (requests, stream) = mpsc::channel(2);
    let open =
        append_request::Kind::Open(AppendOpen { writer_id: "recording".to_owned(), ..AppendOpen::default() });
    let records = bodies.into_iter().map(|body| NewRecord { space: "waku1".to_owned(), body }).collect();
    let batch = append_request::Kind::Batch(AppendBatch { batch_id: 1, records, confirmed: false });
    for kind in [open, batch] {
        requests.send(AppendRequest { kind: Some(kind) }).await?;
    }
    let mut client = poste_rpc::archive::client(target.channel());
    let mut answers = client.append(ReceiverStream::new(stream)).await?.into_inner();
    loop {
        let answer = answers.message().await?.context("the archive ended the stream without an ack")?;
        if let Some(append_response::Kind::Ack(ack)) = answer.kind {
            let stored = ack.results.iter().all(|result| result.outcome() == AppendOutcome::Stored);
            ensure!(stored, "the archive did not store what was recorded: {:?}", ack.results);
            break;
        }
    }
    // Or the archive would wait for what this writer may still hold.
    let goodbye = append_request::Kind::Goodbye(AppendGoodbye {});
    requests.send(AppendRequest { kind: Some(goodbye) }).await?;
    drop(requests);
    ensure!(answers.message().await?.is_none(), "the archive said something after the goodbye");
    Ok(())
}
