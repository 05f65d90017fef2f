//! What an archive must outlive: kill -9, power cuts, errors of its disk and a full one, being away, and being read while
//! it changes. Each part is one function that prints what it does and ends in a [`Tally`](crate::audit::Tally); its tests
//! run it briefly, `scripts/endurance` at length.

#![expect(clippy::print_stdout, reason = "a line for each round tells where a long run is")]

pub mod disk;
pub mod host;
pub mod kill;
pub mod outage;
pub mod pages;
pub mod power_cut;

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use poste_rpc::archive::v1::{StatsRequest, StatsResponse};
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::audit::Client;
use crate::load::Plan;
use crate::set::{Set, Zipf};

/// Small segments, so that sealing, index files and retention are all the time at work.
const SMALL_SEGMENTS: [&str; 2] = ["--archive-segment-size", "1MiB"];

/// How long an archive may take until it takes records, and answers completely.
const RECOVERY: Duration = Duration::from_secs(60);

/// The seed of a run: what was given, or `POSTE_SEED`, or a random one. It is printed.
pub fn seed(given: Option<u64>) -> Result<u64> {
    let seed = match (given, std::env::var("POSTE_SEED")) {
        (Some(seed), _) => seed,
        (None, Ok(seed)) => seed.parse().context("POSTE_SEED is a number")?,
        (None, Err(_)) => rand::random(),
    };
    println!("POSTE_SEED={seed}");
    Ok(seed)
}

/// 300 topics, records of all sizes in use, an hour's worth of them since yesterday for every 360,000.
fn set(seed: u64) -> Result<Set> {
    Ok(Set {
        seed,
        data_bytes: 10..=1500,
        begin: unix_seconds()? - 86_400,
        per_second: 100.0,
        jitter: 60,
        topics: Zipf::new(300),
    })
}

/// Eight writers.
fn eight_writers(random: &mut StdRng, batch: RangeInclusive<usize>) -> Plan {
    Plan {
        writers: 8,
        batch,
        in_flight: random.random_range(1..=8),
        pause: Duration::ZERO,
        seed: random.random(),
    }
}

/// Waits until the archive takes records and has no index to make anew.
async fn recovered(client: &mut Client) -> Result<StatsResponse> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        let stats = client.stats(StatsRequest {}).await?.into_inner();
        if stats.writable && stats.indexing.is_none() {
            return Ok(stats);
        }
        ensure!(Instant::now() < deadline, "not recovered within {RECOVERY:?}: {stats:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for that status of `/readyz` of a process, by its ready line. Returns the answer.
async fn readiness(ready: &Value, status: u16) -> Result<String> {
    let address = ready["http"].as_str().context("an http address")?;
    let deadline = Instant::now() + RECOVERY;
    loop {
        let answer = http_get(address, "/readyz").await?;
        if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "/readyz is not {status}: {answer}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn http_get(address: &str, path: &str) -> Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(RECOVERY, connection.read_to_string(&mut answer)).await??;
    Ok(answer)
}

fn unix_seconds() -> Result<u32> {
    Ok(u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}
