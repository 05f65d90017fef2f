//! The table and the raw numbers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What a figure is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Nothing: it is told for comparison.
    None,
    /// The median must not be less.
    AtLeast(f64),
    /// The median must not be more.
    AtMost(f64),
}

/// What was measured so far. Every row is printed as soon as it is known.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Value>,
    machine: String,
}

impl Report {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Prints where this runs, and the head of the table.
    pub(crate) fn machine(&mut self, directory: &Path) -> Result<()> {
        let cores = std::thread::available_parallelism()?;
        let line = |file: &str, name: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let processor = line("/proc/cpuinfo", "model name").unwrap_or_default();
        let memory = line("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        self.machine = format!(
            "{cores} cores ({processor}), {memory}, Linux {}, {}, load at the start {}",
            kernel.trim(),
            file_system(directory).unwrap_or_default(),
            load.split(' ').next().unwrap_or_default()
        );
        println!("{}\n", self.machine);
        println!("| what | to reach | median | least … most | runs | |\n|---|---|---|---|---|---|");
        Ok(())
    }

    /// A figure of one or several runs.
    pub(crate) fn row(&mut self, what: &str, limit: Limit, unit: &str, runs: &[f64]) {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return };
        let median = sorted[sorted.len() / 2];
        let (wanted, met) = match limit {
            Limit::None => (String::new(), None),
            Limit::AtLeast(limit) => (format!("≥ {}", number(limit)), Some(median >= limit)),
            Limit::AtMost(limit) => (format!("≤ {}", number(limit)), Some(median <= limit)),
        };
        let spread =
            if runs.len() > 1 { format!("{} … {}", number(*least), number(*most)) } else { String::new() };
        let verdict = met.map_or("", |met| if met { "reached" } else { "**missed**" });
        println!("| {what} | {wanted} | {} {unit} | {spread} | {} | {verdict} |", number(median), runs.len());
        self.rows.push(json!({ "what": what, "limit": wanted, "unit": unit, "runs": runs, "met": met }));
    }

    /// The 50th and the 99th percentile of each run's times, each as a row; the limit is of the second. In milliseconds.
    pub(crate) fn times(&mut self, what: &str, limit: Limit, mut runs: Vec<Vec<Duration>>) {
        let questions = runs.first().map_or(0, Vec::len);
        let [p50, p99] = [50, 99]
            .map(|percent| -> Vec<f64> { runs.iter_mut().map(|times| percentile(times, percent)).collect() });
        self.row(&format!("{what}, p99 of {questions}"), limit, "ms", &p99);
        self.row(&format!("{what}, p50"), Limit::None, "ms", &p50);
    }

    /// Writes the raw numbers.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let all = json!({ "machine": self.machine, "rows": self.rows });
        fs::write(path, serde_json::to_vec_pretty(&all)?).with_context(|| format!("write {}", path.display()))
    }
}

/// A percentile in milliseconds. Sorts the times.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let place = (times.len() * percent).div_ceil(100).clamp(1, times.len().max(1)) - 1;
    times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// Three digits, or whole thousands with commas.
fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => {
            let digits = format!("{value:.0}");
            let (head, first) = digits.split_at(digits.len() % 3);
            let groups: Vec<&str> = (0..first.len() / 3).map(|at| &first[at * 3..at * 3 + 3]).collect();
            if head.is_empty() { groups.join(",") } else { format!("{head},{}", groups.join(",")) }
        }
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The kind of file system that a directory is on.
fn file_system(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let entries = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.nth(1)?, fields.next()?))
    });
    let around = entries.filter(|(point, _)| directory.starts_with(point));
    around.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}
