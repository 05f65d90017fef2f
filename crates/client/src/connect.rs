//! Connecting to a node as any node does, without asking to be relayed to.

use std::time::Duration;

use poste_codec::SecretKey;
use poste_rlpx::{Enode, Limits, LocalNode};
use poste_waku::Session;
use poste_wire::packet::{Options, RateLimits};
use poste_wire::{Bloom, Dialect, Topic};
use rand::Rng;

use crate::ClientError;

/// How long a node may take to say its Status.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// Who connects, and which envelopes it wants to be relayed.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The node key; a node allows one connection for each.
    pub key: SecretKey,
    /// The topics to be relayed; none wants nothing, `None` wants everything.
    pub topics: Option<Vec<Topic>>,
}

impl ConnectOptions {
    /// A fresh key, and nothing relayed.
    pub fn quiet() -> Self {
        Self { key: SecretKey::random(|bytes| rand::rng().fill_bytes(bytes)), topics: Some(Vec::new()) }
    }

    /// A fresh key, and envelopes of these topics relayed; no topic stands for all.
    pub fn listening(topics: Vec<Topic>) -> Self {
        Self { topics: Some(topics).filter(|topics| !topics.is_empty()), ..Self::quiet() }
    }
}

/// Connects and exchanges Status.
pub async fn connect(enode: &Enode, options: &ConnectOptions) -> Result<Session, ClientError> {
    let node = LocalNode {
        key: options.key.clone(),
        client_name: concat!("poste-client/v", env!("CARGO_PKG_VERSION")).to_owned(),
        capabilities: [Dialect::Waku1, Dialect::Shh6].into_iter().map(poste_waku::offered).collect(),
        listen_port: 0,
    };
    let endpoint = enode.endpoint.as_ref().ok_or(ClientError::NoEndpoint)?;
    let connection = poste_rlpx::dial(endpoint.address(), &enode.key, &node, &Limits::default()).await?;
    Ok(Session::open(connection, status(options.topics.as_deref()), STATUS_PATIENCE).await?)
}

/// Waku nodes go by the topics, Whisper nodes by the filter.
fn status(topics: Option<&[Topic]>) -> Options {
    let bloom = topics.map_or(Bloom::FULL, |topics| Bloom::of_topics(topics.iter().copied()));
    Options {
        pow_requirement: Some(0.0),
        bloom: Some(bloom),
        light: Some(false),
        confirmations: Some(false),
        packet_limits: Some(RateLimits::default()),
        topic_interest: topics.map(<[Topic]>::to_vec),
        byte_limits: None,
    }
}
