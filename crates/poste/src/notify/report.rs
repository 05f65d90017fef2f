//! What a sender's commands print: one JSON object a line for programs, lines of text for people.

use std::io::{self, Write};

use serde::Serialize;

use crate::tame::tame;

/// Prints it in the form that was asked for.
pub(super) fn print(
    is_json: bool,
    object: &impl Serialize,
    text: impl FnOnce() -> Vec<String>,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if is_json {
        serde_json::to_writer(&mut out, object)?;
        writeln!(out)?;
    } else {
        text().iter().try_for_each(|line| writeln!(out, "{}", tame(line)))?;
    }
    out.flush()
}

/// Says on stderr how it goes, for people who wait.
pub(super) fn progress(line: &str) {
    // Nobody looks when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", tame(line));
}

/// One thing, or several.
pub(super) fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}
