//! Foreign peers judge the stack: what one posts and leaves behind, another one with another key fetches, envelope for
//! envelope and byte for byte. The peers run go-ethereum's code (see `peers/`).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use poste_integration_tests::mail::{self, Mail};
use poste_integration_tests::process::{Ended, Process};
use poste_integration_tests::stack::{Stack, poste};
use poste_integration_tests::{peers, requirement};
use serde_json::Value;

/// 1,000 envelopes of 20 topics and 5 sizes, 400 of them created in one second. The first topic is one whose three bloom
/// bits share a byte: go-ethereum's filters lose one of them, ours must find it all the same.
const THOUSAND: [&str; 11] = [
    "--count",
    "1000",
    "--topic",
    SHARED_BYTE_TOPIC,
    "--topics",
    "19",
    "--sizes",
    "10,300,1000,3000,8000",
    "--burst",
    "400",
    "--ttl=120",
];
const SHARED_BYTE_TOPIC: &str = "01020304";

const LONG: Duration = Duration::from_secs(120);

#[test]
fn waku_peer_posts_with_confirmation_and_another_fetches_by_pages() -> Result<()> {
    if requirement::skipped("go") {
        return Ok(());
    }
    let stack = Stack::up(&[])?;
    let post = run(peers::waku()?.args(["post", "--confirm", "--to", stack.enode()]).args(THOUSAND))?;
    let posted = mail::confirmed(&post.events)?;
    ensure!(posted.len() == 1000, "{} of 1,000 envelopes were confirmed", posted.len());
    ensure_as_planned(&posted)?;
    let summary = post.events.last().expect("a summary");
    ensure!(summary["burst_seconds"].as_f64() < Some(1.0), "the burst took longer than a second: {summary}");
    ensure!(
        !post.events.iter().any(|event| event["event"] == "protocol_error"),
        "see {:?}",
        post.events.last()
    );

    let fetch = run(peers::waku()?.args(["fetch", "--limit", "300", "--from", stack.enode()]))?;
    mail::ensure_equal(&posted, &mail::collect(&fetch.events, "envelope")?)?;
    let pages = &fetch.events.last().expect("a completion")["pages"];
    ensure!(*pages == 4, "1,000 envelopes by pages of 300 took {pages} pages");

    for topic in topics(&posted) {
        let fetch = run(peers::waku()?.args(["fetch", "--from", stack.enode(), "--topic", &topic]))?;
        mail::ensure_equal(&of_topic(&posted, &topic), &mail::collect(&fetch.events, "envelope")?)?;
    }
    Ok(())
}

#[test]
fn whisper_peer_posts_and_another_fetches_by_the_binary_request() -> Result<()> {
    if requirement::skipped("go") {
        return Ok(());
    }
    let stack = Stack::up(&[])?;
    let post = run(peers::shh()?.args(["post", "--to", stack.enode()]).args(THOUSAND))?;
    let posted = mail::collect(&post.events, "posted")?;
    ensure!(posted.len() == 1000, "{} of 1,000 envelopes were written", posted.len());
    ensure_as_planned(&posted)?;

    let fetched = whisper_fetch(&stack, posted.len(), &[])?;
    mail::ensure_equal(&posted, &fetched)?;
    let one = whisper_fetch(&stack, 50, &["--topic", SHARED_BYTE_TOPIC])?;
    mail::ensure_equal(&of_topic(&posted, SHARED_BYTE_TOPIC), &one)
}

#[test]
fn each_network_is_relayed_and_fetches_what_the_other_posted() -> Result<()> {
    if requirement::skipped("go") {
        return Ok(());
    }
    let stack = Stack::up(&[])?;
    let listener = Process::start(
        "waku listen",
        peers::waku()?.args(["listen", "--from", stack.enode(), "--count", "600"]),
    )?;
    listener.event("connected", LONG)?;
    let load = ["--count", "300", "--topics", "10", "--sizes", "100,2000"];
    let waku = run(peers::waku()?
        .args(["post", "--confirm", "--prefix", "from waku", "--to", stack.enode()])
        .args(load))?;
    let shh = run(peers::shh()?.args(["post", "--prefix", "from shh", "--to", stack.enode()]).args(load))?;
    let mut posted = mail::confirmed(&waku.events)?;
    posted.extend(mail::collect(&shh.events, "posted")?);
    ensure!(posted.len() == 600, "{} of 600 envelopes were posted", posted.len());

    let relayed = listener.succeed(LONG)?;
    mail::ensure_equal(&posted, &mail::collect(&relayed.events, "envelope")?)?;
    mail::ensure_equal(&posted, &whisper_fetch(&stack, posted.len(), &[])?)?;
    let fetch = run(peers::waku()?.args(["fetch", "--limit", "300", "--from", stack.enode()]))?;
    mail::ensure_equal(&posted, &mail::collect(&fetch.events, "envelope")?)
}

