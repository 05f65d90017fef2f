//! The compose stack on a real Docker Engine: foreign peers on the host post and fetch through the published port, also
//! while the archive's container is away.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use poste_integration_tests::containers::{Project, SERVICES};
use poste_integration_tests::mail;
use poste_integration_tests::process::Process;
use poste_integration_tests::{peers, requirement};
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
    project.wait_healthy(LONG)?;
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

    let fetch =
        Process::start("waku fetch", peers::waku()?.args(["fetch", "--limit", "300", "--from", &enode]))?
            .succeed(LONG)?;
    mail::ensure_equal(&posted, &mail::collect(&fetch.events, "envelope")?)?;

    // It has found the archive again.
    project.wait_ready("push", LONG)?;
    // Through the push server's, the gateway's and the archive's container, and back. It leaves envelopes of its own.
    let tested = project.exec("push", &["/poste", "ctl", "push", "self-test", "--json"])?;
    println!("{tested}");
    Ok(())
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("a time of this age")
}
