//! The compose stack on a real Docker Engine: foreign peers on the host post and fetch through the published port, also
//! while the archive's container is away; and a gateway that starts beside an archive with a full disk.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use poste_integration_tests::containers::{Project, SERVICES};
use poste_integration_tests::mail;
use poste_integration_tests::process::{Ended, Process};
use poste_integration_tests::{peers, requirement, stack};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(120);
const AWAY: Duration = Duration::from_secs(5);
const CATCH_UP: u64 = 10_000;

#[test]
fn foreign_peers_meet_through_the_containers_and_outlive_a_killed_archive() -> Result<()> {
    if requirement::skipped("docker") || requirement::skipped("go") {
        return Ok(());
    }
    let project = Project::up()?;
    project.wait_healthy(LONG)?;
    for service in SERVICES {
        project.wait_ready(service, LONG)?;
        let guarded = project.inspect(
            service,
            "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}",
        )?;
        ensure!(guarded == "65532:65532 true [ALL] [no-new-privileges:true]", "{service}: {guarded}");
    }
    let enode = project.enode()?;

    let poster =
        Process::start(
            "waku post",
            peers::waku()?
                .args(["post", "--confirm", "--to", &enode, "--for", "120s", "--rate", "200"])
                .args(["--per-packet", "5", "--topics", "20", "--sizes", "10,300,1000", "--timeout", "30s"]),
        )?;
    let confirmed = |event: &Value| event["confirmed"] == true;
    poster.count("confirmed envelopes", 500, LONG, confirmed)?;
    project.kill("archive")?;
    let killed = unix_millis();
    thread::sleep(AWAY); // the time that the archive is away is what is tested here
    project.start("archive")?;
    let back = unix_millis();
    poster.wait("an envelope sent after the archive's return to be confirmed", LONG, |events| {
        events.iter().any(|event| confirmed(event) && event["sent_ms"].as_u64() > Some(back)).then_some(())
    })?;
    project.wait_ready("archive", LONG)?;
    project.wait_ready("gateway", LONG)?;
    poster.terminate()?;
    let ended = poster.succeed(LONG)?;

    let posted = mail::collect(&ended.events, "posted")?;
    let meanwhile = ended.events.iter().filter(|event| {
        event["event"] == "posted" && (killed..back).contains(&event["sent_ms"].as_u64().unwrap_or_default())
    });
    let mut count = 0;
    for event in meanwhile {
        let late = event["confirmed_ms"].as_u64().unwrap_or(u64::MAX).saturating_sub(back);
        ensure!(
            confirmed(event) && late <= CATCH_UP,
            "confirmed {late} ms after the archive's return: {event}"
        );
        count += 1;
    }
    ensure!(count >= 500, "only {count} envelopes were sent while the archive was away");
    println!("{} posted, {count} of them while the archive was away", posted.len());

    let fetch = fetch_whole(&enode)?;
    mail::ensure_equal(&posted, &mail::collect(&fetch.events, "envelope")?)?;

    // It has found the archive again.
    project.wait_ready("push", LONG)?;
    // Through the push server's, the gateway's and the archive's container, and back. It leaves envelopes of its own.
    let tested = project.exec("push", &["/poste", "ctl", "push", "self-test", "--json"])?;
    println!("{tested}");
    Ok(())
}

/// Asks again until history is complete: right after the archive's return a gateway has not told it everything.
fn fetch_whole(enode: &str) -> Result<Ended> {
    let begun = Instant::now();
    loop {
        let mut command = peers::waku()?;
        let fetch = Process::start("waku fetch", command.args(["fetch", "--limit", "300", "--from", enode]))?
            .finish(LONG)?;
        if fetch.success {
            return Ok(fetch);
        }
        ensure!(
            begun.elapsed() < LONG && fetch.stderr.contains("history is not complete yet"),
            "{}",
            fetch.stderr
        );
        thread::sleep(Duration::from_millis(200));
    }
}

/// As much as a new archive takes, and some tens of KiB.
const NEARLY_FULL: &str = "services:
  archive:
    environment:
      POSTE_ARCHIVE__STORE: local:///small/archive
    tmpfs: [\"/small:uid=65532,size=196608\"]
";

#[test]
fn an_archive_that_takes_nothing_is_healthy_and_keeps_no_gateway_from_starting() -> Result<()> {
    if requirement::skipped("docker") {
        return Ok(());
    }
    let project = Project::up_altered(NEARLY_FULL)?;
    project.wait_ready("gateway", LONG)?;
    let enode = project.enode()?;
    post(&enode, 200)?;
    let begun = Instant::now();
    while project.exec("archive", &["/poste", "health"]).is_ok() {
        ensure!(begun.elapsed() < LONG, "the archive's disk is never full");
    }
    let lives = project.exec("archive", &["/poste", "health", "--live"])?;
    ensure!(lives == "alive\n", "{lives:?}");

    // More often than `retries`, so that a check that does not pass has its consequence.
    project.wait_checked("archive", 7, LONG)?;
    let health = project.health()?;
    ensure!(health.iter().all(|(_, health)| health == "healthy"), "{health:?}");
    ensure!(project.exec("archive", &["/poste", "health"]).is_err(), "the archive takes records again");
    for service in ["push", "gateway"] {
        project.remove(service)?;
    }
    project.bring_up(&["push", "gateway"])?;
    project.wait_ready("gateway", LONG)?;
    ensure!(project.enode()? == enode, "another key");
    post(&enode, 10)
}

/// All of them are confirmed.
fn post(enode: &str, count: usize) -> Result<()> {
    let count = count.to_string();
    let arguments = ["mail", "post", "--json", "--topic", "01020304", "--timeout", "50s", "--size", "1000"];
    let mut command = stack::poste()?;
    Process::start("poste mail post", command.args(arguments).args(["--count", &count, "--to", enode]))?
        .succeed(LONG)
        .map(drop)
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("a time of this age")
}
