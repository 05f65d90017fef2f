//! From the queue to the calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Job, Shared, call};
use crate::notification::Service;

/// Takes from the queue what waits whenever a call is free. After `stop` it ends once the queue and the calls have.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Job>, stop: CancellationToken) {
    let mut calls = JoinSet::new();
    let mut waiting = Vec::new();
    while let Some(permit) = free_call(&shared).await {
        let max = shared.batch.load(Ordering::Relaxed);
        let taken = tokio::select! {
            taken = queue.recv_many(&mut waiting, max) => taken,
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if taken == 0 {
            break;
        }
        shared.metrics.queued.dec_by(i64::try_from(taken).unwrap_or(i64::MAX));
        while calls.try_join_next().is_some() {}
        let mut permit = Some(permit);
        for (service, jobs) in in_calls(&mut waiting) {
            let permit = match permit.take() {
                Some(permit) => permit,
                None => match free_call(&shared).await {
                    Some(permit) => permit,
                    None => return,
                },
            };
            let shared = shared.clone();
            calls.spawn(async move {
                call::deliver(&shared, service, jobs).await;
                drop(permit);
            });
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn free_call(shared: &Shared) -> Option<OwnedSemaphorePermit> {
    shared.calls.clone().acquire_owned().await.ok()
}

/// Parts the notifications by service; those for which nobody waits any more are left out.
fn in_calls(waiting: &mut Vec<Job>) -> Vec<(Service, Vec<Job>)> {
    let (mut apns, mut fcm) = (Vec::new(), Vec::new());
    for job in waiting.drain(..) {
        if job.is_decided.swap(true, Ordering::SeqCst) || job.answer.is_closed() {
            continue;
        }
        match job.service {
            Service::Apns => apns.push(job),
            Service::Fcm => fcm.push(job),
        }
    }
    [(Service::Apns, apns), (Service::Fcm, fcm)].into_iter().filter(|(_, jobs)| !jobs.is_empty()).collect()
}
