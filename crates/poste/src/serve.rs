//! `poste serve gateway|archive|push`: one service in a process of its own.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgMatches, Command};
use poste_archive::ArchiveConfig;
use poste_gateway::GatewayConfig;
use poste_push::PushConfig;
use poste_service::config::Sources;

use crate::{cli, life, settings};

/// `poste serve`.
pub fn command() -> Command {
    let archive =
        cli::setting_args(&settings::archive()).into_iter().map(|arg| match arg.get_id().as_str() {
            "archive.store" => arg.visible_alias("store"),
            _ => arg,
        });
    Command::new("serve")
        .about("Runs one service")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("gateway")
                .about("Runs the Waku gateway")
                .arg(cli::ephemeral_ports_arg())
                .args(cli::setting_args(&settings::gateway())),
        )
        .subcommand(
            Command::new("archive")
                .about("Runs the mailserver archive")
                .arg(cli::ephemeral_ports_arg())
                .args(archive),
        )
        .subcommand(
            Command::new("push")
                .about("Runs the push notification server")
                .arg(cli::ephemeral_ports_arg())
                .args(cli::setting_args(&settings::push())),
        )
}

/// Runs it to its end.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("gateway", matches)) => {
            let config = cli::load(matches, &settings::gateway(), sources(matches))?;
            let gateway: GatewayConfig = config.section()?;
            life::run("gateway", &config, async |context, services| {
                services.push(poste_gateway::start(gateway, context.for_service()).await.context("gateway")?);
                Ok(())
            })
            .await
        }
        Some(("archive", matches)) => {
            let config = cli::load(matches, &settings::archive(), sources(matches))?;
            let archive: ArchiveConfig = config.section()?;
            life::run("archive", &config, async |context, services| {
                services.push(poste_archive::start(archive, context.for_service()).await.context("archive")?);
                Ok(())
            })
            .await
        }
        Some(("push", matches)) => {
            let config = cli::load(matches, &settings::push(), sources(matches))?;
            let push: PushConfig = config.section()?;
            life::run("push", &config, async |context, services| {
                services.push(poste_push::start(push, context.for_service()).await.context("push")?);
                Ok(())
            })
            .await
        }
        _ => unreachable!("clap requires one of the services above"),
    }
}

fn sources(matches: &ArgMatches) -> Sources {
    Sources { ephemeral_ports: matches.get_flag("ephemeral-ports"), ..Sources::default() }
}
