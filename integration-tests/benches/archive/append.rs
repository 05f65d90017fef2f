//! Loading, and how long an acknowledgement takes.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use poste_integration_tests::load::Stream;
use poste_rpc::archive::v1::append_request::Kind as Request;
use poste_rpc::archive::v1::{AppendBatch, AppendOutcome, NewRecord};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::plain::sync_p99;
use crate::report::{Limit, percentile};
use crate::{Bench, SMALL, Stored};

const WRITERS: usize = 8;
/// Records of a batch while loading, and batches of a writer that may wait for their acknowledgement.
const BATCH: u64 = 500;
const IN_FLIGHT: usize = 8;
/// The rate at which acknowledgements are timed, and the batches in which it comes: one each millisecond.
const RATE: f64 = 10_000.0;
const TIMED_BATCH: u64 = 10;
const TICK: Duration = Duration::from_millis(1);

impl Bench {
    /// Rates of loading, by the parts that [`Stored::fill`] tells.
    pub(crate) fn append_rate(&mut self, rates: &[f64], body_bytes: usize, records: u64) {
        let limit = if body_bytes == SMALL { Limit::AtLeast(60_000.0) } else { Limit::None };
        let what = format!(
            "Append over gRPC at {body_bytes} B, {WRITERS} writers with batches of {BATCH}, after fdatasync, {records} records"
        );
        self.report.row(&what, limit, "records/s", rates);
        if let [first, .., last] = rates
            && body_bytes == SMALL
        {
            self.report.row(
                "the last part of it against the first",
                Limit::AtLeast(0.8),
                "times",
                &[last / first],
            );
        }
    }

    /// How long acknowledgements take at a steady rate, beside what the disk does. Returns the median of the p99; `before`
    /// is that of an archive that was nearly empty.
    pub(crate) async fn acknowledgements(
        &mut self,
        stored: &Stored,
        directory: &Path,
        at: u64,
        before: Option<f64>,
    ) -> Result<f64> {
        let duration = Duration::from_secs(if self.quick { 1 } else { 3 });
        let (mut acks, mut syncs) = (Vec::new(), Vec::new());
        for _ in 0..self.runs(5) {
            syncs.push(sync_p99(directory, RATE, duration)?);
            acks.push(percentile(&mut stored.timed(duration).await?, 99));
        }
        let mut sorted = syncs.clone();
        sorted.sort_by(f64::total_cmp);
        let limit = Limit::AtMost(20.0_f64.max(4.0 * sorted[sorted.len() / 2]));
        self.report.row(
            &format!("a plain file: p99 of fdatasync at the same rate, {at} stored"),
            Limit::None,
            "ms",
            &syncs,
        );
        self.report.row(&format!("p99 of an ack at {RATE}/s, {at} stored"), limit, "ms", &acks);
        acks.sort_by(f64::total_cmp);
        let median = acks[acks.len() / 2];
        if let Some(before) = before {
            self.report.row(
                "the same against that of few stored",
                Limit::AtMost(1.2),
                "times",
                &[median / before],
            );
        }
        Ok(median)
    }
}

