//! gorush's JSON: its answers and its log objects.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;

/// What gorush's answers and feedback calls say of their bodies.
pub(super) const JSON: &str = "application/json; charset=utf-8";

/// A failure, as answers and feedback show it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Log {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) notif_id: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) platform: &'static str,
    pub(super) token: String,
    pub(super) message: String,
    pub(super) error: String,
}

#[derive(Serialize)]
struct Taken<'l> {
    counts: i64,
    logs: &'l [Log],
    success: &'static str,
}

#[derive(Serialize)]
struct Bad<'m> {
    code: u16,
    message: &'m str,
}

pub(super) fn taken(counts: i64, logs: &[Log]) -> (u16, String) {
    (200, to_json(&Taken { counts, logs, success: "ok" }))
}

pub(super) fn bad(message: &str) -> (u16, String) {
    (400, to_json(&Bad { code: 400, message }))
}

pub(super) fn missing() -> (u16, String) {
    bad("Missing notifications field.")
}

/// JSON as Go writes it: what HTML would take for its own is escaped.
pub(super) fn to_json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("texts and numbers are JSON");
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => escaped.push(character),
        }
    }
    escaped
}

pub(super) fn response((status, body): (u16, String)) -> Response {
    let response = Response::builder().status(status).header(CONTENT_TYPE, JSON);
    response.body(Body::from(body)).expect("the status is one of ours")
}
