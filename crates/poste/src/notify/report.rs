//! What a sender's commands print: one JSON object a line for programs, lines of text for people.

use std::io::{self, Write};

use serde::Serialize;

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
        text().iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    out.flush()
}

/// One thing, or several.
pub(super) fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}
