//! `poste mail post`: envelopes of random data, and whether the node keeps them.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Arg, ArgMatches, Command, value_parser};
use poste_client::{ConnectOptions, Post};
use poste_wire::Topic;

use super::report::{PostReport, PostedLine};

/// The command.
pub(super) fn command() -> Command {
    Command::new("post")
        .about(
            "Posts envelopes of random data; exit code 0 when the node confirmed all, or never confirms any",
        )
        .args([
            super::enode_arg("to"),
            Arg::new("topic")
                .long("topic")
                .value_name("HEX")
                .required(true)
                .value_parser(value_parser!(Topic))
                .help("the topic, 8 hex digits"),
            Arg::new("count")
                .long("count")
                .value_name("N")
                .default_value("1")
                .value_parser(value_parser!(u32).range(1..))
                .help("how many"),
            Arg::new("size")
                .long("size")
                .value_name("BYTES")
                .default_value("256")
                .value_parser(value_parser!(u32).range(1..))
                .help("bytes of data in each"),
            Arg::new("ttl")
                .long("ttl")
                .value_name("SECONDS")
                .default_value("60")
                .value_parser(value_parser!(u32).range(1..))
                .help("how long nodes relay them; mailservers keep them longer"),
            super::duration_arg("timeout", "10s").help("how long the node may take to confirm"),
            super::json_arg(),
        ])
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let number = |name| *matches.get_one::<u32>(name).expect("it has a default") as usize;
    let post = Post {
        topic: *matches.get_one("topic").expect("clap requires it"),
        count: number("count"),
        size: number("size"),
        ttl: *matches.get_one("ttl").expect("it has a default"),
        patience: super::duration(matches, "timeout"),
    };
    let mut report = PostReport::new(matches.get_flag("json"), post.count);
    let mut session = match super::connect(super::enode(matches), &ConnectOptions::quiet()).await {
        Ok(session) => session,
        Err(error) => {
            report.finish(None, began.elapsed().as_secs_f64(), Some(crate::explain(&error)))?;
            return Err(error);
        }
    };
    let confirms = session.best().is_some_and(|(_, peer)| peer.settings.confirmations);
    let posting = poste_client::post(&mut session, &post, |posted| {
        report.posted(&PostedLine {
            event: "posted",
            hash: posted.envelope.hash().to_string(),
            confirmed: posted.confirmed,
            reason: posted.fault.filter(|_| confirms),
        });
    });
    let outcome = Box::pin(posting).await.map_err(anyhow::Error::from);
    let reason = outcome.as_ref().err().map(crate::explain);
    report.finish(Some(confirms), began.elapsed().as_secs_f64(), reason)?;
    let summary = outcome?;
    let kept = !confirms || summary.confirmed == post.count;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
