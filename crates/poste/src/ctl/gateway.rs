//! `poste ctl gateway`: the node, and who is connected to it.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};
use poste_gateway::GatewayConfig;
use poste_rpc::gateway::v1;
use serde_json::json;

use super::output::{pairs, size, span, table};
use super::{SHORT, Service, common_args, output, section};

/// The commands.
pub(super) fn command() -> Command {
    Command::new("gateway")
        .about("The Waku gateway: what it is and who is connected")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("info").about("Shows the node, its pool and its archive").args(common_args(SHORT)),
        )
        .subcommand(Command::new("peers").about("Lists who is connected").args(common_args(SHORT)))
}

/// Runs one.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("info", matches)) => info(matches).await,
        Some(("peers", matches)) => peers(matches).await,
        _ => unreachable!("clap requires one of the commands above"),
    }
}

fn service(matches: &ArgMatches) -> anyhow::Result<Service> {
    Service::of(matches, |config| Ok(section::<GatewayConfig>(config)?.admin_listen))
}

async fn info(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let service = service(matches)?;
    let mut client = poste_rpc::gateway::admin_client(service.target.channel());
    let info = service.answer(client.node_info(v1::NodeInfoRequest {})).await?;
    if matches.get_flag("json") {
        output::json(&json!({
            "enode": info.enode,
            "node_id": hex::encode(&info.node_id),
            "client_name": info.client_name,
            "capabilities": info.capabilities,
            "min_pow": info.min_pow,
            "max_message_size": info.max_message_size,
            "peers": info.peers,
            "max_peers": info.max_peers,
            "pool_envelopes": info.pool_envelopes,
            "pool_bytes": info.pool_bytes,
            "pending_envelopes": info.pending_envelopes,
            "pending_bytes": info.pending_bytes,
            "archive_reachable": info.archive_reachable,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let envelopes = |count: u64, bytes: u64| format!("{count} envelopes, {}", size(bytes));
    output::lines(pairs([
        ("enode", info.enode),
        ("node id", hex::encode(&info.node_id)),
        ("client", info.client_name),
        ("capabilities", info.capabilities.join(", ")),
        ("least PoW", info.min_pow.to_string()),
        ("largest message", size(info.max_message_size.into())),
        ("peers", format!("{} of at most {}", info.peers, info.max_peers)),
        ("pool", envelopes(info.pool_envelopes, info.pool_bytes)),
        ("for the archive", envelopes(info.pending_envelopes, info.pending_bytes)),
        ("archive", if info.archive_reachable { "reachable" } else { "not reachable" }.to_owned()),
    ]))?;
    Ok(ExitCode::SUCCESS)
}

async fn peers(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let service = service(matches)?;
    let mut client = poste_rpc::gateway::admin_client(service.target.channel());
    let peers = service.answer(client.peers(v1::PeersRequest {})).await?.peers;
    if matches.get_flag("json") {
        let peer = |peer: &v1::Peer| {
            json!({
                "enode": peer.enode,
                "client_name": peer.client_name,
                "capability": peer.capability,
                "inbound": peer.inbound,
                "connected_seconds": peer.connected_seconds,
                "min_pow": peer.min_pow,
                "light": peer.light,
                "full_node": peer.full_node,
                "envelopes_in": peer.envelopes_in,
                "envelopes_out": peer.envelopes_out,
                "mail_requests": peer.mail_requests,
            })
        };
        output::json(&json!({ "peers": peers.iter().map(peer).collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |peer: &v1::Peer| {
        [
            address(&peer.enode).to_owned(),
            peer.client_name.clone(),
            peer.capability.clone(),
            if peer.inbound { "in" } else { "out" }.to_owned(),
            span(Duration::from_secs(peer.connected_seconds)),
            peer.envelopes_in.to_string(),
            peer.envelopes_out.to_string(),
            peer.mail_requests.to_string(),
        ]
    };
    let rows: Vec<_> = peers.iter().map(row).collect();
    let heads = ["address", "client", "speaks", "way", "for", "received", "sent", "mail requests"];
    output::lines(table(heads, &["address", "client", "speaks", "way"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Of an enode what people look for: the key in front would fill the line.
fn address(enode: &str) -> &str {
    enode.split_once('@').map_or(enode, |(_, address)| address)
}
