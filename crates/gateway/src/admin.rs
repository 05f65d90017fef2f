//! `GatewayAdminService`: what operators see (`poste.gateway.v1`). It belongs on a listener of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use poste_rlpx::Enode;
use poste_rpc::gateway::v1::gateway_admin_service_server::GatewayAdminService;
use poste_rpc::gateway::v1::{
    NodeInfoRequest, NodeInfoResponse, Peer as PeerInfo, PeersRequest, PeersResponse,
};
use poste_wire::Bloom;
use poste_wire::packet::Interest;
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::peers::Peer;

/// The service on a node.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) node: Arc<Node>,
    /// As it is advertised.
    pub(crate) enode: String,
}

#[tonic::async_trait]
impl GatewayAdminService for Admin {
    async fn node_info(&self, _: Request<NodeInfoRequest>) -> Result<Response<NodeInfoResponse>, Status> {
        let node = &self.node;
        let (pool_envelopes, pool_bytes) = node.pool.size();
        let waiting = node.mail.waiting();
        Ok(Response::new(NodeInfoResponse {
            enode: self.enode.clone(),
            node_id: node.local.key.public().node_id().to_vec().into(),
            client_name: node.local.client_name.clone(),
            capabilities: node.local.capabilities.iter().map(|offer| offer.capability.to_string()).collect(),
            min_pow: node.rules.min_pow,
            max_message_size: u32::try_from(node.rules.max_message_size).unwrap_or(u32::MAX),
            peers: count(node.peers.count()),
            max_peers: count(node.peers.max()),
            pool_envelopes: pool_envelopes as u64,
            pool_bytes: pool_bytes as u64,
            pending_envelopes: waiting.count as u64,
            pending_bytes: waiting.bytes as u64,
            archive_reachable: waiting.connected,
        }))
    }

    async fn peers(&self, _: Request<PeersRequest>) -> Result<Response<PeersResponse>, Status> {
        let peers = self.node.peers.all();
        let peers = peers.iter().map(|(_, peer)| info(&self.node, peer)).collect();
        Ok(Response::new(PeersResponse { peers }))
    }
}

fn info(node: &Node, peer: &Peer) -> PeerInfo {
    let wants = peer.wants.borrow().clone();
    let settings = wants.as_ref().map(|wants| &wants.settings);
    PeerInfo {
        enode: Enode::new(peer.key, peer.address.ip().to_string(), peer.address.port()).to_string(),
        client_name: peer.client_name.clone(),
        capability: wants.as_ref().map(|wants| wants.dialect.to_string()).unwrap_or_default(),
        inbound: peer.inbound,
        connected_seconds: node.clock.now().saturating_sub(peer.connected_at).as_secs(),
        min_pow: settings.map_or(0.0, |settings| settings.pow_requirement),
        light: settings.is_some_and(|settings| settings.light),
        full_node: settings.is_some_and(|settings| settings.interest == Interest::Bloom(Bloom::FULL)),
        envelopes_in: peer.envelopes_in.load(Ordering::Relaxed),
        envelopes_out: peer.envelopes_out.load(Ordering::Relaxed),
        mail_requests: peer.mail_requests.load(Ordering::Relaxed),
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
