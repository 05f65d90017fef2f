//! `poste mail fetch`: the whole history of a range, page after page.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Arg, ArgMatches, Command, value_parser};
use poste_client::{ConnectOptions, Fetch, Fetched};
use poste_service::config::HumanDuration;
use poste_wire::Envelope;
use poste_wire::mail::{MAX_LIMIT, MAX_TOPICS, OPEN_END_SECONDS};

use super::report::{Complete, Report};

/// The command.
pub(super) fn command() -> Command {
    Command::new("fetch").about("Fetches history from a mailserver; exit code 0 when it is complete").args([
        super::enode_arg("from"),
        super::password_arg(),
        super::topics_arg(),
        Arg::new("since")
            .long("since")
            .value_name("SPAN|UNIX")
            .default_value("1d")
            .value_parser(value_parser!(Moment))
            .help("from this long ago (30m, 1d), or from this unix second on"),
        Arg::new("until")
            .long("until")
            .value_name("UNIX")
            .value_parser(value_parser!(u32))
            .help("up to this unix second [default: now]"),
        Arg::new("limit")
            .long("limit")
            .value_name("N")
            .default_value("1000")
            .value_parser(value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))
            .help("envelopes a page"),
        super::duration_arg("timeout", "10s")
            .help("the silence that ends an answer for which no completion comes"),
        super::json_arg(),
    ])
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut report = Report::new(matches.get_flag("json"), "fetched");
    let outcome = Box::pin(fetch(matches, |envelope| report.envelope(&envelope))).await;
    let seconds = began.elapsed().as_secs_f64();
    let complete = match &outcome {
        Ok(fetched) => Complete {
            count: fetched.count,
            pages: Some(fetched.pages),
            seconds,
            complete: fetched.complete,
            reason: fetched.reason.clone(),
        },
        Err(error) => Complete {
            count: report.count(),
            pages: None,
            seconds,
            complete: false,
            reason: crate::explain(error),
        },
    };
    report.complete(&complete)?;
    outcome?;
    Ok(if complete.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn fetch(matches: &ArgMatches, take: impl FnMut(Envelope)) -> anyhow::Result<Fetched> {
    let now = super::unix_now();
    let since = match matches.get_one("since").expect("it has a default") {
        Moment::Ago(ago) => now.saturating_sub(u32::try_from(ago.0.as_secs()).unwrap_or(u32::MAX)),
        Moment::Unix(second) => *second,
    };
    let topics = super::topics(matches);
    anyhow::ensure!(topics.len() <= MAX_TOPICS, "a request holds at most {MAX_TOPICS} topics");
    let options = ConnectOptions::quiet();
    let password: &String = matches.get_one("password").expect("it has a default");
    let fetch = Fetch {
        sealer: super::sealer(password.clone(), &options).await?,
        topics,
        since,
        // Clocks differ: what a poster made in our next minute is history too.
        until: matches.get_one("until").copied().unwrap_or(now.saturating_add(OPEN_END_SECONDS)),
        page_size: *matches.get_one("limit").expect("it has a default"),
        silence: super::duration(matches, "timeout"),
    };
    let mut session = super::connect(super::enode(matches), &options).await?;
    Ok(poste_client::fetch(&mut session, &fetch, take).await?)
}

/// A moment as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Ago(HumanDuration),
    Unix(u32),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(second) = text.parse() {
            return Ok(Self::Unix(second));
        }
        text.parse().map(Self::Ago).map_err(|_| "write a span such as 1d or 30m, or a unix second".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!("1d".parse(), Ok(Moment::Ago(HumanDuration::from_secs(86400))));
        assert_eq!("1600000000".parse(), Ok(Moment::Unix(1_600_000_000)));
        for text in ["", "-1d", "5000000000", "yesterday"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
