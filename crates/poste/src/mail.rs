//! `poste mail post|fetch|listen`: what a client of the network does, against any node.

mod fetch;
mod listen;
mod post;
mod report;

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use poste_client::ConnectOptions;
use poste_gateway::GatewayConfig;
use poste_rlpx::Enode;
use poste_service::config::HumanDuration;
use poste_service::logging::{self, LogConfig, LogFormat};
use poste_waku::Session;
use poste_waku::mail::Sealer;
use poste_wire::{Topic, password_key};

/// `poste mail`.
pub fn command() -> Command {
    Command::new("mail")
        .about("Posts to a node, fetches history from it, or listens to what it relays")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([post::command(), fetch::command(), listen::command()])
}

/// Runs it.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    log_warnings("mail")?;
    match matches.subcommand() {
        Some(("post", matches)) => post::run(matches).await,
        Some(("fetch", matches)) => fetch::run(matches).await,
        Some(("listen", matches)) => listen::run(matches).await,
        _ => unreachable!("clap requires one of the commands above"),
    }
}

/// Logs for a command whose output is for people: only what went wrong. `RUST_LOG` asks for more.
pub(crate) fn log_warnings(name: &'static str) -> anyhow::Result<()> {
    let config = LogConfig { level: "warn".into(), format: LogFormat::Text, ..LogConfig::default() };
    logging::init(&config, name)?;
    Ok(())
}

/// Connects, and says where when that does not succeed.
async fn connect(enode: &Enode, options: &ConnectOptions) -> anyhow::Result<Session> {
    Box::pin(poste_client::connect(enode, options)).await.with_context(|| match &enode.endpoint {
        Some(endpoint) => format!("connecting to {}:{}", endpoint.host, endpoint.tcp_port),
        None => "connecting".to_owned(),
    })
}

/// What requests of this connection are sealed with: deriving a key from a password takes its time by design.
pub(crate) async fn sealer(password: String, options: &ConnectOptions) -> anyhow::Result<Sealer> {
    let key = tokio::task::spawn_blocking(move || password_key(&password)).await?;
    Ok(Sealer { key, signer: options.key.clone() })
}

/// Unix seconds, from the system's clock.
pub(crate) fn unix_now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

// ------------------------------------------------------------------------------------- shared arguments

pub(crate) fn enode_arg(name: &'static str) -> Arg {
    Arg::new("enode")
        .long(name)
        .value_name("ENODE")
        .required(true)
        .value_parser(value_parser!(Enode))
        .help("the node: enode://KEY@HOST:PORT")
}

fn topics_arg() -> Arg {
    Arg::new("topic")
        .long("topic")
        .value_name("HEX")
        .action(ArgAction::Append)
        .value_parser(value_parser!(Topic))
        .help("only this topic, 8 hex digits; may be given several times [default: everything]")
}

pub(crate) fn json_arg() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("print one JSON object a line")
}

pub(crate) fn password_arg() -> Arg {
    Arg::new("password")
        .long("password")
        .value_name("TEXT")
        .default_value(GatewayConfig::default().mail_password.expose().to_owned())
        .help("the mailserver's password; the default is the deployed network's public one, no secret")
}

pub(crate) fn duration_arg(name: &'static str, default: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("DURATION")
        .default_value(default)
        .value_parser(value_parser!(HumanDuration))
}

pub(crate) fn enode(matches: &ArgMatches) -> &Enode {
    matches.get_one("enode").expect("clap requires it")
}

fn topics(matches: &ArgMatches) -> Vec<Topic> {
    matches.get_many("topic").into_iter().flatten().copied().collect()
}

pub(crate) fn duration(matches: &ArgMatches, name: &str) -> Duration {
    matches.get_one::<HumanDuration>(name).expect("it has a default").0
}
