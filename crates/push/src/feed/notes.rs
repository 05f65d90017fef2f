//! Writing down how far everything was dealt with.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Shared;
use crate::server::PushServer;
use crate::store::{Checkpoint, RegistrationStore, StoreError};

/// How often the checkpoint is written, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is written that the archive was read to its end, at most.
const CAUGHT_UP_INTERVAL: Duration = Duration::from_secs(60);

/// What is written, and when.
#[derive(Debug)]
pub(super) struct Notes {
    shared: Arc<Shared>,
    server: Arc<PushServer>,
    store: Arc<dyn RegistrationStore>,
    written: Option<Checkpoint>,
    caught_up_at: Option<Instant>,
    has_failed: bool,
}

impl Notes {
    pub(super) fn new(
        shared: Arc<Shared>,
        server: Arc<PushServer>,
        store: Arc<dyn RegistrationStore>,
    ) -> Self {
        Self { shared, server, store, written: None, caught_up_at: None, has_failed: false }
    }

    /// Writes every second if there is something new, and once more when the reader has ended.
    pub(super) async fn run(mut self, ended: &CancellationToken) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = ended.cancelled() => {}
            }
            let is_last = ended.is_cancelled();
            self.measure();
            self.checkpoint().await;
            self.caught_up().await;
            if is_last {
                return;
            }
        }
    }

    fn measure(&self) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let state = self.shared.state.lock();
        let metrics = &self.shared.metrics;
        let lag = state.head.saturating_sub(state.dealt_with());
        metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        metrics.in_progress.set(count(state.in_progress.len()));
        metrics.topics.set(count(state.listening.len()));
        drop(state);
        self.shared.show_age();
    }

    async fn checkpoint(&mut self) {
        let (store_id, dealt_with, is_reset_due) = {
            let state = self.shared.state.lock();
            (state.source.store_id(), state.dealt_with(), state.source.is_reset_due())
        };
        let Some(archive_store_id) = store_id else { return };
        let seq = self.server.checkpoint(dealt_with, self.shared.settings.clock.now());
        let checkpoint = Checkpoint { archive_store_id, seq };
        // 0 says no more than none.
        if !is_reset_due && (seq == 0 || self.written == Some(checkpoint)) {
            return;
        }
        match self.write(checkpoint, is_reset_due).await {
            Ok(()) => {
                self.written = Some(checkpoint);
                if std::mem::take(&mut self.has_failed) {
                    self.shared.checks.store.ready();
                }
            }
            Err(failed) => {
                let reason =
                    format!("{failed}: see that there is room on the disk, and restart the push server");
                self.shared.checks.store.not_ready(reason);
                if !std::mem::replace(&mut self.has_failed, true) {
                    error!(cause = %failed, "the checkpoint cannot be written");
                }
            }
        }
    }

    async fn write(&self, checkpoint: Checkpoint, is_reset_due: bool) -> Result<(), StoreError> {
        if !is_reset_due {
            return self.store.set_checkpoint(checkpoint).await;
        }
        self.store.reset_checkpoint(checkpoint).await?;
        self.shared.state.lock().source.was_reset();
        Ok(())
    }

    async fn caught_up(&mut self) {
        let caught_up = {
            let mut state = self.shared.state.lock();
            let is_due = self.caught_up_at.is_none_or(|at| at.elapsed() >= CAUGHT_UP_INTERVAL);
            if !is_due || !state.is_at_the_end() {
                return;
            }
            state.source.at_the_end(self.shared.settings.clock.unix_seconds())
        };
        let Some(caught_up) = caught_up else { return };
        self.caught_up_at = Some(Instant::now());
        let data = self.shared.settings.data.clone();
        let written = tokio::task::spawn_blocking(move || caught_up.write(&data)).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "it cannot be noted that the archive was read to its end");
        }
    }
}
