//! `poste ctl archive export`: history into a file that another archive can import, and that can be gone on with where
//! it was cut off.

mod file;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use futures::{Stream, StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::export_response::Kind;
use serde_json::json;

use super::moment::{FORMS, Moment};
use super::output::{count, size, time};
use super::{GAPS, LONG, archive, common_args, output, space, space_arg};
use crate::USAGE;
use file::{Found, Output};

const NO_REPORT: &str = "the archive ended without a report";

/// The command.
pub(super) fn command() -> Command {
    let moment = |name: &'static str, help: &'static str| {
        let parser = value_parser!(Moment);
        Arg::new(name).long(name).value_name(FORMS).value_parser(parser).help(help)
    };
    Command::new("export")
        .about("Writes history into a file that an archive can import")
        .after_help(
            "An export that was cut off is gone on with by the same command with --resume: what is in FILE stays, and \
             in the end it is as one that was made at once. A damaged FILE is left alone. Exit code 5: FILE has its \
             end, but the archive may have lacked something; what is missing is told.",
        )
        .arg(
            Arg::new("output")
                .long("output")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("the file to make; `-` for stdout"),
        )
        .arg(
            Arg::new("resume")
                .long("resume")
                .action(ArgAction::SetTrue)
                .help("go on with FILE where it ends; its space and range stay. Makes FILE if it is not there"),
        )
        .arg(moment("from", "records made from then on: 30d (ago), a unix second, 2026-01-31T12:00:00Z"))
        .arg(moment("to", "records made up to then"))
        .arg(space_arg())
        .args(common_args(LONG))
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let path: &PathBuf = matches.get_one("output").expect("clap requires it");
    let is_json = matches.get_flag("json");
    let to_stdout = path.as_os_str() == "-";
    let resume = matches.get_flag("resume");
    if to_stdout && resume {
        return Ok(usage("stdout cannot be gone on with: write --output FILE"));
    }
    if !to_stdout && !resume && path.exists() {
        bail!("{} is there already: write --resume to go on with it, or another name", path.display());
    }
    let nanos = |name: &str| matches.get_one::<Moment>(name).map(|moment| moment.nanos());
    let mut request = v1::ExportRequest {
        space: space(matches),
        from_ns: nanos("from").unwrap_or(i64::MIN),
        to_ns: nanos("to").unwrap_or(i64::MAX),
        resume: None,
    };
    let (service, mut client) = archive::admin(matches)?;
    let mut destination = if to_stdout { Destination::stdout() } else { Destination::new_file(path) };
    if resume {
        let names_range = nanos("from").is_some() || nanos("to").is_some();
        match service.within(file::read(path, output::progress(is_json, Some(0)))).await? {
            Found::Nothing => {}
            Found::Empty if names_range => destination = Destination::rest_of(path, 0),
            Found::Empty => bail!(
                "{} holds nothing of an export, not even which range it was to be of: remove it, or name that range by \
                 --from or --to",
                path.display()
            ),
            Found::Whole => return nothing_to_do(path, is_json),
            Found::Cut { request: rest, sound_bytes, dropped_bytes } => {
                if let Some(differs) = differs(matches, &rest) {
                    return Ok(usage(&format!("{} {differs}", path.display())));
                }
                if dropped_bytes > 0 {
                    eprintln!("poste: {} behind the last whole record are dropped", size(dropped_bytes));
                }
                destination = Destination::rest_of(path, sound_bytes);
                request = rest;
            }
        }
    }

    let to_ns = request.to_ns;
    let progress = output::progress(is_json, None);
    let exported = service.within(async {
        let answers = client.export(request).await.map_err(|status| service.error(&status))?.into_inner();
        let answers = answers.map_err(|status| service.error(&status).into());
        write(answers, &mut destination, &progress).await
    });
    let exported = exported.await;
    progress.finish_and_clear();
    let (report, written_bytes) = exported.map_err(|error| destination.left_unfinished(error))?;
    let resumed_at = Some(destination.kept_bytes).filter(|bytes| *bytes > 0);
    let file_bytes = destination.kept_bytes + written_bytes;
    let gaps = gaps(&report, to_ns);
    if is_json {
        let report = json!({
            "records": report.records,
            "record_bytes": report.record_bytes,
            "file_bytes": file_bytes,
            "resumed_at_bytes": resumed_at,
            "complete": gaps.is_empty(),
            "complete_until_ns": report.complete_until_ns,
            "unclaimed_until_ns": report.unclaimed_until_ns,
            "floor_ns": report.floor_ns,
            "quarantined": report.quarantined,
        });
        tell(to_stdout, &[report.to_string()])?;
    } else {
        let (records, seconds) = (count(report.records, "record"), began.elapsed().as_secs_f64());
        let mut lines = vec![format!("{records} exported, {}, {seconds:.1} s", size(file_bytes))];
        lines.extend_from_slice(&gaps);
        if let Some(floor) = report.floor_ns {
            lines.push(format!("what was made before {} was retired and may not be in it", time(floor)));
        }
        tell(to_stdout, &lines)?;
    }
    Ok(if gaps.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(GAPS) })
}

