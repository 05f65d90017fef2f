//! Delivery and intake through the whole stack: one `poste up` and one client, over real connections on loopback, on the
//! cores that both share. Prints a Markdown table; `scripts/bench` builds and runs it.
//!
//! Delivery: 200,000 envelopes of 304 bytes of data, fetched by pages of 1,000 to the end. Intake: 20,000 of them posted
//! and confirmed, each mined by the client for the node's minimum proof of work.

#![expect(clippy::print_stdout, reason = "the table is what it is run for")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use poste_client::{ConnectOptions, Fetch, Post, connect, fetch, post};
use poste_integration_tests::stack::Stack;
use poste_rlpx::Enode;
use poste_rpc::archive::v1::{
    AppendBatch, AppendGoodbye, AppendOpen, AppendRequest, NewRecord, append_request, append_response,
};
use poste_waku::mail::Sealer;
use poste_wire::{Envelope, Topic, password_key};
use rand::Rng;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const STORED: usize = 200_000;
const POSTED: usize = 20_000;
const DATA_BYTES: usize = 304;
const TOPICS: u32 = 50;
const RUNS: usize = 5;
const BATCH: usize = 1000;

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo passes --bench; a filter makes no sense here.
    println!("| what | median | fastest | slowest |\n|---|---|---|---|");
    Box::pin(delivery()).await?;
    Box::pin(intake()).await
}

async fn delivery() -> Result<()> {
    let stack = Stack::up(&[])?;
    let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let stored = fill(&stack, now).await?;
    row(&format!("Append over gRPC of {STORED} envelopes, one writer"), STORED, &[stored]);
    let enode: Enode = stack.enode().parse()?;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let options = ConnectOptions::quiet();
        let mut session = connect(&enode, &options).await?;
        let request = Fetch {
            sealer: Sealer { key: password_key("status-offline-inbox"), signer: options.key },
            topics: Vec::new(),
            since: now - 7200,
            until: now + 60,
            page_size: 1000,
            silence: Duration::from_secs(10),
        };
        let began = Instant::now();
        let fetched = fetch(&mut session, &request, |_| {}).await?;
        seconds.push(began.elapsed());
        ensure!(fetched.complete && fetched.count == STORED, "fetched {fetched:?}");
    }
    row(&format!("delivery of {STORED} by pages of 1000"), STORED, &seconds);
    resident(&stack)
}

async fn intake() -> Result<()> {
    let stack = Stack::up(&[])?;
    let enode: Enode = stack.enode().parse()?;
    let mut seconds = Vec::new();
    for run in 0..RUNS {
        let mut session = connect(&enode, &ConnectOptions::quiet()).await?;
        let request = Post {
            topic: Topic(u32::try_from(run)?.to_be_bytes()),
            count: POSTED,
            size: DATA_BYTES,
            ttl: 50,
            patience: Duration::from_secs(30),
        };
        let began = Instant::now();
        let summary = post(&mut session, &request, |_| {}).await?;
        seconds.push(began.elapsed());
        ensure!(summary.confirmed == POSTED, "{summary:?}");
    }
    row(&format!("intake of {POSTED}, mined, posted and confirmed"), POSTED, &seconds);
    resident(&stack)
}

/// Writes the envelopes straight into the archive, a second's worth after the other over the last hour.
async fn fill(stack: &Stack, now: u32) -> Result<Duration> {
    let batches: Vec<Vec<NewRecord>> = (0..STORED / BATCH).map(|batch| make(batch, now)).collect();
    let address = stack.ready()["grpc"]["archive"].as_str().context("an archive in the ready line")?;
    let target = poste_rpc::client::Target::lazy(&format!("http://{address}"))?;
    let (requests, stream) = mpsc::channel(16);
    let open =
        append_request::Kind::Open(AppendOpen { writer_id: "bench".to_owned(), ..AppendOpen::default() });
    requests.send(AppendRequest { kind: Some(open) }).await?;
    let mut acks =
        poste_rpc::archive::client(target.channel()).append(ReceiverStream::new(stream)).await?.into_inner();
    let began = Instant::now();
    let sending = tokio::spawn(async move {
        for (batch_id, records) in batches.into_iter().enumerate() {
            let batch = append_request::Kind::Batch(AppendBatch {
                batch_id: batch_id as u64,
                records,
                confirmed: false,
            });
            requests.send(AppendRequest { kind: Some(batch) }).await?;
        }
        // Or the archive would wait for what this writer may still hold.
        let goodbye = append_request::Kind::Goodbye(AppendGoodbye {});
        requests.send(AppendRequest { kind: Some(goodbye) }).await?;
        anyhow::Ok(())
    });
    let mut acknowledged = 0;
    while let Some(answer) = acks.message().await? {
        if let Some(append_response::Kind::Ack(ack)) = answer.kind {
            acknowledged += ack.results.len();
        }
    }
    let elapsed = began.elapsed();
    sending.await??;
    ensure!(acknowledged == STORED, "{acknowledged} acknowledged");
    Ok(elapsed)
}

fn make(batch: usize, now: u32) -> Vec<NewRecord> {
    let record = |index: usize| {
        let number = (batch * BATCH + index) as u32;
        let mut data = vec![0; DATA_BYTES];
        rand::rng().fill_bytes(&mut data);
        let sent = now - 3600 + number * 3600 / STORED as u32;
        let topic = Topic((number % TOPICS).to_be_bytes());
        let envelope = Envelope::new(sent + 50, 50, topic, &data, 0);
        NewRecord { space: "waku1".to_owned(), body: envelope.rlp().clone() }
    };
    (0..BATCH).map(record).collect()
}

fn row(what: &str, count: usize, runs: &[Duration]) {
    let mut runs = runs.to_vec();
    runs.sort_unstable();
    let rate =
        |run: &Duration| format!("{:.0}/s ({:.2} s)", count as f64 / run.as_secs_f64(), run.as_secs_f64());
    println!(
        "| {what} | {} | {} | {} |",
        rate(&runs[runs.len() / 2]),
        rate(&runs[0]),
        rate(&runs[runs.len() - 1])
    );
}

fn resident(stack: &Stack) -> Result<()> {
    println!("| resident memory of the stack afterwards | {} MiB | | |", stack.resident_kib()? / 1024);
    Ok(())
}
