//! The push server as a service: it opens its store, reads the archive, answers by the gateways, and at the end lets what
//! it has begun come to its end, writes the last checkpoint, and closes.

mod counts;
mod expiry;
mod health;
mod neighbours;
mod way_out;

use std::sync::Arc;
use std::time::Duration;

use poste_codec::{PublicKey, SecretKey};
use poste_provider::{NotificationKey, PushProvider};
use poste_rpc::client::{AddressError, Target};
use poste_rpc::server::{Server, ServerError};
use poste_service::listener::{self, BindError};
use poste_service::running::ServiceError;
use poste_service::{Addresses, Context, RunningService};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::admin::{self, AdminGrpc, Inside, Loopback, PushGrpc};
use crate::config::PushConfig;
use crate::feed::{Feed, FeedChecks, FeedSettings};
use crate::identity::{self, IdentityError};
use crate::metrics::Metrics;
use crate::publish::GatewayPublisher;
use crate::server::{Parts, PushServer};
use crate::store::{ErrorKind, RedbStore, RegistrationStore, StoreError};
pub use way_out::ProviderError;
use way_out::WayOut;

const NAME: &str = "push";
/// How long a start waits for another process to give back the store, and how often it looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_RETRY: Duration = Duration::from_millis(200);
/// What may be taken beyond the drain: for the last checkpoint, by a self-test, and for the end of the store. The way out
/// has times of its own.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(1);
const TASKS_PATIENCE: Duration = Duration::from_millis(500);
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// What the key of marks is derived for.
const MARKS: &[u8] = b"poste push: marks of notifications 1";

