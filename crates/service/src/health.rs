//! The HTTP listener of a process: `/healthz`, `/readyz`, `/metrics`, `/version`, `/log-level`.
//!
//! `/healthz` says that the process lives and asks nobody; `/readyz` lists every check, and is 503 while the
//! process starts, drains, or a check is not ready. `PUT /log-level` is the only one that changes anything.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{HumanDuration, Key, Section};
use crate::logging::{LogError, LogLevel};
use crate::metrics::{Metrics, OPENMETRICS};
use crate::readiness::Readiness;

/// Connections at a time: probes and scrapers need a handful.
const MAX_CONNECTIONS: usize = 256;
/// A probe of a busy host must get its request in.
const MIN_HEADER_TIMEOUT: HumanDuration = HumanDuration::from_secs(1);
/// A body is a level, or some directives.
const MAX_BODY_BYTES: usize = 4096;
/// And how long one may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to accept when the system refuses (it lacks file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The section `[http]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where the listener is bound.
    pub listen: SocketAddr,
    /// How long a request's head may take to arrive.
    pub header_timeout: HumanDuration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9100)),
            header_timeout: HumanDuration::from_secs(10),
        }
    }
}

impl Section for HttpConfig {
    const NAME: &'static str = "http";
    const KEYS: &'static [Key] = &[
        Key::listener("listen", "address of /healthz, /readyz, /metrics, /version and /log-level"),
        Key::new("header_timeout", "how long a request's head may take to arrive"),
    ];

    fn validate(&self) -> Result<(), String> {
        if self.header_timeout < MIN_HEADER_TIMEOUT {
            return Err(format!(
                "header_timeout is {}: write {MIN_HEADER_TIMEOUT} or more",
                self.header_timeout
            ));
        }
        Ok(())
    }
}

/// What the endpoints tell about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The checks.
    pub readiness: Readiness,
    /// The metrics.
    pub metrics: Metrics,
    /// What is logged.
    pub log_level: LogLevel,
    /// The version of the program.
    pub version: &'static str,
}

/// The listener at work; it ends when dropped.
#[derive(Debug)]
pub struct HealthServer {
    local_address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl HealthServer {
    /// Serves on `listener`. Must be called inside a tokio runtime.
    pub fn start(
        listener: TcpListener,
        header_timeout: Duration,
        subject: Subject,
    ) -> Result<Self, std::io::Error> {
        let local_address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, header_timeout, router(subject), stop.clone()));
        Ok(Self { local_address, stop, task })
    }

    /// Where it listens, with the real port.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Closes the listener and its connections, and waits for that.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // A panic in this task has been logged by the hook and changes nothing any more.
        let _ = (&mut self.task).await;
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn router(subject: Subject) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/log-level", get(log_level).put(set_log_level))
        .with_state(subject)
}

async fn readyz(State(subject): State<Subject>) -> Response {
    let report = subject.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn metrics(State(subject): State<Subject>) -> Response {
    match subject.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn version(State(subject): State<Subject>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "name": "poste", "version": subject.version }))
}

async fn log_level(State(subject): State<Subject>) -> String {
    format!("{}\n", subject.log_level.get())
}

