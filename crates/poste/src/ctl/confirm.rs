//! What cannot be taken back is told first, and done only when it is meant: by `--yes`, or by who sits at the terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches};

use super::Service;

/// Says beforehand that it is meant.
pub(super) fn yes_arg() -> Arg {
    Arg::new("yes")
        .long("yes")
        .action(ArgAction::SetTrue)
        .help("do what cannot be taken back without asking; needed where there is no terminal")
}

/// Tells what is about to be done, on stderr. False, and said why nothing is done, when nobody means it.
pub(super) async fn is_meant(
    matches: &ArgMatches,
    service: &mut Service,
    about_to: &[String],
) -> anyhow::Result<bool> {
    about_to.iter().for_each(|line| eprintln!("{line}"));
    if matches.get_flag("yes") {
        return Ok(true);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        eprintln!("poste: nothing was done: this cannot be taken back, so write --yes when it is meant");
        return Ok(false);
    }
    let asked = Instant::now();
    let answer = tokio::task::spawn_blocking(|| {
        eprint!("Is that meant? It cannot be taken back. [yes/NO] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok::<_, io::Error>(answer)
    });
    let is_yes = answer.await??.trim() == "yes";
    service.extend(asked.elapsed());
    if !is_yes {
        eprintln!("poste: nothing was done");
    }
    Ok(is_yes)
}
