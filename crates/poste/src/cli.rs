//! The command line. Every setting of the configuration is a flag of the commands that use its section.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_service::config::{Config, ConfigError, Kind, Schema, Sources};

use crate::settings;

/// The whole command line.
pub fn command() -> Command {
    Command::new("poste")
        .about(
            "Keeps messages for people who are offline, and wakes their phones: a Waku and Whisper gateway, a mailserver \
             archive, and a push notification server",
        )
        .version(crate::VERSION)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            crate::up::command(),
            crate::serve::command(),
            crate::mail::command(),
            crate::notify::command(),
            crate::demo::command(),
            crate::ctl::command(),
            crate::key::command(),
            crate::config::command(),
            crate::health::command(),
        ])
}

/// `--config` and the flags of these sections.
pub fn setting_args(schema: &Schema) -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file with settings, which environment and flags beat [default: that of POSTE_CONFIG, or none]");
    let settings = schema.settings().map(|setting| {
        let default = match &setting.default {
            Some(toml::Value::String(text)) => format!(" [default: {text}]"),
            Some(value) => format!(" [default: {value}]"),
            None => String::new(),
        };
        let arg = Arg::new(setting.name.to_string())
            .long(setting.name.flag())
            .value_name(if setting.key.kind == Kind::Listener { "IP:PORT" } else { "VALUE" })
            .help(format!("{}{default}", setting.key.help))
            .help_heading(format!("Settings of [{}]", setting.name.section));
        match setting.default {
            Some(toml::Value::Boolean(_)) => arg.num_args(0..=1).default_missing_value("true"),
            _ => arg.allow_hyphen_values(true),
        }
    });
    std::iter::once(config).chain(settings).collect()
}

/// `--ephemeral-ports`.
pub fn ephemeral_ports_arg() -> Arg {
    Arg::new("ephemeral-ports")
        .long("ephemeral-ports")
        .action(ArgAction::SetTrue)
        .help("give every listener a free port; the ready line tells which")
}

/// The configuration in force for a command whose flags are those of `flags`. File and environment may hold
/// every section that there is.
pub fn load(matches: &ArgMatches, flags: &Schema, base: Sources) -> Result<Config, ConfigError> {
    let given = flags.settings().filter_map(|setting| {
        // A command may leave out a setting that makes no sense for it.
        let text = matches.try_get_one::<String>(&setting.name.to_string()).ok()??;
        Some((setting.name, text.clone()))
    });
    let named_by_environment = || std::env::var_os("POSTE_CONFIG").map(PathBuf::from);
    settings::all().load(&Sources {
        file: matches.get_one::<PathBuf>("config").cloned().or_else(named_by_environment),
        environment: Sources::process_environment(),
        flags: given.collect(),
        ..base
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_of_every_section_is_a_flag_with_help() {
        settings::all().verify().unwrap();
        let up = command().find_subcommand("up").unwrap().clone();
        for setting in
            settings::all().settings().filter(|setting| !crate::up::is_ours(&setting.name.to_string()))
        {
            let flag = up.get_arguments().find(|arg| arg.get_long() == Some(&setting.name.flag()));
            let help = flag.unwrap_or_else(|| panic!("--{} is missing", setting.name.flag())).get_help();
            assert!(help.is_some_and(|help| !help.to_string().is_empty()), "{}", setting.name);
        }
    }
}
