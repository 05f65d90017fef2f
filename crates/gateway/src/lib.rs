//! The Waku gateway: a full node of the Waku v1 and Whisper networks at the edge, and the face of the mailserver whose
//! mail lies in the archive service.
//!
//! What it is not: it stores nothing but its node key and what waits for an archive that is away (the spool), opens no
//! envelope but requests for mail, and never sees an application's key.
//!
//! Start with [`start`]; then `peer.rs` for the life of a peer, `node.rs` for what peers share.

mod acceptance;
mod admin;
mod config;
mod dialer;
mod grpc;
mod listener;
mod mailserver;
mod metrics;
mod node;
pub mod node_key;
mod peer;
mod peers;
mod pool;
mod quota;
mod spacing;
mod spool;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use poste_journal::{JournalError, RealDisk};
use poste_rlpx::enode::EnodeError;
use poste_rlpx::{Enode, Limits, LocalNode};
use poste_rpc::client::{AddressError, Target};
use poste_rpc::server::{Server, ServerError};
use poste_service::listener::BindError;
use poste_service::readiness::Check;
use poste_service::running::ServiceError;
use poste_service::{Addresses, Context, RunningService};
use poste_wire::{SymKey, password_key};
use thiserror::Error;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use acceptance::Rules;
pub use config::GatewayConfig;
use mailserver::{Adoption, ArchiveMailServer, KnownStore, Outbox, Spooling};
use metrics::Metrics;
use node::{DIALECTS, MAX_MESSAGE_SIZE, Node};
use node_key::NodeKeyError;
use peers::Peers;
use pool::Pool;
use quota::PeerQuotas;
use spacing::Spacing;
pub use spool::SpoolError;
use spool::{Spool, SpoolOptions};

/// How often what has expired is taken out of the pool.
const SWEEP: Duration = Duration::from_secs(1);
/// How often it is shown how the archive is.
const LOOK: Duration = Duration::from_secs(1);
/// How long a start waits for another process to give back the spool, and how often it looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_RETRY: Duration = Duration::from_millis(200);
const STORE_ID_BYTES: usize = 16;

