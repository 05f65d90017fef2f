//! What the deployed push server answered, asked of ours: registrations, queries and requests in their order, and what
//! real clients and the real server said to each other.
//!
//! The vectors were made by running status-go's push notification server and client. The full file is read from the
//! directory that `POSTE_VECTORS` names; without it a few entries of each kind in `testdata/` are used. The count for
//! the record:
//!
//! ```text
//! POSTE_VECTORS=… cargo test -p poste-push --test vectors -- --nocapture
//! ```
//!
//! Whether messages are read and written as recorded is checked by the tests of `poste-wire`; here it is what the server
//! decides. A member that no check reads and [`LEFT`] does not name fails the test, and so does a difference that
//! [`differences`] lists and that is none.

mod differences;
mod real_client;
mod rig;
mod sections;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use poste_codec::SecretKey;
use poste_vectors::entry::{self, Entry, Outcome};
use poste_wire::Topic;
use serde_json::Value;

use differences::{DIFFERENCES, Ours};
use rig::Rig;

/// Members that are not checked here.
const LEFT: &[(&str, &str)] = &[
    ("amm", "how a message is written: checked by poste-wire"),
    ("decoded", "what a message says: checked by poste-wire against the bytes that are compared here"),
    ("client_public", "checked by poste-wire"),
    ("encrypted", "how a registration is sealed: checked by poste-wire"),
    ("error", "the deployed server's words"),
    ("handler_error", "the deployed server's words"),
    ("hash_len", "checked by poste-wire"),
    ("message_id", "checked by poste-wire"),
    ("nonce", "how a registration is sealed: checked by poste-wire"),
    ("notified", "what the deployed client reported"),
    ("payload_present", "checked by poste-wire"),
    ("plaintext", "what a registration says: checked by poste-wire"),
    ("public_keys", "what a query says: checked by poste-wire"),
    ("query", "what a query says: checked by poste-wire"),
    ("registered", "what the deployed client reported"),
    ("registration", "what a registration says: checked by poste-wire"),
    ("request", "what a request says: checked by poste-wire"),
    ("rule", "a remark of those who made the vectors"),
    ("segments_count", "checked by poste-wire"),
    ("server_log", "the deployed server's words"),
    ("server_public", "checked by poste-wire"),
    ("shared_key", "how a registration is sealed: checked by poste-wire"),
    ("step", "a remark of those who made the vectors"),
    ("topic_string", "checked by poste-wire"),
];

#[tokio::test]
async fn every_entry_is_answered_as_it_should_be() {
    let root = load(env::var_os("POSTE_VECTORS").map(PathBuf::from));
    let mut rig = Rig::new(secret_key(&root["server"]["private"])).await;
    let mut run = Run::default();
    for (section, value) in entries(&root, &["registrations", "registration_cases"]) {
        let (name, ours) = run.next(section, value);
        let outcome = sections::registration(&rig, &Entry::new(value).unwrap(), ours).await;
        run.note(&name, outcome);
    }
    for (at, (section, value)) in entries(&root, &["envelope_cases"]).into_iter().enumerate() {
        let (name, ours) = run.next(section, value);
        let outcome = sections::envelope_case(&rig, &Entry::new(value).unwrap(), at, ours).await;
        run.note(&name, outcome);
    }
    for (section, value) in entries(&root, &["queries"]) {
        let (name, ours) = run.next(section, value);
        if value["name"] == "unregistered-key" {
            sections::unregister_client_u(&rig, &root).await;
        }
        let outcome = sections::query(&rig, &Entry::new(value).unwrap(), ours).await;
        run.note(&name, outcome);
    }
    sections::unregister_client_u(&rig, &root).await;
    for (section, value) in entries(&root, &["notifications"]) {
        let (name, ours) = run.next(section, value);
        let outcome = sections::notification(&mut rig, &Entry::new(value).unwrap(), ours).await;
        run.note(&name, outcome);
    }

    let keys = root["real_client"]["keys"].as_array().expect("a list");
    let mut keys: Vec<SecretKey> = keys.iter().map(|key| secret_key(&key["private"])).collect();
    let rig = Rig::new(keys.remove(0)).await;
    for (at, value) in root["real_client"]["steps"].as_array().expect("a list").iter().enumerate() {
        let outcome = real_client::step(&rig, &keys, &Entry::new(value).unwrap()).await;
        run.count += 1;
        run.note(&format!("real_client.steps[{at}]"), outcome);
    }
    run.finish(env::var_os("POSTE_VECTORS").is_some());
}

/// What was checked, and what failed.
#[derive(Default)]
struct Run {
    count: usize,
    differing: BTreeSet<&'static str>,
    failures: Vec<String>,
}

impl Run {
    /// The name of an entry, and how ours should answer it.
    fn next(&mut self, section: &str, value: &Value) -> (String, Option<&'static Ours>) {
        self.count += 1;
        let name = value["name"].as_str().expect("an entry has a name");
        let difference = DIFFERENCES.iter().find(|(of, entry, ..)| (*of, *entry) == (section, name));
        self.differing.extend(difference.map(|(_, entry, ..)| *entry));
        (format!("{section}/{name}"), difference.map(|(_, _, ours, _)| ours))
    }

    fn note(&mut self, name: &str, outcome: Outcome) {
        self.failures.extend(outcome.err().map(|error| format!("{name}: {error}")));
    }

    #[allow(clippy::print_stdout, reason = "for the record")]
    fn finish(self, is_full: bool) {
        for (member, reason) in LEFT {
            println!("not checked here: {member}: {reason}");
        }
        for (section, name, _, reason) in
            DIFFERENCES.iter().filter(|(_, name, ..)| self.differing.contains(name))
        {
            println!("differs on purpose: {section}/{name}: {reason}");
        }
        println!("checked {} entries, {} of them differ on purpose", self.count, self.differing.len());
        assert!(self.failures.is_empty(), "{} fail:\n{}", self.failures.len(), self.failures.join("\n"));
        assert!(!is_full || self.differing.len() == DIFFERENCES.len(), "a difference is of no entry");
    }
}

fn entries<'v>(root: &'v Value, sections: &[&'static str]) -> Vec<(&'static str, &'v Value)> {
    let entries_of = |section: &&'static str| {
        let entries = root[*section].as_array().unwrap_or_else(|| panic!("{section} is no list"));
        assert!(!entries.is_empty(), "{section} is empty");
        let section = *section;
        entries.iter().map(move |entry| (section, entry))
    };
    sections.iter().flat_map(entries_of).collect()
}

/// Reads members that are not checked here, where they are.
fn leave(entry: &Entry<'_>) {
    for (name, _) in LEFT.iter().filter(|(name, _)| entry.has(name)) {
        let _ = entry.value(name);
    }
}

fn secret_key(value: &Value) -> SecretKey {
    let bytes = hex::decode(value.as_str().expect("a key is a text")).expect("a key is hex");
    SecretKey::from_bytes(&bytes.try_into().expect("a key has 32 bytes")).expect("a key is one")
}

/// The topic of a content topic.
fn topic(value: &Value) -> Result<Topic, String> {
    let text = value.as_str().ok_or("no content topic")?;
    let hex = text.strip_prefix("/waku/1/0x").and_then(|rest| rest.strip_suffix("/rfc26"));
    hex.and_then(|hex| hex.parse().ok()).ok_or_else(|| format!("{text} is no content topic"))
}

/// The vector file of this directory, or that of the crate.
fn load(directory: Option<PathBuf>) -> Value {
    let directory = directory.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
    let path = directory.join("status-push.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
