//! `poste notify unregister`: has a device forgotten.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use poste_client::notify::Receiver;
use tokio::time::timeout_at;

use super::events::{Events, Line};
use super::silence::Silent;

/// The command.
pub(super) fn command() -> Command {
    Command::new("unregister")
        .about(
            "Has every server forget the device; exit code 0 when all of them confirmed, else run it again",
        )
        .args(super::common_args())
        .args([
            super::anonymous_arg(),
            super::timeout_arg("1m")
                .help("how long to wait for the servers; the second attempt is after 30 s"),
        ])
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (identity, directory) = super::known_receiver(matches)?;
    let events = Events::new(matches.get_flag("json"));
    let channel = super::channel(matches).await?;
    let mut receiver = Receiver::open(channel, identity, &directory, None, None).await?;
    receiver.unregister().await?;
    let asked = receiver.state().servers().count();
    let deadline = super::deadline(matches);
    let mut silent = Silent::default();
    while !receiver.is_settled() {
        let Ok(event) = timeout_at(deadline, Box::pin(receiver.step())).await else { break };
        let event = event?;
        events.happened(&event)?;
        silent.happened(&event);
    }
    let confirmed = asked - receiver.state().servers().count();
    let line = Line { event: "summary", confirmed: Some(confirmed), asked: Some(asked), ..Line::default() };
    let text = match asked {
        0 => "no server has the device: there is nothing to forget".to_owned(),
        _ => format!("{confirmed} of {asked} servers have forgotten the device"),
    };
    events.say(&line, &text)?;
    silent.explain()?;
    Ok(if confirmed == asked { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