impl Stored {
    /// Appends until that many are stored. Returns the rates of its parts, records a second: ten parts where there are
    /// enough records that what is in flight does not matter.
    pub(crate) async fn fill(&self, until: u64) -> Result<Vec<f64>> {
        let begin = self.count();
        let times = Arc::new(Mutex::new(Vec::new()));
        let mut writers = JoinSet::new();
        let begun = Instant::now();
        for writer in 0..WRITERS {
            let (next, set, times) = (Arc::clone(&self.next), self.set.clone(), Arc::clone(&times));
            let client = self.archive.client()?;
            writers.spawn(async move {
                let mut stream = Stream::open(client, &format!("bench-{writer}")).await?;
                let (mut sent, mut waiting) = (0, 0);
                loop {
                    let numbers = next
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                            (next < until).then(|| until.min(next + BATCH))
                        })
                        .map(|first| first..until.min(first + BATCH));
                    if let Ok(numbers) = numbers.clone() {
                        let body = |number| NewRecord { space: "waku1".to_owned(), body: set.body(number) };
                        let records = numbers.map(body).collect();
                        stream
                            .send(Request::Batch(AppendBatch { batch_id: sent, records, confirmed: false }))
                            .await?;
                        (sent, waiting) = (sent + 1, waiting + 1);
                    }
                    while waiting >= IN_FLIGHT || (numbers.is_err() && waiting > 0) {
                        let (_, outcomes) = stream.ack().await?;
                        ensure!(outcomes.iter().all(|(outcome, _)| *outcome == AppendOutcome::Stored));
                        times
                            .lock()
                            .expect("no writer panics")
                            .push((begun.elapsed(), outcomes.len() as u64));
                        waiting -= 1;
                    }
                    if numbers.is_err() {
                        return stream.goodbye().await;
                    }
                }
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        let mut times = std::mem::take(&mut *times.lock().expect("no writer panics"));
        times.sort_unstable();
        Ok(rates(&times, until - begin))
    }

    /// Appends at [`RATE`] for that time, on a schedule that does not wait for the archive. Returns the time of each batch
    /// from when it was due to its acknowledgement.
    async fn timed(&self, duration: Duration) -> Result<Vec<Duration>> {
        let ticks = duration.as_millis() as u64;
        let first = self.next.fetch_add(ticks * TIMED_BATCH, Ordering::Relaxed);
        let body = |number| NewRecord { space: "waku1".to_owned(), body: self.set.body(number) };
        let batch = |tick: u64| -> Vec<_> {
            (0..TIMED_BATCH).map(|place| body(first + tick * TIMED_BATCH + place)).collect()
        };
        let batches: Vec<Vec<NewRecord>> = (0..ticks).map(batch).collect();
        let mut writers: Vec<mpsc::Sender<AppendBatch>> = Vec::new();
        let mut acknowledging = JoinSet::new();
        let begun = Instant::now() + Duration::from_millis(200);
        let due = move |tick: u64| begun + TICK * tick as u32;
        for writer in 0..WRITERS {
            let (sender, mut queue) = mpsc::channel(4096);
            writers.push(sender);
            let stream = Stream::open(self.archive.client()?, &format!("bench-{writer}")).await?;
            let (mut sending, mut acks) = stream.split();
            tokio::spawn(async move {
                while let Some(batch) = queue.recv().await {
                    sending.send(Request::Batch(batch)).await?;
                }
                sending.goodbye().await
            });
            acknowledging.spawn(async move {
                let mut times = Vec::new();
                while let Some((batch_id, outcomes)) = acks.next().await? {
                    times.push(due(batch_id).elapsed());
                    ensure!(outcomes.iter().all(|(outcome, _)| *outcome == AppendOutcome::Stored));
                }
                anyhow::Ok(times)
            });
        }
        let schedule = tokio::task::spawn_blocking(move || {
            for (tick, records) in batches.into_iter().enumerate() {
                let batch_id = tick as u64;
                std::thread::sleep(due(batch_id).saturating_duration_since(Instant::now()));
                let batch = AppendBatch { batch_id, records, confirmed: false };
                writers[tick % WRITERS].blocking_send(batch).context("a writer has ended")?;
            }
            anyhow::Ok(())
        });
        schedule.await??;
        let mut times = Vec::new();
        while let Some(ended) = acknowledging.join_next().await {
            times.extend(ended??);
        }
        ensure!(times.len() as u64 == ticks, "{} of {ticks} batches were acknowledged", times.len());
        Ok(times)
    }
}

/// The rates of up to ten parts.
fn rates(times: &[(Duration, u64)], records: u64) -> Vec<f64> {
    const LEAST: u64 = 200_000;
    let part = records.div_ceil((records / LEAST).clamp(1, 10));
    let mut rates = Vec::new();
    let (mut from, mut counted, mut left) = (Duration::ZERO, 0, records);
    for (at, count) in times {
        (counted, left) = (counted + count, left - count);
        if counted >= part || left == 0 {
            rates.push(counted as f64 / at.saturating_sub(from).as_secs_f64());
            (from, counted) = (*at, 0);
        }
    }
    rates
}
