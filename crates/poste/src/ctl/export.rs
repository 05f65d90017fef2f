//! `poste ctl archive export`: history into a file that another archive can import, and that can be gone on with where
//! it was cut off.

mod file;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::ProgressBar;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::export_response::Kind;
use serde_json::json;

use super::moment::{FORMS, Moment};
use super::output::{count, size, time};
use super::{LONG, archive, common_args, output, space, space_arg};
use file::{Output, Unfinished};

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
             in the end it is as one that was made at once.",
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
                .conflicts_with_all(["from", "to"])
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
        eprintln!("poste: stdout cannot be gone on with: write --output FILE");
        return Ok(ExitCode::from(2));
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
    let unfinished = if resume { file::read(path, output::progress(is_json, Some(0))).await? } else { None };
    let kept_bytes = match unfinished {
        Some(Unfinished::Finished) => return nothing_to_do(path, is_json),
        Some(Unfinished::Cut { request: rest, sound_bytes, dropped_bytes }) => {
            request = rest;
            if dropped_bytes > 0 {
                eprintln!("poste: {} behind the last whole record are dropped", size(dropped_bytes));
            }
            Some(sound_bytes)
        }
        // An empty file, or none.
        None => resume.then_some(0),
    };

    let progress = output::progress(is_json, None);
    let (service, mut client) = archive::admin(matches)?;
    let exported = service.within(async {
        let answers = client.export(request).await.map_err(|status| service.error(&status))?.into_inner();
        // Not before: an archive that does not answer leaves no file behind.
        let output = match kept_bytes {
            Some(kept_bytes) => Output::resume(path, kept_bytes)?,
            None if to_stdout => Output::stdout(),
            None => Output::create(path)?,
        };
        let exported = write(answers, output, &progress, &service).await;
        exported.with_context(|| match to_stdout {
            true => "the export is not whole".to_owned(),
            false => format!("{} is not whole: go on with it by --resume", path.display()),
        })
    });
    let exported = exported.await;
    progress.finish_and_clear();
    let (report, written_bytes) = exported?;
    let resumed_at = kept_bytes.filter(|bytes| *bytes > 0);
    let file_bytes = resumed_at.unwrap_or(0) + written_bytes;
    if is_json {
        let report = json!({
            "records": report.records,
            "record_bytes": report.record_bytes,
            "file_bytes": file_bytes,
            "resumed_at_bytes": resumed_at,
            "complete_until_ns": report.complete_until_ns,
            "floor_ns": report.floor_ns,
            "quarantined": report.quarantined,
        });
        tell(to_stdout, &[report.to_string()])?;
    } else {
        let seconds = began.elapsed().as_secs_f64();
        let mut lines = vec![format!(
            "{} exported, {}, {seconds:.1} s",
            count(report.records, "record"),
            size(file_bytes)
        )];
        lines.extend(gaps(&report));
        tell(to_stdout, &lines)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn nothing_to_do(path: &Path, is_json: bool) -> anyhow::Result<ExitCode> {
    if is_json {
        output::json(&json!({ "already_complete": true }))?;
    } else {
        output::lines([format!("{} is a whole export: there is nothing to go on with", path.display())])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the file's bytes to where they go, and the report.
async fn write(
    mut answers: tonic::Streaming<v1::ExportResponse>,
    mut output: Output,
    progress: &ProgressBar,
    service: &super::Service,
) -> anyhow::Result<(v1::ExportReport, u64)> {
    loop {
        let answer = answers.message().await.map_err(|status| service.error(&status));
        let kind = match answer {
            Ok(answer) => answer.and_then(|answer| answer.kind),
            Err(error) => {
                // What came is kept: it can be gone on with.
                output.finish().await?;
                return Err(error.into());
            }
        };
        match kind.context("the archive ended without a report")? {
            Kind::Chunk(chunk) => {
                progress.inc(chunk.len() as u64);
                output.write(chunk).await?;
            }
            Kind::Report(report) => return Ok((report, output.finish().await?)),
        }
    }
}

/// What the export may lack, in words.
fn gaps(report: &v1::ExportReport) -> Vec<String> {
    let mut gaps = Vec::new();
    if let Some(until) = report.complete_until_ns {
        gaps.push(format!("not complete from {} on: a writer may still bring records", time(until)));
    }
    if let Some(floor) = report.floor_ns {
        gaps.push(format!("what was made before {} was retired and is not in it", time(floor)));
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
