//! The servers as processes: ready line, health, SIGTERM, and an archive that goes away and comes back.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use poste_integration_tests::process::{Ended, Process};
use poste_integration_tests::stack::{Stack, poste, start};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn one_process_tells_where_it_listens_drains_and_serves_again() -> Result<()> {
    let mut stack = Stack::up(&[])?;
    let ready = stack.ready().clone();
    for address in ["/grpc/gateway", "/grpc/archive", "/admin/gateway", "/http"] {
        let port = ready.pointer(address).and_then(Value::as_str).and_then(|text| text.rsplit_once(':'));
        ensure!(port.is_some_and(|(host, port)| host == "127.0.0.1" && port != "0"), "{address} of {ready}");
    }
    ensure!(health(&ready)?.success, "serves, but is not healthy");
    let posted = post(stack.enode(), 100)?.succeed(LONG)?;
    ensure!(confirmed(&posted) == 100, "{:?}", posted.events.last());

    stack.stop(LONG)?;
    ensure!(!health(&ready)?.success, "stopped, but is healthy");
    stack.restart()?;
    ensure!(fetch_count(stack.enode())? == 100, "not all was served after a clean stop");
    stack.stop(LONG)
}

#[test]
fn gateway_and_archive_apart_bear_a_killed_archive() -> Result<()> {
    let data = tempfile::tempdir()?;
    let store = format!("local://{}", data.path().join("archive").display());
    let archive = |listen: &[&str]| {
        let mut command = poste()?;
        command.args(["serve", "archive", "--ephemeral-ports", "--store", &store]).args(listen);
        start("poste serve archive", &mut command)
    };
    let (mut first, archive_ready) = archive(&[])?;
    ensure!(archive_ready.get("enode").is_none(), "an archive is no node: {archive_ready}");
    let address = archive_ready.pointer("/grpc/archive").and_then(Value::as_str).context("an address")?;
    let mut command = poste()?;
    command.args(["serve", "gateway", "--ephemeral-ports", "--gateway-rlpx-listen", "127.0.0.1:0"]);
    command.args(["--gateway-archive", &format!("http://{address}"), "--gateway-data"]);
    command.arg(data.path().join("gateway"));
    let (gateway, ready) = start("poste serve gateway", &mut command)?;
    ensure!(ready.pointer("/grpc/archive").is_none(), "a gateway is no archive: {ready}");
    let enode = ready["enode"].as_str().context("an enode")?;
    ensure!(confirmed(&post(enode, 50)?.succeed(LONG)?) == 50, "not all was confirmed");

    first.kill()?;
    ensure!(confirmed(&post(enode, 50)?.succeed(LONG)?) == 50, "not all was confirmed from the spool");
    let refused = fetch(enode)?.finish(LONG)?;
    ensure!(!refused.success && refused.events.last().is_some_and(|line| line["complete"] == false));
    let (_second, _) = archive(&["--archive-grpc-listen", address])?;
    ensure!(fetch_whole(enode)? == 100, "not all was served");

    gateway.terminate()?;
    gateway.succeed(LONG).map(drop)
}

fn post(enode: &str, count: usize) -> Result<Process> {
    let count = count.to_string();
    let arguments = ["mail", "post", "--json", "--topic", "01020304", "--timeout", "50s", "--count", &count];
    Process::start("poste mail post", poste()?.args(arguments).args(["--to", enode]))
}

fn fetch(enode: &str) -> Result<Process> {
    Process::start("poste mail fetch", poste()?.args(["mail", "fetch", "--json", "--from", enode]))
}

/// Asks again until history is said to be complete.
fn fetch_whole(enode: &str) -> Result<u64> {
    let begun = Instant::now();
    loop {
        let ended = fetch(enode)?.finish(LONG)?;
        if ended.success {
            return ended.events.last().and_then(|line| line["count"].as_u64()).context("a count");
        }
        ensure!(begun.elapsed() < LONG, "history is never complete");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn fetch_count(enode: &str) -> Result<u64> {
    let ended = fetch(enode)?.succeed(LONG)?;
    ended.events.last().and_then(|line| line["count"].as_u64()).context("a count")
}

fn confirmed(ended: &Ended) -> usize {
    ended.events.iter().filter(|event| event["event"] == "posted" && event["confirmed"] == true).count()
}

fn health(ready: &Value) -> Result<Ended> {
    let http = ready["http"].as_str().context("an http address")?;
    let command: &mut Command = &mut poste()?;
    Process::start("poste health", command.args(["health", "--http", http]))?.finish(LONG)
}
