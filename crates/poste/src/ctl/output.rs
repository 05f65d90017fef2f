//! What the ctl commands print: aligned columns for people, one JSON object for programs, and progress on a terminal.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};

use crate::tame::tame;

/// One JSON object on a line of stdout.
pub(super) fn json(value: &serde_json::Value) -> io::Result<()> {
    writeln!(io::stdout(), "{value}")
}

/// Lines of stdout.
pub(super) fn lines(lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    write_lines(io::stdout().lock(), lines)
}

/// What peers call themselves may be part of a line.
fn write_lines(mut out: impl Write, lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    lines.into_iter().try_for_each(|line| writeln!(out, "{}", tame(&line)))
}

/// A name and a value on each line.
pub(super) fn pairs<const N: usize>(pairs: [(&str, String); N]) -> Vec<String> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}")).collect()
}

/// Columns under their heads; the names in `left` are of those that are aligned to the left.
pub(super) fn table<const N: usize>(heads: [&str; N], left: &[&str], rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            let gap = if column == 0 { "" } else { "  " };
            line += &if left.contains(&heads[column]) {
                format!("{gap}{cell:<width$}")
            } else {
                format!("{gap}{cell:>width$}")
            };
        }
        line.truncate(line.trim_end().len());
        line
    };
    let cells = |row: &[String; N]| line(std::array::from_fn(|column| row[column].as_str()));
    std::iter::once(line(heads)).chain(rows.iter().map(cells)).collect()
}

/// A size for people: `12.3 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A span of time for people, in its two largest units: `30d`, `1d 12h`.
pub(super) fn span(duration: Duration) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut seconds = duration.as_secs();
    let Some(first) = UNITS.iter().position(|(_, unit)| seconds >= *unit) else {
        return format!("{}ms", duration.as_millis());
    };
    let mut text = String::new();
    for (name, unit) in UNITS.iter().skip(first).take(2) {
        let count = seconds / unit;
        seconds %= unit;
        if count > 0 {
            text += &format!("{}{count}{name}", if text.is_empty() { "" } else { " " });
        }
    }
    text
}

/// A creation time for people, UTC; of nanoseconds since 1970.
pub(super) fn time(nanos: i64) -> String {
    match u64::try_from(nanos) {
        Ok(nanos) => humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_nanos(nanos)).to_string(),
        Err(_) => "before 1970".to_owned(),
    }
}

/// A creation time for people, or a dash.
pub(super) fn time_or_dash(nanos: Option<i64>) -> String {
    nanos.map_or_else(|| "-".to_owned(), time)
}

/// One thing, or several.
pub(super) fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Progress in bytes, on a terminal and unless programs read. Without a total it only counts.
pub(super) fn progress(is_json: bool, total_bytes: Option<u64>) -> ProgressBar {
    if is_json {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total_bytes {
        Some(total) => {
            (ProgressBar::new(total), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} {msg}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is one of the two above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_s_name_does_not_steer_the_terminal() {
        let mut out = Vec::new();
        write_lines(&mut out, ["node\u{1b}[2J".to_owned(), "next".to_owned()]).unwrap();
        assert_eq!(out, b"node\\u{1b}[2J\nnext\n");
    }

    #[test]
    fn sizes_spans_and_times_are_for_people() {
        let mib = 1024 * 1024;
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (12 * mib + 310_000, "12.3 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in
            [(30 * 86_400, "30d"), (129_600, "1d 12h"), (86_430, "1d"), (3_661, "1h 1m"), (59, "59s")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!((span(Duration::ZERO), span(Duration::from_millis(250))), ("0ms".into(), "250ms".into()));
        assert_eq!(time(1_600_000_000_000_000_000), "2020-09-13T12:26:40Z");
        assert_eq!((time(-1).as_str(), time_or_dash(None).as_str()), ("before 1970", "-"));
        assert!(time(i64::MAX).starts_with("2262-"));
        assert_eq!((count(1, "place"), count(2, "place")), ("1 place".into(), "2 places".into()));
    }

    #[test]
    fn columns_are_aligned() {
        let row = |name: &str, bytes: &str| [name.to_owned(), bytes.to_owned(), String::new()];
        let table =
            table(["name", "bytes", "note"], &["name", "note"], &[row("a", "1"), row("longer", "100")]);
        assert_eq!(table, ["name    bytes  note", "a           1", "longer    100"]);
        assert_eq!(pairs([("a", "1".into()), ("long", "2".into())]), ["a     1", "long  2"]);
    }
}
