//! `poste key backup`: a second copy of what a push server cannot be without.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Arg, ArgMatches, Command, value_parser};
use poste_push::{PushConfig, identity};
use poste_service::config::Schema;

use crate::{cli, up};

/// `poste key backup`.
pub(super) fn command() -> Command {
    Command::new("backup")
        .about("Copies the push server's identity to a new file, for a safe place elsewhere")
        .after_help(
            "Whoever loses this key loses every registration: they are made for it, and apps register with another \
             server only when their users touch a setting. Whoever else has it can read what clients register, \
             device tokens included. Bring it back by `poste key restore`, or name the file in \
             POSTE_PUSH__IDENTITY_FILE.",
        )
        .arg(
            Arg::new("to")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("the copy; must not exist, and only its owner may read it"),
        )
        .arg(up::data_arg())
        .args(cli::setting_args(&Schema::new()))
}

/// Runs it.
pub(super) fn run(matches: &ArgMatches, push: &PushConfig) -> anyhow::Result<ExitCode> {
    let to: &PathBuf = matches.get_one("to").expect("clap requires it");
    let key = super::identity_of(push)?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A directory that is made here may be the place where a disk was to be mounted.
    ensure!(directory.is_dir(), "{} is not there: make it, or mount it, first", directory.display());
    identity::export(&key, to)?;
    let mut out = io::stdout().lock();
    writeln!(out, "file        {}", to.display())?;
    writeln!(out, "public key  {}", hex::encode(key.public().to_compressed()))?;
    writeln!(
        out,
        "This is the secret that registrations were made for. Lost, it takes all of them with it; in other hands, it \
         opens them. Keep it offline."
    )?;
    Ok(ExitCode::SUCCESS)
}
