//! The feedback hook, called once for each failure. gorush would log a call that fails, and never repeats it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::Feedback;
use super::answer::{JSON, Log, to_json};

/// `core.feedback_timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn report(hook: &Feedback, log: &Log) {
    let mut request =
        Request::post(&hook.url).header(CONTENT_TYPE, JSON).header(USER_AGENT, "Go-http-client/1.1");
    for (name, value) in &hook.headers {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Full::new(Bytes::from(to_json(log)))) else { return };
    let client = Client::builder(TokioExecutor::new()).build_http();
    let _ = tokio::time::timeout(TIMEOUT, client.request(request)).await;
}
