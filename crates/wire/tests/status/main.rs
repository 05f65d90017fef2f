//! Every entry of the push vectors that concerns this crate, and every member of each entry.
//!
//! The vectors were made by running status-go's push notification server and client. The full file is read from the
//! directory that `POSTE_VECTORS` names; without it a few entries of each kind in `testdata/` are used. The count for
//! the record:
//!
//! ```text
//! POSTE_VECTORS=… cargo test -p poste-wire --test status -- --nocapture
//! ```
//!
//! A member that no check reads fails the test. What the server decides is no matter of this crate: [`LEFT`] names the
//! members that the push server's own tests take up.

mod frames;
mod messages;
mod primitives;
mod pushes;
mod real_client;
mod registrations;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use poste_codec::{PublicKey, SecretKey};
use poste_vectors::entry::{self, Entry, Outcome};
use serde_json::Value;

/// Members that are read, but not checked here. Of `response` all members are checked, but only as what they are: whether
/// the server should answer so (and where it should differ from the deployed one) is a matter of the push server.
const LEFT: &[(&str, &str)] = &[
    ("answered", "whether the server answers: a matter of the push server"),
    ("error", "in envelope_cases the deployed server's words; elsewhere it is checked"),
    ("gorush", "what is asked of gorush: a matter of the push server and its provider"),
    ("handler_error", "the deployed server's words"),
    ("name", "a label; which rule it stands for is checked where that is known here"),
    ("note", "a remark of those who made the vectors"),
    ("notified", "what the deployed client reported"),
    ("registered", "what the deployed client reported"),
    ("rule", "a remark of those who made the vectors"),
    ("server_log", "the deployed server's words"),
    ("step", "a remark of those who made the vectors"),
];

/// Members that may be altered without being noticed, as there is nothing to compare them with.
const UNNOTICED: &[(&str, &str)] = &[
    ("envelope_cases[2]/amm", "refused for want of a signature, whatever else it says"),
    ("envelope_cases[3]/amm", "refused for its signature, whatever else it says"),
    ("real_client.steps[0]/frames/1/payload", "sealed to a throw-away key that was not recorded"),
    ("real_client.steps[0]/frames/3/payload", "sealed to a throw-away key that was not recorded"),
];

/// Where this crate is meant to differ from the deployed server.
const DIFFERENCES: &[&str] = &[
    "envelope_cases, inner signature absent: deployed servers take the envelope's signer for the sender; here it is no \
     message (71/STATUS-PUSH-NOTIFICATION-SERVER: the key MUST be extracted from the signature)",
];

/// What all entries share.
struct Common {
    server: SecretKey,
    pubsub_topic: String,
    real_keys: BTreeMap<PublicKey, SecretKey>,
}

type Check = fn(&Entry<'_>, &Common) -> Outcome;

struct Case<'v> {
    path: String,
    value: &'v Value,
    check: Check,
}

/// Lists of entries, each with the check of its entries.
const SECTIONS: &[(&str, Check)] = &[
    ("keys", primitives::key),
    ("hashes", primitives::hash),
    ("ecdh", primitives::ecdh),
    ("grants", primitives::grant),
    ("encrypted_access_tokens", primitives::encrypted_access_token),
    ("waku_frames", frames::waku_frame),
    ("registrations", registrations::registration),
    ("registration_cases", registrations::registration),
    ("envelope_cases", messages::envelope_case),
    ("queries", pushes::query),
    ("notifications", pushes::notification),
];

#[test]
fn every_entry_and_every_member() {
    let root = load(env::var_os("POSTE_VECTORS").map(PathBuf::from));
    let (cases, common) = (cases(&root), common(&root));
    // Keys of topics take tens of milliseconds each: on all cores.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = run(case.check, case.value, &common) {
                failures.push(format!("{}: {failure}", case.path));
            }
        }
        failures
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a check does not panic")).collect()
    });

    for (member, reason) in LEFT {
        println!("not checked here: {member}: {reason}");
    }
    for difference in DIFFERENCES {
        println!("differs on purpose: {difference}");
    }
    let members: usize = cases.iter().map(|case| count_members(case.value)).sum();
    println!("checked {} entries, {members} members", cases.len());
    assert!(failures.is_empty(), "{} entries fail:\n{}", failures.len(), failures.join("\n"));
}

/// Alters the members of the entries in `testdata/`, one at a time, and wants the check of the entry to fail.
#[test]
fn every_member_matters() {
    let root = load(None);
    let (cases, common) = (cases(&root), common(&root));
    let (mut alterations, mut unnoticed) = (0, Vec::new());
    for case in &cases {
        let mut altered = case.value.clone();
        alter(case.value, &mut Vec::new(), &mut |path, value| {
            let answered = path.contains(&"decoded");
            if !answered && path.iter().any(|step| LEFT.iter().any(|(left, _)| left == step)) {
                return;
            }
            let pointer = format!("/{}", path.join("/"));
            let place = altered.pointer_mut(&pointer).expect("the copy has the same members");
            let original = std::mem::replace(place, value);
            alterations += 1;
            let member = format!("{}{pointer}", case.path);
            let expected = UNNOTICED.iter().any(|(path, _)| *path == member);
            if run(case.check, &altered, &common).is_ok() != expected {
                unnoticed.push(member);
            }
            *altered.pointer_mut(&pointer).expect("it was just there") = original;
        });
    }
    for (member, reason) in UNNOTICED {
        println!("may be altered: {member}: {reason}");
    }
    println!("altered {alterations} values, {} without being noticed", unnoticed.len());
    assert!(unnoticed.is_empty(), "altered without being noticed:\n{}", unnoticed.join("\n"));
}

