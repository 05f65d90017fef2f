//! Whether those whom answers and notifications need are there, looked at now and then.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use poste_provider::PushProvider;
use poste_rpc::client::Target;
use poste_service::readiness::Check;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::{info, warn};

use crate::publish::GatewayPublisher;

/// How often they are asked, and how often while they are not there: a start is not to wait for them longer than they take.
const INTERVAL: Duration = Duration::from_secs(5);
const INTERVAL_WHILE_AWAY: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(4);
/// What a gateway is asked about.
const SERVICE: &str = "poste.gateway.v1.GatewayService";

/// Asks the gateways until `stop`: one that serves is enough, unless none took the last answer.
pub(super) async fn watch_gateways(
    gateways: Vec<Target>,
    publisher: Arc<GatewayPublisher>,
    check: Check,
    stop: CancellationToken,
) {
    let mut seen = Seen::new("gateway", check);
    let watching = async {
        loop {
            let asked = join_all(gateways.iter().map(ask)).await;
            let reason = if asked.iter().any(Result::is_ok) {
                publisher.refused()
            } else {
                let reasons: Vec<String> = asked.into_iter().filter_map(Result::err).collect();
                Some(reasons.join("; "))
            };
            let found = reason.map(|reason| format!("no gateway takes answers: {reason}"));
            seen.note(found.map_or(Ok(()), Err));
            seen.pause().await;
        }
    };
    stop.run_until_cancelled(watching).await;
}

/// Asks the provider until `stop`.
pub(super) async fn watch_provider(provider: Arc<dyn PushProvider>, check: Check, stop: CancellationToken) {
    let mut seen = Seen::new("provider", check);
    let watching = async {
        loop {
            seen.note(match timeout(TIMEOUT, provider.check()).await {
                Ok(checked) => checked.map_err(|unavailable| unavailable.to_string()),
                Err(_) => Err("the provider did not answer in time".to_owned()),
            });
            seen.pause().await;
        }
    };
    stop.run_until_cancelled(watching).await;
}

/// A neighbour as it was last seen.
struct Seen {
    neighbour: &'static str,
    check: Check,
    was_there: bool,
}

impl Seen {
    fn new(neighbour: &'static str, check: Check) -> Self {
        Self { neighbour, check, was_there: true }
    }

    async fn pause(&self) {
        sleep(if self.was_there { INTERVAL } else { INTERVAL_WHILE_AWAY }).await;
    }

    fn note(&mut self, found: Result<(), String>) {
        let was_there = std::mem::replace(&mut self.was_there, found.is_ok());
        match found {
            Ok(()) => {
                self.check.ready();
                if !was_there {
                    info!(neighbour = self.neighbour, "it is back");
                }
            }
            Err(reason) => {
                if was_there {
                    warn!(neighbour = self.neighbour, reason, "it is not there");
                }
                self.check.not_ready(reason);
            }
        }
    }
}

async fn ask(gateway: &Target) -> Result<(), String> {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    match timeout(TIMEOUT, HealthClient::new(gateway.channel()).check(request)).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
        Ok(Ok(_)) => Err(format!("{} does not serve", gateway.address())),
        Ok(Err(status)) => Err(gateway.error(&status).to_string()),
        Err(_) => Err(format!("{} did not answer in time", gateway.address())),
    }
}

#[cfg(test)]
mod tests {
    use poste_provider::{DirectoryProvider, Metrics};
    use poste_service::readiness::Readiness;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_is_seen_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rings");
        let provider = Arc::new(DirectoryProvider::open(&path, Metrics::new()).unwrap());
        std::fs::remove_dir(&path).unwrap();
        let readiness = Readiness::new();
        let (check, stop) = (readiness.add("provider"), CancellationToken::new());
        let watching = tokio::spawn(watch_provider(provider, check, stop.clone()));
        let reason = || readiness.report().checks[0].reason.clone();
        while reason().is_some_and(|reason| reason == "starting") {
            tokio::task::yield_now().await;
        }
        std::fs::create_dir(&path).unwrap();
        let back_at = Instant::now();
        while reason().is_some() {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(back_at.elapsed() <= 2 * INTERVAL_WHILE_AWAY, "{:?}", back_at.elapsed());
        stop.cancel();
        watching.await.unwrap();
    }
}
