//! `poste mail listen`: what a node relays, as it comes.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Arg, ArgMatches, Command, value_parser};
use poste_client::ConnectOptions;
use poste_service::config::HumanDuration;
use poste_service::shutdown::Signals;

use super::report::{Complete, Report};

/// The command.
pub(super) fn command() -> Command {
    Command::new("listen").about("Prints what a node relays, until it is interrupted").args([
        super::enode_arg("from"),
        super::topics_arg(),
        Arg::new("for")
            .long("for")
            .value_name("DURATION")
            .value_parser(value_parser!(HumanDuration))
            .help("end after this time [default: when interrupted]"),
        super::json_arg(),
    ])
}

/// Runs it. Being interrupted, and the end of `--for`, are how it ends well.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let topics = super::topics(matches);
    let mut signals = Signals::listen()?;
    let options = ConnectOptions::listening(topics.clone());
    let mut session = super::connect(super::enode(matches), &options).await?;
    let mut report = Report::new(matches.get_flag("json"), "relayed");
    report.each_at_once();
    let listening = poste_client::listen(&mut session, |envelope| {
        // A filter lets more through than was asked for.
        if topics.is_empty() || topics.contains(&envelope.topic()) {
            report.envelope(&envelope);
        }
    });
    let end = async {
        match matches.get_one::<HumanDuration>("for") {
            Some(span) => tokio::time::sleep(span.0).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        ended = Box::pin(listening) => ended.map(|never| match never {}),
        () = end => Ok("the time is over"),
        signal = signals.next() => Ok(signal),
    };
    let complete = Complete {
        count: report.count(),
        pages: None,
        seconds: began.elapsed().as_secs_f64(),
        complete: outcome.is_ok(),
        reason: outcome.as_ref().map_or_else(ToString::to_string, |reason| (*reason).to_owned()),
    };
    report.complete(&complete)?;
    outcome?;
    Ok(ExitCode::SUCCESS)
}
