//! `poste key new|show`: the node key that a gateway is known by.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use poste_gateway::{GatewayConfig, node_key};
use poste_rlpx::Enode;
use poste_service::config::{Schema, Sources};

use crate::{cli, up};

/// `poste key`.
pub fn command() -> Command {
    let args = || {
        let file = Arg::new("file")
            .long("file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("the key file [default: node.key in gateway.data of the configuration]");
        let config = cli::setting_args(&Schema::new());
        [file, up::data_arg()].into_iter().chain(config)
    };
    Command::new("key")
        .about("Makes or shows the key that a gateway is known by")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("new").about("Makes a key file; refuses to overwrite one").args(args()))
        .subcommand(
            Command::new("show").about("Prints the enode and the node id, never the key").args(args()),
        )
}

/// Runs it.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (name, matches) = matches.subcommand().expect("clap requires new or show");
    let sources = Sources { presets: up::presets(up::data(matches))?, ..Sources::default() };
    let gateway: GatewayConfig = cli::load(matches, &Schema::new(), sources)?.section()?;
    let path = match matches.get_one::<PathBuf>("file") {
        Some(path) => path.clone(),
        None => gateway.data.join(node_key::FILE_NAME),
    };
    let key = match name {
        "new" => node_key::create(&path)?,
        _ => node_key::read(&path)?,
    };
    let public = key.public();
    let listen = gateway.rlpx_listen;
    let host = gateway.advertise.unwrap_or_else(|| match listen.ip() {
        // As the gateway says it: also `[::]` takes what comes by IPv4.
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    });
    let mut out = io::stdout().lock();
    writeln!(out, "file     {}", path.display())?;
    writeln!(out, "enode    {}", Enode::new(public, host, listen.port()))?;
    writeln!(out, "node id  {}", hex::encode(public.node_id()))?;
    Ok(ExitCode::SUCCESS)
}
