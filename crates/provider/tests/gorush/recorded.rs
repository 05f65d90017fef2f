//! What the deployed push server was recorded to send to gorush, and ours for the same notifications: byte for byte but
//! for `notif_id`, which only ours has, and the topic for Google, which only theirs has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use poste_doubles::gorush::{Gorush, Settings};
use poste_provider::{
    DeviceToken, GorushProvider, Notification, Outcome, PushProvider, PushService, Reference,
};
use serde::Deserialize;
use serde_json::Value;

use super::start;

/// A call of the recordings; a member that is not listed fails the test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    method: String,
    path: String,
    content_type: String,
    body: String,
}

/// Entries that differ on purpose.
const DIFFERENCES: &[(&str, &str)] = &[(
    "token-type-3-platform-0",
    "only tokens of Apple and Google are ever registered, so no other platform exists",
)];

#[tokio::test]
async fn what_we_send_is_what_the_deployed_server_sends() {
    let (gorush, provider) = start(Settings::default(), |settings| settings.max_calls = 1).await;
    let (mut calls, mut notifications) = (0, 0);
    for (name, recorded) in load() {
        if let Some((_, reason)) = DIFFERENCES.iter().find(|(entry, _)| *entry == name) {
            println!("differs on purpose: {name}: {reason}");
            continue;
        }
        for call in recorded {
            calls += 1;
            notifications += check(&gorush, &provider, &name, &call).await;
        }
    }
    println!("checked {calls} calls with {notifications} notifications");
    assert!(notifications > 0);
}

/// Sends the notifications of a recorded call; returns how many they are.
async fn check(gorush: &Gorush, provider: &GorushProvider, name: &str, recorded: &Recorded) -> usize {
    // The double has no other route that takes a call.
    assert_eq!((recorded.method.as_str(), recorded.path.as_str()), ("POST", "/api/push"), "{name}");
    let theirs = objects(&recorded.body);
    let before = gorush.calls().len();
    for outcome in join_all(theirs.iter().map(|object| provider.send(read(object)))).await {
        assert_eq!(outcome, Outcome::Sent, "{name}");
    }
    let mut ours = Vec::new();
    for call in &gorush.calls()[before..] {
        assert_eq!(call.content_type.as_deref(), Some(recorded.content_type.as_str()), "{name}");
        ours.extend(objects(std::str::from_utf8(&call.body).unwrap()));
    }
    for object in &mut ours {
        *object = cut(object, ",\"notif_id\":\"", "\"").expect("ours bear a mark");
    }
    let mut expected = theirs.clone();
    for object in expected.iter_mut().filter(|object| object.contains("\"platform\":2,")) {
        *object = cut(object, "\"topic\":\"", "\",").expect("theirs have a topic");
    }
    ours.sort();
    expected.sort();
    assert_eq!(ours, expected, "{name}");
    theirs.len()
}

/// The texts of the notification objects of a body.
fn objects(body: &str) -> Vec<String> {
    let list = body.strip_prefix("{\"notifications\":[{").and_then(|rest| rest.strip_suffix("}]}"));
    list.expect("a call of gorush").split("},{").map(str::to_owned).collect()
}

/// `text` without the first stretch from `from` to `to`.
fn cut(text: &str, from: &str, to: &str) -> Option<String> {
    let (before, rest) = text.split_once(from)?;
    let (_, after) = rest.split_once(to)?;
    Some(format!("{before}{after}"))
}

fn read(object: &str) -> Notification {
    let object: Value = serde_json::from_str(&format!("{{{object}}}")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let topic = text(&object["topic"]);
    let service = match object["platform"].as_u64() {
        Some(1) => PushService::Apns { topic },
        Some(2) => PushService::Fcm,
        other => panic!("platform {other:?}"),
    };
    let data = ["encryptedMessage", "chatId", "publicKey"];
    Notification {
        reference: Reference::new(b"row 17").unwrap(),
        sent_at: Duration::from_secs(1_700_000_000),
        token: DeviceToken::new(text(&object["tokens"][0])),
        service,
        message: text(&object["message"]).into(),
        data: data.map(|name| (name.into(), text(&object["data"][name]))).into(),
        collapse_id: None,
        expires: None,
    }
}

/// The calls of each recorded notification, and those of the recorded real client if the file has them. Everything else
/// in the file concerns what lies before a call of gorush.
fn load() -> Vec<(String, Vec<Recorded>)> {
    let directory = std::env::var_os("POSTE_VECTORS").map(PathBuf::from).unwrap_or_else(|| {
        eprintln!("POSTE_VECTORS is not set: the representative copy in testdata is used");
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
    });
    let path = directory.join("status-push.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let calls = |value: &Value| serde_json::from_value::<Vec<Recorded>>(value.clone()).unwrap();
    let entries = file["notifications"].as_array().expect("the file has notifications");
    let mut found: Vec<_> = entries
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap().to_owned(), calls(&entry["gorush"])))
        .collect();
    let steps = file["real_client"]["steps"].as_array().into_iter().flatten().enumerate();
    let with_calls = steps.filter_map(|(number, step)| step.get("gorush").map(|value| (number, value)));
    found.extend(with_calls.map(|(number, value)| (format!("real_client.steps[{number}]"), calls(value))));
    found
}
