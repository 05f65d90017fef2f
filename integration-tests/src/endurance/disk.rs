//! A disk that refuses: errors of write and of fsync, short writes, no space; by a disk in memory that fails at random, and
//! by a small real file system that is filled up.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use poste_archive::store::{ArchiveStore, Writable};
use poste_archive::{LocalOptions, LocalStore};
use poste_journal::{FaultyDisk, Odds};
use poste_rpc::archive::v1::StatsRequest;
use poste_service::Clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use super::host::Served;
use super::{SMALL_SEGMENTS, eight_writers, readiness, recovered, set};
use crate::archive::{Archive, Program};
use crate::audit::{Tally, audit};
use crate::filesystem::FileSystem;
use crate::load::{Ledger, Load, Plan};

const PATIENCE: Duration = Duration::from_secs(30);

/// That many lives of a store on a disk in memory that fails at random; each ends by a stop, a kill or a power cut.
pub async fn faults(seed: u64, lives: u32) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = FaultyDisk::new(random.random());
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::new(set(seed)?);
    let mut tally = Tally::default();
    for life in 1..=lives {
        let options = LocalOptions {
            disk: Arc::new(disk.clone()),
            segment_bytes: 256 * 1024,
            ..LocalOptions::new(directory.path().join("archive"), Clock::system())
        };
        let store = Arc::new(tokio::task::spawn_blocking(move || LocalStore::open(options)).await??);
        let mut writable = store.writable();
        let served = Served::start(store).await?;
        let mut client = served.client()?;
        recovered(&mut client).await?;
        tally = audit(&mut client, &ledger).await?;
        tally.ensure_whole()?;

        let plan = Plan { writers: 4, ..eight_writers(&mut random, 1..=40) };
        let load = Load::start(&ledger, &client, &plan);
        ledger.grow_by(200).await?;
        let trouble = trouble(&disk, &mut random);
        let refused = ledger.unavailable();
        let before = *refused.borrow();
        sleep(Duration::from_millis(random.random_range(50..400))).await;
        disk.set_odds(Odds::default());
        disk.set_capacity(None);
        timeout(PATIENCE, writable.wait_for(Writable::is_yes))
            .await
            .context("the disk is well, the store is not")??;
        ledger.grow_by(200).await?;
        let refused = *refused.borrow() - before;
        let end = match random.random_range(0..3) {
            0 => {
                load.finish().await?;
                "stopped"
            }
            1 => {
                disk.kill();
                drop(load);
                "killed"
            }
            _ => {
                disk.crash();
                drop(load);
                "power cut"
            }
        };
        // After a kill or a cut its files are dead, and it cannot end well.
        let stopped = served.stop().await;
        ensure!(end != "stopped" || stopped.is_ok(), "a healthy disk, but no good end: {stopped:?}");
        println!("{life} of {lives}: {trouble}, {refused} refused, then {end}: {tally}");
    }
    Ok(tally)
}

/// Lets the disk fail in one way or several, and tells how.
fn trouble(disk: &FaultyDisk, random: &mut StdRng) -> String {
    let mut odds = Odds::default();
    let mut said = Vec::new();
    if random.random() {
        odds.short_write = random.random_range(1..3000);
        said.push("short writes");
    }
    match random.random_range(0..4) {
        0 => {
            odds.write_error = random.random_range(1..500);
            said.push("EIO by write");
        }
        1 => {
            odds.sync_error = random.random_range(1..2000);
            said.push("EIO by fsync");
        }
        2 => {
            // Full at once, wherever it stands.
            disk.set_capacity(Some(0));
            said.push("ENOSPC");
        }
        _ => {
            odds.write_error = random.random_range(1..200);
            odds.sync_error = random.random_range(1..500);
            disk.set_capacity(Some(random.random_range(0..4_000_000)));
            said.push("EIO and ENOSPC");
        }
    }
    disk.set_odds(odds);
    said.join(", ")
}

/// Fills a real file system that many times with what an archive stores: it refuses, says so, and goes on by itself as
/// soon as there is room again.
pub async fn full(seed: u64, times: u32) -> Result<Tally> {
    const DISK_BYTES: u64 = 40 << 20;
    const BALLAST_BYTES: usize = 4 << 20;
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = FileSystem::new(DISK_BYTES)?;
    let ballast = |number| disk.path().join(format!("ballast-{number}"));
    for number in 1..=times {
        std::fs::write(ballast(number), vec![0; BALLAST_BYTES])?;
    }
    let mut archive = Archive::new(Program::Poste, &disk.path().join("archive"), &SMALL_SEGMENTS);
    let ledger = Ledger::new(set(seed)?);
    archive.start()?;
    let mut client = archive.client()?;
    let load = Load::start(&ledger, &client, &eight_writers(&mut random, 20..=60));
    for number in 1..=times {
        let mut unavailable = ledger.unavailable();
        let before = *unavailable.borrow_and_update();
        let refused = unavailable.wait_for(|count| *count > before);
        timeout(Duration::from_secs(120), refused).await.context("the disk does not fill up")??;
        let alarm = readiness(archive.ready()?, 503).await?;
        ensure!(alarm.contains("archive.store"), "not the store is not ready: {alarm}");
        let stats = client.stats(StatsRequest {}).await?.into_inner();
        ensure!(!stats.writable && !stats.unwritable_reason.is_empty(), "full, but writable: {stats:?}");
        let tally = audit(&mut client, &ledger).await?;
        tally.ensure_whole()?;
        println!("{number} of {times}: refused ({}): {tally}", ledger.reason());
        std::fs::remove_file(ballast(number))?;
        recovered(&mut client).await?;
        readiness(archive.ready()?, 200).await?;
        ledger.grow_by(500).await?;
    }
    // Without a load that would fill it again.
    archive.kill()?;
    load.lost().await?;
    archive.start()?;
    let mut client = archive.client()?;
    let tally = audit(&mut client, &ledger).await?;
    tally.ensure_whole()?;
    archive.stop()?;
    disk.unmount()?;
    Ok(tally)
}
