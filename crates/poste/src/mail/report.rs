//! What the mail commands print: one JSON object a line for programs; progress on stderr and a table for people.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Stdout, Write};
use std::time::{Duration, Instant, UNIX_EPOCH};

use indicatif::ProgressBar;
use poste_wire::{Envelope, Topic};
use serde::Serialize;

use crate::tame::tame;

/// Lines may wait this long in the buffer while more come.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// Rows of the table of topics.
const MAX_ROWS: usize = 40;

/// Envelopes that come, and how that ended.
#[derive(Debug)]
pub(super) struct Report {
    out: Output,
    json: bool,
    /// What happened to the envelopes, for people: "fetched", "relayed".
    verb: &'static str,
    at_once: bool,
    count: usize,
    topics: BTreeMap<Topic, OfTopic>,
    progress: ProgressBar,
}

/// The last line.
#[derive(Debug, Serialize)]
pub(super) struct Complete {
    pub(super) count: usize,
    /// None: not known, or there are no pages.
    pub(super) pages: Option<usize>,
    #[serde(serialize_with = "as_millis")]
    pub(super) seconds: f64,
    pub(super) complete: bool,
    pub(super) reason: String,
}

#[derive(Debug, Serialize)]
struct EnvelopeLine {
    event: &'static str,
    hash: String,
    topic: String,
    time: u32,
    size: usize,
    data: String,
}

#[derive(Clone, Copy, Debug)]
struct OfTopic {
    count: usize,
    bytes: usize,
    oldest: u32,
    newest: u32,
}

impl Report {
    pub(super) fn new(json: bool, verb: &'static str) -> Self {
        let progress = if json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        Self { out: Output::new(), json, verb, at_once: false, count: 0, topics: BTreeMap::new(), progress }
    }

    /// People, too, see each envelope when it comes.
    pub(super) fn each_at_once(&mut self) {
        self.at_once = true;
        if !self.json {
            self.progress.finish_and_clear();
            self.out.line(format_args!("{:<20}  {:<8}  {:>8}  hash", "created", "topic", "bytes"));
        }
    }

