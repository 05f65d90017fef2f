//! The common shape of a service: what it is given, and what `start` returns.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// An error of a service, as the binary prints it.
pub type ServiceError = Box<dyn Error + Send + Sync>;

/// What a service takes from its process.
#[derive(Clone, Debug)]
pub struct Context {
    /// The only source of wall time.
    pub clock: Clock,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// Where checks are added.
    pub readiness: Readiness,
    /// Cancelled when the process begins to drain: it goes on serving, and says that it soon will not. One for all
    /// services; where a service is stopped without it, its `stop` says the same.
    pub draining: CancellationToken,
    /// Cancelled when this service is to stop.
    pub stop: CancellationToken,
    /// How long open work may take to end after that.
    pub drain: Duration,
}

impl Context {
    /// A context on the system's clock, with fresh metrics and readiness: what a test needs.
    pub fn new(drain: Duration) -> Self {
        Self {
            clock: Clock::system(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            drain,
        }
    }

    /// The same, for another service of the process: with a stop of its own.
    #[must_use]
    pub fn for_service(&self) -> Self {
        Self { stop: CancellationToken::new(), ..self.clone() }
    }
}

/// Where a service listens, with real ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Its gRPC.
    pub grpc: Option<SocketAddr>,
    /// The gRPC of its administration.
    pub admin: Option<SocketAddr>,
    /// The gateway's `enode://…`, with the host that it advertises.
    pub enode: Option<String>,
    /// Where the push server hears what its provider learns later.
    pub feedback: Option<SocketAddr>,
    /// The key that clients name the push server by: 66 hexadecimal digits.
    pub push_key: Option<String>,
}

/// A service at work. Dropping it cancels its `stop`.
#[derive(Debug)]
pub struct RunningService {
    name: &'static str,
    addresses: Addresses,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServiceError>>,
    has_ended: bool,
}

impl RunningService {
    /// Wraps a service's main task. `stop` is the token of its [`Context`]; the task ends when everything of the
    /// service has ended.
    pub fn new(
        name: &'static str,
        addresses: Addresses,
        stop: CancellationToken,
        task: JoinHandle<Result<(), ServiceError>>,
    ) -> Self {
        Self { name, addresses, stop, task, has_ended: false }
    }

    /// Its name: the name of its section.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Waits until it ends by itself, which a healthy service does only when it is told to stop. Cancel safe.
    /// Its outcome is told once; later calls return `Ok` at once.
    pub async fn ended(&mut self) -> Result<(), ServiceError> {
        if self.has_ended {
            return Ok(());
        }
        let outcome = (&mut self.task).await;
        self.has_ended = true;
        outcome.unwrap_or_else(|error| Err(format!("{} ended unexpectedly: {error}", self.name).into()))
    }

    /// Tells it to stop and waits for its end, at most `deadline`; then its main task is aborted.
    pub async fn stop(mut self, deadline: Duration) -> Result<(), ServiceError> {
        self.stop.cancel();
        match tokio::time::timeout(deadline, self.ended()).await {
            Ok(result) => result,
            Err(_) => {
                self.task.abort();
                let seconds = deadline.as_secs_f64();
                Err(format!("{} did not stop within {seconds} s and was aborted", self.name).into())
            }
        }
    }
}

impl Drop for RunningService {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(
        task: impl Future<Output = Result<(), ServiceError>> + Send + 'static,
        stop: &CancellationToken,
    ) -> RunningService {
        RunningService::new("test", Addresses::default(), stop.clone(), tokio::spawn(task))
    }

    #[tokio::test]
    async fn a_stop_cancels_the_token_and_waits() {
        let stop = CancellationToken::new();
        let seen = stop.clone();
        let running = service(
            async move {
                seen.cancelled().await;
                Ok(())
            },
            &stop,
        );
        running.stop(Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn a_service_that_ignores_its_stop_is_aborted_and_named() {
        let running = service(std::future::pending(), &CancellationToken::new());
        let error = running.stop(Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(error.contains("test did not stop within 0.05 s"), "{error}");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_a_drop_is_a_stop() {
        let stop = CancellationToken::new();
        let mut running = service(async { panic!("as the test wants it") }, &stop);
        assert!(running.ended().await.unwrap_err().to_string().contains("test ended unexpectedly"));
        running.ended().await.unwrap();
        drop(running);
        assert!(stop.is_cancelled());
    }
}
