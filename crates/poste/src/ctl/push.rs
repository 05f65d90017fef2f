//! `poste ctl push`: who the push server is, how it stands, and pausing it. What concerns one person, and the self-test,
//! have files of their own.

mod person;
mod self_test;

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use poste_push::PushConfig;
use poste_rpc::push::v1;
use poste_rpc::push::v1::push_admin_service_client::PushAdminServiceClient;
use serde_json::json;
use tonic::transport::Channel;

use super::output::{count, pairs, size};
use super::{SHORT, Service, common_args, output, section};

/// The server waits for 60 s, and then tells how many messages are still at work.
const DRAIN: &str = "70s";

/// The commands.
pub(super) fn command() -> Command {
    Command::new("push")
        .about("The push notification server: who it is, what it holds, and whether it works")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("info")
                .about("Shows the key that clients know the server by")
                .args(common_args(SHORT)),
            Command::new("stats")
                .about("Shows what the server holds, and how far it has read the archive")
                .args(common_args(SHORT)),
            person::registration_command(),
            person::forget_command(),
            Command::new("drain")
                .about("Takes no new message, and returns when those at work are dealt with")
                .after_help(
                    "It stays so until `resume` or a restart, also when the time is over before it is done.",
                )
                .args(common_args(DRAIN)),
            Command::new("resume")
                .about("Takes messages again, from where a drain has stopped")
                .args(common_args(SHORT)),
            self_test::command(),
        ])
}

/// Runs one.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("info", matches)) => info(matches).await,
        Some(("stats", matches)) => stats(matches).await,
        Some(("registration", matches)) => person::registration(matches).await,
        Some(("forget", matches)) => person::forget(matches).await,
        Some(("drain", matches)) => drain(matches, false).await,
        Some(("resume", matches)) => drain(matches, true).await,
        Some(("self-test", matches)) => self_test::run(matches).await,
        _ => unreachable!("clap requires one of the commands above"),
    }
}

fn admin(matches: &ArgMatches) -> anyhow::Result<(Service, PushAdminServiceClient<Channel>)> {
    let service = Service::of(matches, |config| Ok(section::<PushConfig>(config)?.admin_listen))?;
    let client = poste_rpc::push::admin_client(service.target.channel());
    Ok((service, client))
}

async fn info(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let service = Service::of(matches, |config| Ok(section::<PushConfig>(config)?.grpc_listen))?;
    let mut client = poste_rpc::push::client(service.target.channel());
    let info = service.answer(client.server_info(v1::ServerInfoRequest {})).await?;
    let public_key = hex::encode(&info.public_key);
    if matches.get_flag("json") {
        let (topics, accepting) = (info.topics, info.accepting);
        output::json(&json!({ "public_key": public_key, "topics": topics, "accepting": accepting }))?;
    } else {
        output::lines(pairs([
            ("public key", public_key),
            ("topics", info.topics.to_string()),
            ("takes messages", if info.accepting { "yes" } else { "no" }.to_owned()),
        ]))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn stats(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = admin(matches)?;
    let stats = service.answer(client.stats(v1::StatsRequest {})).await?;
    let (store, feed) = (stats.store.unwrap_or_default(), stats.feed.unwrap_or_default());
    if matches.get_flag("json") {
        let store = json!({
            "registrations": store.registrations,
            "tombstones": store.tombstones,
            "open_claims": store.open_claims,
            "ended_claims": store.ended_claims,
            "answers": store.answers,
            "unreadable": store.unreadable,
            "file_bytes": store.file_bytes,
        });
        output::json(&json!({ "store": store, "feed": feed_json(&feed) }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::lines(pairs([
        ("registrations", store.registrations.to_string()),
        ("forgotten devices", store.tombstones.to_string()),
        ("notifications", format!("{} at work, {} remembered", store.open_claims, store.ended_claims)),
        ("answers", format!("{} remembered", store.answers)),
        ("unreadable", store.unreadable.to_string()),
        ("files", size(store.file_bytes)),
    ]))?;
    output::lines(std::iter::once(String::new()).chain(feed_lines(&feed)))?;
    Ok(ExitCode::SUCCESS)
}

async fn drain(matches: &ArgMatches, resume: bool) -> anyhow::Result<ExitCode> {
    let (service, mut client) = admin(matches)?;
    let drained = service.answer(client.drain(v1::DrainRequest { resume })).await?;
    let feed = drained.feed.unwrap_or_default();
    if matches.get_flag("json") {
        output::json(&feed_json(&feed))?;
    } else {
        output::lines(feed_lines(&feed))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn feed_json(feed: &v1::FeedStats) -> serde_json::Value {
    json!({
        "connected": feed.connected,
        "everything": feed.everything,
        "topics": feed.topics,
        "seq": feed.seq,
        "head": feed.head,
        "archive_store_id": hex::encode(&feed.archive_store_id),
        "in_progress": feed.in_progress,
        "paused": feed.paused,
        "last_error": feed.last_error,
    })
}

fn feed_lines(feed: &v1::FeedStats) -> Vec<String> {
    let archive = match (feed.connected, feed.last_error.as_str()) {
        (true, _) => "connected".to_owned(),
        (false, "") => "not connected yet".to_owned(),
        (false, why) => format!("not connected: {why}"),
    };
    let store = match hex::encode(&feed.archive_store_id) {
        id if id.is_empty() => "none was met yet".to_owned(),
        id => id,
    };
    let behind = match feed.head.saturating_sub(feed.seq) {
        behind if feed.connected => count(behind, "record"),
        behind => format!("{behind} or more: nobody knows while the archive is away"),
    };
    let reads = if feed.everything { "everything" } else { "by topics" };
    pairs([
        ("archive", archive),
        ("its store", store),
        ("read", format!("{reads}, up to {} of {}", feed.seq, feed.head)),
        ("behind", behind),
        ("topics", feed.topics.to_string()),
        ("at work", count(feed.in_progress, "message")),
        ("takes messages", if feed.paused { "no, it is paused" } else { "yes" }.to_owned()),
    ])
}