    pub(super) fn envelope(&mut self, envelope: &Envelope) {
        self.count += 1;
        if self.json {
            self.out.json(&EnvelopeLine {
                event: "envelope",
                hash: envelope.hash().to_string(),
                topic: envelope.topic().to_string(),
                time: envelope.sent(),
                size: envelope.size(),
                data: hex::encode(envelope.rlp()),
            });
        } else if self.at_once {
            let (sent, topic) = (moment(envelope.sent()), envelope.topic());
            self.out.line(format_args!("{sent:<20}  {topic}  {:>8}  {}", envelope.size(), envelope.hash()));
        } else {
            let (bytes, sent) = (envelope.size(), envelope.sent());
            let first = OfTopic { count: 0, bytes: 0, oldest: sent, newest: sent };
            let entry = self.topics.entry(envelope.topic()).or_insert(first);
            entry.count += 1;
            entry.bytes += bytes;
            entry.oldest = entry.oldest.min(sent);
            entry.newest = entry.newest.max(sent);
            self.progress.set_message(format!("{} envelopes", self.count));
            self.progress.tick();
        }
        if self.at_once {
            self.out.flush();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Prints the end of it all. The error is the first one that writing to stdout met.
    pub(super) fn complete(mut self, complete: &Complete) -> io::Result<()> {
        self.progress.finish_and_clear();
        if self.json {
            #[derive(Serialize)]
            struct Line<'a> {
                event: &'static str,
                #[serde(flatten)]
                complete: &'a Complete,
            }
            self.out.json(&Line { event: "complete", complete });
            return self.out.finish();
        }
        self.table();
        let pages = complete.pages.map(|pages| format!(" in {pages} pages")).unwrap_or_default();
        let judgement = if complete.complete { "" } else { "NOT COMPLETE: " };
        self.out.line(format_args!(
            "{} envelopes {}{pages}, {:.1} s: {judgement}{}",
            complete.count, self.verb, complete.seconds, complete.reason
        ));
        self.out.finish()
    }

    /// Topics with the most envelopes first.
    fn table(&mut self) {
        let mut rows: Vec<_> = std::mem::take(&mut self.topics).into_iter().collect();
        rows.sort_by_key(|(_, of_topic)| std::cmp::Reverse(of_topic.count));
        if !rows.is_empty() {
            let (oldest, newest) = ("oldest", "newest");
            self.out
                .line(format_args!("topic     {:>9}  {:>12}  {oldest:<20}  {newest}", "envelopes", "bytes"));
        }
        for (topic, OfTopic { count, bytes, oldest, newest }) in rows.iter().take(MAX_ROWS) {
            let (oldest, newest) = (moment(*oldest), moment(*newest));
            self.out.line(format_args!("{topic}  {count:>9}  {bytes:>12}  {oldest:<20}  {newest}"));
        }
        if rows.len() > MAX_ROWS {
            self.out.line(format_args!(
                "and {} topics more (--json prints every envelope)",
                rows.len() - MAX_ROWS
            ));
        }
    }
}

/// The fate of envelopes that are posted.
#[derive(Debug)]
pub(super) struct PostReport {
    out: Output,
    json: bool,
    posted: usize,
    confirmed: usize,
    reasons: BTreeMap<String, usize>,
    progress: ProgressBar,
}

/// One envelope that was posted.
#[derive(Debug, Serialize)]
pub(super) struct PostedLine {
    pub(super) event: &'static str,
    pub(super) hash: String,
    pub(super) confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl PostReport {
    pub(super) fn new(json: bool, count: usize) -> Self {
        let progress = if json { ProgressBar::hidden() } else { ProgressBar::new(count as u64) };
        Self { out: Output::new(), json, posted: 0, confirmed: 0, reasons: BTreeMap::new(), progress }
    }

    pub(super) fn posted(&mut self, line: &PostedLine) {
        self.posted += 1;
        self.confirmed += usize::from(line.confirmed);
        self.progress.inc(1);
        if self.json {
            self.out.json(line);
        } else if let Some(reason) = &line.reason {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
    }

    /// Prints the summary. `confirms`: whether the node confirms at all, if there was a node. `reason`: why it ended
    /// early, for programs; people are told on stderr.
    pub(super) fn finish(
        mut self,
        confirms: Option<bool>,
        seconds: f64,
        reason: Option<String>,
    ) -> io::Result<()> {
        self.progress.finish_and_clear();
        let Self { posted, confirmed, .. } = self;
        if self.json {
            #[derive(Serialize)]
            struct Summary {
                event: &'static str,
                posted: usize,
                confirmed: usize,
                confirms: bool,
                seconds: f64,
                #[serde(skip_serializing_if = "Option::is_none")]
                reason: Option<String>,
            }
            self.out.json(&Summary {
                event: "summary",
                posted,
                confirmed,
                confirms: confirms.unwrap_or(false),
                seconds: millis(seconds),
                reason,
            });
            return self.out.finish();
        }
        let Some(confirms) = confirms else { return self.out.finish() };
        for (reason, count) in &self.reasons {
            self.out.line(format_args!("{count:>8} not confirmed: {reason}"));
        }
        let confirmed =
            if confirms { format!("{confirmed} confirmed") } else { "this node confirms nothing".to_owned() };
        self.out.line(format_args!("{posted} envelopes posted, {confirmed}, {seconds:.1} s"));
        self.out.finish()
    }
}

/// Stdout. After its first error nothing more is written; [`Output::finish`] tells it.
#[derive(Debug)]
struct Output {
    out: BufWriter<Stdout>,
    flushed: Instant,
    failed: io::Result<()>,
}

impl Output {
    fn new() -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, io::stdout()), flushed: Instant::now(), failed: Ok(()) }
    }

    fn json(&mut self, line: &impl Serialize) {
        self.attempt(|out| {
            serde_json::to_writer(&mut *out, line)?;
            out.write_all(b"\n")
        });
        if self.flushed.elapsed() > FLUSH_INTERVAL {
            self.flush();
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A node's words may be part of it.
        let line = tame(&line.to_string());
        self.attempt(|out| writeln!(out, "{line}"));
    }

    fn flush(&mut self) {
        self.attempt(Write::flush);
        self.flushed = Instant::now();
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush();
        self.failed
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>) {
        if self.failed.is_ok() {
            self.failed = write(&mut self.out);
        }
    }
}

fn as_millis<S: serde::Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(millis(*seconds))
}

/// Rounded to a thousandth.
fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// A unix second as people read it, UTC.
fn moment(second: u32) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second.into())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_have_the_members_that_programs_rely_on() {
        let complete =
            Complete { count: 3, pages: Some(2), seconds: 0.123_456, complete: true, reason: "x".into() };
        assert_eq!(
            serde_json::to_string(&complete).unwrap(),
            r#"{"count":3,"pages":2,"seconds":0.123,"complete":true,"reason":"x"}"#
        );
        let posted = PostedLine { event: "posted", hash: "ab".into(), confirmed: true, reason: None };
        assert_eq!(
            serde_json::to_string(&posted).unwrap(),
            r#"{"event":"posted","hash":"ab","confirmed":true}"#
        );
        assert_eq!(moment(1_600_000_000), "2020-09-13T12:26:40Z");
    }
}