async fn set_log_level(State(subject): State<Subject>, request: Request) -> (StatusCode, String) {
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES);
    // Whoever sends a head and no body must not keep a connection from others.
    let Ok(body) = tokio::time::timeout(BODY_TIMEOUT, body).await else {
        return (StatusCode::REQUEST_TIMEOUT, "no body came\n".to_owned());
    };
    let Ok(body) = body else {
        return (StatusCode::PAYLOAD_TOO_LARGE, format!("write {MAX_BODY_BYTES} bytes or less\n"));
    };
    let wanted = String::from_utf8_lossy(&body);
    let wanted = wanted.trim();
    match subject.log_level.set(wanted) {
        Ok(()) => (StatusCode::OK, format!("{wanted}\n")),
        Err(error @ LogError::Level { .. }) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn accept(listener: TcpListener, header_timeout: Duration, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(header_timeout)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
                // How a probe's connection ends concerns nobody.
                connections.spawn(async move { drop(serving.await) });
            }
            Err(error) => {
                tracing::warn!(%error, "http listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn start(header_timeout: Duration) -> (HealthServer, Subject) {
        start_with(header_timeout, LogLevel::start("info").unwrap().1).await
    }

    async fn start_with(header_timeout: Duration, log_level: LogLevel) -> (HealthServer, Subject) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let subject = Subject { readiness, metrics, log_level, version: "1.2.3" };
        let server = HealthServer::start(listener, header_timeout, subject.clone()).unwrap();
        (server, subject)
    }

    /// Status line and body of `GET path`.
    async fn get(server: &HealthServer, path: &str) -> (String, String) {
        ask(server, "GET", path, "").await
    }

    async fn ask(server: &HealthServer, method: &str, path: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn readyz_follows_the_life_of_the_process() {
        let (server, subject) = start(Duration::from_secs(10)).await;
        let check = subject.readiness.add("archive.store");
        let (head, body) = get(&server, "/readyz").await;
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("application/json"), "{head}");
        assert_eq!(
            body,
            r#"{"ready":false,"phase":"starting","checks":[{"name":"archive.store","ready":false,"reason":"starting"}]}"#
        );
        assert!(get(&server, "/healthz").await.0.starts_with("HTTP/1.1 200"));

        check.ready();
        subject.readiness.serving();
        let (head, body) = get(&server, "/readyz").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(
            body,
            r#"{"ready":true,"phase":"serving","checks":[{"name":"archive.store","ready":true}]}"#
        );

        subject.readiness.draining();
        assert!(get(&server, "/readyz").await.0.starts_with("HTTP/1.1 503"));
        assert!(get(&server, "/healthz").await.0.starts_with("HTTP/1.1 200"));
        server.stop().await;
    }

    #[tokio::test]
    async fn metrics_version_and_nothing_else() {
        let (server, subject) = start(Duration::from_secs(10)).await;
        subject.metrics.scope("archive").counter("queries", "Questions answered").inc();
        let (head, body) = get(&server, "/metrics").await;
        assert!(head.contains("application/openmetrics-text"), "{head}");
        assert!(body.contains("poste_archive_queries_total 1\n") && body.ends_with("# EOF\n"), "{body}");
        assert_eq!(get(&server, "/version").await.1, r#"{"name":"poste","version":"1.2.3"}"#);
        assert!(get(&server, "/").await.0.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn the_log_level_is_shown_and_changed() {
        // The filter lives as long as its subscriber.
        let (_filter, level) = LogLevel::start("info").unwrap();
        let (server, _) = start_with(Duration::from_secs(10), level).await;
        let put = async |body: &str| {
            let (head, body) = ask(&server, "PUT", "/log-level", body).await;
            (head["HTTP/1.1 ".len()..][..3].to_owned(), body)
        };
        let answer = |status: &str, body: &str| (status.to_owned(), body.to_owned());
        assert_eq!(get(&server, "/log-level").await.1, "info\n");
        let changed = "info,poste_gateway=debug\n";
        assert_eq!(put(changed).await, answer("200", changed));
        assert_eq!(get(&server, "/log-level").await.1, changed);
        let (status, reason) = put("loud").await;
        assert_eq!(status, "400");
        assert!(reason.contains("\"loud\" is not error"), "{reason}");
        assert_eq!(put(&"x".repeat(MAX_BODY_BYTES + 1)).await.0, "413");
        assert_eq!(get(&server, "/log-level").await.1, changed);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut() {
        let (server, _) = start(Duration::from_millis(50)).await;
        let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
        end.await.expect("the connection was closed").ok();
        server.stop().await;
    }

    #[tokio::test]
    async fn who_sends_no_body_keeps_no_connection() {
        let (server, _) = start(Duration::from_secs(5)).await;
        let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
        stream.write_all(b"PUT /log-level HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        let answered = tokio::time::timeout(6 * BODY_TIMEOUT, stream.read_exact(&mut answer));
        answered.await.expect("an answer came").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
        server.stop().await;
    }
}