fn cases(root: &Value) -> Vec<Case<'_>> {
    let sections = root.as_object().expect("the file is an object");
    let mut known = BTreeSet::from(["meta", "default_pubsub_topic"]);
    let mut cases = Vec::new();
    for (section, check) in SECTIONS {
        known.insert(section);
        let entries = sections[*section].as_array().unwrap_or_else(|| panic!("{section} is no list"));
        assert!(!entries.is_empty(), "{section} is empty");
        for (index, value) in entries.iter().enumerate() {
            cases.push(Case { path: format!("{section}[{index}]"), value, check: *check });
        }
    }
    let single: [(&str, Check); 2] =
        [("server", primitives::key), ("segmented_registration", registrations::segmented)];
    for (section, check) in single {
        known.insert(section);
        cases.push(Case { path: section.to_owned(), value: &sections[section], check });
    }
    known.insert("real_client");
    let lists = sections["real_client"].as_object().expect("the real clients have keys and steps");
    for (list, entries) in lists {
        let check = match list.as_str() {
            "keys" => real_client::key,
            "steps" => real_client::step,
            _ => panic!("real_client.{list} has no check"),
        };
        for (index, value) in entries.as_array().expect("they are lists").iter().enumerate() {
            cases.push(Case { path: format!("real_client.{list}[{index}]"), value, check });
        }
    }
    let unknown: Vec<_> = sections.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "sections without a check: {unknown:?}");
    cases
}

fn common(root: &Value) -> Common {
    let key = |value: &Value| {
        let bytes = hex::decode(value.as_str().expect("a key is a text")).expect("a key is hex");
        SecretKey::from_bytes(&bytes.try_into().expect("a key has 32 bytes")).expect("a key is one")
    };
    let real_keys = root["real_client"]["keys"].as_array().expect("the real clients have keys");
    Common {
        server: key(&root["server"]["private"]),
        pubsub_topic: root["default_pubsub_topic"].as_str().expect("a topic is a text").to_owned(),
        real_keys: real_keys
            .iter()
            .map(|value| key(&value["private"]))
            .map(|key| (key.public(), key))
            .collect(),
    }
}

/// Checks a value; every member must be read.
fn run(check: Check, value: &Value, common: &Common) -> Outcome {
    let entry = Entry::new(value)?;
    check(&entry, common)?;
    entry.finish()
}

/// Checks an object inside of an entry; every member must be read.
fn inside<T>(
    entry: &Entry<'_>,
    name: &str,
    check: impl FnOnce(&Entry<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let inner = Entry::new(entry.value(name)?).map_err(|error| format!("{name}: {error}"))?;
    let result = check(&inner).map_err(|error| format!("{name}: {error}"))?;
    inner.finish().map_err(|error| format!("{name}: {error}"))?;
    Ok(result)
}

/// Reads members that are not checked here.
fn leave(entry: &Entry<'_>, names: &[&str]) {
    for name in names {
        let known = LEFT.iter().any(|(left, _)| left == name);
        assert!(known, "{name} is left without a reason");
        let _ = entry.value(name);
    }
}

fn text<E: ToString>(error: E) -> String {
    error.to_string()
}

fn secret_key(entry: &Entry<'_>, name: &str) -> Result<SecretKey, String> {
    SecretKey::from_bytes(&entry.array(name)?).map_err(|error| format!("{name}: {error}"))
}

fn public_key(entry: &Entry<'_>, name: &str) -> Result<PublicKey, String> {
    let key = PublicKey::from_bytes(&entry.bytes(name)?).map_err(|error| format!("{name}: {error}"))?;
    entry::same(name, key.to_sec1(), entry.array(name)?)?;
    Ok(key)
}

fn byte_list(entry: &Entry<'_>, name: &str) -> Result<Vec<Vec<u8>>, String> {
    let texts = entry.list(name)?.iter();
    texts.map(|text| hex::decode(text.as_str().unwrap_or("no text")).map_err(self::text)).collect()
}

/// The vector file of this directory, or that of the crate.
fn load(directory: Option<PathBuf>) -> Value {
    let directory = directory.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
    let path = directory.join("status-push.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn count_members(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.values().map(count_members).sum(),
        Value::Array(values) => values.iter().map(count_members).sum(),
        _ => 1,
    }
}

/// Gives the path of each value in an entry, and another value for it.
fn alter<'v>(value: &'v Value, path: &mut Vec<&'v str>, each: &mut impl FnMut(&[&str], Value)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                path.push(name);
                alter(member, path, each);
                path.pop();
            }
        }
        Value::Array(values) => {
            for (index, member) in values.iter().enumerate() {
                let index: &'static str = index.to_string().leak();
                path.push(index);
                alter(member, path, each);
                path.pop();
            }
        }
        Value::String(text) if text.is_empty() => each(path, "00".into()),
        Value::String(text) => {
            let mut characters: Vec<char> = text.chars().collect();
            let middle = characters.len() / 2;
            characters[middle] = if characters[middle] == '0' { '1' } else { '0' };
            each(path, characters.into_iter().collect::<String>().into());
        }
        Value::Bool(flag) => each(path, (!flag).into()),
        Value::Number(number) => each(path, (number.as_u64().expect("no other numbers here") ^ 1).into()),
        Value::Null => {}
    }
}
