//! Forgetting what is old, in small steps, so that nobody waits long for the store.

use std::sync::Arc;
use std::time::Duration;

use poste_service::Clock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::PushConfig;
use crate::server::PushServer;

/// Between two rounds, and between the steps of one.
const ROUNDS: Duration = Duration::from_secs(600);
const STEPS: Duration = Duration::from_millis(200);
/// Entries that one step looks at, about.
const BUDGET: usize = 1000;
/// A start has other things to do.
const FIRST_ROUND: Duration = Duration::from_secs(30);

/// Forgets until `stop`.
pub(super) async fn run(server: Arc<PushServer>, config: PushConfig, clock: Clock, stop: CancellationToken) {
    let forgetting = async {
        sleep(FIRST_ROUND).await;
        loop {
            round(&server, &config, &clock).await;
            sleep(ROUNDS).await;
        }
    };
    stop.run_until_cancelled(forgetting).await;
}

async fn round(server: &PushServer, config: &PushConfig, clock: &Clock) {
    let (mut registrations, mut requests) = (0, 0);
    loop {
        match server.expire(&config.retention(clock.now()), BUDGET).await {
            Ok(expired) => {
                registrations += expired.registrations.len();
                requests += expired.claims + expired.answers;
                if expired.is_done {
                    break;
                }
            }
            Err(error) => {
                warn!(%error, "what is old cannot be forgotten now");
                break;
            }
        }
        sleep(STEPS).await;
    }
    if registrations > 0 || requests > 0 {
        info!(registrations, requests, "forgot what is old");
    }
}
