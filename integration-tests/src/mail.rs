//! What was posted and what was fetched, to be compared.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Envelopes by hash (hex).
pub type Mail = BTreeMap<String, Item>;

/// One envelope as a line of JSON tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The 4-byte topic in hex.
    pub topic: String,
    /// Creation time in unix seconds.
    pub time: u64,
    /// The RLP bytes in hex.
    pub data: String,
}

/// The envelopes in the events of that name. Fails when one occurs twice.
pub fn collect(events: &[Value], name: &str) -> Result<Mail> {
    collect_where(events, |event| event["event"] == name)
}

/// The envelopes that a mailserver confirmed.
pub fn confirmed(events: &[Value]) -> Result<Mail> {
    collect_where(events, |event| event["event"] == "posted" && event["confirmed"] == true)
}

/// The envelopes in the events that satisfy `wanted`. Fails when one occurs twice.
pub fn collect_where(events: &[Value], wanted: impl Fn(&Value) -> bool) -> Result<Mail> {
    let mut mail = Mail::new();
    for event in events.iter().filter(|event| wanted(event)) {
        let text = |member: &str| {
            event[member].as_str().map(str::to_owned).with_context(|| format!("no {member} in {event}"))
        };
        let item = Item {
            topic: text("topic")?,
            time: event["time"].as_u64().context("no time")?,
            data: text("data")?,
        };
        let hash = text("hash")?;
        ensure!(mail.insert(hash.clone(), item).is_none(), "{hash} came twice");
    }
    Ok(mail)
}

/// Fails, naming the numbers and an example, unless both hold the same envelopes with the same bytes.
pub fn ensure_equal(posted: &Mail, fetched: &Mail) -> Result<()> {
    ensure_served(posted, fetched)?;
    let foreign = fetched.keys().filter(|hash| !posted.contains_key(*hash)).count();
    ensure!(foreign == 0, "{foreign} of {} fetched envelopes were never posted", fetched.len());
    Ok(())
}

/// Fails unless every posted envelope was fetched with the same bytes.
pub fn ensure_served(posted: &Mail, fetched: &Mail) -> Result<()> {
    let missing: Vec<_> = posted.keys().filter(|hash| !fetched.contains_key(*hash)).collect();
    ensure!(
        missing.is_empty(),
        "{} of {} posted envelopes are missing, for example {}",
        missing.len(),
        posted.len(),
        missing[0]
    );
    for (hash, item) in posted {
        ensure!(fetched[hash] == *item, "{hash} came back different: {item:?} became {:?}", fetched[hash]);
    }
    Ok(())
}
