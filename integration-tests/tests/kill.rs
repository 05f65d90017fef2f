//! Kill -9 of the stack at random moments while a foreign peer posts: what was confirmed is served after the restart.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use poste_integration_tests::mail::{self, Mail};
use poste_integration_tests::process::Process;
use poste_integration_tests::stack::Stack;
use poste_integration_tests::{peers, requirement};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ROUNDS: usize = 10;
const CONFIRMED: usize = 1000;
const LONG: Duration = Duration::from_secs(120);

#[test]
fn what_was_confirmed_is_served_after_kill_9() -> Result<()> {
    if requirement::skipped("go") {
        return Ok(());
    }
    let seed = match std::env::var("POSTE_SEED") {
        Ok(seed) => seed.parse().context("POSTE_SEED is a number")?,
        Err(_) => rand::random::<u64>(),
    };
    println!("POSTE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut stack = Stack::up(&[])?;
    let begin = unix_seconds();
    let mut all = Mail::new();
    for round in 0..ROUNDS {
        let since = unix_seconds();
        let poster = Process::start(
            "waku post",
            peers::waku()?
                .args(["post", "--confirm", "--for", "60s", "--per-packet", "10", "--window", "1000"])
                .args([
                    "--topics",
                    "20",
                    "--sizes",
                    "10,300,1000",
                    "--pow",
                    "0.000002",
                    "--to",
                    stack.enode(),
                ]),
        )?;
        let wanted = CONFIRMED + random.random_range(0..CONFIRMED);
        poster.count("confirmed envelopes", wanted, LONG, |event| event["confirmed"] == true)?;
        thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        stack.kill()?;

        let ended = poster.finish(LONG)?;
        let confirmed = mail::confirmed(&ended.events)?;
        let posted = ended.events.iter().filter(|event| event["event"] == "posted").count();
        ensure!(posted > confirmed.len(), "nothing was in flight: the kill came after the posting");
        let restart = Instant::now();
        stack.restart()?;
        println!(
            "round {round}: {} confirmed, {} in flight, again ready after {:?}",
            confirmed.len(),
            posted - confirmed.len(),
            restart.elapsed()
        );
        mail::ensure_served(&confirmed, &fetch(&stack, since)?)?;
        all.extend(confirmed);
    }
    mail::ensure_served(&all, &fetch(&stack, begin)?)?;
    stack.stop(LONG)
}

/// Everything created since then, of which nothing may come twice.
fn fetch(stack: &Stack, since: u64) -> Result<Mail> {
    let since = since.to_string();
    let mut command = peers::waku()?;
    command.args(["fetch", "--limit", "1000", "--since", &since, "--from", stack.enode()]);
    let ended = Process::start("waku fetch", &mut command)?.succeed(LONG)?;
    mail::collect(&ended.events, "envelope")
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