fn usage(message: &str) -> ExitCode {
    eprintln!("poste: {message}");
    ExitCode::from(USAGE)
}

/// Says where a file was begun with another range than is named now. A span names another one each time: the file's
/// counts.
fn differs(matches: &ArgMatches, rest: &v1::ExportRequest) -> Option<String> {
    let differs = |name: &str, ns: i64| {
        let named = matches.get_one::<Moment>(name)?;
        let is_other = matches!(named, Moment::At(_)) && named.nanos() != ns;
        is_other.then(|| {
            format!("was begun with another --{name}: leave it away to go on, or write another file")
        })
    };
    differs("from", rest.from_ns).or_else(|| differs("to", rest.to_ns))
}

fn nothing_to_do(path: &Path, is_json: bool) -> anyhow::Result<ExitCode> {
    if is_json {
        output::json(&json!({ "already_complete": true }))?;
    } else {
        output::lines([format!("{} is a whole export: there is nothing to go on with", path.display())])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the bytes go, once there are some: an archive that does not answer leaves no file behind.
struct Destination {
    /// Absent for stdout.
    path: Option<PathBuf>,
    /// So much of the file stays.
    kept_bytes: u64,
    /// It is there already.
    is_there: bool,
    /// Something may have been written.
    is_open: bool,
}

impl Destination {
    fn stdout() -> Self {
        Self { path: None, kept_bytes: 0, is_there: false, is_open: false }
    }

    fn new_file(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..Self::stdout() }
    }

    fn rest_of(path: &Path, kept_bytes: u64) -> Self {
        Self { kept_bytes, is_there: true, ..Self::new_file(path) }
    }

    fn open(&mut self) -> anyhow::Result<Output> {
        let output = match &self.path {
            None => Output::stdout(),
            Some(path) if self.is_there => Output::resume(path, self.kept_bytes)?,
            Some(path) => Output::create(path)?,
        };
        self.is_open = true;
        Ok(output)
    }

    /// Says what there is now. A file that was begun and holds nothing is removed: going on with it would mean to begin
    /// anew, with another range perhaps.
    fn left_unfinished(&self, error: anyhow::Error) -> anyhow::Error {
        match &self.path {
            _ if !self.is_open => error,
            None => error.context("the export is not whole"),
            Some(path)
                if path.metadata().is_ok_and(|file| file.len() == 0) && fs::remove_file(path).is_ok() =>
            {
                error.context(format!("nothing was exported, and {} was removed", path.display()))
            }
            Some(path) => {
                error.context(format!("{} is not whole: go on with it by --resume", path.display()))
            }
        }
    }
}

/// Takes the file's bytes to where they go. Returns the report, and how many bytes they were.
async fn write(
    mut answers: impl Stream<Item = anyhow::Result<v1::ExportResponse>> + Unpin,
    destination: &mut Destination,
    progress: &ProgressBar,
) -> anyhow::Result<(v1::ExportReport, u64)> {
    let mut output: Option<Output> = None;
    let report = loop {
        let answer = answers.next().await.transpose();
        let kind = answer.and_then(|answer| answer.and_then(|answer| answer.kind).context(NO_REPORT));
        match kind {
            Ok(Kind::Chunk(chunk)) => {
                let output = match &mut output {
                    Some(output) => output,
                    None => output.insert(destination.open()?),
                };
                progress.inc(chunk.len() as u64);
                output.write(chunk).await?;
            }
            Ok(Kind::Report(report)) => break Ok(report),
            Err(error) => break Err(error),
        }
    };
    // What came is kept, whatever came then: it can be gone on with.
    let written_bytes = match output {
        Some(output) => output.finish().await?,
        None => 0,
    };
    Ok((report?, written_bytes))
}

/// What the file may lack of its range, in words. That old records are retired is as it should be, and no gap.
fn gaps(report: &v1::ExportReport, to_ns: i64) -> Vec<String> {
    let mut gaps = Vec::new();
    match report.complete_until_ns {
        Some(i64::MIN) => gaps.push("anything may be missing: an index is being made anew".to_owned()),
        Some(until) if until <= to_ns => {
            gaps.push(format!("not complete from {} on: a writer may still bring records", time(until)));
        }
        _ => {}
    }
    if let Some(until) = report.unclaimed_until_ns {
        gaps.push(format!(
            "whether all was there of what an earlier run exported, up to {}, is not known: a new file would tell",
            time(until)
        ));
    }
    if report.quarantined > 0 {
        gaps.push(format!("{} of the archive may be gaps", count(report.quarantined, "damaged place")));
    }
    gaps
}

/// On stdout, unless that is where the file goes.
fn tell(to_stdout: bool, lines: &[String]) -> std::io::Result<()> {
    if to_stdout {
        lines.iter().for_each(|line| eprintln!("{line}"));
        return Ok(());
    }
    output::lines(lines.iter().cloned())
}
