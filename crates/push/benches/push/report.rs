//! The table, the raw numbers, and the clocks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The rows, each printed as soon as it is known.
#[derive(Default)]
pub(crate) struct Report {
    machine: String,
    rows: Vec<Value>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Prints where this runs, and the head of the table.
    pub(crate) fn machine(&mut self) -> Result<()> {
        let line = |file: &str, name: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let processor = line("/proc/cpuinfo", "model name").unwrap_or_default();
        let memory = line("/proc/meminfo", "MemTotal").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism()?;
        let load = load.split(' ').next().unwrap_or_default();
        self.machine = format!("{cores} cores ({processor}), {memory}, load at the start {load}");
        println!("{}\n", self.machine);
        println!("| what | to reach | median | least … most | runs | |\n|---|---|---|---|---|---|");
        Ok(())
    }

    /// A figure that may be at most so much.
    pub(crate) fn at_most(&mut self, what: &str, limit: f64, unit: &str, runs: &[f64]) {
        self.row(what, Some(limit), unit, runs);
    }

    /// A figure for comparison.
    pub(crate) fn told(&mut self, what: &str, unit: &str, runs: &[f64]) {
        self.row(what, None, unit, runs);
    }

    fn row(&mut self, what: &str, limit: Option<f64>, unit: &str, runs: &[f64]) {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return };
        let median = sorted[sorted.len() / 2];
        let wanted = limit.map(|limit| format!("≤ {}", number(limit))).unwrap_or_default();
        let is_met = limit.map(|limit| median <= limit);
        let spread =
            if runs.len() > 1 { format!("{} … {}", number(*least), number(*most)) } else { String::new() };
        let verdict = is_met.map_or("", |is_met| if is_met { "reached" } else { "**missed**" });
        println!("| {what} | {wanted} | {} {unit} | {spread} | {} | {verdict} |", number(median), runs.len());
        self.rows.push(json!({ "what": what, "limit": limit, "unit": unit, "runs": runs, "met": is_met }));
    }

    /// Writes the raw numbers.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let all = json!({ "machine": self.machine, "rows": self.rows });
        fs::write(path, serde_json::to_vec_pretty(&all)?).with_context(|| format!("write {}", path.display()))
    }
}

/// The processor time that this process has used.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The processor time that another process has used, by steps of 10 ms.
pub(crate) fn processor_time_of(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which may contain anything: in user mode and in the kernel's, see proc(5).
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| Ok(ticks.parse::<u64>()?));
    let ticks: u64 = ticks.sum::<Result<u64>>()?;
    let a_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs(ticks) / u32::try_from(a_second)?)
}

/// A line of a process's status, in MiB.
pub(crate) fn memory_mib(process: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()).context("no such line")?.parse()?;
    Ok(kib / 1024.0)
}

fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
