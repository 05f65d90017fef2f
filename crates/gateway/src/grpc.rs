//! `GatewayService`: publishing from inside (`poste.gateway.v1`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use poste_rpc::gateway::v1::gateway_service_server::GatewayService;
use poste_rpc::gateway::v1::{PublishRequest, PublishResponse};
use poste_wire::pow::{self, MineError};
use poste_wire::{Envelope, Topic};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::acceptance::Refusal;
use crate::node::{self, Node};
use crate::pool::Pooled;

/// How long a nonce is searched for.
const MINING: Duration = Duration::from_secs(5);
/// How long the archive may take before the caller hears that it is away.
const ARCHIVING: Duration = Duration::from_secs(10);

/// The service on a node.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(pub(crate) Arc<Node>);

#[tonic::async_trait]
impl GatewayService for Publisher {
    /// Returns once the archive or the spool has the envelope: OK is a promise. Peers get it at once, whatever the archive
    /// does.
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let PublishRequest { envelope, mine_to_pow } = request.into_inner();
        let envelope =
            Envelope::decode(envelope).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let node = Arc::clone(&self.0);
        let (envelope, pooled) = tokio::task::spawn_blocking(move || take(&node, envelope, mine_to_pow))
            .await
            .map_err(|_| Status::unavailable("the gateway is stopping"))??;
        // Those that want an envelope which was known got it when it came.
        let peers = if pooled.known { 0 } else { self.0.takers(&envelope, envelope.pow()) };
        match timeout(ARCHIVING, node::outcome(&pooled.receipt)).await {
            Ok(Some(Ok(()))) => Ok(Response::new(PublishResponse {
                hash: envelope.hash().as_bytes().to_vec().into(),
                envelope: envelope.rlp().clone(),
                peers: u32::try_from(peers).unwrap_or(u32::MAX),
                duplicate: pooled.known,
            })),
            Ok(Some(Err(refusal))) => Err(status(refusal)),
            Ok(None) => Err(Status::unavailable("the gateway is stopping; publish again")),
            Err(_) => Err(Status::unavailable(
                "neither the archive nor the spool takes the envelope now: it went to peers and waits; publish again to be sure",
            )),
        }
    }
}

fn take(node: &Node, envelope: Envelope, mine_to_pow: Option<f64>) -> Result<(Envelope, Pooled), Status> {
    let envelope = match mine_to_pow {
        None => envelope,
        Some(target) => mine(&envelope, target)?,
    };
    let pooled = node.take(&envelope, None).map_err(status)?;
    Ok((envelope, pooled))
}

fn mine(envelope: &Envelope, target: f64) -> Result<Envelope, Status> {
    let began = Instant::now();
    let topic: Topic = envelope.topic();
    let too_long = || began.elapsed() > MINING;
    pow::mine(envelope.expiry(), envelope.ttl(), topic, envelope.data(), target, too_long).map_err(|error| {
        match error {
            MineError::Target => Status::invalid_argument(error.to_string()),
            MineError::Stopped => {
                Status::deadline_exceeded("no nonce of that proof of work was found in time")
            }
        }
    })
}

fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::ArchiveFull
        | Refusal::ArchiveOverQuota
        | Refusal::TooManyUnconfirmed
        | Refusal::OverQuota => Status::resource_exhausted(refusal.text()),
        _ => Status::invalid_argument(refusal.text()),
    }
}
