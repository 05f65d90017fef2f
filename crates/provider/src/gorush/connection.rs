//! HTTP/1.1 connections to a gorush, kept open between calls, and what is known of a call that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::counted::Counted;
use super::{GorushSettings, SettingsError};

/// Where a gorush is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
    /// As it goes into the request's head.
    authority: String,
    /// Before `/api/push`; without a slash at its end.
    base: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, SettingsError> {
        let wrong = || SettingsError::Url { url: without_credentials(url) };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(SettingsError::Tls { url: without_credentials(url) }),
            _ => return Err(wrong()),
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.query().is_some() || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// An address as it may be shown: what stands before its last `@` may be a user and a password.
fn without_credentials(url: &str) -> String {
    let Some((before, behind)) = url.rsplit_once('@') else { return url.to_owned() };
    match before.split_once("://") {
        Some((scheme @ ("http" | "https"), _)) => format!("{scheme}://{behind}"),
        _ => behind.to_owned(),
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// None if the connection ended within it.
    pub(super) body: Option<Bytes>,
}

/// How a call ended without a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum CallFailure {
    #[error("cannot be reached")]
    NotWritten,
    #[error("closed the connection")]
    Lost,
    #[error("did not answer in time")]
    Timeout,
}

/// The connections that no call uses at the moment; at most as many as there may be calls
/// of both services.
#[derive(Debug)]
pub(super) struct Connections {
    address: Address,
    settings: GorushSettings,
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    pub(super) fn new(address: Address, settings: GorushSettings) -> Self {
        Self { address, settings, idle: Mutex::new(Vec::new()) }
    }

    /// Posts a body to `/api/push`: on a connection that is open, or on a new one. A connection that turns out to
    /// have been closed before it took a byte is replaced.
    pub(super) async fn push(&self, body: Bytes) -> Result<Reply, CallFailure> {
        loop {
            let (connection, is_new) = match self.take_idle() {
                Some(connection) => (connection, false),
                None => (self.connect().await?, true),
            };
            let request = self.request(Method::POST, "/api/push", body.clone());
            match self.call(connection, request, self.settings.call_timeout).await {
                Err(CallFailure::NotWritten) if !is_new => {}
                ended => return ended,
            }
        }
    }

    /// The status of `/healthz`, asked on a connection of its own.
    pub(super) async fn healthz(&self) -> Result<u16, CallFailure> {
        let connection = self.connect().await?;
        let request = self.request(Method::GET, "/healthz", Bytes::new());
        Ok(self.call(connection, request, self.settings.connect_timeout).await?.status)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address.base))
            .header(header::HOST, &self.address.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("the address was parsed from a URI")
    }

    async fn call(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Reply, CallFailure> {
        let deadline = Instant::now() + limit;
        let before = connection.written();
        let answered = tokio::time::timeout_at(deadline, async {
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        });
        let failure = match answered.await {
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), self.settings.max_answer_bytes);
                let body = match tokio::time::timeout_at(deadline, body.collect()).await {
                    Ok(Ok(body)) => Some(body.to_bytes()),
                    // What is too long is no answer of gorush's: as good as empty.
                    Ok(Err(error)) if error.is::<LengthLimitError>() => {
                        return Ok(Reply { status, body: Some(Bytes::new()) });
                    }
                    Ok(Err(_)) => None,
                    Err(_) if status == 200 => return Err(CallFailure::Timeout),
                    Err(_) => None,
                };
                if body.is_some() {
                    self.keep(connection);
                }
                return Ok(Reply { status, body });
            }
            Ok(Err(_)) => CallFailure::Lost,
            Err(_) => CallFailure::Timeout,
        };
        if connection.close().await == before { Err(CallFailure::NotWritten) } else { Err(failure) }
    }

    async fn connect(&self) -> Result<Connection, CallFailure> {
        let address = (self.address.host.as_str(), self.address.port);
        match timeout(self.settings.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Connection::open(stream).await,
            Ok(Err(_)) | Err(_) => Err(CallFailure::NotWritten),
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|connection| {
            !connection.sender.is_closed() && connection.used.elapsed() < self.settings.idle_timeout
        });
        idle.pop()
    }

    fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        let mut idle = self.idle.lock();
        if !connection.sender.is_closed() && idle.len() < 2 * self.settings.max_calls.max(1) {
            idle.push(connection);
        }
    }
}

/// A connection, with the task that moves its bytes.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    written: Arc<AtomicU64>,
    task: Option<JoinHandle<()>>,
    used: Instant,
}

impl Connection {
    async fn open(stream: TcpStream) -> Result<Self, CallFailure> {
        // A call is one small write after another; waiting to fill a segment would only delay it.
        let _ = stream.set_nodelay(true);
        let written = Arc::new(AtomicU64::new(0));
        let io = TokioIo::new(Counted::new(stream, written.clone()));
        let (sender, connection) = http1::handshake(io).await.map_err(|_| CallFailure::NotWritten)?;
        // How the connection ends is seen by the call on it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, written, task: Some(task), used: Instant::now() })
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Ends the connection, and says how many bytes were ever written: none is written after that.
    async fn close(mut self) -> u64 {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        self.written()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_explained() {
        let parsed = Address::parse("http://[::1]:8088/behind/a/proxy/").unwrap();
        assert_eq!(
            (parsed.host.as_str(), parsed.port, parsed.base.as_str()),
            ("::1", 8088, "/behind/a/proxy")
        );
        let parsed = Address::parse("http://gorush").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port, parsed.base.as_str()), ("gorush", 80, ""));
        for wrong in ["", "gorush:8088", "http://", "ftp://gorush", "http://user@gorush", "http://gorush/?a"]
        {
            assert!(matches!(Address::parse(wrong), Err(SettingsError::Url { .. })), "{wrong}");
        }
        assert!(matches!(Address::parse("https://gorush"), Err(SettingsError::Tls { .. })));
    }

    #[test]
    fn an_address_is_refused_without_repeating_its_credentials() {
        for url in [
            "http://ada:secret@gorush:8088",
            "https://ada:secret@gorush",
            "http://ada:se@cret@gorush",
            "ada:secret@gorush",
            "ada:secret://x@gorush",
            "http://ada:sec ret@gorush",
        ] {
            let error = Address::parse(url).unwrap_err();
            let (shown, said) = (format!("{error:?}"), error.to_string());
            for text in [&shown, &said] {
                assert!(!text.contains("ada") && !text.contains("ret"), "{text}");
                assert!(text.contains("gorush"), "{text}");
            }
        }
    }
}
