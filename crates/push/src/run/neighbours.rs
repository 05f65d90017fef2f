//! Whether those whom answers and notifications need are there, looked at now and then.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use poste_provider::PushProvider;
use poste_rpc::client::Target;
use poste_service::readiness::Check;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::{info, warn};

use crate::publish::GatewayPublisher;

const INTERVAL: Duration = Duration::from_secs(5);
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
            seen.tick.tick().await;
            let asked = join_all(gateways.iter().map(ask)).await;
            let reason = if asked.iter().any(Result::is_ok) {
                publisher.refused()
            } else {
                let reasons: Vec<String> = asked.into_iter().filter_map(Result::err).collect();
                Some(reasons.join("; "))
            };
            let found = reason.map(|reason| format!("no gateway takes answers: {reason}"));
            seen.note(found.map_or(Ok(()), Err));
        }
    };
    stop.run_until_cancelled(watching).await;
}

/// Asks the provider until `stop`.
pub(super) async fn watch_provider(provider: Arc<dyn PushProvider>, check: Check, stop: CancellationToken) {
    let mut seen = Seen::new("provider", check);
    let watching = async {
        loop {
            seen.tick.tick().await;
            seen.note(match timeout(TIMEOUT, provider.check()).await {
                Ok(checked) => checked.map_err(|unavailable| unavailable.to_string()),
                Err(_) => Err("the provider did not answer in time".to_owned()),
            });
        }
    };
    stop.run_until_cancelled(watching).await;
}

/// A neighbour as it was last seen.
struct Seen {
    neighbour: &'static str,
    check: Check,
    tick: Interval,
    was_there: bool,
}

impl Seen {
    fn new(neighbour: &'static str, check: Check) -> Self {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { neighbour, check, tick, was_there: true }
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
