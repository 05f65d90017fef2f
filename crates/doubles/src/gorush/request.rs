//! Reading the body of a call: what of it must have which type, as Go's decoder wants it.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Members by the type that they must have if they are there and not null.
const TEXTS: &[&str] = &[
    "notif_id",
    "to",
    "topic",
    "message",
    "title",
    "image",
    "priority",
    "apns_id",
    "collapse_id",
    "push_type",
    "category",
    "thread-id",
    "name",
];
const BOOLS: &[&str] = &["content_available", "mutable_content", "production", "development"];
const INTEGERS: &[&str] = &["platform", "expiration", "badge", "retry"];
const OBJECTS: &[&str] = &["data", "alert"];
const TEXT_LISTS: &[&str] = &["tokens", "url-args"];

/// A notification object.
#[derive(Debug, Clone)]
pub(super) struct Notification {
    pub(super) notif_id: String,
    pub(super) platform: i64,
    pub(super) tokens: Vec<String>,
    pub(super) topic: String,
    pub(super) message: String,
    pub(super) object: Value,
}

/// The notifications of a body; none if it is not JSON, has no `notifications`, or has a member of a wrong type. What
/// follows the first JSON value is not looked at.
pub(super) fn read(body: &[u8]) -> Option<Vec<Notification>> {
    let body = Value::deserialize(&mut serde_json::Deserializer::from_slice(body)).ok()?;
    body.as_object()?.get("notifications")?.as_array()?.iter().map(notification).collect()
}

fn notification(value: &Value) -> Option<Notification> {
    let nothing = Map::new();
    let object = match value {
        Value::Null => &nothing,
        value => value.as_object()?,
    };
    let all = |names: &[&str], is_right: fn(&Value) -> bool| {
        names.iter().all(|name| object.get(*name).is_none_or(|value| value.is_null() || is_right(value)))
    };
    let is_right = all(TEXTS, Value::is_string)
        && all(BOOLS, Value::is_boolean)
        && all(INTEGERS, Value::is_i64)
        && all(OBJECTS, Value::is_object)
        && all(TEXT_LISTS, is_text_list);
    if !is_right {
        return None;
    }
    let text = |name| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let tokens = object.get("tokens").and_then(Value::as_array).into_iter().flatten();
    let mut tokens: Vec<String> = tokens.map(|token| token.as_str().unwrap_or_default().to_owned()).collect();
    tokens.extend(Some(text("to")).filter(|to| !to.is_empty()));
    Some(Notification {
        notif_id: text("notif_id"),
        platform: object.get("platform").and_then(Value::as_i64).unwrap_or_default(),
        tokens,
        topic: text("topic"),
        message: text("message"),
        object: value.clone(),
    })
}

fn is_text_list(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(|entry| entry.is_string() || entry.is_null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_as_go_wants_them() {
        let reads =
            |members: &str| read(format!("{{\"notifications\":[{{{members}}}]}}").as_bytes()).is_some();
        for right in ["", r#""platform":null"#, r#""tokens":[null,"a"]"#, r#""unknown":[1]"#, r#""badge":-1"#]
        {
            assert!(reads(right), "{right}");
        }
        for wrong in [
            r#""platform":1.0"#,
            r#""message":1"#,
            r#""tokens":"a""#,
            r#""data":[]"#,
            r#""mutable_content":1"#,
        ] {
            assert!(!reads(wrong), "{wrong}");
        }
        assert!(read(br#"{"notifications":[null]} and more"#).is_some());
        assert!(read(br#"{"notifications":null}"#).is_none());
        assert!(read(br#"[]"#).is_none());
    }
}
