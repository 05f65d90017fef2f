//! From the start of the process to its first answer.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use poste_integration_tests::audit::question;
use poste_rpc::archive::v1::{QueryRequest, StatsRequest};

use crate::report::Limit;
use crate::{Bench, Stored};

/// Appended before each kill, so that the open segment holds something.
const APPENDED: u64 = 100_000;

impl Bench {
    /// Starts after a clean stop, after kill -9, and without anything that can be derived.
    pub(crate) async fn starts(&mut self, stored: &mut Stored) -> Result<()> {
        let appended = if self.quick { APPENDED / 10 } else { APPENDED };
        let mut times = Vec::new();
        for run in 0..self.runs(5) {
            stored.archive.stop()?;
            times.push(first_answer(stored).await?.as_secs_f64());
            if run == 0 {
                self.one_topic(stored, ", the process just started").await?;
            }
        }
        let row = format!("start to first answer, {} stored", stored.count());
        self.report.row(&format!("{row}, after a clean stop"), Limit::AtMost(2.0), "s", &times);
        let mut times = Vec::new();
        for _ in 0..self.runs(5) {
            // Until a segment that was sealed just before the kill is indexed, no records are taken.
            indexed(stored).await?;
            stored.fill(stored.count() + appended).await?;
            stored.archive.kill()?;
            times.push(first_answer(stored).await?.as_secs_f64());
        }
        self.report.row(&format!("{row}, after kill -9"), Limit::AtMost(5.0), "s", &times);
        let (mut first, mut complete) = (Vec::new(), Vec::new());
        for _ in 0..self.runs(3) {
            stored.archive.stop()?;
            remove_derived(stored.archive.directory())?;
            let begun = Instant::now();
            first.push(first_answer(stored).await?.as_secs_f64());
            indexed(stored).await?;
            complete.push(begun.elapsed().as_secs_f64());
        }
        let row = format!("{row}, catalogue and index files deleted");
        self.report.row(&format!("{row}: first answer"), Limit::AtMost(5.0), "s", &first);
        self.report.row(&format!("{row}: complete"), Limit::AtMost(30.0), "s", &complete);
        Ok(())
    }
}

/// Starts the archive and asks it for a page of the newest.
async fn first_answer(stored: &mut Stored) -> Result<Duration> {
    let begun = Instant::now();
    stored.archive.start()?;
    let newest = QueryRequest { max_records: 100, direction: 2, ..question() };
    stored.archive.client()?.query(newest).await?;
    Ok(begun.elapsed())
}

/// Waits until no index is being made anew, and everything is there.
async fn indexed(stored: &Stored) -> Result<()> {
    let mut client = stored.archive.client()?;
    loop {
        let stats = client.stats(StatsRequest {}).await?.into_inner();
        if stats.indexing.is_none() {
            let records: u64 = stats.spaces.iter().map(|space| space.records).sum();
            ensure!(records == stored.count(), "{records} of {} are indexed", stored.count());
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn remove_derived(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match (name.starts_with("catalogue"), path.is_dir()) {
            (true, true) => fs::remove_dir_all(&path)?,
            (true, false) => fs::remove_file(&path)?,
            (false, false) if name.ends_with(".index") => fs::remove_file(&path)?,
            _ => {}
        }
    }
    Ok(())
}
