//! What the push server costs: processor time of a notification and of a registration, and of their parts; how it starts
//! and what it holds with a million registrations; how long a notification takes at 500 a second. Prints a Markdown table;
//! `scripts/bench push` builds and runs it.
//!
//! Everything that clients do is made beforehand. Processor time is that of the whole process, so of all threads of the
//! server and of its store, and of nothing else. What [`costs`] measures is the server on its store, with a provider and
//! a publisher that only take what they are given; the rest is the service as it runs, see [`stack`].

#![expect(clippy::print_stdout, reason = "the table is what it is run for")]

mod costs;
mod latency;
mod million;
mod people;
mod report;
mod rig;
mod stack;

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
    /// For the process that is a push server, and is measured: its directory, and its neighbours.
    serve: Option<(PathBuf, [String; 3])>,
}

fn main() -> Result<()> {
    let plan = plan()?;
    if let Some((data, neighbours)) = plan.serve {
        return stack::serve(data, neighbours);
    }
    let mut report = Report::new();
    report.machine()?;
    costs::measure(&mut report)?;
    million::measure(&mut report, &plan.directory, plan.registrations)?;
    match plan.json {
        Some(path) => report.save(&path),
        None => Ok(()),
    }
}

fn plan() -> Result<Plan> {
    let mut plan =
        Plan { registrations: 1_000_000, directory: std::env::temp_dir(), json: None, serve: None };
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
            "--serve" => plan.serve = Some((value()?.into(), [value()?, value()?, value()?])),
            other => bail!("unknown argument {other}"),
        }
    }
    Ok(plan)
}
