//! `poste up`: gateway, archive and push server in one process, over the same gRPC interfaces as apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command, value_parser};
use poste_archive::ArchiveConfig;
use poste_gateway::GatewayConfig;
use poste_push::PushConfig;
use poste_service::config::{Config, Name, Origin, Sources};
use poste_service::{Context, RunningService};

use crate::{cli, life, settings};

/// `poste up`.
pub fn command() -> Command {
    Command::new("up")
        .about("Runs the whole stack in this process on embedded stores")
        .arg(data_arg())
        .arg(cli::ephemeral_ports_arg())
        .args(cli::setting_args(&settings::all()).into_iter().filter(|arg| !is_ours(arg.get_id().as_str())))
}

/// Where the services of this process find each other: nobody else says that.
const OURS: [Name; 3] = [
    Name { section: "gateway", key: "archive" },
    Name { section: "push", key: "archive" },
    Name { section: "push", key: "gateways" },
];

/// Whether a setting, by its name, is one of those.
pub(crate) fn is_ours(name: &str) -> bool {
    OURS.iter().any(|ours| ours.to_string() == name)
}

/// `--data`.
pub fn data_arg() -> Arg {
    Arg::new("data")
        .long("data")
        .value_name("DIR")
        .default_value("./poste-data")
        .value_parser(value_parser!(PathBuf))
        .help("where `poste up` keeps everything; made when it does not exist")
}

/// What `--data` says.
pub(crate) fn data(matches: &ArgMatches) -> &Path {
    matches.get_one::<PathBuf>("data").expect("it has a default")
}

/// Runs it to its end.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let sources = Sources {
        presets: presets(data(matches))?,
        ephemeral_ports: matches.get_flag("ephemeral-ports"),
        ..Sources::default()
    };
    let config = cli::load(matches, &settings::all(), sources)?;
    config.check()?;
    let archive: ArchiveConfig = config.section()?;
    let gateway: GatewayConfig = config.section()?;
    let push: PushConfig = config.section()?;
    let ignored = elsewhere(&config);
    life::run("poste", &config, async |context, services| {
        for (name, origin) in ignored {
            let section = name.section;
            tracing::warn!(
                "{name} (from {origin}) is ignored: this process has services of its own; use `poste serve {section}` \
                 for others"
            );
        }
        services.push(poste_archive::start(archive, context.for_service()).await.context("archive")?);
        services.push(gateway_on(&services[0], gateway, context).await?);
        services.push(push_on(&services[0], &services[1], push, context).await?);
        Ok(())
    })
    .await
}

/// Where services are named that this process will not use.
fn elsewhere(config: &Config) -> Vec<(Name, Origin)> {
    let named = config.show().map(|(name, _, origin)| (name, origin));
    named.filter(|(name, origin)| OURS.contains(name) && *origin != Origin::Default).collect()
}

/// Starts a gateway on an archive of this process. The setting `gateway.archive` is not looked at.
pub(crate) async fn gateway_on(
    archive: &RunningService,
    mut gateway: GatewayConfig,
    context: &Context,
) -> anyhow::Result<RunningService> {
    gateway.archive = url_of(archive)?;
    poste_gateway::start(gateway, context.for_service()).await.context("gateway")
}

/// Starts a push server on an archive and a gateway of this process. The settings `push.archive` and `push.gateways` are
/// not looked at.
pub(crate) async fn push_on(
    archive: &RunningService,
    gateway: &RunningService,
    mut push: PushConfig,
    context: &Context,
) -> anyhow::Result<RunningService> {
    push.archive = url_of(archive)?;
    push.gateways = vec![url_of(gateway)?];
    poste_push::start(push, context.for_service()).await.context("push")
}

/// Where a service of this process is called.
fn url_of(service: &RunningService) -> anyhow::Result<String> {
    let grpc = service.addresses().grpc;
    let grpc = grpc.with_context(|| format!("the {} has no gRPC listener", service.name()))?;
    Ok(format!("http://{}", reachable(grpc)))
}

/// Where a listener can be called from this host: loopback for one that listens everywhere.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
    }
    address
}

/// What `--data` says about where the services keep their data: defaults, below every other layer.
pub(crate) fn presets(data: &Path) -> anyhow::Result<Vec<(&'static str, Name, toml::Value)>> {
    let data = std::path::absolute(data).with_context(|| format!("--data {}", data.display()))?;
    let data = data.to_str().with_context(|| format!("--data {} is not UTF-8", data.display()))?;
    Ok(vec![
        ("--data", Name { section: "archive", key: "store" }, format!("local://{data}/archive").into()),
        ("--data", Name { section: "gateway", key: "data" }, format!("{data}/gateway").into()),
        ("--data", Name { section: "push", key: "data" }, format!("{data}/push").into()),
        (
            "--data",
            Name { section: "push", key: "provider" },
            format!("directory://{data}/notifications").into(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_addresses_are_called_on_loopback() {
        for (listens, called) in [
            ("0.0.0.0:7200", "127.0.0.1:7200"),
            ("[::]:7200", "[::1]:7200"),
            ("10.0.0.1:7200", "10.0.0.1:7200"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), called);
        }
    }

    #[test]
    fn data_moves_all_stores_and_is_beaten_by_a_flag() {
        let load = |arguments: &[&str]| {
            let matches = command().try_get_matches_from(arguments).unwrap();
            let presets = presets(data(&matches)).unwrap();
            let config = cli::load(&matches, &settings::all(), Sources { presets, ..Sources::default() });
            let config = config.unwrap();
            let shown = |key: &str| {
                config.show().find(|(name, ..)| name.to_string() == key).unwrap().1.unwrap_or_default()
            };
            ["archive.store", "gateway.data", "push.data", "push.provider"].map(shown)
        };
        assert_eq!(
            load(&["up", "--data", "/srv/poste"]),
            [
                "\"local:///srv/poste/archive\"",
                "\"/srv/poste/gateway\"",
                "\"/srv/poste/push\"",
                "\"directory:///srv/poste/notifications\""
            ]
        );
        assert_eq!(load(&["up", "--data", "/x", "--archive-store", "local:///y"])[0], "\"local:///y\"");
        let gorush = ["up", "--push-provider", "http://gorush:8088"];
        assert_eq!(load(&gorush)[3], "\"http://gorush:8088\"");
        assert!(load(&["up"])[1].ends_with("/poste-data/gateway\""));
    }
}
