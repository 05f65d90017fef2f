//! `poste ctl archive import`: an export file into an archive.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Arg, ArgMatches, Command, value_parser};
use futures::stream::{self, BoxStream, StreamExt};
use indicatif::ProgressBar;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::import_response::Kind;
use serde_json::json;
use tokio::sync::mpsc;

use super::output::count;
use super::{LONG, archive, common_args, output};

const READ_BYTES: usize = 256 * 1024;
/// Chunks that wait for the archive.
const MAX_WAITING: usize = 4;

/// The command.
pub(super) fn command() -> Command {
    Command::new("import")
        .about("Stores what is in an export file; exit code 1 when not all of it could be")
        .after_help(
            "What is stored already is known and passed over, so an import can be repeated. Of a damaged or unfinished \
             file everything up to there is stored, and the place is told.",
        )
        .arg(
            Arg::new("input")
                .long("input")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("the file; `-` for stdin"),
        )
        .args(common_args(LONG))
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let path: &PathBuf = matches.get_one("input").expect("clap requires it");
    let is_json = matches.get_flag("json");
    let (service, mut client) = archive::admin(matches)?;
    let name = || path.display().to_string();
    let Input { chunks, file_bytes, failed } = Input::open(path).with_context(name)?;
    let progress = output::progress(is_json, file_bytes);
    let imported = service.within(async {
        let answers = client.import(chunks).await.map_err(|status| service.error(&status))?;
        let mut answers = answers.into_inner();
        loop {
            let answer = answers.message().await.map_err(|status| service.error(&status))?;
            match answer.and_then(|answer| answer.kind).context("the archive ended without a report")? {
                Kind::Progress(told) => show(&progress, &told),
                Kind::Report(report) => return Ok(report),
            }
        }
    });
    let imported = imported.await;
    progress.finish_and_clear();
    let report: v1::ImportReport = imported?;
    if let Some(error) = failed.get() {
        bail!("{} cannot be read: {error}; what stands before is stored", path.display());
    }
    let refused: u64 = report.refused.iter().map(|refused| refused.records).sum();
    if is_json {
        let refused = |refused: &v1::Refused| json!({ "reason": refused.reason, "records": refused.records });
        output::json(&json!({
            "complete": report.complete,
            "problem": report.problem,
            "sound_bytes": report.sound_bytes,
            "stored": report.stored,
            "duplicates": report.duplicates,
            "not_kept": report.not_kept,
            "refused": report.refused.iter().map(refused).collect::<Vec<_>>(),
        }))?;
    } else {
        output::lines(lines(&report, began.elapsed().as_secs_f64()))?;
    }
    if !report.complete {
        eprintln!("poste: {}: {}; what stands before is stored", path.display(), report.problem);
    }
    Ok(if report.complete && refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(progress: &ProgressBar, told: &v1::ImportProgress) {
    progress.set_position(told.read_bytes);
    progress.set_message(match told.waiting.as_str() {
        "" => format!("{} records", told.records),
        reason => format!("waiting: {reason}"),
    });
}

fn lines(report: &v1::ImportReport, seconds: f64) -> Vec<String> {
    let mut parts = vec![
        format!("{} stored", count(report.stored, "record")),
        format!("{} known already", report.duplicates),
    ];
    if report.not_kept > 0 {
        parts.push(format!("{} of topics that are not kept", report.not_kept));
    }
    let judgement = if report.complete { "" } else { ": NOT COMPLETE" };
    let refused = report
        .refused
        .iter()
        .map(|refused| format!("{} refused: {}", count(refused.records, "record"), refused.reason));
    std::iter::once(format!("{}, {seconds:.1} s{judgement}", parts.join(", "))).chain(refused).collect()
}

/// A file in chunks.
struct Input {
    chunks: BoxStream<'static, v1::ImportRequest>,
    /// How long it is, if that is known.
    file_bytes: Option<u64>,
    /// Why the chunks ended, when that is not the end of the file.
    failed: Arc<OnceLock<io::Error>>,
}

impl Input {
    /// Begins to read, in a thread of its own that ends with the file, or when nobody takes more.
    fn open(path: &Path) -> io::Result<Self> {
        let (mut file, file_bytes): (Box<dyn Read + Send>, _) = if path.as_os_str() == "-" {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path)?;
            let file_bytes = file.metadata()?.len();
            (Box::new(file), Some(file_bytes))
        };
        let failed = Arc::<OnceLock<io::Error>>::default();
        let (sender, mut waiting) = mpsc::channel::<Bytes>(MAX_WAITING);
        let told = Arc::clone(&failed);
        tokio::task::spawn_blocking(move || {
            loop {
                let mut chunk = vec![0; READ_BYTES];
                match file.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(count) => chunk.truncate(count),
                    // Told before the channel closes, which looks like the end of the file.
                    Err(error) => {
                        let _ = told.set(error);
                        return;
                    }
                }
                if sender.blocking_send(chunk.into()).is_err() {
                    return;
                }
            }
        });
        let chunks = stream::poll_fn(move |context| waiting.poll_recv(context));
        let chunks = chunks.map(|chunk| v1::ImportRequest { chunk }).boxed();
        Ok(Self { chunks, file_bytes, failed })
    }
}
