//! What the archive is held to: a `poste serve archive` of its own process, asked over gRPC from this one on the same cores.
//! Prints a Markdown table with the limit beside each figure, and writes the raw numbers to a JSON file beside the target
//! directory's other results; `scripts/bench archive` builds and runs it.
//!
//! The set: records of 30 days over 50,000 topics by Zipf 1.0, arriving nearly in the order of their creation.

#![expect(clippy::print_stdout, reason = "the table is what it is run for")]

mod append;
mod plain;
mod questions;
mod report;
mod start;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;
use poste_integration_tests::archive::{Archive, Program};
use poste_integration_tests::set::{Set, Zipf};

use report::{Limit, Report};

const DAYS: u32 = 30;
const TOPICS: u32 = 50_000;
const SMALL: usize = 304;
const LARGE: usize = 1024;
/// The larger bodies make a smaller set, by this factor: their walk costs as much a record at any size.
const LARGE_PART: u64 = 5;

/// The archive's benchmark.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many records of 304 bytes are stored
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Where the archives' directories are made, and removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// 200,000 records and shorter runs: for trying it out
    #[arg(long)]
    quick: bool,
    /// Where the raw numbers go
    #[arg(long, default_value = "target/bench-archive.json")]
    json: PathBuf,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A benchmark under way.
struct Bench {
    report: Report,
    /// Fewer runs.
    quick: bool,
}

/// An archive with the set in it.
struct Stored {
    archive: Archive,
    set: Set,
    /// The number of the next record.
    next: Arc<AtomicU64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let records = if arguments.quick { arguments.records.min(200_000) } else { arguments.records };
    let parent = arguments.dir.unwrap_or_else(|| PathBuf::from("target"));
    let directory = tempfile::Builder::new().prefix("bench-archive-").tempdir_in(parent)?;
    let mut bench = Bench { report: Report::new(), quick: arguments.quick };
    bench.report.machine(directory.path())?;
    Box::pin(bench.small(directory.path(), records)).await?;
    Box::pin(bench.large(directory.path(), records / LARGE_PART)).await?;
    bench.report.save(&arguments.json)?;
    println!("\nraw numbers: {}", arguments.json.display());
    Ok(())
}

impl Bench {
    async fn small(&mut self, directory: &Path, records: u64) -> Result<()> {
        let few = (records / 10).min(100_000);
        self.plain(directory)?;
        let mut stored = Stored::start(directory, SMALL, records)?;
        stored.fill(few).await?;
        let begin = self.acknowledgements(&stored, directory, few, None).await?;
        let rates = stored.fill(records).await?;
        self.append_rate(&rates, SMALL, records);
        self.acknowledgements(&stored, directory, records, Some(begin)).await?;
        self.walk(&stored, SMALL).await?;
        self.one_topic(&stored, "").await?;
        self.no_hit(&stored).await?;
        self.dense_bloom(&stored).await?;
        self.size(&mut stored, SMALL)?;
        self.starts(&mut stored).await?;
        stored.end()
    }

    async fn large(&mut self, directory: &Path, records: u64) -> Result<()> {
        let mut stored = Stored::start(directory, LARGE, records)?;
        let rates = stored.fill(records).await?;
        self.append_rate(&rates, LARGE, records);
        self.walk(&stored, LARGE).await?;
        self.size(&mut stored, LARGE)?;
        stored.end()
    }

    /// Files and memory.
    fn size(&mut self, stored: &mut Stored, body_bytes: usize) -> Result<()> {
        let records = stored.count();
        let used = used_bytes(stored.archive.directory())?;
        let beyond = used as f64 / records as f64 - body_bytes as f64;
        let what = format!("files on disk beyond the body of {body_bytes} B, of {records} records");
        self.report.row(&what, Limit::AtMost(120.0), "bytes a record", &[beyond]);
        let limit = if body_bytes == SMALL { Limit::AtMost(400.0) } else { Limit::None };
        let mib = |name: &str| anyhow::Ok(stored.archive.memory_kib(name)? as f64 / 1024.0);
        let now = [mib("VmRSS")?];
        self.report.row(&format!("resident memory at {records} stored ({body_bytes} B)"), limit, "MiB", &now);
        self.report.row("the same at its highest", Limit::None, "MiB", &[mib("VmHWM")?]);
        Ok(())
    }

    fn runs(&self, full: usize) -> usize {
        if self.quick { full.min(2) } else { full }
    }
}

impl Stored {
    fn start(directory: &Path, body_bytes: usize, records: u64) -> Result<Self> {
        let now = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let set = Set {
            seed: 1,
            data_bytes: Set::data_for_body(body_bytes),
            begin: now - DAYS * 86_400,
            per_second: records as f64 / f64::from(DAYS * 86_400),
            jitter: 20,
            topics: Zipf::new(TOPICS),
        };
        let mut archive = Archive::new(Program::Poste, &directory.join(format!("{body_bytes}")), &[]);
        archive.patience = Duration::from_secs(900);
        archive.start()?;
        Ok(Self { archive, set, next: Arc::default() })
    }

    /// How many records are stored.
    fn count(&self) -> u64 {
        self.next.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Creation times of the set, nanoseconds.
    fn range_ns(&self) -> (i64, i64) {
        let second = |seconds: u32| i64::from(seconds) * 1_000_000_000;
        (second(self.set.begin), second(self.set.begin + DAYS * 86_400))
    }

    fn end(mut self) -> Result<()> {
        self.archive.stop()?;
        fs::remove_dir_all(self.archive.directory()).context("remove the archive's directory")
    }
}

/// The bytes that the files of a directory take on disk.
fn used_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => used_bytes(&entry.path())?,
            Ok(metadata) => metadata.blocks() * 512,
            // The archive works on.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(bytes)
}
