//! A gorush v1.22: `POST /api/push`, its asynchronous and synchronous answers, its limits, its feedback calls and its
//! masking; Apple and Google are played within.
//!
//! Its answers follow rules, not a list of recordings, so that it answers what was never recorded; the recordings are
//! its test.

mod answer;
mod delivery;
mod fault;
mod feedback;
mod mask;
mod request;
mod server;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

pub use fault::Fault;

/// How the double is set up. Names in the comments are gorush's own settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `core.sync`: the answer waits for Apple and Google, and names their failures.
    pub is_sync: bool,
    /// `core.max_notification`: objects in one call. 100.
    pub max_notifications: usize,
    /// `core.queue_num`: objects that wait at once, in async mode. 8,192.
    pub queue: usize,
    /// `log.hide_token`: tokens are masked in answers and feedback.
    pub hide_token: bool,
    /// `log.hide_messages`: so are messages.
    pub hide_messages: bool,
    /// `ios.enabled`.
    pub is_ios_enabled: bool,
    /// `android.enabled`.
    pub is_android_enabled: bool,
    /// `core.feedback_hook_url` and `core.feedback_header`.
    pub feedback: Option<Feedback>,
    /// The project of the Google credentials; it shows in errors.
    pub google_project: String,
    /// Apple's and Google's side.
    pub providers: Providers,
    /// How long an answer of Apple takes.
    pub apple_delay: Duration,
    /// How long an answer of Google takes.
    pub google_delay: Duration,
    /// How long gorush tries on when Google refuses the connection. 7 s in the real one.
    pub google_retries: Duration,
    /// Tokens that begin so are dead.
    pub dead_prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            is_sync: false,
            max_notifications: 100,
            queue: 8192,
            hide_token: true,
            hide_messages: false,
            is_ios_enabled: true,
            is_android_enabled: true,
            feedback: None,
            google_project: "local-test".into(),
            providers: Providers::Up,
            apple_delay: Duration::ZERO,
            google_delay: Duration::ZERO,
            google_retries: Duration::from_secs(7),
            dead_prefix: "baddev".into(),
        }
    }
}

/// Where failures are reported.
#[derive(Debug, Clone)]
pub struct Feedback {
    /// An `http://` address.
    pub url: String,
    /// Headers that go with each call.
    pub headers: Vec<(String, String)>,
}

/// Apple and Google as gorush finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Providers {
    /// They answer, and refuse dead tokens.
    Up,
    /// They refuse the connection.
    Down,
}

/// A call of `POST /api/push` as it arrived, and how it was answered.
#[derive(Debug, Clone)]
pub struct Call {
    /// The body's bytes.
    pub body: Bytes,
    /// The value of `Content-Type`, if there was one.
    pub content_type: Option<String>,
    /// When it had arrived whole.
    pub arrived: Instant,
    /// The status that was answered, or would have been but for a fault.
    pub status: u16,
}

impl Call {
    /// The notification objects of the body; none if it holds none.
    pub fn notifications(&self) -> Vec<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["notifications"].as_array().cloned().unwrap_or_default()
    }
}

/// A push that Apple or Google was asked for: one for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// 1 is Apple, 2 is Google.
    pub platform: i64,
    /// The device token, or the topic of a broadcast.
    pub token: String,
    /// The whole notification object.
    pub notification: Value,
    /// Whether the device rang.
    pub has_rung: bool,
}

/// A running double on a port of 127.0.0.1. Dropping it stops it.
#[derive(Debug)]
pub struct Gorush {
    core: Arc<Core>,
    address: SocketAddr,
    server: tokio::sync::Mutex<Option<server::Server>>,
}

/// What the connections of a double share.
#[derive(Debug)]
struct Core {
    settings: Settings,
    fault: Mutex<Option<Fault>>,
    calls: watch::Sender<Vec<Call>>,
    pushes: watch::Sender<Vec<Push>>,
    /// Objects that wait in async mode.
    queued: Mutex<usize>,
    deliveries: tokio_util::task::TaskTracker,
}

impl Gorush {
    /// Starts a double on any free port.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), settings).await
    }

    /// Starts a double at this address.
    pub async fn start_at(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let core = Arc::new(Core {
            settings,
            fault: Mutex::new(None),
            calls: watch::Sender::new(Vec::new()),
            pushes: watch::Sender::new(Vec::new()),
            queued: Mutex::new(0),
            deliveries: tokio_util::task::TaskTracker::new(),
        });
        let server = server::Server::start(address, core.clone()).await?;
        let address = server.local_address();
        Ok(Self { core, address, server: tokio::sync::Mutex::new(Some(server)) })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes every call from now on fail in this way, or none.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.core.fault.lock() = fault;
    }

    /// Closes the port and every connection; what arrived is remembered.
    pub async fn go_down(&self) {
        let server = self.server.lock().await.take();
        if let Some(server) = server {
            server.stop().await;
        }
    }

    /// Opens the same port again.
    pub async fn come_back(&self) -> io::Result<()> {
        let server = server::Server::start(self.address, self.core.clone()).await?;
        *self.server.lock().await = Some(server);
        Ok(())
    }

    /// Every call so far, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.core.calls.borrow().clone()
    }

    /// Every push so far: what devices would have seen.
    pub fn pushes(&self) -> Vec<Push> {
        self.core.pushes.borrow().clone()
    }

    /// Waits until there were so many pushes, and returns all of them. It waits for ever if they do not come.
    pub async fn wait_for_pushes(&self, count: usize) -> Vec<Push> {
        let mut pushes = self.core.pushes.subscribe();
        let found = pushes.wait_for(|pushes| pushes.len() >= count).await;
        found.expect("the double holds the sender").clone()
    }

    /// Waits until everything that was queued has been pushed, and the failures of it were reported.
    pub async fn settle(&self) {
        self.core.deliveries.close();
        self.core.deliveries.wait().await;
        self.core.deliveries.reopen();
    }
}
