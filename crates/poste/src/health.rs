//! `poste health`: asks a running server whether it is ready, or with `--live` only whether it lives. That is the health
//! check of the containers, whose image holds nothing but this program: whoever acts on it restarts, and a restart
//! mends no full disk and no neighbour that is away.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use poste_service::config::Sources;
use poste_service::health::HttpConfig;
use tokio::net::TcpStream;

use crate::{cli, settings, up};

/// From connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// `poste health`.
pub fn command() -> Command {
    Command::new("health")
        .about("Asks a running server whether it is ready: exit code 0 when it is, 1 when not")
        .arg(
            Arg::new("live")
                .long("live")
                .action(ArgAction::SetTrue)
                .help("ask only whether it lives (/healthz), not whether every check is ready (/readyz)"),
        )
        .arg(
            Arg::new("http")
                .long("http")
                .value_name("IP:PORT")
                .value_parser(value_parser!(SocketAddr))
                .help("the server's http listener [default: http.listen of the configuration]"),
        )
        .args(cli::setting_args(&settings::common()))
}

/// Runs it.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let address = match matches.get_one::<SocketAddr>("http") {
        Some(address) => *address,
        None => {
            let http: HttpConfig = cli::load(matches, &settings::common(), Sources::default())?.section()?;
            http.listen
        }
    };
    let address = up::reachable(address);
    let path = if matches.get_flag("live") { "/healthz" } else { "/readyz" };
    let (status, body) = tokio::time::timeout(TIMEOUT, ask(address, path))
        .await
        .with_context(|| format!("http://{address}{path}: no answer within {} s", TIMEOUT.as_secs()))?
        .with_context(|| format!("http://{address}{path}"))?;
    io::stdout().write_all(body.trim_ascii_end())?;
    writeln!(io::stdout())?;
    Ok(if status == StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        anyhow::Ok((status, body))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
