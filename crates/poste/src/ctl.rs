//! `poste ctl`: what operators ask of running services and tell them, over their gRPC.
//!
//! Every command prints a table for people, or one JSON object with `--json`; progress goes to stderr, on a terminal
//! only. Exit codes: 0 done, 1 failed (or damage was found), 2 usage, 3 not found, 4 unavailable, 5 done, but what was
//! exported may have gaps.

mod archive;
mod confirm;
mod export;
mod gateway;
mod import;
mod moment;
mod output;
mod push;
mod retention;
mod verify;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_rpc::client::{CallError, Target};
use poste_service::config::{Config, HumanDuration, Schema, Sources};
use tonic::{Code, Status};

use crate::{cli, mail, up};

/// `poste ctl`.
pub fn command() -> Command {
    Command::new("ctl")
        .about("Asks running services, and administers them")
        .after_help(
            "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 unavailable or no answer in time, 5 exported, but \
             something may be missing.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([archive::command(), gateway::command(), push::command()])
}

/// Runs it.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    mail::log_warnings("ctl")?;
    match matches.subcommand() {
        Some(("archive", matches)) => archive::run(matches).await,
        Some(("gateway", matches)) => gateway::run(matches).await,
        Some(("push", matches)) => push::run(matches).await,
        _ => unreachable!("clap requires one of the commands above"),
    }
}

/// The exit code for a call that did not succeed.
pub(crate) fn exit_code(error: &CallError) -> u8 {
    match error.code {
        Code::InvalidArgument => 2,
        Code::NotFound => 3,
        Code::Unavailable | Code::DeadlineExceeded => 4,
        _ => 1,
    }
}

/// Something was done, but may lack what it should have.
const GAPS: u8 = 5;

/// A service that a command talks to, and for how long.
#[derive(Debug)]
struct Service {
    target: Target,
    timeout: Duration,
    /// When the whole command has to be done; absent when it may take as long as it needs.
    deadline: Option<Instant>,
}

impl Service {
    /// The one that `--address` names, or that the configuration has on this machine.
    fn of(
        matches: &ArgMatches,
        configured: impl FnOnce(&Config) -> anyhow::Result<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let address = match matches.get_one::<String>("address") {
            Some(address) if address.contains("://") => address.clone(),
            Some(address) => format!("http://{address}"),
            None => {
                let address = configured(&cli::load(matches, &Schema::new(), Sources::default())?)?;
                ensure!(address.port() != 0, "the configuration leaves the port open: name it by --address");
                format!("http://{}", up::reachable(address))
            }
        };
        let timeout = matches.get_one::<HumanDuration>("timeout").expect("it has a default").0;
        let deadline = if timeout.is_zero() { None } else { Instant::now().checked_add(timeout) };
        Ok(Self { target: Target::lazy(&address)?, timeout, deadline })
    }

    /// What the work brings, if it ends in time.
    async fn within<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let Some(deadline) = self.deadline else { return work.await };
        tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| {
            let message = format!("no end within {} (--timeout)", HumanDuration(self.timeout));
            let (address, code) = (self.target.address().to_owned(), Code::DeadlineExceeded);
            Err(CallError { address, code, message }.into())
        })
    }

    /// What one call brings.
    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> anyhow::Result<T> {
        self.within(async { Ok(call.await.map_err(|status| self.error(&status))?.into_inner()) }).await
    }

    /// So long somebody was asked: that is not the command's time.
    fn extend(&mut self, asked: Duration) {
        self.deadline = self.deadline.and_then(|deadline| deadline.checked_add(asked));
    }

    fn error(&self, status: &Status) -> CallError {
        self.target.error(status)
    }
}

/// What every command has: where the service is, how long to wait, and how to print.
fn common_args(timeout: &'static str) -> Vec<Arg> {
    let address = Arg::new("address")
        .long("address")
        .value_name("HOST:PORT")
        .help("where the service listens for this [default: that of the configuration, on this machine]");
    let wait = Arg::new("timeout")
        .long("timeout")
        .value_name("DURATION")
        .default_value(timeout)
        .value_parser(value_parser!(HumanDuration))
        .help("how long the whole command may take, without what it asks at the terminal (0s: as long as it needs)");
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("print one JSON object, with sizes in bytes and times in nanoseconds since 1970");
    [address, wait, json].into_iter().chain(cli::setting_args(&Schema::new())).collect()
}

/// For a command that asks once.
const SHORT: &str = "10s";
/// For a job.
const LONG: &str = "0s";

fn section<S: poste_service::config::Section>(config: &Config) -> anyhow::Result<S> {
    config.section().context("the configuration names no address to call")
}

fn space_arg() -> Arg {
    Arg::new("space")
        .long("space")
        .value_name("NAME")
        .default_value("waku1")
        .help("the network whose records are meant")
}

fn space(matches: &ArgMatches) -> String {
    matches.get_one::<String>("space").expect("it has a default").clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_a_command_asks_has_one_deadline() {
        let (timeout, deadline) = (Duration::from_secs(3600), Some(Instant::now()));
        let mut service = Service { target: Target::lazy("http://127.0.0.1:1").unwrap(), timeout, deadline };
        let silence = std::future::pending::<anyhow::Result<()>>;
        for _ in 0..2 {
            let late = service.within(silence()).await.unwrap_err();
            assert_eq!(exit_code(late.downcast_ref().unwrap()), 4);
            assert!(late.to_string().contains("no end within 1h"), "{late}");
        }
        service.extend(timeout);
        assert_eq!(service.within(async { Ok(7) }).await.unwrap(), 7, "who was asked had the time to answer");
        service.deadline = None;
        assert_eq!(service.within(async { Ok(7) }).await.unwrap(), 7);
    }
}
