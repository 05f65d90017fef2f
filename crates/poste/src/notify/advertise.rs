//! `poste notify advertise`: tells contacts through which servers the device can be notified.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Arg, ArgMatches, Command, value_parser};
use poste_client::notify::{Channel, Receiver, ReceiverEvent, Standing};
use poste_service::config::HumanDuration;
use poste_service::shutdown::Signals;
use tokio::time::{Instant, timeout_at};

use super::events::Events;
use crate::mail;

/// The command.
pub(super) fn command() -> Command {
    Command::new("advertise")
        .about("Tells contacts of the servers that have the device registered")
        .args(super::common_args())
        .args([
            Arg::new("every")
                .long("every")
                .value_name("DURATION")
                .value_parser(value_parser!(HumanDuration))
                .help("register once more, and go on telling this often until interrupted [default: once]"),
            super::anonymous_arg(),
            super::timeout_arg("30s").help("how long the network may take, without --every"),
        ])
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (identity, directory) = super::receiver(matches)?;
    let events = Events::new(matches.get_flag("json"));
    let every = matches.get_one::<HumanDuration>("every").map(|every| every.0);
    let mut signals = Signals::listen()?;
    let channel = super::channel(matches).await?;
    let mut receiver = Receiver::open(channel, identity, &directory, None, every).await?;
    if receiver.state().profile().is_none() {
        bail!("no device is registered; see `poste notify register`");
    }
    if every.is_none() {
        let deadline = Instant::now() + mail::duration(matches, "timeout");
        return Box::pin(once(&mut receiver, &events, deadline)).await;
    }
    receiver.register_again().await?;
    loop {
        tokio::select! {
            event = Box::pin(receiver.step()) => events.happened(&event?)?,
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        }
    }
}

async fn once(
    receiver: &mut Receiver<Channel>,
    events: &Events,
    deadline: Instant,
) -> anyhow::Result<ExitCode> {
    if !receiver.state().servers().any(|(_, standing)| matches!(standing, Standing::Registered { .. })) {
        bail!("no server has confirmed the registration; see `poste notify register`");
    }
    receiver.advertise();
    while let Ok(event) = timeout_at(deadline, receiver.step()).await {
        let event = event?;
        events.happened(&event)?;
        if matches!(event, ReceiverEvent::Advertised { .. }) {
            return Ok(ExitCode::SUCCESS);
        }
    }
    Ok(ExitCode::FAILURE)
}
