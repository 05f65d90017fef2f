//! `poste notify advertise`: tells contacts through which servers the device can be notified.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Arg, ArgMatches, Command};
use poste_client::notify::{Channel, Receiver, ReceiverEvent, Standing};
use poste_service::config::{HumanDuration, ValueError};
use poste_service::shutdown::Signals;
use tokio::time::{Instant, timeout_at};

use super::events::Events;

/// The shortest time between two advertisements.
const MIN_EVERY: Duration = Duration::from_secs(60);
/// And the longest: what is told less often is as good as never told.
const MAX_EVERY: Duration = Duration::from_secs(365 * 86_400);

/// The command.
pub(super) fn command() -> Command {
    Command::new("advertise")
        .about("Tells contacts of the servers that have the device registered")
        .args(super::common_args())
        .args([
            Arg::new("every")
                .long("every")
                .value_name("DURATION")
                .value_parser(every)
                .help("register once more, and go on telling this often until interrupted [default: once]"),
            super::anonymous_arg(),
            super::timeout_arg("30s").help("how long the network may take, without --every"),
        ])
}

/// How often, and not so often that the network is flooded, nor later than a clock can tell.
fn every(text: &str) -> Result<HumanDuration, String> {
    let every: HumanDuration = text.parse().map_err(|error: ValueError| error.to_string())?;
    if every.0 < MIN_EVERY {
        return Err("at least 1m".to_owned());
    }
    if every.0 > MAX_EVERY { Err("at most 365days".to_owned()) } else { Ok(every) }
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (identity, directory) = super::known_receiver(matches)?;
    let events = Events::new(matches.get_flag("json"));
    let every = matches.get_one::<HumanDuration>("every").map(|every| every.0);
    let mut signals = Signals::listen()?;
    let channel = super::channel(matches).await?;
    let mut receiver = Receiver::open(channel, identity, &directory, None, every).await?;
    if receiver.state().profile().is_none() {
        bail!("no device is registered; see `poste notify register`");
    }
    if every.is_none() {
        let deadline = super::deadline(matches);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_told_once_a_minute_at_most() {
        assert_eq!(every("1m").unwrap().0, MIN_EVERY);
        for text in ["0s", "59s"] {
            assert_eq!(every(text).unwrap_err(), "at least 1m");
        }
        assert!(every("often").is_err());
        assert_eq!(every("365d").unwrap().0, MAX_EVERY);
        assert_eq!(every("200000000000d").unwrap_err(), "at most 365days");
    }
}
