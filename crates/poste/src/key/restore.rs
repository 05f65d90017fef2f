//! `poste key restore`: a push server's identity from its backup.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use poste_codec::SecretKey;
use poste_push::PushConfig;
use poste_push::identity::{self, IdentityError};
use poste_push::store::{self, Options, RedbStore};
use poste_service::config::Schema;

use crate::{cli, up};

/// `poste key restore`.
pub(super) fn command() -> Command {
    Command::new("restore")
        .about("Brings the push server's identity back from its backup; refuses to replace another identity")
        .after_help(
            "With the server stopped, and as the user that it runs as: nobody else may read the file that is made. \
             Registrations that are there must be those of this identity.",
        )
        .arg(
            Arg::new("from")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("the copy that `poste key backup` made"),
        )
        .arg(up::data_arg())
        .args(cli::setting_args(&Schema::new()))
}

/// Runs it.
pub(super) fn run(matches: &ArgMatches, push: &PushConfig) -> anyhow::Result<ExitCode> {
    let from: &PathBuf = matches.get_one("from").expect("clap requires it");
    ensure!(
        push.identity.is_none(),
        "push.identity is set, and the server uses that key whatever lies in push.data: unset it, or have it name the \
         backup"
    );
    let key = identity::read(from)?;
    let is_new = place(&key, push)?;
    let mut out = io::stdout().lock();
    writeln!(out, "file        {}", push.data.join(identity::FILE_NAME).display())?;
    writeln!(out, "public key  {}", hex::encode(key.public().to_compressed()))?;
    if !is_new {
        writeln!(out, "It was there already.")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the key where the server looks for it, if it is not there. Gives whether it was not.
fn place(key: &SecretKey, push: &PushConfig) -> anyhow::Result<bool> {
    let path = push.data.join(identity::FILE_NAME);
    if is_there(key, &path)? {
        return Ok(false);
    }
    if store::is_store(&push.data) {
        // It knows whose it is, and that no server uses it now.
        let options = Options { cache_bytes: push.cache_size.as_usize(), ..Options::default() };
        let opened = RedbStore::open(&push.data, &key.public(), options);
        drop(opened.context("the identity was not brought back")?);
    }
    identity::export(key, &path)?;
    Ok(true)
}

/// Whether the file has this key.
fn is_there(key: &SecretKey, path: &Path) -> anyhow::Result<bool> {
    match identity::read(path) {
        Ok(found) => {
            ensure!(
                found.public() == key.public(),
                "{} has another identity, public key {}, and is never overwritten: to replace it move it away first",
                path.display(),
                hex::encode(found.public().to_compressed())
            );
            Ok(true)
        }
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}
