//! The long forms of the tests of endurance: run by `scripts/endurance`, which builds what they need.

#![expect(clippy::print_stdout, reason = "the summary is what it is run for")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use poste_integration_tests::endurance::{disk, host, kill, outage, pages, power_cut, seed};

#[derive(Debug, Parser)]
#[command(about = "What an archive must outlive")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
    /// Kills, cuts or lives
    #[arg(long, global = true)]
    rounds: Option<u32>,
    /// How long the archive is away
    #[arg(long, global = true, default_value_t = 300)]
    seconds: u64,
    /// What everything random follows from
    #[arg(long, global = true)]
    seed: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// kill -9 under eight writers, with everything that can be derived damaged in between
    Kill,
    /// Power cuts under eight writers, and the same without fdatasync, which must lose
    PowerCut,
    /// Errors of a disk in memory at random, and a real file system that is filled up
    Disk,
    /// The archive away under intake through a gateway, and gateways killed with a full spool
    Outage,
    /// Full history by pages of every size while it changes
    Pages,
    /// An archive without fdatasync, for the control of power cuts
    #[command(hide = true)]
    Host { directory: PathBuf },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { part, rounds, seconds, seed: given } = Arguments::parse();
    if let Part::Host { directory } = part {
        return host::unsynced(&directory).await;
    }
    let begun = Instant::now();
    let seed = seed(given)?;
    let tally = match part {
        Part::Kill => Box::pin(kill::kill(seed, rounds.unwrap_or(50))).await?,
        Part::PowerCut => {
            let control = Box::pin(power_cut::control(seed, host_command)).await?;
            ensure!(control.lost > 0, "the test sees no loss where nothing is synced: {control}");
            Box::pin(power_cut::power_cut(seed, rounds.unwrap_or(10))).await?
        }
        Part::Disk => {
            let faults = Box::pin(disk::faults(seed, rounds.unwrap_or(200))).await?;
            println!("a disk in memory: {faults}");
            Box::pin(disk::full(seed, rounds.unwrap_or(5).min(5))).await?
        }
        Part::Outage => Box::pin(outage::outage(seed, Duration::from_secs(seconds))).await?,
        Part::Pages => {
            Box::pin(pages::pages(seed, &(1..=rounds.unwrap_or(1000)).collect::<Vec<_>>())).await?
        }
        Part::Host { .. } => unreachable!("it was served above"),
    };
    println!("in {:?}", Duration::from_secs(begun.elapsed().as_secs()));
    println!("{tally}");
    tally.ensure_whole()
}

fn host_command(directory: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("host").arg(directory);
    Ok(command)
}
