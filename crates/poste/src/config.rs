//! `poste config show|check`: what is in force, and where each value came from.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use poste_service::config::{Config, Sources};

use crate::{cli, settings};

/// `poste config`.
pub fn command() -> Command {
    let args = || cli::setting_args(&settings::all());
    Command::new("config")
        .about("Shows or checks the configuration")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("show")
                .about("Prints every setting in force with its origin, secrets masked")
                .args(args()),
        )
        .subcommand(Command::new("check").about("Says whether the configuration can be used").args(args()))
}

/// Runs it.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (name, matches) = matches.subcommand().expect("clap requires show or check");
    let config = cli::load(matches, &settings::all(), Sources::default())?;
    config.check()?;
    let mut out = io::stdout().lock();
    match name {
        "show" => show(&config, &mut out)?,
        _ => writeln!(out, "the configuration can be used")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// TOML that could be a configuration file, but for the masked secrets.
fn show(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let mut section = "";
    for (name, value, origin) in config.show() {
        if name.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            writeln!(out, "{gap}[{}]", name.section)?;
            section = name.section;
        }
        match value {
            Some(value) => writeln!(out, "{:<44} # {origin}", format!("{} = {value}", name.key))?,
            None => writeln!(out, "{:<44} # not set", format!("# {} =", name.key))?,
        }
    }
    Ok(())
}
