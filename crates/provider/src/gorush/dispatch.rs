//! From the queue of a service to its calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Job, Shared, call};
use crate::notification::Service;

/// Takes from the queue what waits whenever a call is free. After `stop` it ends once the queue and the calls have.
pub(super) async fn run(
    shared: Arc<Shared>,
    service: Service,
    mut queue: mpsc::Receiver<Job>,
    stop: CancellationToken,
) {
    let max_calls = shared.settings.max_calls.max(1);
    let mut calls = JoinSet::new();
    let mut waiting = Vec::new();
    loop {
        while calls.try_join_next().is_some() {}
        if calls.len() >= max_calls {
            calls.join_next().await;
        }
        let taken = tokio::select! {
            taken = queue.recv_many(&mut waiting, shared.batch.size()) => taken,
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if taken == 0 {
            break;
        }
        shared.metrics.queued.dec_by(i64::try_from(taken).unwrap_or(i64::MAX));
        let jobs = for_a_call(&mut waiting);
        if !jobs.is_empty() {
            let shared = shared.clone();
            calls.spawn(async move { call::deliver(&shared, service, jobs).await });
        }
    }
    while calls.join_next().await.is_some() {}
}

/// Those for which somebody still waits. From here on they are no longer refused for their wait: their call is free.
fn for_a_call(waiting: &mut Vec<Job>) -> Vec<Job> {
    waiting
        .drain(..)
        .filter(|job| !job.is_decided.swap(true, Ordering::SeqCst) && !job.answer.is_closed())
        .collect()
}
