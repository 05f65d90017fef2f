//! `poste ctl archive retention` and `prune`: how long records are kept, and what is taken away.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_rpc::archive::v1;
use poste_service::config::{ByteSize, HumanDuration};
use serde_json::json;

use super::confirm::{is_meant, yes_arg};
use super::moment::{FORMS, Moment};
use super::output::{count, pairs, size, span, table, time_or_dash};
use super::{LONG, SHORT, archive, common_args, output, space, space_arg};
use crate::USAGE;

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
             a restart, until --reset. What is not named stays as it is. A change that takes records away at once \
             needs --yes, or a yes at the terminal.",
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
        .arg(yes_arg())
        .args(common_args(SHORT))
}

/// `prune`.
pub(super) fn prune_command() -> Command {
    Command::new("prune")
        .about("Retires what is older than a time, now and for good")
        .after_help(
            "It tells first which time that is (6m are six minutes) and how many records are answered no more, and \
             needs --yes, or a yes at the terminal.",
        )
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
        .arg(yes_arg().conflicts_with("dry-run"))
        .arg(space_arg())
        .args(common_args(LONG))
}

/// Runs `retention`.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (mut service, mut client) = archive::admin(matches)?;
    let nanos = |name: &str| {
        let duration = matches.get_one::<HumanDuration>(name)?;
        Some(u64::try_from(duration.0.as_nanos()).unwrap_or(u64::MAX))
    };
    let request = v1::SetRetentionRequest {
        max_age_ns: nanos("max-age"),
        max_bytes: matches.get_one::<ByteSize>("max-size").map(|size| size.0),
        min_age_ns: nanos("min-age"),
        reset: matches.get_flag("reset"),
        dry_run: false,
    };
    let mut retention = service.answer(client.get_retention(v1::GetRetentionRequest {})).await?;
    if request != v1::SetRetentionRequest::default() {
        let would = v1::SetRetentionRequest { dry_run: true, ..request };
        let would = service.answer(client.set_retention(would)).await?;
        let about_to = takes_away(&retention, &would);
        if !about_to.is_empty() && !is_meant(matches, &mut service, &about_to).await? {
            return Ok(ExitCode::from(USAGE));
        }
        service.answer(client.set_retention(request)).await?;
        let changed = service.answer(client.get_retention(v1::GetRetentionRequest {})).await;
        retention = changed.context("retention is changed, but what counts now could not be asked")?;
    }
    if matches.get_flag("json") {
        output::json(&retention_json(&retention))?;
    } else {
        output::lines(retention_lines(&retention))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a change of retention takes away at once, in words; empty when that is nothing, or would go anyway.
fn takes_away(now: &v1::GetRetentionResponse, would: &v1::SetRetentionResponse) -> Vec<String> {
    let (Some(old), Some(new)) = (now.r#override.or(now.configured), would.retention) else {
        return Vec::new();
    };
    let is_less = |new: u64, old: u64| new != 0 && (old == 0 || new < old);
    let mut about_to = Vec::new();
    if is_less(new.max_age_ns, old.max_age_ns) {
        let lossy = would.spaces.iter().filter(|space| space.due_hidden > 0);
        about_to.extend(lossy.map(|space| {
            let (records, age) = (count(space.due_hidden, "record"), Duration::from_nanos(new.max_age_ns));
            let before = time_or_dash(space.due_floor_ns);
            format!(
                "max age {}: {records} of {} go for good, all from before {before}",
                span(age),
                space.space
            )
        }));
    }
    let by_size =
        is_less(new.max_bytes, old.max_bytes) || (new.max_bytes != 0 && new.min_age_ns < old.min_age_ns);
    if by_size && would.file_bytes > new.max_bytes {
        let (files, most) = (size(would.file_bytes), size(new.max_bytes));
        let min_age = span(Duration::from_nanos(new.min_age_ns));
        about_to.push(format!(
            "max size {most}: the files take {files}, so the oldest records go for good until they fit, but none \
             younger than {min_age}"
        ));
    }
    about_to
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
            "due_hidden": space.due_hidden,
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
                space.due_hidden.to_string(),
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
    let (mut service, mut client) = archive::admin(matches)?;
    let before: &Moment = matches.get_one("before").expect("clap requires it");
    let is_dry_run = matches.get_flag("dry-run");
    let request = v1::PruneRequest { space: space(matches), before_ns: before.nanos(), dry_run: true };
    let mut pruned = service.answer(client.prune(request.clone())).await?;
    if !is_dry_run {
        let (records, bytes) = (count(pruned.hidden, "record"), size(pruned.bytes));
        let ago = pruned.floor_ns.and_then(Moment::age).map(|age| format!(" ({} ago)", span(age)));
        let before = time_or_dash(pruned.floor_ns) + &ago.unwrap_or_default();
        let about_to = format!(
            "this retires for good what was made before {before}: {records}, and {bytes} of disk at once"
        );
        if !is_meant(matches, &mut service, &[about_to]).await? {
            return Ok(ExitCode::from(USAGE));
        }
        let request = v1::PruneRequest { dry_run: false, ..request };
        pruned = service.answer(client.prune(request)).await?;
    }
    if matches.get_flag("json") {
        output::json(&json!({
            "dry_run": is_dry_run,
            "floor_ns": pruned.floor_ns,
            "hidden": pruned.hidden,
            "records": pruned.records,
            "bytes": pruned.bytes,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (records, bytes) = (count(pruned.records, "record"), size(pruned.bytes));
    let (removed, answered) = match is_dry_run {
        true => ("would be removed from disk", "would no longer be answered"),
        false => ("removed from disk", "is no longer answered"),
    };
    let others = if pruned.records < pruned.hidden {
        "; others go later, with the files that they are in"
    } else {
        ""
    };
    let (before, hidden) = (time_or_dash(pruned.floor_ns), count(pruned.hidden, "record"));
    output::lines([
        format!("what was made before {before} {answered}: {hidden}"),
        format!("{records} {removed} at once, {bytes}{others}"),
    ])?;
    Ok(ExitCode::SUCCESS)
}