/// Why a push server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A gRPC server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The address of a neighbour.
    #[error("push.{setting}: {source}")]
    Address {
        /// The setting that holds it.
        setting: &'static str,
        /// What is wrong with it.
        source: AddressError,
    },
    /// A setting.
    #[error("push.{0}")]
    Setting(String),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store of registrations.
    #[error("push.data: {0}")]
    Store(#[from] StoreError),
    /// The provider.
    #[error("push.provider: {0}")]
    Provider(#[from] ProviderError),
    /// The runtime is shutting down.
    #[error("the process is stopping")]
    Stopping,
}

/// Starts a push server with the provider that its settings name. It accepts connections when this returns; the archive,
/// the gateways and the provider need not be there.
///
/// # Errors
/// [`StartError`] when an address cannot be bound, or the identity or the store not opened.
pub async fn start(config: PushConfig, context: Context) -> Result<RunningService, StartError> {
    start_on(config, None, context).await
}

/// Starts a push server with a provider of the caller's. Of the settings in `config` the provider is not looked at; what
/// is reported at the feedback listener concerns nobody.
///
/// # Errors
/// As [`start`].
pub async fn start_with_provider(
    config: PushConfig,
    provider: Arc<dyn PushProvider>,
    context: Context,
) -> Result<RunningService, StartError> {
    start_on(config, Some(provider), context).await
}

async fn start_on(
    config: PushConfig,
    provider: Option<Arc<dyn PushProvider>>,
    context: Context,
) -> Result<RunningService, StartError> {
    let archive_store = config.archive_store().map_err(StartError::Setting)?;
    let target = |setting, address: &String| {
        Target::lazy(address).map_err(|source| StartError::Address { setting, source })
    };
    let archive = target("archive", &config.archive)?;
    let gateways: Vec<Target> =
        config.gateways.iter().map(|gateway| target("gateways", gateway)).collect::<Result<_, _>>()?;
    if gateways.is_empty() {
        return Err(StartError::Setting("gateways is empty: name one".to_owned()));
    }

    let grpc = listener::bind_internal("push.grpc_listen", config.grpc_listen, config.insecure).await?;
    let admin = listener::bind_internal("push.admin_listen", config.admin_listen, config.insecure).await?;
    // What is reported there proves itself.
    let feedback = listener::bind("push.feedback_listen", config.feedback_listen).await?;
    let feedback_address = feedback.local_addr().map_err(ServerError::Listener)?;

    let [archive_check, gateway_check, provider_check, store_check, intake_check, feed_check] =
        ["push.archive", "push.gateway", "push.provider", "push.store", "push.intake", "push.feed"]
            .map(|name| context.readiness.add(name));
    let identity = identity_of(&config).await?;
    let config = PushConfig { identity: None, ..config };
    let store = open_store(&config, &identity.public(), &context).await?;
    store_check.ready();
    let (scope, clock) = (context.metrics.scope(NAME), context.clock.clone());
    let notification_key = marks_key(&identity);
    let way_out = WayOut::open(&config.provider, provider, &notification_key, &scope).await?;
    let provider = Loopback::new(way_out.provider());
    let (publisher, repeating) =
        GatewayPublisher::new(gateways.clone(), config.answer_ttl.into(), clock.clone(), &scope);
    let publisher = Arc::new(publisher);
    let feed = {
        let settings = FeedSettings {
            archive,
            archive_store,
            data: config.data.clone(),
            max_topics: config.tail_topics,
            max_in_progress: config.max_in_progress,
            clock: clock.clone(),
        };
        let checks = FeedChecks {
            archive: archive_check,
            store: store_check.clone(),
            intake: intake_check,
            feed: feed_check,
        };
        Feed::open(settings, store.as_ref(), checks, &scope).await?
    };
    let push_key = hex::encode(identity.public().to_compressed());
    let parts = Parts {
        identity,
        store: Arc::clone(&store),
        provider: Arc::new(provider.clone()),
        notification_key,
        publisher: publisher.clone(),
        feed: Arc::new(feed.clone()),
        metrics: Metrics::register(&scope),
    };
    let server = Arc::new(PushServer::start(parts, config.settings()).await?);
    if let Err(error) = admin::clear_up(&server, clock.now()).await {
        warn!(%error, "what a self-test may have left behind stays for now");
    }

    let stop = context.stop.clone();
    let tasks = TaskTracker::new();
    let inside = Inside {
        server: Arc::clone(&server),
        store: Arc::clone(&store),
        provider: provider.clone(),
        publisher: publisher.clone(),
        feed: Arc::new(feed.clone()),
        clock: clock.clone(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    let calls = Server::new(context.drain, context.draining.clone())
        .with(poste_rpc::push::server(PushGrpc::new(inside.clone())))
        .start(grpc, stop.clone())
        .await?;
    let administration = Server::new(context.drain, context.draining.clone())
        .with(poste_rpc::push::admin_server(AdminGrpc::new(inside)))
        .start(admin, stop.clone())
        .await?;
    let addresses = Addresses {
        grpc: Some(calls.local_address()),
        admin: Some(administration.local_address()),
        feedback: Some(feedback_address),
        push_key: Some(push_key),
        ..Addresses::default()
    };

    let mut servers = JoinSet::new();
    servers.spawn(calls.stopped());
    servers.spawn(administration.stopped());
    // What serves those that are still at work after the stop.
    let ending = CancellationToken::new();
    let mut upkeep = JoinSet::new();
    upkeep.spawn(repeating.run(ending.clone()));
    // In one process with a gateway it drains with it, and would find that it does not serve.
    let (draining, watching) = (
        context.draining.clone(),
        neighbours::watch_gateways(gateways, publisher, gateway_check, stop.clone()),
    );
    upkeep.spawn(async move { draining.run_until_cancelled(watching).await.unwrap_or_default() });
    upkeep.spawn(neighbours::watch_provider(Arc::new(provider), provider_check, stop.clone()));
    upkeep.spawn(counts::refresh(Arc::clone(&store), scope, stop.clone()));
    upkeep.spawn(expiry::run(Arc::clone(&server), config, clock, stop.clone()));
    let way_out = way_out.serve(feedback, Arc::clone(&server));
    let feeding = feed.run(server, Arc::clone(&store), stop.clone(), context.drain);
    let mut feeding = AbortOnDropHandle::new(tokio::spawn(feeding));
    let drain = context.drain;
    let task = tokio::spawn(async move {
        // Whatever ends by itself takes the server with it: better restarted than half there.
        let mut outcome = tokio::select! {
            // Told to stop, all of them end.
            biased;
            () = stop.cancelled() => Ok(()),
            Some(ended) = servers.join_next() => flatten(ended).map_err(ServiceError::from),
            ended = &mut feeding => Err(match ended {
                Ok(()) => "the archive is not read any more".into(),
                Err(failed) => format!("reading the archive ended unexpectedly: {failed}").into(),
            }),
            // Only opening it again helps, and whoever restarts the service does that.
            failed = health::failed(|| store.health(), &store_check) => {
                store_check.not_ready(format!("{failed}: the push server ends, to be restarted"));
                Err(ServiceError::from(failed))
            }
        };
        stop.cancel();
        if !feeding.is_finished() && timeout(drain + CHECKPOINT_PATIENCE, &mut feeding).await.is_err() {
            feeding.abort();
            let _ = (&mut feeding).await;
            warn!(
                "the last checkpoint was not written in time; some messages are read again at the next start"
            );
        }
        while let Some(ended) = servers.join_next().await {
            outcome = outcome.and(flatten(ended).map_err(ServiceError::from));
        }
        tasks.close();
        if timeout(TASKS_PATIENCE, tasks.wait()).await.is_err() {
            warn!("a self-test did not end in time: what it has registered may stay");
        }
        ending.cancel();
        way_out.end().await;
        upkeep.shutdown().await;
        store_check.not_ready("stopped");
        match timeout(CLOSE_PATIENCE, store.close()).await {
            Ok(closed) => outcome = outcome.and(closed.map_err(ServiceError::from)),
            Err(_) => warn!("the store was not closed in time"),
        }
        info!("the push server has stopped");
        outcome
    });
    Ok(RunningService::new(NAME, addresses, context.stop, task))
}

fn flatten(ended: Result<Result<(), ServerError>, JoinError>) -> Result<(), ServerError> {
    ended.unwrap_or_else(|error| Err(ServerError::Panicked(error.to_string())))
}

/// The key of the settings, or that of the data directory, which is made where there is none.
async fn identity_of(config: &PushConfig) -> Result<SecretKey, StartError> {
    if let Some(key) = config.secret_key().map_err(StartError::Setting)? {
        return Ok(key);
    }
    let data = config.data.clone();
    let opening = tokio::task::spawn_blocking(move || identity::open(&data));
    Ok(opening.await.map_err(|_| StartError::Stopping)??)
}

/// The key under which notifications are marked: of the identity, so that what is reported after a restart is believed.
fn marks_key(identity: &SecretKey) -> NotificationKey {
    let key = Sha256::new_with_prefix(MARKS).chain_update(identity.to_bytes().as_slice()).finalize();
    NotificationKey::new(key.into())
}

async fn open_store(
    config: &PushConfig,
    identity: &PublicKey,
    context: &Context,
) -> Result<Arc<dyn RegistrationStore>, StartError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    let mut said = false;
    loop {
        let (data, identity, options) = (config.data.clone(), *identity, config.options());
        let opening = tokio::task::spawn_blocking(move || RedbStore::open(&data, &identity, options));
        match opening.await.map_err(|_| StartError::Stopping)? {
            Ok(store) => return Ok(Arc::new(store)),
            // The one before may just be ending.
            Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                if !std::mem::replace(&mut said, true) {
                    warn!(
                        directory = %config.data.display(),
                        patience_s = LOCK_PATIENCE.as_secs(),
                        "another process uses push.data: this one waits until it has ended, and gives up after that time"
                    );
                }
                if timeout(LOCK_RETRY, context.stop.cancelled()).await.is_ok() {
                    return Err(StartError::Stopping);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
