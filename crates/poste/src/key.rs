//! `poste key new|show|backup|restore`: the keys that a gateway and a push server are known by.

mod backup;
mod restore;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, ensure};
use clap::{Arg, ArgMatches, Command, ValueEnum, value_parser};
use poste_codec::SecretKey;
use poste_gateway::{GatewayConfig, node_key};
use poste_push::{PushConfig, identity};
use poste_rlpx::Enode;
use poste_service::config::{Config, Schema, Sources};

use crate::{cli, up};

/// Whose key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    /// The node key, which the enode names
    Gateway,
    /// The identity, which registrations are made for
    Push,
}

/// `poste key`.
pub fn command() -> Command {
    let args = || {
        let file = Arg::new("file")
            .long("file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("the gateway's key file [default: node.key in gateway.data of the configuration]");
        let of = Arg::new("of")
            .long("of")
            .value_name("SERVICE")
            .default_value("gateway")
            .value_parser(value_parser!(Service))
            .help("whose key");
        let config = cli::setting_args(&Schema::new());
        [of, file, up::data_arg()].into_iter().chain(config)
    };
    Command::new("key")
        .about("Makes, shows, backs up or brings back the keys that a gateway and a push server are known by")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("new").about("Makes a key file; refuses to overwrite one").args(args()))
        .subcommand(
            Command::new("show")
                .about("Prints the enode and the node id, or the push server's public key; never the secret")
                .args(args()),
        )
        .subcommands([backup::command(), restore::command()])
}

/// Runs it.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (name, matches) = matches.subcommand().expect("clap requires new, show, backup or restore");
    let config = config(matches)?;
    match name {
        "backup" => return backup::run(matches, &config.section()?),
        "restore" => return restore::run(matches, &config.section()?),
        _ => {}
    }
    let is_new = name == "new";
    let lines = match matches.get_one("of").expect("it has a default") {
        Service::Gateway => gateway(matches, config.section()?, is_new)?,
        Service::Push => push(matches, &config.section()?, is_new)?,
    };
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(ExitCode::SUCCESS)
}

/// As `poste up` with this `--data` would use it.
fn config(matches: &ArgMatches) -> anyhow::Result<Config> {
    let sources = Sources { presets: up::presets(up::data(matches))?, ..Sources::default() };
    Ok(cli::load(matches, &Schema::new(), sources)?)
}

fn gateway(matches: &ArgMatches, gateway: GatewayConfig, is_new: bool) -> anyhow::Result<Vec<String>> {
    let path = match matches.get_one::<PathBuf>("file") {
        Some(path) => path.clone(),
        None => gateway.data.join(node_key::FILE_NAME),
    };
    let public = if is_new { node_key::create(&path)? } else { node_key::read(&path)? }.public();
    let listen = gateway.rlpx_listen;
    let host = gateway.advertise.unwrap_or_else(|| match listen.ip() {
        // As the gateway says it: also `[::]` takes what comes by IPv4.
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    });
    Ok(vec![
        format!("file     {}", path.display()),
        format!("enode    {}", Enode::new(public, host, listen.port())),
        format!("node id  {}", hex::encode(public.node_id())),
    ])
}

fn push(matches: &ArgMatches, push: &PushConfig, is_new: bool) -> anyhow::Result<Vec<String>> {
    ensure!(
        !matches.contains_id("file"),
        "--file is for the gateway's key; the push server's lies in its data directory (--data)"
    );
    let public = if is_new { identity::create(&push.data)? } else { identity_of(push)? }.public();
    let mut lines = vec![format!("public key  {}", hex::encode(public.to_compressed()))];
    if is_new || push.identity.is_none() {
        lines.insert(0, format!("file        {}", push.data.join(identity::FILE_NAME).display()));
    }
    Ok(lines)
}

/// The push server's identity: the one that is configured, or that of its directory.
fn identity_of(push: &PushConfig) -> anyhow::Result<SecretKey> {
    match push.secret_key().map_err(|reason| anyhow!("push.{reason}"))? {
        Some(key) => Ok(key),
        None => Ok(identity::read(&push.data.join(identity::FILE_NAME))?),
    }
}
