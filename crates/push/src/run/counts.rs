//! How much the store holds, for the metrics: asked now and then.

use std::sync::Arc;
use std::time::Duration;

use poste_service::metrics::Scope;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::store::RegistrationStore;

const INTERVAL: Duration = Duration::from_secs(15);

/// Shows what the store holds until `stop`.
pub(super) async fn refresh(store: Arc<dyn RegistrationStore>, scope: Scope, stop: CancellationToken) {
    let registrations = scope.gauge("store_registrations", "Registrations in the store");
    let tombstones = scope.gauge("store_tombstones", "Devices of which only a version is kept");
    let open_claims = scope.gauge("store_open_claims", "Notifications that are being sent");
    let ended_claims = scope.gauge("store_ended_claims", "Notifications that are remembered");
    let answers = scope.gauge("store_answers", "Answers that are remembered");
    let unreadable = scope
        .gauge("store_unreadable", "Times that a registration was met that cannot be read, since the start");
    let file_bytes = scope.gauge("store_file_bytes", "Bytes of the store's files");
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_failed = false;
    let refreshing = async {
        loop {
            tick.tick().await;
            match store.counts().await {
                Ok(counts) => {
                    has_failed = false;
                    for (gauge, count) in [
                        (&registrations, counts.registrations),
                        (&tombstones, counts.tombstones),
                        (&open_claims, counts.open_claims),
                        (&ended_claims, counts.ended_claims),
                        (&answers, counts.answers),
                        (&unreadable, counts.unreadable),
                        (&file_bytes, counts.file_bytes),
                    ] {
                        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
                    }
                }
                Err(error) if !std::mem::replace(&mut has_failed, true) => {
                    warn!(%error, "the store does not say how much it holds");
                }
                Err(_) => {}
            }
        }
    };
    stop.run_until_cancelled(refreshing).await;
}
