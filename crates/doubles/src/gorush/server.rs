//! The HTTP side: routes, and how a fault changes an answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::future::join_all;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::request::Notification;
use super::{Call, Core, Fault, answer, request};

/// More than any test sends; gorush itself has no limit.
const MAX_BODY_BYTES: usize = 16 << 20;

/// A listener and its connections. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(address: SocketAddr, core: Arc<Core>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, router(core), stop.clone()));
        Ok(Self { address, stop, task })
    }

    pub(super) fn local_address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        // A connection that ended before it was accepted; whatever lasts longer shows in the test.
        let Ok((stream, _)) = accepted else { continue };
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        connections.spawn(async move { drop(serving.await) });
    }
    drop(listener);
    connections.shutdown().await;
}

fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/api/push", post(push))
        .route("/healthz", get(async || StatusCode::OK))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(core)
}

async fn push(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Response {
    let arrived = Instant::now();
    let fault = *core.fault.lock();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let call = |status| Call { body: body.clone(), content_type: content_type.clone(), arrived, status };
    match fault {
        Some(Fault::BadRequest) => {
            core.calls.send_modify(|calls| calls.push(call(400)));
            return answer::response(answer::missing());
        }
        Some(Fault::ServerError) => {
            core.calls.send_modify(|calls| calls.push(call(500)));
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        _ => {}
    }
    let (status, text) = core.answer(&body, fault).await;
    core.calls.send_modify(|calls| calls.push(call(status)));
    match fault {
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            answer::response((status, text))
        }
        Some(Fault::CloseBeforeAnswer) => cut_off(),
        Some(Fault::CloseInAnswer) => cut_within(text),
        Some(Fault::Gibberish) => answer::response((200, "<html>it works</html>".into())),
        Some(Fault::LongAnswer(len)) => answer::response((200, " ".repeat(len))),
        _ if status == 500 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => answer::response((status, text)),
    }
}

impl Core {
    async fn answer(self: &Arc<Self>, body: &[u8], fault: Option<Fault>) -> (u16, String) {
        let Some(notifications) = request::read(body) else { return answer::missing() };
        if notifications.is_empty() {
            return answer::bad("Notifications field is empty.");
        }
        let (len, limit) = (notifications.len(), self.settings.max_notifications);
        if len > limit {
            return answer::bad(&format!("Number of notifications({len}) over limit({limit})"));
        }
        let taken: Vec<Notification> =
            notifications.into_iter().filter(|notification| self.takes(notification)).collect();
        let counted = taken
            .iter()
            .map(|notification| notification.tokens.len() + usize::from(!notification.topic.is_empty()))
            .sum::<usize>();
        let counted = i64::try_from(counted).unwrap_or(i64::MAX);
        let counts = match fault {
            Some(Fault::WrongCount(off)) => counted.saturating_add(off),
            _ => counted,
        };
        if self.settings.is_sync {
            let logs = join_all(taken.iter().map(|notification| self.push(notification))).await;
            return answer::taken(counts, &logs.concat());
        }
        for notification in taken {
            if !self.enqueue(notification) {
                // The real one means to answer otherwise, and panics.
                return (500, String::new());
            }
        }
        answer::taken(counts, &[])
    }

    /// Pushes later; false if the queue is full.
    fn enqueue(self: &Arc<Self>, notification: Notification) -> bool {
        let mut queued = self.queued.lock();
        if *queued >= self.settings.queue {
            return false;
        }
        *queued += 1;
        let core = self.clone();
        self.deliveries.spawn(async move {
            core.push(&notification).await;
            *core.queued.lock() -= 1;
        });
        true
    }
}

/// A response whose first byte never comes: its body fails before the head is written.
fn cut_off() -> Response {
    Response::new(Body::from_stream(futures::stream::iter([Err::<Bytes, _>(io::Error::other("cut"))])))
}

/// A response whose body ends in the middle of what its head announces.
fn cut_within(text: String) -> Response {
    let half = Bytes::from(text.as_bytes()[..text.len() / 2].to_vec());
    let body = futures::stream::iter([Ok(half), Err(io::Error::other("cut"))]);
    Response::builder()
        .header(header::CONTENT_TYPE, answer::JSON)
        .header(header::CONTENT_LENGTH, text.len())
        .body(Body::from_stream(body))
        .expect("the headers are ours")
}
