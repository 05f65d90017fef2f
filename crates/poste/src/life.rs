//! The life of a server process: logs, health listener, services, the ready line, a signal, the drain.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::future::select_all;
use poste_service::config::Config;
use poste_service::health::{HealthServer, HttpConfig, Subject};
use poste_service::logging::{self, LogConfig, LogLevel};
use poste_service::ready::ReadyLine;
use poste_service::running::ServiceError;
use poste_service::shutdown::{DrainConfig, Signals};
use poste_service::{Context, RunningService, listener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::VERSION;

/// What a service may take beyond `drain.timeout` to flush and to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Runs a server from its configuration to its end. `name` stands in logs and `poste_build_info`; `start` starts
/// the services in order, pushing each as soon as it runs; they are stopped in the reverse order.
pub async fn run<F>(name: &'static str, config: &Config, start: F) -> anyhow::Result<ExitCode>
where
    F: AsyncFnOnce(&Context, &mut Vec<RunningService>) -> anyhow::Result<()>,
{
    let log: LogConfig = config.section()?;
    let http: HttpConfig = config.section()?;
    let drain: DrainConfig = config.section()?;
    let log_level = logging::init(&log, name)?;
    raise_open_files();
    // From here on the log is where errors are told: it may be JSON.
    let ended = Box::pin(live(name, log_level, &http, &drain, start)).await;
    Ok(ended.unwrap_or_else(|error| {
        tracing::error!(error = crate::explain(&error), "ended by an error");
        ExitCode::FAILURE
    }))
}

/// Every connection takes a file descriptor, and the soft limit that a process gets is for programs that use
/// `select`.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |count| count.to_string());
    match raised {
        Ok(()) => tracing::info!(limit = text(limit.maximum), "files that may be open at a time"),
        Err(error) => {
            tracing::warn!(limit = text(limit.current), %error, "the limit of open files cannot be raised");
        }
    }
}

async fn live<F>(
    name: &'static str,
    log_level: LogLevel,
    http: &HttpConfig,
    drain: &DrainConfig,
    start: F,
) -> anyhow::Result<ExitCode>
where
    F: AsyncFnOnce(&Context, &mut Vec<RunningService>) -> anyhow::Result<()>,
{
    // Before anything starts, so that an early signal ends an orderly start and not the process.
    let mut signals = Signals::listen().context("signals cannot be received")?;

    let context = Context::new(drain.timeout.into());
    context.metrics.register_build(VERSION, name);
    let (readiness, metrics) = (context.readiness.clone(), context.metrics.clone());
    let subject = Subject { readiness, metrics, log_level, version: VERSION };
    let http_listener = listener::bind("http.listen", http.listen).await?;
    let health = HealthServer::start(http_listener, http.header_timeout.into(), subject)?;

    let mut services = Vec::new();
    let started = tokio::select! {
        started = start(&context, &mut services) => started.map(|()| true),
        signal = signals.next() => {
            tracing::info!(signal, "told to stop during the start");
            Ok(false)
        }
    };
    let (outcome, delay) = match started {
        Ok(true) => (serve(&context, &mut services, &health, &mut signals).await, drain.delay.0),
        // Nobody was told that it is here, so nobody needs time to look away.
        Ok(false) => (Ok(()), Duration::ZERO),
        Err(error) => (Err(error), Duration::ZERO),
    };

    context.readiness.draining();
    context.draining.cancel();
    let stopped = tokio::select! {
        stopped = stop(services, delay, drain.timeout.0) => stopped,
        signal = signals.next() => {
            tracing::warn!(signal, "told to stop again: what is open is cut");
            return Ok(ExitCode::FAILURE);
        }
    };
    health.stop().await;
    outcome.and(stopped)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Says that everything accepts connections, and waits for a signal (`Ok`) or for a service that ends by itself.
async fn serve(
    context: &Context,
    services: &mut [RunningService],
    health: &HealthServer,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    context.readiness.serving();
    // The service that is started last needs all the others, and is named first.
    let line = ReadyLine::new(services.iter().rev(), Some(health.local_address()));
    line.write(io::stdout().lock()).context("the ready line cannot be written to stdout")?;
    tracing::info!(version = VERSION, "serving");

    tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "told to stop");
            Ok(())
        }
        (name, ended) = first_end(services) => Err(match ended {
            Ok(()) => anyhow!("{name} ended by itself"),
            Err(error) => anyhow!("{name}: {error}"),
        }),
    }
}

async fn first_end(services: &mut [RunningService]) -> (&'static str, Result<(), ServiceError>) {
    let ends = services.iter_mut().map(|service| Box::pin(async { (service.name(), service.ended().await) }));
    select_all(ends).await.0
}

/// Stops the services, the last one first, so that none loses a neighbour that it still needs.
async fn stop(services: Vec<RunningService>, delay: Duration, timeout: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(delay).await;
    let mut outcome = Ok(());
    for service in services.into_iter().rev() {
        let name = service.name();
        if let Err(error) = service.stop(timeout + STOP_GRACE).await {
            tracing::error!(service = name, %error, "did not stop in order");
            outcome = Err(anyhow!("{name}: {error}"));
        }
    }
    outcome
}
