//! A store as large as a busy server's: writing it, starting on it, and what that takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use poste_push::store::{Caps, Options, RedbStore, RegistrationStore};

use crate::latency;
use crate::people::{receiver, server, stored};
use crate::report::Report;
use crate::rig::write;
use crate::stack::{Neighbours, requests};

/// Starts of each kind.
const STARTS: u32 = 3;
/// Requests for devices all over the store, before memory is read again.
const REQUESTS: u32 = 2000;

/// Writes the store, starts servers on it, after a clean end and after a kill, and puts one under load.
pub(crate) fn measure(report: &mut Report, directory: &Path, registrations: u32) -> Result<()> {
    let store = tempfile::tempdir_in(directory)?;
    write_all(report, store.path(), registrations)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let neighbours = Arc::new(Neighbours::start(directory).await?);
        starts(report, &neighbours, store.path(), registrations).await?;
        let server = neighbours.serve(store.path())?;
        latency::measure(report, &neighbours, &server, registrations).await?;
        server.stop()
    })
}

fn write_all(report: &mut Report, store: &Path, registrations: u32) -> Result<()> {
    let began = Instant::now();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let options = Options { caps: Caps::default(), cache_bytes: 256 * 1024 * 1024 };
        let store = RedbStore::open(store, &server().public(), options)?;
        write(&store, (0..registrations).map(|number| stored(receiver(number), number))).await?;
        store.close().await?;
        anyhow::Ok(())
    })?;
    let rate = f64::from(registrations) / began.elapsed().as_secs_f64();
    report.told(&format!("{registrations} registrations of 20 contacts written, durably"), "/s", &[rate]);
    let bytes: u64 =
        std::fs::read_dir(store)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    report.told(
        "the store's files, for each registration",
        "bytes",
        &[bytes as f64 / f64::from(registrations)],
    );
    Ok(())
}

async fn starts(
    report: &mut Report,
    neighbours: &Neighbours,
    store: &Path,
    registrations: u32,
) -> Result<()> {
    // Numbers that no other measurement uses.
    let mut number = 2_000_000_000;
    for (is_killed, how) in [(false, "after a clean end"), (true, "after a kill")] {
        let (mut seconds, mut at_first, mut later, mut highest) = (vec![], vec![], vec![], vec![]);
        for _ in 0..STARTS {
            // It waits for the server.
            neighbours.publish(requests(number, 1, 1, registrations).remove(0)).await?;
            let began = Instant::now();
            let server = neighbours.serve(store)?;
            neighbours.is_answered(number).await?;
            seconds.push(began.elapsed().as_secs_f64());
            at_first.push(server.memory_mib()?[0]);
            let rung = neighbours.gorush.pushes().len();
            let all = requests(number + 1, REQUESTS, 1, registrations);
            neighbours.publish_all(all).await?;
            neighbours.calls(rung, REQUESTS as usize).await?;
            let [now, most] = server.memory_mib()?;
            later.push(now);
            highest.push(most);
            number += REQUESTS + 1;
            if is_killed { server.kill()? } else { server.stop()? }
        }
        report.at_most(
            &format!("start of the service to its first answer, {registrations} registrations, {how}"),
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
        report.at_most("the same at its highest", 600.0, "MiB", &highest);
    }
    Ok(())
}
