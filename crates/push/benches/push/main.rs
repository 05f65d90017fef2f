//! What the push server costs: processor time of a notification and of a registration, and of their parts; how it starts
//! and what it holds with a million registrations; how long a notification takes at 500 a second. Prints a Markdown table;
//! `scripts/bench push` builds and runs it.
//!
//! Everything that clients do is made beforehand. Processor time is that of the whole process, so of all threads of the
//! server and of its store, and of nothing else. Providers and publishers only take what they are given.

#![expect(clippy::print_stdout, reason = "the table is what it is run for")]

mod costs;
mod latency;
mod million;
mod people;
mod report;
mod rig;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured, and where.
struct Plan {
    registrations: u32,
    directory: PathBuf,
    json: Option<PathBuf>,
    /// For the process that starts on a store, and is measured.
    start: Option<PathBuf>,
}

fn main() -> Result<()> {
    let plan = plan()?;
    if let Some(store) = &plan.start {
        return million::start(store, plan.registrations);
    }
    let mut report = Report::new();
    report.machine()?;
    costs::measure(&mut report)?;
    let store = tempfile::tempdir_in(&plan.directory)?;
    million::measure(&mut report, store.path(), plan.registrations)?;
    latency::measure(&mut report, store.path(), plan.registrations)?;
    match plan.json {
        Some(path) => report.save(&path),
        None => Ok(()),
    }
}

fn plan() -> Result<Plan> {
    let mut plan =
        Plan { registrations: 1_000_000, directory: std::env::temp_dir(), json: None, start: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--quick" => plan.registrations = 20_000,
            "--registrations" => plan.registrations = value()?.parse()?,
            "--dir" => plan.directory = value()?.into(),
            "--json" => plan.json = Some(value()?.into()),
            "--start" => plan.start = Some(value()?.into()),
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(plan)
}
