//! What plain files on the same disk do: the physical limit.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Bench;
use crate::report::{Limit, percentile};

/// What a record of 304 bytes takes in a file, about.
const FRAME_BYTES: usize = 340;

impl Bench {
    /// Rates of sequential writing and of fdatasync.
    pub(crate) fn plain(&mut self, directory: &Path) -> Result<()> {
        let runs = self.runs(5);
        let rates = (0..runs).map(|_| write_rate(directory)).collect::<Result<Vec<_>>>()?;
        self.report.row("a plain file: sequential writing with one fdatasync", Limit::None, "MiB/s", &rates);
        let rates = (0..runs).map(|_| sync_rate(directory)).collect::<Result<Vec<_>>>()?;
        self.report.row("a plain file: 4 KiB appended and fdatasync", Limit::None, "/s", &rates);
        Ok(())
    }
}

/// MiB a second of 256 MiB.
fn write_rate(directory: &Path) -> Result<f64> {
    const MIB: usize = 256;
    let mut file = tempfile::tempfile_in(directory)?;
    let block = vec![0x5a; 1 << 20];
    let begun = Instant::now();
    for _ in 0..MIB {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    Ok(MIB as f64 / begun.elapsed().as_secs_f64())
}

/// fdatasyncs a second.
fn sync_rate(directory: &Path) -> Result<f64> {
    let mut file = tempfile::tempfile_in(directory)?;
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        append(&mut file, 4096)?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// The p99 of fdatasync, in milliseconds, of a plain file to which comes what comes of that many records a second.
pub(crate) fn sync_p99(directory: &Path, records_per_second: f64, for_time: Duration) -> Result<f64> {
    let mut file = tempfile::tempfile_in(directory)?;
    let mut times = Vec::new();
    let (begun, mut written) = (Instant::now(), 0);
    while begun.elapsed() < for_time {
        let due = (begun.elapsed().as_secs_f64() * records_per_second) as usize - written;
        if due == 0 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        written += due;
        times.push(append(&mut file, due * FRAME_BYTES)?);
    }
    Ok(percentile(&mut times, 99))
}

/// Appends that many bytes; the time of the fdatasync alone.
fn append(file: &mut File, bytes: usize) -> Result<Duration> {
    file.write_all(&vec![0x5a; bytes])?;
    let begun = Instant::now();
    file.sync_data()?;
    Ok(begun.elapsed())
}