#[test]
fn poste_fetches_from_go_ethereums_own_mailserver() -> Result<()> {
    if requirement::skipped("go") {
        return Ok(());
    }
    let data = tempfile::tempdir()?;
    let server =
        Process::start("shh mailserver", peers::shh()?.args(["mailserver", "--data"]).arg(data.path()))?;
    let ready = server.event("ready", LONG)?;
    let enode = ready["enode"].as_str().expect("an enode");
    let post = run(peers::shh()?.args(["post", "--to", enode]).args(THOUSAND))?;
    let posted = mail::collect(&post.events, "posted")?;
    server.count("1,000 archived envelopes", 1000, LONG, |event| event["event"] == "archived")?;

    let fetch = run(poste()?.args(["mail", "fetch", "--json", "--timeout", "3s", "--from", enode]))?;
    mail::ensure_equal(&posted, &mail::collect(&fetch.events, "envelope")?)?;
    let complete = fetch.events.last().expect("a completion");
    ensure!(complete["event"] == "complete" && complete["count"] == 1000, "{complete}");
    let topic = ["--topic", SHARED_BYTE_TOPIC];
    let fetch =
        run(poste()?.args(["mail", "fetch", "--json", "--timeout", "3s", "--from", enode]).args(topic))?;
    mail::ensure_equal(&of_topic(&posted, SHARED_BYTE_TOPIC), &mail::collect(&fetch.events, "envelope")?)?;

    let post = run(
        poste()?.args(["mail", "post", "--json", "--to", enode, "--topic", "0a0b0c0d", "--count", "50"])
    )?;
    let posted = hashes(&post.events, "posted");
    server.count("50 more archived envelopes", 1050, LONG, |event| event["event"] == "archived")?;
    server.terminate()?;
    let archived = hashes(&server.succeed(LONG)?.events, "archived");
    ensure!(posted.len() == 50 && posted.is_subset(&archived), "go-ethereum archived something else");
    Ok(())
}

fn run(command: &mut Command) -> Result<Ended> {
    let name = format!("{command:?}");
    Process::start(&name, command)?.succeed(LONG)
}

/// Whisper confirms nothing, so the first answers may come before everything is stored: ask until all is there.
fn whisper_fetch(stack: &Stack, expected: usize, arguments: &[&str]) -> Result<Mail> {
    let deadline = Instant::now() + LONG;
    loop {
        let fetch = run(peers::shh()?.args(["fetch", "--from", stack.enode()]).args(arguments))?;
        let fetched = mail::collect(&fetch.events, "envelope")?;
        if fetched.len() >= expected || Instant::now() > deadline {
            let completions = &fetch.events.last().expect("a completion")["completions"];
            ensure!(*completions == 1, "125 came {completions} times");
            return Ok(fetched);
        }
    }
}

/// The load is what the test wants: 20 topics, 5 sizes, 400 envelopes in one second.
fn ensure_as_planned(posted: &Mail) -> Result<()> {
    let mut seconds = BTreeMap::new();
    let mut sizes = BTreeSet::new();
    for item in posted.values() {
        *seconds.entry(item.time).or_insert(0) += 1;
        sizes.insert(item.data.len() / 200);
    }
    ensure!(seconds.values().max() == Some(&400), "envelopes by second: {seconds:?}");
    ensure!(topics(posted).len() == 20 && sizes.len() == 5, "{} sizes", sizes.len());
    Ok(())
}

fn hashes(events: &[Value], name: &str) -> BTreeSet<String> {
    let events = events.iter().filter(|event| event["event"] == name);
    events.filter_map(|event| event["hash"].as_str().map(str::to_owned)).collect()
}

fn topics(mail: &Mail) -> BTreeSet<String> {
    mail.values().map(|item| item.topic.clone()).collect()
}

fn of_topic(mail: &Mail, topic: &str) -> Mail {
    mail.iter()
        .filter(|(_, item)| item.topic == topic)
        .map(|(hash, item)| (hash.clone(), item.clone()))
        .collect()
}
