//! `poste ctl archive verify`: everything that is stored is read and compared.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgMatches, Command};
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::verify_response::Kind;
use serde_json::json;

use super::output::{count, size};
use super::{LONG, archive, common_args, output};

/// The command.
pub(super) fn command() -> Command {
    Command::new("verify")
        .about("Reads everything that is stored and compares it with its checksums")
        .after_help("Exit code 1 when there is damage, or something could not be read.")
        .args(common_args(LONG))
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = archive::admin(matches)?;
    let is_json = matches.get_flag("json");
    let progress = output::progress(is_json, Some(0));
    let verified = service.within(async {
        let answers = client.verify(v1::VerifyRequest {}).await;
        let mut answers = answers.map_err(|status| service.error(&status))?.into_inner();
        loop {
            let answer = answers.message().await.map_err(|status| service.error(&status))?;
            match answer.and_then(|answer| answer.kind).context("the archive ended without a report")? {
                Kind::Progress(v1::JobProgress { done_bytes, total_bytes }) => {
                    progress.set_length(total_bytes);
                    progress.set_position(done_bytes);
                }
                Kind::Report(report) => return Ok(report),
            }
        }
    });
    let verified = verified.await;
    progress.finish_and_clear();
    let report: v1::VerifyReport = verified?;
    let found_nothing = report.quarantined == 0 && report.indexes_rebuilt == 0;
    let is_sound = report.complete && report.unreadable == 0 && report.unindexed == 0 && found_nothing;
    if is_json {
        output::json(&json!({
            "sound": is_sound,
            "complete": report.complete,
            "records": report.records,
            "bytes": report.bytes,
            "quarantined": report.quarantined,
            "indexes_rebuilt": report.indexes_rebuilt,
            "unreadable": report.unreadable,
            "unindexed": report.unindexed,
            "findings": report.findings,
        }))?;
    } else {
        output::lines(lines(&report))?;
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(report: &v1::VerifyReport) -> Vec<String> {
    let mut lines = report.findings.clone();
    let mut found = Vec::new();
    if report.quarantined > 0 {
        found.push(format!("{} put into quarantine", count(report.quarantined, "damaged place")));
    }
    if report.indexes_rebuilt > 0 {
        found.push(format!("{} made anew", count(report.indexes_rebuilt, "index file")));
    }
    if report.unreadable > 0 {
        found.push(format!("{} could not be read to the end", count(report.unreadable, "file")));
    }
    if report.unindexed > 0 {
        let segments = count(report.unindexed, "segment");
        found.push(format!(
            "{segments} not read because the index is being made anew: verify again after that"
        ));
    } else if !report.complete {
        found.push("it was ended before its end".to_owned());
    }
    let judgement = if found.is_empty() { "no damage".to_owned() } else { found.join(", ") };
    lines.push(format!("{} read, {}: {judgement}", count(report.records, "record"), size(report.bytes)));
    lines
}
