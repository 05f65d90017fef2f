//! `Verify`: reads everything, tells how far it is, and at the end what was found.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::verify_response::Kind;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::grpc::convert;
use crate::store::{ArchiveStore, Progress, ProgressFn, StoreError, Verification};

const TELL_EVERY: Duration = Duration::from_millis(250);

/// A verification and whoever waits for it.
pub(super) struct Verify {
    verification: BoxFuture<'static, Result<Verification, StoreError>>,
    progress: watch::Receiver<Progress>,
    tell: Interval,
    ended: bool,
    /// Nobody waits any longer: the store is told at its next progress.
    _left: DropGuard,
}

impl Verify {
    pub(super) fn begin(store: Arc<dyn ArchiveStore>, permit: OwnedSemaphorePermit) -> Self {
        let (told, progress) = watch::channel(Progress::default());
        let left = CancellationToken::new();
        let guard = left.clone().drop_guard();
        let on_progress: ProgressFn = Arc::new(move |progress| {
            // As long as the store can call this it is at work, whether or not anybody waits.
            let _running = &permit;
            told.send_replace(progress);
            !left.is_cancelled()
        });
        let mut tell = interval(TELL_EVERY);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let verification = Box::pin(async move { store.verify(on_progress).await });
        Self { verification, progress, tell, ended: false, _left: guard }
    }

    pub(super) fn responses(self) -> impl Stream<Item = Result<v1::VerifyResponse, Status>> + Send {
        futures::stream::unfold(self, |mut verify| async move {
            let response = verify.next().await?;
            Some((response, verify))
        })
    }

    async fn next(&mut self) -> Option<Result<v1::VerifyResponse, Status>> {
        if self.ended {
            return None;
        }
        loop {
            tokio::select! {
                verified = &mut self.verification => {
                    self.ended = true;
                    let report = verified.map_err(|error| convert::status(&error));
                    return Some(report.map(|found| response(Kind::Report(report_message(found)))));
                }
                _ = self.tell.tick() => {
                    if self.progress.has_changed().is_ok_and(|changed| changed) {
                        let Progress { done_bytes, total_bytes } = *self.progress.borrow_and_update();
                        let progress = v1::JobProgress { done_bytes, total_bytes };
                        return Some(Ok(response(Kind::Progress(progress))));
                    }
                }
            }
        }
    }
}

fn response(kind: Kind) -> v1::VerifyResponse {
    v1::VerifyResponse { kind: Some(kind) }
}

fn report_message(found: Verification) -> v1::VerifyReport {
    v1::VerifyReport {
        records: found.records,
        bytes: found.bytes,
        quarantined: found.quarantined,
        indexes_rebuilt: found.indexes_rebuilt,
        complete: found.complete,
        unreadable: found.unreadable,
        unindexed: found.unindexed,
        findings: found.findings,
    }
}
