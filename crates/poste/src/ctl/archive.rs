//! `poste ctl archive`: what it holds, and who writes into it. The other commands have files of their own.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use poste_archive::ArchiveConfig;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::archive_admin_service_client::ArchiveAdminServiceClient;
use serde_json::json;
use tonic::transport::Channel;

use super::output::{count, pairs, size, table, time_or_dash};
use super::{SHORT, Service, common_args, export, import, output, retention, section, verify};

/// The commands.
pub(super) fn command() -> Command {
    Command::new("archive")
        .about("The mailserver archive: what it holds, how long, and history in and out")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("stats").about("Shows what the archive holds").args(common_args(SHORT)),
            retention::command(),
            retention::prune_command(),
            verify::command(),
            export::command(),
            import::command(),
            writers_command(),
        ])
}

fn writers_command() -> Command {
    Command::new("writers")
        .about("Who writes into the archive, and whom it waits for")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("list")
                .about("Lists the writers, and what each may still hold back")
                .args(common_args(SHORT)),
        )
        .subcommand(
            Command::new("forget")
                .about("Waits no longer for a writer that will not come back; what it held back is given up")
                .arg(Arg::new("writer").value_name("ID").required(true).help("as `writers list` shows it"))
                .args(common_args(SHORT)),
        )
}

/// Runs one.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("stats", matches)) => stats(matches).await,
        Some(("retention", matches)) => retention::run(matches).await,
        Some(("prune", matches)) => retention::prune(matches).await,
        Some(("verify", matches)) => verify::run(matches).await,
        Some(("export", matches)) => Box::pin(export::run(matches)).await,
        Some(("import", matches)) => Box::pin(import::run(matches)).await,
        Some(("writers", matches)) => match matches.subcommand() {
            Some(("list", matches)) => list_writers(matches).await,
            Some(("forget", matches)) => forget_writer(matches).await,
            _ => unreachable!("clap requires one of the commands above"),
        },
        _ => unreachable!("clap requires one of the commands above"),
    }
}

/// The archive's administration.
pub(super) fn admin(matches: &ArgMatches) -> anyhow::Result<(Service, ArchiveAdminServiceClient<Channel>)> {
    let service = Service::of(matches, |config| Ok(section::<ArchiveConfig>(config)?.admin_listen))?;
    let client = poste_rpc::archive::admin_client(service.target.channel());
    Ok((service, client))
}

async fn stats(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let service = Service::of(matches, |config| Ok(section::<ArchiveConfig>(config)?.grpc_listen))?;
    let mut client = poste_rpc::archive::client(service.target.channel());
    let stats = service.answer(client.stats(v1::StatsRequest {})).await?;
    if matches.get_flag("json") {
        output::json(&stats_json(&stats))?;
    } else {
        output::lines(stats_lines(&stats))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stats_json(stats: &v1::StatsResponse) -> serde_json::Value {
    let space = |space: &v1::SpaceStats| {
        json!({
            "space": space.space,
            "records": space.records,
            "bytes": space.bytes,
            "topics": space.topics,
            "oldest_ns": space.oldest_ns,
            "newest_ns": space.newest_ns,
            "floor_ns": space.floor_ns,
        })
    };
    json!({
        "store_id": hex::encode(&stats.store_id),
        "seq": stats.seq,
        "segments": stats.segments,
        "file_bytes": stats.file_bytes,
        "quarantined": stats.quarantined,
        "quarantined_bytes": stats.quarantined_bytes,
        "writable": stats.writable,
        "unwritable_reason": stats.unwritable_reason,
        "indexing": stats.indexing.map(|indexing| json!({
            "done_bytes": indexing.done_bytes,
            "total_bytes": indexing.total_bytes,
        })),
        "spaces": stats.spaces.iter().map(space).collect::<Vec<_>>(),
    })
}

fn stats_lines(stats: &v1::StatsResponse) -> Vec<String> {
    let takes_records = match stats.writable {
        true => "yes".to_owned(),
        false => format!("no: {}", stats.unwritable_reason),
    };
    let damage = match stats.quarantined {
        0 => "none known".to_owned(),
        places => format!("{} in quarantine, {}", count(places, "place"), size(stats.quarantined_bytes)),
    };
    let files = format!("{} in {}", size(stats.file_bytes), count(stats.segments, "segment"));
    let mut lines = pairs([
        ("store", hex::encode(&stats.store_id)),
        ("takes records", takes_records),
        ("files", files),
        ("damage", damage),
    ]);
    if let Some(v1::IndexProgress { done_bytes, total_bytes }) = &stats.indexing {
        let (done, total) = (size(*done_bytes), size(*total_bytes));
        lines.push(format!(
            "an index is being made anew, {done} of {total}: until then answers are not complete"
        ));
    }
    let row = |space: &v1::SpaceStats| {
        [
            space.space.clone(),
            space.records.to_string(),
            size(space.bytes),
            space.topics.to_string(),
            time_or_dash(space.oldest_ns),
            time_or_dash(space.newest_ns),
            time_or_dash(space.floor_ns),
        ]
    };
    let rows: Vec<_> = stats.spaces.iter().map(row).collect();
    let heads = ["space", "records", "bodies", "topics", "oldest", "newest", "retired before"];
    lines.push(String::new());
    lines.extend(table(heads, &["space", "oldest", "newest", "retired before"], &rows));
    lines
}

async fn list_writers(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = admin(matches)?;
    let writers = service.answer(client.list_writers(v1::ListWritersRequest {})).await?.writers;
    if matches.get_flag("json") {
        let writer = |writer: &v1::Writer| {
            json!({
                "writer_id": writer.writer_id,
                "connected": writer.connected,
                "held_back_ns": writer.held_back_ns,
            })
        };
        output::json(&json!({ "writers": writers.iter().map(writer).collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |writer: &v1::Writer| {
        let state = if writer.connected { "connected" } else { "away" };
        [writer.writer_id.clone(), state.to_owned(), time_or_dash(writer.held_back_ns)]
    };
    let rows: Vec<_> = writers.iter().map(row).collect();
    let heads = ["writer", "state", "may hold back from"];
    output::lines(table(heads, &heads, &rows))?;
    Ok(ExitCode::SUCCESS)
}

async fn forget_writer(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = admin(matches)?;
    let writer_id = matches.get_one::<String>("writer").expect("clap requires it").clone();
    let request = v1::ForgetWriterRequest { writer_id: writer_id.clone() };
    service.answer(client.forget_writer(request)).await?;
    if matches.get_flag("json") {
        output::json(&json!({ "forgotten": writer_id }))?;
    } else {
        output::lines([format!("the archive waits no longer for writer {writer_id}")])?;
    }
    Ok(ExitCode::SUCCESS)
}
