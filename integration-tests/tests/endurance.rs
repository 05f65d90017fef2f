//! What an archive must outlive, briefly; `scripts/endurance` runs the same for longer.

use std::path::Path;

use anyhow::{Result, ensure};
use poste_integration_tests::endurance::{disk, kill, pages, power_cut, seed};
use poste_integration_tests::requirement;

/// This package's program, for what a test cannot do inside its own process.
const HOST: &str = env!("CARGO_BIN_EXE_endurance");

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_kill_9_or_by_damage_of_what_is_derived() -> Result<()> {
    let tally = kill::kill(seed(None)?, 6).await?;
    ensure!(tally.acknowledged >= 6000, "{tally}");
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
    let tally = power_cut::control(seed(None)?, Path::new(HOST)).await?;
    ensure!(tally.lost > 0, "{tally}");
    Ok(())
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
async fn a_history_that_changes_comes_whole_by_pages_of_any_size() -> Result<()> {
    let limits = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1000];
    pages::pages(seed(None)?, &limits).await?.ensure_whole()
}
