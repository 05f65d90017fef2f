//! Text for a terminal, part of which may be by strangers: what nodes, servers and peers say of themselves and of errors.

/// Beyond that a line is cut: no honest one is as long.
const MAX_CHARACTERS: usize = 4_096;

/// A line without anything that steers a terminal, turns its text around or begins another line.
pub(crate) fn tame(line: &str) -> String {
    let mut tame = String::with_capacity(line.len().min(MAX_CHARACTERS));
    for (count, character) in line.chars().enumerate() {
        if count == MAX_CHARACTERS {
            tame.push('…');
            break;
        }
        let turns_text_around = matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns_text_around {
            tame.extend(character.escape_default());
        } else {
            tame.push(character);
        }
    }
    tame
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

    #[test]
    fn strangers_do_not_fill_the_screen() {
        let long = "x".repeat(MAX_CHARACTERS);
        assert_eq!(tame(&long), long);
        assert_eq!(tame(&(long.clone() + "more")), long + "…");
    }
}
