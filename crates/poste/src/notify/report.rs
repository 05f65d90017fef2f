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
        text().iter().try_for_each(|line| writeln!(out, "{}", tame(line)))?;
    }
    out.flush()
}

/// Says on stderr how it goes, for people who wait.
pub(super) fn progress(line: &str) {
    // Nobody looks when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", tame(line));
}

/// A line of text without anything that steers a terminal or begins another line: part of it may be by strangers.
fn tame(line: &str) -> String {
    let mut tame = String::with_capacity(line.len());
    for character in line.chars() {
        let turns_text_around = matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns_text_around {
            tame.extend(character.escape_default());
        } else {
            tame.push(character);
        }
    }
    tame
}

/// One thing, or several.
pub(super) fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_neither_steer_the_terminal_nor_begin_lines() {
        assert_eq!(tame("the node says: \"grün\""), "the node says: \"grün\"");
        assert_eq!(tame("\u{202e}deifiton"), "\\u{202e}deifiton");
        assert_eq!(
            tame("no\x1b[2K\r\n1 of 1 device notified\u{9b}"),
            "no\\u{1b}[2K\\r\\n1 of 1 device notified\\u{9b}"
        );
    }
}
