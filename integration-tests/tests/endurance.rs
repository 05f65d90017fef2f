//! What an archive must outlive, briefly; `scripts/endurance` runs the same for longer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use poste_integration_tests::endurance::{disk, host, kill, outage, pages, power_cut, seed};
use poste_integration_tests::requirement;

/// Names the directory that [`an_archive_without_fdatasync`] serves.
const DIRECTORY: &str = "ENDURANCE_DIRECTORY";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_kill_9_or_by_damage_of_what_is_derived() -> Result<()> {
    let tally = kill::kill(seed(None)?, 5).await?;
    ensure!(tally.acknowledged >= 5000, "{tally}");
    tally.ensure_whole()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_power_cuts() -> Result<()> {
    if requirement::skipped("loop") {
        return Ok(());
    }
    let tally = power_cut::power_cut(seed(None)?, 3).await?;
    ensure!(tally.acknowledged >= 3000, "{tally}");
    tally.ensure_whole()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_without_fdatasync_is_seen_to_lose() -> Result<()> {
    if requirement::skipped("loop") {
        return Ok(());
    }
    let tally = power_cut::control(seed(None)?, host_command).await?;
    ensure!(tally.lost > 0, "{tally}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "no test, but the process that the one above kills"]
async fn an_archive_without_fdatasync() -> Result<()> {
    match std::env::var_os(DIRECTORY) {
        Some(directory) => host::unsynced(&PathBuf::from(directory)).await,
        None => Ok(()),
    }
}

/// With two threads the test program writes nothing before the ready line on its line.
fn host_command(directory: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--ignored", "--exact", "an_archive_without_fdatasync", "--nocapture", "--test-threads=2"]);
    command.env(DIRECTORY, directory);
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_disk_is_refused_to_the_writers_and_recovered_from() -> Result<()> {
    disk::faults(seed(None)?, 12).await?.ensure_whole()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_refused_alarmed_and_recovered_from() -> Result<()> {
    if requirement::skipped("loop") {
        return Ok(());
    }
    disk::full(seed(None)?, 2).await?.ensure_whole()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_while_an_archive_or_a_gateway_is_away() -> Result<()> {
    Box::pin(outage::outage(seed(None)?, Duration::from_secs(3))).await?.ensure_whole()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_changes_comes_whole_by_pages_of_any_size() -> Result<()> {
    let limits = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1000];
    pages::pages(seed(None)?, &limits).await?.ensure_whole()
}
