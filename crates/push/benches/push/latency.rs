//! The whole service under load: what a request costs from the archive's stream to gorush's answer and the gateway's, and how
//! long a message takes from the gateway to the call of gorush at a steady rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use poste_doubles::gorush::Call;
use tokio::task::JoinSet;

use crate::report::Report;
use crate::stack::{Neighbours, Server, requests};

const A_SECOND: u32 = 500;
const SECONDS: u32 = 10;
const RUNS: u32 = 3;
/// Requests that wait when the server begins.
const BACKLOG: u32 = 2000;
/// Entries of a long request.
const MANY: u32 = 101;
const LONG_BACKLOG: u32 = 40;

pub(crate) async fn measure(
    report: &mut Report,
    neighbours: &Arc<Neighbours>,
    server: &Server,
    registrations: u32,
) -> Result<()> {
    // Numbers that no other measurement uses.
    let mut number = 3_000_000_000;
    let mut take = |count: u32| {
        number += count;
        number - count
    };
    let (mut one, mut further) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let short = requests(take(BACKLOG), BACKLOG, 1, registrations);
        let took = server.work_off(neighbours, short, BACKLOG as usize).await?;
        let of_one = micros(took) / f64::from(BACKLOG);
        let long = requests(take(LONG_BACKLOG), LONG_BACKLOG, MANY, registrations);
        let took = server.work_off(neighbours, long, (LONG_BACKLOG * MANY) as usize).await?;
        one.push(of_one);
        further.push((micros(took) / f64::from(LONG_BACKLOG) - of_one) / f64::from(MANY - 1));
    }
    report.told(
        "the whole service: a request of a backlog, from the archive's stream to the gateway: processor time",
        "µs",
        &one,
    );
    report.told("the whole service: each further entry of a request", "µs", &further);

    let (mut p50, mut p99, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let count = A_SECOND * SECONDS;
        let first = take(count);
        let messages = requests(first, count, 1, registrations);
        let before = server.processor_time()?;
        let mut milliseconds = send(neighbours, messages, first).await?;
        cost.push(micros(server.processor_time()? - before) / f64::from(count));
        milliseconds.sort_by(f64::total_cmp);
        p50.push(milliseconds[milliseconds.len() / 2]);
        p99.push(milliseconds[milliseconds.len() * 99 / 100]);
    }
    report.at_most(
        &format!("message at the gateway to the call of gorush at {A_SECOND} requests a second, {registrations} registrations, p99"),
        50.0,
        "ms",
        &p99,
    );
    report.told("the same, p50", "ms", &p50);
    report.told("the whole service: a request at that rate: processor time", "µs", &cost);
    Ok(())
}

/// Publishes each message at its time, whatever became of the others. Gives the time of each until the call of gorush.
async fn send(neighbours: &Arc<Neighbours>, messages: Vec<Bytes>, first: u32) -> Result<Vec<f64>> {
    let [calls, rung] = [neighbours.gorush.calls().len(), neighbours.gorush.pushes().len()];
    let began = Instant::now() + Duration::from_millis(50);
    let due = |place: usize| began + Duration::from_secs(1) / A_SECOND * place as u32;
    let count = messages.len();
    let mut tasks = JoinSet::new();
    for (place, data) in messages.into_iter().enumerate() {
        tokio::time::sleep_until(due(place).into()).await;
        let neighbours = Arc::clone(neighbours);
        tasks.spawn(async move { neighbours.publish(data).await });
    }
    while let Some(published) = tasks.join_next().await {
        published??;
    }
    let calls = neighbours.calls(rung, count).await?.split_off(calls);
    let mut took = Vec::with_capacity(count);
    for call in &calls {
        for number in numbers(call)? {
            let came = call.arrived.saturating_duration_since(due(number.wrapping_sub(first) as usize));
            took.push(came.as_secs_f64() * 1000.0);
        }
    }
    ensure!(took.len() == count, "{} notifications for {count} messages", took.len());
    Ok(took)
}

/// The numbers of the requests that a call came of.
fn numbers(call: &Call) -> Result<Vec<u32>> {
    let number = |notification: &serde_json::Value| {
        let message =
            notification["data"]["encryptedMessage"].as_str().context("a notification without it")?;
        Ok(u32::from_str_radix(message.trim_start_matches("0x"), 16)?)
    };
    call.notifications().iter().map(number).collect()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
