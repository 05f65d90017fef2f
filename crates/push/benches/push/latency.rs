//! How long a message takes to the call of the provider, at a steady rate.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::people::request_envelope;
use crate::report::Report;
use crate::rig::Rig;

const A_SECOND: u32 = 500;
const SECONDS: u32 = 10;
const RUNS: u32 = 3;

pub(crate) fn measure(report: &mut Report, store: &Path, registrations: u32) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let rig = Arc::new(runtime.block_on(Rig::open(store))?);
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        // Numbers that no other measurement uses.
        let first = 3_000_000_000 + run * A_SECOND * SECONDS;
        let receiver_of = |number: u32| std::iter::once(number.wrapping_mul(2_654_435_761) % registrations);
        let messages: Vec<Bytes> = (first..first + A_SECOND * SECONDS)
            .map(|number| request_envelope(number, receiver_of(number)))
            .collect();
        let mut milliseconds = runtime.block_on(send(&rig, messages, first))?;
        milliseconds.sort_by(f64::total_cmp);
        p50.push(milliseconds[milliseconds.len() / 2]);
        p99.push(milliseconds[milliseconds.len() * 99 / 100]);
    }
    report.at_most(
        &format!("message to the provider's call at {A_SECOND} requests a second, {registrations} registrations, p99"),
        50.0,
        "ms",
        &p99,
    );
    report.told("the same, p50", "ms", &p50);
    Ok(())
}

/// Hands over each message at its time, whatever became of the others. Gives the time of each until the provider's call.
async fn send(rig: &Arc<Rig>, messages: Vec<Bytes>, first: u32) -> Result<Vec<f64>> {
    rig.around.calls.lock().clear();
    let began = Instant::now() + Duration::from_millis(50);
    let due = |place: usize| began + Duration::from_secs(1) / A_SECOND * place as u32;
    let count = messages.len();
    let mut tasks = JoinSet::new();
    for (place, data) in messages.into_iter().enumerate() {
        tokio::time::sleep_until(due(place).into()).await;
        let rig = Arc::clone(rig);
        tasks.spawn(async move { rig.handle(data).await });
    }
    while let Some(handled) = tasks.join_next().await {
        handled??;
    }
    let calls = std::mem::take(&mut *rig.around.calls.lock());
    ensure!(calls.len() == count, "{} calls for {count} messages", calls.len());
    let took = calls.into_iter().map(|(message, came)| {
        let number = u32::from_str_radix(message.trim_start_matches("0x"), 16)?;
        let place = number.wrapping_sub(first) as usize;
        Ok(came.saturating_duration_since(due(place)).as_secs_f64() * 1000.0)
    });
    took.collect()
}
