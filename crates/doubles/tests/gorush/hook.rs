//! The other end of the feedback: a server that writes down what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use parking_lot::Mutex;
use poste_doubles::gorush::Feedback;
use tokio::net::TcpListener;

/// A call of the hook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// A hook and what it was told. Its task ends with the test's runtime.
pub(crate) struct Hook {
    told: Arc<Mutex<Vec<Told>>>,
    pub(crate) feedback: Feedback,
}

impl Hook {
    pub(crate) async fn start(headers: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let told = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new().route("/hook", post(write_down)).with_state(told.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { told, feedback: Feedback { url, headers } }
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }
}

async fn write_down(State(told): State<Arc<Mutex<Vec<Told>>>>, headers: HeaderMap, body: String) {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    told.lock().push(Told { headers, body });
}
