//! A store as large as a busy server's: writing it, starting on it, and what that takes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use poste_push::store::{Caps, Options, RedbStore, RegistrationStore};

use crate::people::{receiver, request_envelope, server, stored};
use crate::report::{Report, memory_mib};
use crate::rig::{Rig, write};

/// Starts of each kind.
const STARTS: u32 = 3;
/// Requests for devices all over the store, before memory is read again.
const REQUESTS: u32 = 2000;
const ANSWERED: &str = "answered";

/// Writes the store, and starts processes on it: after a clean end, and after a kill.
pub(crate) fn measure(report: &mut Report, store: &Path, registrations: u32) -> Result<()> {
    let began = Instant::now();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let options = Options { caps: Caps::default(), cache_bytes: 256 * 1024 * 1024 };
        let store = RedbStore::open(store, &server().public(), options)?;
        write(&store, (0..registrations).map(|number| stored(receiver(number), number))).await?;
        store.close().await?;
        anyhow::Ok(())
    })?;
    drop(runtime);
    let rate = f64::from(registrations) / began.elapsed().as_secs_f64();
    report.told(&format!("{registrations} registrations of 20 contacts written, durably"), "/s", &[rate]);
    let bytes: u64 =
        std::fs::read_dir(store)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    report.told(
        "the store's files, for each registration",
        "bytes",
        &[bytes as f64 / f64::from(registrations)],
    );

    for (is_killed, how) in [(false, "after a clean end"), (true, "after a kill")] {
        let (mut seconds, mut at_first, mut later, mut highest) = (vec![], vec![], vec![], vec![]);
        for _ in 0..STARTS {
            let began = Instant::now();
            let mut child = Command::new(std::env::current_exe()?)
                .arg("--start")
                .arg(store)
                .args(["--registrations", &registrations.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
            let first = lines.next().context("it ended before it answered")??;
            seconds.push(began.elapsed().as_secs_f64());
            let numbers = |line: &str| -> Result<Vec<f64>> {
                let rest = line.strip_prefix(ANSWERED).with_context(|| format!("not {line}"))?;
                rest.split_whitespace().map(|number| Ok(number.parse()?)).collect()
            };
            at_first.extend(numbers(&first)?);
            let then = numbers(&lines.next().context("it ended")??)?;
            ensure!(then.len() == 2);
            later.push(then[0]);
            highest.push(then[1]);
            if is_killed {
                child.kill()?;
            } else {
                child.stdin.take().context("piped")?.write_all(b"\n")?;
            }
            child.wait()?;
        }
        report.at_most(
            &format!("start of a process to its first answer, {registrations} registrations, {how}"),
            5.0,
            "s",
            &seconds,
        );
        report.told("resident memory at the first answer", "MiB", &at_first);
        report.at_most(
            &format!("resident memory after {REQUESTS} requests for devices all over"),
            600.0,
            "MiB",
            &later,
        );
        report.told("the same at its highest", "MiB", &highest);
    }
    Ok(())
}

/// The process that is started.
pub(crate) fn start(store: &Path, registrations: u32) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let first = u32::from_ne_bytes(std::process::id().to_ne_bytes()).wrapping_mul(REQUESTS);
        let rig = Rig::open(store).await?;
        let receiver_of = |number: u32| std::iter::once(number.wrapping_mul(2_654_435_761) % registrations);
        rig.handle(request_envelope(first, receiver_of(first))).await?;
        println!("{ANSWERED} {:.1}", memory_mib("VmRSS")?);
        for number in 1..REQUESTS {
            let number = first.wrapping_add(number);
            rig.handle(request_envelope(number, receiver_of(number))).await?;
        }
        println!("{ANSWERED} {:.1} {:.1}", memory_mib("VmRSS")?, memory_mib("VmHWM")?);
        // Until it may end, or is killed.
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
        rig.store.close().await?;
        Ok(())
    })
}
