//! A power cut under load: the file system goes away at one instant, with everything that was not synced.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::{SMALL_SEGMENTS, eight_writers, recovered, set};
use crate::archive::{Archive, Program};
use crate::audit::{Tally, audit};
use crate::filesystem::FileSystem;
use crate::load::{Ledger, Load};

/// Acknowledged before each cut, at least.
const ACKNOWLEDGED: u64 = 1000;
const DISK_BYTES: u64 = 2 << 30;

/// Cuts the power of an archive under eight writers that many times. Fails as soon as something is lost or doubled.
pub async fn power_cut(seed: u64, cuts: u32) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = FileSystem::new(DISK_BYTES)?;
    let mut archive = Archive::new(Program::Poste, &disk.path().join("archive"), &SMALL_SEGMENTS);
    let ledger = Ledger::new(set(seed)?);
    let mut tally = Tally::default();
    archive.start()?;
    for cut in 1..=cuts {
        let before = ledger.acknowledged().borrow().to_owned();
        cut_under_load(&mut disk, &mut archive, &ledger, &mut random).await?;
        archive.start()?;
        let mut client = archive.client()?;
        let quarantined = recovered(&mut client).await?.quarantined;
        tally = audit(&mut client, &ledger).await?;
        let new = tally.acknowledged - before;
        println!(
            "{cut} of {cuts}: {new} acknowledged before the cut, {quarantined} places quarantined: {tally}"
        );
        tally.ensure_whole()?;
    }
    archive.stop()?;
    disk.unmount()?;
    Ok(tally)
}

/// The same cut under an archive whose disk only says that it has synced: what it acknowledged is lost. `host` gives the
/// command that serves a directory so.
pub async fn control(seed: u64, host: fn(&Path) -> Result<Command>) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = FileSystem::new(DISK_BYTES)?;
    let mut archive = Archive::new(Program::Unsynced(host), &disk.path().join("archive"), &[]);
    let ledger = Ledger::new(set(seed)?);
    archive.start()?;
    cut_under_load(&mut disk, &mut archive, &ledger, &mut random).await?;
    archive.program = Program::Poste;
    let tally = if archive.start().is_ok() {
        audit(&mut archive.client()?, &ledger).await?
    } else {
        // It may have left nothing that is a store.
        let acknowledged = *ledger.acknowledged().borrow();
        Tally { acknowledged, lost: acknowledged, ..Tally::default() }
    };
    println!("without fdatasync: {tally}");
    archive.kill()?;
    disk.unmount()?;
    Ok(tally)
}

async fn cut_under_load(
    disk: &mut FileSystem,
    archive: &mut Archive,
    ledger: &Arc<Ledger>,
    random: &mut StdRng,
) -> Result<()> {
    let load = Load::start(ledger, &archive.client()?, &eight_writers(random, 1..=60));
    ledger.grow_by(ACKNOWLEDGED + random.random_range(0..4 * ACKNOWLEDGED)).await?;
    sleep(Duration::from_micros(random.random_range(0..50_000))).await;
    disk.cut(|| ledger.close())?;
    archive.kill()?;
    load.lost().await?;
    ledger.open();
    disk.unmount()?;
    disk.mount()
}