/// Why a gateway does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A gRPC server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The archive's address.
    #[error("gateway.archive: {0}")]
    Archive(#[from] AddressError),
    /// The node key.
    #[error(transparent)]
    NodeKey(#[from] NodeKeyError),
    /// The spool in the data directory.
    #[error("gateway.data: {0}")]
    Spool(#[from] SpoolError),
    /// A static peer.
    #[error("gateway.static_peers: {enode}: {reason}")]
    StaticPeer {
        /// As it was given.
        enode: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting.
    #[error("gateway.{setting}: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The runtime is shutting down.
    #[error("the process is stopping")]
    Stopping,
}

/// Starts a gateway: binds its listeners and returns once all of them accept connections. The archive need not be
/// there; what comes meanwhile is spooled.
pub async fn start(config: GatewayConfig, context: Context) -> Result<RunningService, StartError> {
    let static_peers = static_peers(&config.static_peers)?;
    let rules = rules(&config)?;
    let archive = Target::lazy(&config.archive)?;
    let (key, mail_key) = keys(&config).await?;

    let rlpx = poste_service::listener::bind("gateway.rlpx_listen", config.rlpx_listen).await?;
    let grpc =
        poste_service::listener::bind_internal("gateway.grpc_listen", config.grpc_listen, config.insecure)
            .await?;
    let admin =
        poste_service::listener::bind_internal("gateway.admin_listen", config.admin_listen, config.insecure)
            .await?;
    let address = rlpx.local_addr().map_err(ServerError::Listener)?;
    let host = config.advertise.clone().unwrap_or_else(|| reachable(address).to_string());
    let enode = Enode::new(key.public(), host, address.port()).to_string();

    let metrics = Metrics::new(&context.metrics.scope("gateway"));
    let (outbox, spooling) = outbox(&config, &context, &key, metrics.clone()).await?;
    let mail = ArchiveMailServer::new(archive.clone(), Arc::clone(&outbox), metrics.clone());
    let archive_check = context.readiness.add_informational("gateway.archive");
    let adoption = Adoption {
        directories: config.adopt_spools.clone(),
        archive,
        outbox: Arc::clone(&outbox),
        max_bytes: config.spool_size.0,
        clock: context.clock.clone(),
        max_ttl: longest_ttl(&config),
        metrics: metrics.clone(),
    };
    let pool = Arc::new(Pool::new(config.pool_bytes.as_usize()));
    let node = Arc::new(Node {
        local: LocalNode {
            key,
            client_name: concat!("poste/v", env!("CARGO_PKG_VERSION")).to_owned(),
            capabilities: DIALECTS.into_iter().map(poste_waku::offered).collect(),
            listen_port: address.port(),
        },
        limits: Limits { max_message_size: MAX_MESSAGE_SIZE, ..Limits::default() },
        rules,
        clock: context.clock.clone(),
        peers: Peers::new(config.max_peers, Arc::clone(&pool), metrics.clone()),
        pool,
        mail: Arc::new(mail.clone()),
        mail_key,
        mail_spacing: Spacing::new(config.mail_interval.into()),
        quotas: Arc::new(PeerQuotas::new([
            config.peer_quota_small,
            config.peer_quota_medium,
            config.peer_quota_large,
        ])),
        metrics,
    });

    let stop = context.stop.clone();
    let publisher = Server::new(context.drain, context.draining.clone())
        .with(poste_rpc::gateway::server(grpc::Publisher(Arc::clone(&node))))
        .start(grpc, stop.clone())
        .await?;
    let administration = Server::new(context.drain, context.draining.clone())
        .with(poste_rpc::gateway::admin_server(admin::Admin {
            node: Arc::clone(&node),
            enode: enode.clone(),
        }))
        .start(admin, stop.clone())
        .await?;
    let addresses = Addresses {
        grpc: Some(publisher.local_address()),
        admin: Some(administration.local_address()),
        enode: Some(enode),
        ..Addresses::default()
    };

    // Outlives the peers: what they were not told yet is still archived.
    let mail_stop = CancellationToken::new();
    let mut archiving = AbortOnDropHandle::new(tokio::spawn(mail.run(mail_stop.clone())));
    let peers = TaskTracker::new();
    peers.spawn(adoption.run(stop.clone()));
    peers.spawn(sweep(Arc::clone(&node), stop.clone()));
    peers.spawn(watch_archive(Arc::clone(&node), outbox, archive_check, stop.clone()));
    peers.spawn(listener::run(Arc::clone(&node), rlpx, peers.clone(), stop.clone()));
    for enode in static_peers {
        peers.spawn(dialer::run(Arc::clone(&node), enode, stop.clone()));
    }
    let mut servers = JoinSet::new();
    servers.spawn(publisher.stopped());
    servers.spawn(administration.stopped());
    let (token, drain) = (stop.clone(), context.drain);
    let task = tokio::spawn(async move {
        // A server that ends by itself takes the gateway with it: better restarted than half there.
        let mut outcome = tokio::select! {
            () = token.cancelled() => Ok(()),
            Some(ended) = servers.join_next() => flatten(ended),
        };
        token.cancel();
        let deadline = Instant::now() + drain;
        peers.close();
        peers.wait().await;
        while let Some(ended) = servers.join_next().await {
            outcome = outcome.and(flatten(ended));
        }
        mail_stop.cancel();
        let timely = timeout_at(deadline, &mut archiving).await.is_ok();
        if !timely {
            archiving.abort();
            let _ = (&mut archiving).await;
        }
        // Now nobody sends any more: what is left goes into the spool.
        spooling.end().await;
        let left = node.mail.waiting();
        if left.unconfirmed > 0 {
            let waiting = left.unconfirmed;
            warn!(
                waiting,
                "stopped with envelopes that neither the archive nor the spool took; none was confirmed"
            );
        }
        if left.count > left.unconfirmed {
            let spooled = left.count - left.unconfirmed;
            info!(spooled, timely, "the spool keeps envelopes for the next start");
        }
        info!("the gateway has stopped");
        outcome.map_err(ServiceError::from)
    });
    Ok(RunningService::new("gateway", addresses, stop, task))
}

fn flatten(ended: Result<Result<(), ServerError>, JoinError>) -> Result<(), ServerError> {
    ended.unwrap_or_else(|error| Err(ServerError::Panicked(error.to_string())))
}

fn static_peers(enodes: &[String]) -> Result<Vec<Enode>, StartError> {
    let parse = |enode: &String| {
        let refuse = |reason: String| StartError::StaticPeer { enode: enode.clone(), reason };
        let parsed: Enode = enode.parse().map_err(|error: EnodeError| refuse(error.to_string()))?;
        if parsed.endpoint.is_none() {
            return Err(refuse("it names no host and port".to_owned()));
        }
        Ok(parsed)
    };
    enodes.iter().map(parse).collect()
}

fn rules(config: &GatewayConfig) -> Result<Rules, StartError> {
    if !config.min_pow.is_finite() || config.min_pow < 0.0 {
        return Err(StartError::Setting { setting: "min_pow", reason: "it is a finite number from 0 up" });
    }
    let max_ttl = Duration::from(config.max_ttl).as_secs();
    Ok(Rules {
        min_pow: config.min_pow,
        max_message_size: MAX_MESSAGE_SIZE,
        max_ttl: u32::try_from(max_ttl).unwrap_or(u32::MAX),
    })
}

/// Reads the node key, and derives the key of the mail password, which takes its time by design.
async fn keys(config: &GatewayConfig) -> Result<(poste_codec::SecretKey, SymKey), StartError> {
    let (data, password) = (config.data.clone(), config.mail_password.clone());
    let reading = tokio::task::spawn_blocking(move || {
        Ok::<_, NodeKeyError>((node_key::open(&data)?, password_key(password.expose())))
    });
    Ok(reading.await.map_err(|_| StartError::Stopping)??)
}

/// The store that the setting names.
fn archive_store(config: &GatewayConfig) -> Result<Option<Bytes>, StartError> {
    let Some(text) = &config.archive_store else { return Ok(None) };
    let store = hex::decode(text).ok().filter(|store| store.len() == STORE_ID_BYTES);
    let reason = "it is the store's id of 32 hexadecimal digits, as `poste ctl archive stats` shows it";
    store.map(|store| Some(store.into())).ok_or(StartError::Setting { setting: "archive_store", reason })
}

/// The longest ttl of what a spool may hold. The setting may have been larger when that came, and is another one of another
/// gateway: below the default it says nothing.
fn longest_ttl(config: &GatewayConfig) -> Duration {
    Duration::from(config.max_ttl).max(GatewayConfig::default().max_ttl.into())
}

/// Opens the spool and begins to fill it.
async fn outbox(
    config: &GatewayConfig,
    context: &Context,
    key: &poste_codec::SecretKey,
    metrics: Metrics,
) -> Result<(Arc<Outbox>, Spooling), StartError> {
    let node_id = hex::encode(key.public().node_id());
    let chosen = archive_store(config)?;
    let [spool_ready, spool_version, store_ready, queue] =
        ["gateway.spool", "gateway.spool_version", "gateway.archive_store", "gateway.archive_queue"]
            .map(|name| context.readiness.add(name));
    let deadline = Instant::now() + LOCK_PATIENCE;
    let mut said = false;
    let (opened, store) = loop {
        let disk = Arc::new(RealDisk);
        let options = SpoolOptions {
            disk: disk.clone(),
            dir: spool::directory(&config.data),
            max_bytes: config.spool_size.0,
            writer_id: writer_id(&node_id),
            clock: context.clock.clone(),
            max_ttl: longest_ttl(config),
            ready: spool_ready.clone(),
            version: spool_version.clone(),
            metrics: metrics.spool.clone(),
        };
        let (dir, chosen, ready) = (options.dir.clone(), chosen.clone(), store_ready.clone());
        let opening = tokio::task::spawn_blocking(move || {
            let opened = Spool::open(options)?;
            // The directory is ours from here on.
            let store = KnownStore::open(disk, &dir, chosen, ready)?;
            Ok::<_, SpoolError>((opened, store))
        });
        match opening.await.map_err(|_| StartError::Stopping)? {
            Ok(opened) => break opened,
            // Another gateway may just be draining what this one has left behind; it soon gives way.
            Err(SpoolError::Journal(JournalError::Locked { .. })) if Instant::now() < deadline => {
                if !std::mem::replace(&mut said, true) {
                    warn!(
                        directory = %config.data.display(),
                        patience_s = LOCK_PATIENCE.as_secs(),
                        "another process uses gateway.data: this one waits until it has ended, and gives up after that time"
                    );
                }
                let stopping = timeout(LOCK_RETRY, context.stop.cancelled()).await.is_ok();
                if stopping {
                    return Err(StartError::Stopping);
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    if !opened.0.writer_id().starts_with(&node_id) {
        warn!(
            "the spool was made under another node key; the archive goes on to know this gateway by the former"
        );
    }
    Ok(Outbox::start(opened, config.archive_queue_bytes.as_usize(), store, queue, metrics)?)
}

/// A name for the archive to know a new spool by. The node's id tells people whose it is; the rest, that it is this
/// directory: another one with the same key may hold other envelopes, and must not say goodbye for this one.
fn writer_id(node_id: &str) -> String {
    format!("{node_id}-{:016x}", rand::random::<u64>())
}

/// The host of an enode when none is given.
fn reachable(address: SocketAddr) -> IpAddr {
    if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() }
}

async fn sweep(node: Arc<Node>, stop: CancellationToken) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        node.pool.sweep(node.now());
        let (envelopes, bytes) = node.pool.size();
        node.metrics.pool_envelopes.set(envelopes as i64);
        node.metrics.pool_bytes.set(bytes as i64);
    }
}

/// Shows whether the archive is there, and how far back what it does not have yet goes.
async fn watch_archive(node: Arc<Node>, outbox: Arc<Outbox>, check: Check, stop: CancellationToken) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let connected = outbox.size().connected;
        node.metrics.archive_connected.set(connected.into());
        if connected {
            check.ready();
        } else {
            check.not_ready("no stream to the archive is open: what is accepted goes into the spool");
        }
        let held_back_ns = outbox.held_back_ns().and_then(|oldest_ns| u64::try_from(oldest_ns).ok());
        let age =
            held_back_ns.map(|oldest_ns| node.clock.now().saturating_sub(Duration::from_nanos(oldest_ns)));
        node.metrics.held_back_seconds.set(age.map_or(0, |age| age.as_secs() as i64));
    }
}
