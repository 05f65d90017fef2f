//! `poste ctl archive retention` and `prune`: how long records are kept, and what is taken away.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_rpc::archive::v1;
use poste_service::config::{ByteSize, HumanDuration};
use serde_json::json;

use super::moment::{FORMS, Moment};
use super::output::{count, pairs, size, span, table, time, time_or_dash};
use super::{LONG, SHORT, archive, common_args, output, space, space_arg};

/// `retention`.
pub(super) fn command() -> Command {
    let duration = |name: &'static str, help: &'static str| {
        let parser = value_parser!(HumanDuration);
        Arg::new(name).long(name).value_name("DURATION").value_parser(parser).help(help)
    };
    Command::new("retention")
        .about("Shows how long records are kept, or changes it")
        .after_help(
            "With --max-age, --max-size or --min-age the archive overrides its configuration from now on, also after \
             a restart, until --reset. What is not named stays as it is.",
        )
        .arg(duration("max-age", "retire records that were made longer ago (0s: none for its age)"))
        .arg(
            Arg::new("max-size")
                .long("max-size")
                .value_name("SIZE")
                .value_parser(value_parser!(ByteSize))
                .help("retire the oldest while the files are larger (0B: none for its size)"),
        )
        .arg(duration("min-age", "but none that is younger than this: then refuse new ones instead"))
        .arg(
            Arg::new("reset")
                .long("reset")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["max-age", "max-size", "min-age"])
                .help("take the override back: the configuration counts again"),
        )
        .args(common_args(SHORT))
}

/// `prune`.
pub(super) fn prune_command() -> Command {
    Command::new("prune")
        .about("Retires what is older than a time, now and for good")
        .arg(
            Arg::new("before")
                .long("before")
                .value_name(FORMS)
                .required(true)
                .value_parser(value_parser!(Moment))
                .help("records made before this are retired: 30d (ago), a unix second, 2026-01-31T12:00:00Z"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("only say what would be retired"),
        )
        .arg(space_arg())
        .args(common_args(LONG))
}

/// Runs `retention`.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = archive::admin(matches)?;
    let nanos = |name: &str| {
        let duration = matches.get_one::<HumanDuration>(name)?;
        Some(u64::try_from(duration.0.as_nanos()).unwrap_or(u64::MAX))
    };
    let request = v1::SetRetentionRequest {
        max_age_ns: nanos("max-age"),
        max_bytes: matches.get_one::<ByteSize>("max-size").map(|size| size.0),
        min_age_ns: nanos("min-age"),
        reset: matches.get_flag("reset"),
    };
    if request != v1::SetRetentionRequest::default() {
        service.answer(client.set_retention(request)).await?;
    }
    let retention = service.answer(client.get_retention(v1::GetRetentionRequest {})).await?;
    if matches.get_flag("json") {
        output::json(&retention_json(&retention))?;
    } else {
        output::lines(retention_lines(&retention))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn retention_json(answer: &v1::GetRetentionResponse) -> serde_json::Value {
    let retention = |retention: &v1::Retention| {
        json!({
            "max_age_ns": retention.max_age_ns,
            "max_bytes": retention.max_bytes,
            "min_age_ns": retention.min_age_ns,
        })
    };
    let space = |space: &v1::SpaceRetention| {
        json!({
            "space": space.space,
            "floor_ns": space.floor_ns,
            "due_floor_ns": space.due_floor_ns,
            "due_records": space.due_records,
            "due_bytes": space.due_bytes,
        })
    };
    json!({
        "configured": answer.configured.as_ref().map(retention),
        "override": answer.r#override.as_ref().map(retention),
        "file_bytes": answer.file_bytes,
        "spaces": answer.spaces.iter().map(space).collect::<Vec<_>>(),
    })
}

fn retention_lines(answer: &v1::GetRetentionResponse) -> Vec<String> {
    let row = |name: &str, retention: &v1::Retention, counts: bool| {
        let limit = |value: u64, text: String| if value == 0 { "no limit".to_owned() } else { text };
        [
            name.to_owned(),
            limit(retention.max_age_ns, span(Duration::from_nanos(retention.max_age_ns))),
            limit(retention.max_bytes, size(retention.max_bytes)),
            span(Duration::from_nanos(retention.min_age_ns)),
            if counts { "in force".to_owned() } else { String::new() },
        ]
    };
    let overridden = answer.r#override.as_ref();
    let configured = answer.configured.as_ref();
    let rows: Vec<_> = configured
        .map(|retention| row("configuration", retention, overridden.is_none()))
        .into_iter()
        .chain(overridden.map(|retention| row("override", retention, true)))
        .collect();
    let mut lines = table(["by", "max age", "max size", "min age", ""], &["by", ""], &rows);
    lines.push(String::new());
    lines.extend(pairs([("files", size(answer.file_bytes))]));
    if !answer.spaces.is_empty() {
        let row = |space: &v1::SpaceRetention| {
            [
                space.space.clone(),
                time_or_dash(space.floor_ns),
                time_or_dash(space.due_floor_ns),
                space.due_records.to_string(),
                size(space.due_bytes),
            ]
        };
        let rows: Vec<_> = answer.spaces.iter().map(row).collect();
        let heads = ["space", "retired before", "due before", "due records", "due bytes"];
        lines.push(String::new());
        lines.extend(table(heads, &["space", "retired before", "due before"], &rows));
    }
    lines
}

/// Runs `prune`.
pub(super) async fn prune(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = archive::admin(matches)?;
    let before: &Moment = matches.get_one("before").expect("clap requires it");
    let dry_run = matches.get_flag("dry-run");
    let request = v1::PruneRequest { space: space(matches), before_ns: before.nanos(), dry_run };
    let pruned = service.answer(client.prune(request)).await?;
    if matches.get_flag("json") {
        output::json(&json!({
            "dry_run": dry_run,
            "floor_ns": pruned.floor_ns,
            "records": pruned.records,
            "bytes": pruned.bytes,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (records, bytes) = (count(pruned.records, "record"), size(pruned.bytes));
    let verb = if dry_run { "would be removed" } else { "removed" };
    let mut lines = vec![format!("{records} {verb}, {bytes}")];
    if let Some(floor_ns) = pruned.floor_ns {
        let verb = if dry_run { "would no longer be" } else { "is no longer" };
        lines.push(format!("what was made before {} {verb} answered", time(floor_ns)));
    }
    output::lines(lines)?;
    Ok(ExitCode::SUCCESS)
}
