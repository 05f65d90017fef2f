//! The double against the recordings, and what it does beyond them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

mod faults;
mod hook;
mod recorded;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use poste_doubles::gorush::Gorush;

/// A whole answer.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

/// Posts `body` to the double's `/api/push`; an error if the answer does not come whole.
async fn post(gorush: &Gorush, body: &str) -> Result<Answer, Box<dyn std::error::Error>> {
    let request =
        Request::post(format!("{}/api/push", gorush.url())).header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let status = response.status().as_u16();
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type =
        content_type.map(|value| value.to_str().map(str::to_owned)).transpose()?.unwrap_or_default();
    let body = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
    Ok(Answer { status, content_type, body })
}
