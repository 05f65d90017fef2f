//! Every recorded exchange and every recorded feedback call, byte for byte. A member of the file that this test does not
//! know fails it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poste_doubles::gorush::{Gorush, Providers, Settings};
use serde::Deserialize;
use serde_json::Value;

use super::hook::{Hook, Told};
use super::{Answer, post};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recordings {
    made_with: String,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    mode: String,
    settings: String,
    exchanges: Vec<Exchange>,
    feedback_hook_calls: Vec<FeedbackCall>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    case: String,
    request: String,
    response: String,
    status: u16,
    content_type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedbackCall {
    headers: BTreeMap<String, String>,
    body: String,
}

#[tokio::test]
async fn every_recorded_exchange_is_answered_the_same() {
    let recordings = load();
    for part in ["gorush v1.22.0", "core.max_notification 3", "begin with 'baddev' are refused"] {
        assert!(
            recordings.made_with.contains(part),
            "the recordings were made otherwise: {}",
            recordings.made_with
        );
    }
    let (mut exchanges, mut calls) = (0, 0);
    assert_eq!(recordings.runs.len(), 3, "runs");
    for run in recordings.runs {
        exchanges += run.exchanges.len();
        calls += run.feedback_hook_calls.len();
        check(run).await;
    }
    println!("checked {exchanges} exchanges and {calls} feedback calls");
    assert!(exchanges > 0 && calls > 0);
}

async fn check(run: Run) {
    let hook = Hook::start(&[("x-gorush-token", "secret-123")]).await;
    let settings = Settings {
        max_notifications: 3,
        // The recordings hold no times; the real one tries Google for seven seconds.
        google_retries: Duration::from_millis(20),
        feedback: Some(hook.feedback.clone()),
        ..settings(&run)
    };
    let gorush = Gorush::start(settings).await.unwrap();
    for exchange in &run.exchanges {
        let what = format!("{}: {}", run.mode, exchange.case);
        let recorded = Answer {
            status: exchange.status,
            content_type: exchange.content_type.clone(),
            body: exchange.response.clone(),
        };
        let answer = post(&gorush, &exchange.request).await.unwrap();
        if answer != recorded {
            assert_eq!(
                (answer.status, &answer.content_type),
                (recorded.status, &recorded.content_type),
                "{what}"
            );
            assert_eq!(in_any_order(&answer.body), in_any_order(&recorded.body), "{what}");
        }
    }
    gorush.settle().await;
    let mut told = hook.told();
    for call in &mut told {
        // Names of hosts and lengths were not recorded.
        call.headers.retain(|name, _| !matches!(name.as_str(), "host" | "content-length"));
    }
    let recorded = run.feedback_hook_calls.into_iter();
    let mut recorded: Vec<_> =
        recorded.map(|FeedbackCall { headers, body }| Told { headers, body }).collect();
    told.sort();
    recorded.sort();
    assert_eq!(told, recorded, "{}", run.mode);
    assert_eq!(gorush.calls().len(), run.exchanges.len());
}

/// An answer whose logs may stand in another order; only several of them may.
fn in_any_order(body: &str) -> (usize, Value) {
    let mut answer: Value = serde_json::from_str(body).unwrap();
    let logs = answer["logs"].as_array_mut().expect("only answers with logs may differ");
    assert!(logs.len() > 1, "differs in more than the order of its logs: {body}");
    logs.sort_by_key(Value::to_string);
    (body.len(), answer)
}

fn settings(run: &Run) -> Settings {
    let (is_sync, hide_token) = match run.settings.as_str() {
        "core.sync false, log.hide_token true" => (false, true),
        "core.sync true, log.hide_token false" => (true, false),
        other => panic!("unknown settings: {other}"),
    };
    let (mode, providers) = match run.mode.split_once(", ") {
        Some((mode, "providers refuse the connection")) => (mode, Providers::Down),
        Some(_) => panic!("unknown mode: {}", run.mode),
        None => (run.mode.as_str(), Providers::Up),
    };
    assert_eq!(mode, if is_sync { "sync" } else { "async" });
    Settings { is_sync, hide_token, providers, ..Settings::default() }
}

/// The recordings: all if `POSTE_VECTORS` names their directory, else the copy of some in `testdata`.
fn load() -> Recordings {
    let directory = std::env::var_os("POSTE_VECTORS").map(PathBuf::from).unwrap_or_else(|| {
        eprintln!("POSTE_VECTORS is not set: the representative copy in testdata is used");
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
    });
    let path = directory.join("gorush.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
