//! The one binary as a library: servers (`up`, `serve`), clients (`mail`, `notify`), operators (`ctl`, `health`, `config`,
//! `key`), and `demo`.
//!
//! [`main`] is the whole program. [`settings`] says which sections of the configuration there are, [`life`] how
//! a server starts, serves and drains. Exit codes: 0 done, 1 failed, 2 usage or configuration; `ctl` and
//! `notify query` have more.

pub mod cli;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod health;
pub mod key;
pub mod life;
pub mod mail;
pub mod notify;
pub mod serve;
pub mod settings;
mod tame;
pub mod up;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;
use poste_rpc::client::{AddressError, CallError};
use poste_service::config::ConfigError;
use poste_service::logging::LogError;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Runs the program with these arguments (the first is its name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match cli::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Help goes to stdout and is no error; when nobody reads it there is nothing left to do.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("the runtime cannot start")),
    };
    let outcome = runtime.block_on(run(&matches));
    // What still runs now was given its time: a second signal must not wait for it.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| fail(&error))
}

async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("up", matches)) => up::run(matches).await,
        Some(("serve", matches)) => serve::run(matches).await,
        Some(("ctl", matches)) => ctl::run(matches).await,
        Some(("health", matches)) => health::run(matches).await,
        Some(("mail", matches)) => mail::run(matches).await,
        Some(("notify", matches)) => notify::run(matches).await,
        Some(("demo", matches)) => demo::run(matches).await,
        Some(("key", matches)) => key::run(matches),
        Some(("config", matches)) => config::run(matches),
        _ => unreachable!("clap requires one of the commands above"),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing can be told when stderr is closed.
    let _ = writeln!(std::io::stderr(), "poste: {}", tame::tame(&explain(error)));
    if let Some(call) = error.downcast_ref::<CallError>() {
        return ExitCode::from(ctl::exit_code(call));
    }
    let usage = error.is::<ConfigError>()
        || error.is::<AddressError>()
        || matches!(error.downcast_ref(), Some(LogError::Level { .. }));
    ExitCode::from(if usage { USAGE } else { FAILED })
}

/// The error and its causes on one line; a cause that the text before it quotes is not said twice.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
