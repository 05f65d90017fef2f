//! What other services and operators ask of the server and tell it (`poste.push.v1`). Administration belongs on a listener of
//! its own. Hashed keys come in, and nothing secret goes out.

mod client;
mod loopback;
mod registrations;
mod self_test;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use poste_rpc::push::v1;
use poste_rpc::push::v1::push_admin_service_server::PushAdminService;
use poste_rpc::push::v1::push_service_server::PushService;
use poste_service::Clock;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::answer::Publisher;
use crate::running::{FeedStatus, Running};
use crate::server::PushServer;
use crate::store::{RegistrationStore, StoreError};
pub(crate) use loopback::Loopback;
pub(crate) use self_test::clear_up;

/// Each sends some envelopes over the network.
const MAX_SELF_TESTS: usize = 1;
/// How long a drain waits at most, for callers with a deadline and without one.
const MAX_DRAIN: Duration = Duration::from_secs(60);
/// The time that the answer of a drain has to reach a caller before the deadline of the call.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// What administration sees of a running service. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    pub(crate) server: Arc<PushServer>,
    pub(crate) store: Arc<dyn RegistrationStore>,
    /// The one that the server has.
    pub(crate) provider: Loopback,
    /// The one that the server has; a self-test publishes its own messages by it.
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) feed: Arc<dyn Running>,
    pub(crate) clock: Clock,
    /// What was begun here and has to end before the store is closed.
    pub(crate) tasks: TaskTracker,
    /// When it is cancelled, nobody waits any longer.
    pub(crate) stop: CancellationToken,
}

/// `PushService` on a running service.
#[derive(Debug, Clone)]
pub(crate) struct PushGrpc(Inside);

impl PushGrpc {
    pub(crate) fn new(inside: Inside) -> Self {
        Self(inside)
    }
}

#[tonic::async_trait]
impl PushService for PushGrpc {
    async fn server_info(
        &self,
        _request: Request<v1::ServerInfoRequest>,
    ) -> Result<Response<v1::ServerInfoResponse>, Status> {
        let feed = self.0.feed.status();
        Ok(Response::new(v1::ServerInfoResponse {
            public_key: self.0.server.public.to_compressed().to_vec().into(),
            topics: feed.topics,
            accepting: feed.connected && !feed.paused,
        }))
    }
}

/// `PushAdminService` on a running service.
#[derive(Debug, Clone)]
pub(crate) struct AdminGrpc {
    inside: Inside,
    self_tests: Arc<Semaphore>,
}

impl AdminGrpc {
    pub(crate) fn new(inside: Inside) -> Self {
        Self { inside, self_tests: Arc::new(Semaphore::new(MAX_SELF_TESTS)) }
    }
}

#[tonic::async_trait]
impl PushAdminService for AdminGrpc {
    type SelfTestStream = Pin<Box<dyn Stream<Item = Result<v1::SelfTestResponse, Status>> + Send + 'static>>;

    async fn stats(
        &self,
        _request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        let counts = self.inside.store.counts().await.map_err(store_failed)?;
        let store = v1::StoreStats {
            registrations: counts.registrations,
            tombstones: counts.tombstones,
            open_claims: counts.open_claims,
            ended_claims: counts.ended_claims,
            answers: counts.answers,
            unreadable: counts.unreadable,
            file_bytes: counts.file_bytes,
        };
        let feed = feed_stats(self.inside.feed.status());
        Ok(Response::new(v1::StatsResponse { store: Some(store), feed: Some(feed) }))
    }

    async fn registration(
        &self,
        request: Request<v1::RegistrationRequest>,
    ) -> Result<Response<v1::RegistrationResponse>, Status> {
        registrations::show(&self.inside, &request.into_inner()).await.map(Response::new)
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        registrations::forget(&self.inside, &request.into_inner()).await.map(Response::new)
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let feed = &self.inside.feed;
        let patience = patience(request.metadata());
        let is_paused = !request.into_inner().resume;
        tracing::info!(is_paused, "an operator pauses or resumes the taking of messages");
        feed.pause(is_paused);
        if is_paused {
            tokio::select! {
                () = feed.drained() => {}
                () = self.inside.stop.cancelled() => return Err(stopping()),
                () = sleep(patience) => return Err(still_at_work(feed.status().in_progress)),
            }
        }
        Ok(Response::new(v1::DrainResponse { feed: Some(feed_stats(feed.status())) }))
    }

    async fn self_test(
        &self,
        _request: Request<v1::SelfTestRequest>,
    ) -> Result<Response<Self::SelfTestStream>, Status> {
        let permit = Arc::clone(&self.self_tests)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("a self-test is running: wait for its end"))?;
        let told = self_test::begin(self.inside.clone(), permit);
        let steps = futures::stream::unfold(told, async |mut told| Some((told.recv().await?, told)));
        Ok(Response::new(Box::pin(steps)))
    }
}

fn feed_stats(status: FeedStatus) -> v1::FeedStats {
    v1::FeedStats {
        connected: status.connected,
        everything: status.everything,
        topics: status.topics,
        seq: status.seq,
        head: status.head,
        archive_store_id: status.store_id.map(|id| id.to_vec().into()).unwrap_or_default(),
        in_progress: status.in_progress as u64,
        paused: status.paused,
        last_error: status.last_error.unwrap_or_default(),
    }
}

fn store_failed(error: StoreError) -> Status {
    Status::internal(format!("the store of registrations: {error}"))
}

fn stopping() -> Status {
    Status::unavailable("the push server is stopping")
}

fn still_at_work(messages: usize) -> Status {
    Status::deadline_exceeded(format!(
        "no message is taken any more, and {messages} are still at work: ask again, or see what they wait for"
    ))
}

/// How long the caller waits for a drain.
fn patience(metadata: &MetadataMap) -> Duration {
    let deadline = metadata.get("grpc-timeout").and_then(|value| time_of(value.to_str().ok()?));
    deadline.map_or(MAX_DRAIN, |deadline| deadline.saturating_sub(ANSWER_TIME).min(MAX_DRAIN))
}

/// A time as gRPC writes it: digits and a unit.
fn time_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u32 = digits.parse().ok()?;
    let one = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(one * count)
}

#[cfg(test)]
mod tests;
