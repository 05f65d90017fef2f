//! A peer asks for mail (8/WAKU-MAIL as deployed): the request is opened and checked, a page is delivered, and packet
//! 125 says how it ended. One request at a time; every request that has an id is answered.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use poste_rlpx::DisconnectReason;
use poste_waku::{Outbound, SendError};
use poste_wire::mail::{
    DirectRequest, MailRequest, MailRequestPacket, Refusal, RequestForm, RequestKeys, ValidRequest,
    open_request,
};
use poste_wire::packet::{Completion, bundles};
use poste_wire::{Dialect, Envelope, Hash, Packet, Topic};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::intake::INLINE_BYTES;
use crate::mailserver::{DeliveryError, Mailbox, PeerGone};
use crate::node::Node;
use crate::peers::Peer;

/// How long a peer may take to make room for one packet of mail.
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest request, in bytes. One with 10,000 topics has about 51,000; what waits must not fill our memory.
const MAX_REQUEST_BYTES: usize = 128 * 1024;

/// A request as it came in.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) dialect: Dialect,
    pub(super) packet: MailRequestPacket,
}

impl Request {
    /// Whether it is larger than any request has to be.
    pub(super) fn is_too_large(&self) -> bool {
        let bytes = match &self.packet {
            MailRequestPacket::Sealed(envelope) => envelope.rlp().len(),
            MailRequestPacket::Direct(DirectRequest { request, .. }) => {
                request.bloom.len() + request.cursor.len() + request.topics.len() * Topic::LENGTH
            }
        };
        bytes > MAX_REQUEST_BYTES
    }
}

/// Why a request is turned away before it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum TurnedAway {
    /// Too many of the same peer wait.
    TooMany,
    /// It is too large.
    TooLarge,
}

/// Answers a peer's requests, one after another. When one cannot be answered the connection ends, so that nobody waits
/// in vain.
pub(super) async fn run(
    node: Arc<Node>,
    peer: Arc<Peer>,
    outbound: Outbound,
    mut requests: mpsc::Receiver<Request>,
) {
    while let Some(request) = requests.recv().await {
        let Some(completion) = answer(&node, &peer, &outbound, &request).await else {
            outbound.disconnect(DisconnectReason::Requested);
            return;
        };
        if complete(&outbound, request.dialect, completion).await.is_err() {
            return;
        }
    }
}

/// Refuses a request unseen.
pub(super) async fn turn_away(node: &Node, outbound: &Outbound, request: &Request, why: TurnedAway) {
    let (outcome, error) = match why {
        TurnedAway::TooMany => ("too_many", "too many requests wait for an answer"),
        TurnedAway::TooLarge => ("too_large", "request is invalid: it is too large"),
    };
    node.metrics.mail_request(outcome);
    let completion = Completion::Failed { request_id: request.packet.request_id(), error: error.to_owned() };
    // It fails only when the connection has ended, which the reader is about to see.
    let _ = complete(outbound, request.dialect, completion).await;
}

async fn complete(outbound: &Outbound, dialect: Dialect, completion: Completion) -> Result<(), SendError> {
    outbound.send(dialect, &Packet::MailComplete(completion)).await
}

/// Delivers what is asked for and says how it ended; nothing when the peer has gone.
async fn answer(node: &Arc<Node>, peer: &Peer, outbound: &Outbound, request: &Request) -> Option<Completion> {
    let request_id = request.packet.request_id();
    let failed = |error: String| Some(Completion::Failed { request_id, error });
    let valid = match open(node, peer, &request.packet).await? {
        Ok(valid) => valid,
        Err(refusal) => {
            debug!(%refusal, "a request for mail is refused");
            node.metrics.mail_request(refusal.label());
            return failed(refusal.to_string());
        }
    };
    let mailbox = PeerMailbox {
        node,
        outbound,
        dialect: request.dialect,
        one_by_one: !valid.batch || valid.form == RequestForm::Binary,
    };
    match node.mail.deliver_mail(&mailbox, &valid).await {
        Ok(delivered) => {
            node.metrics.mail_request("delivered");
            Some(Completion::Done {
                request_id,
                last_hash: delivered.last.unwrap_or(Hash::default()),
                cursor: delivered.cursor,
            })
        }
        Err(DeliveryError::PeerGone(PeerGone)) => {
            node.metrics.mail_request("peer_gone");
            None
        }
        Err(error) => {
            node.metrics.mail_request(match error {
                DeliveryError::Unavailable => "archive_unavailable",
                DeliveryError::Incomplete => "incomplete",
                _ => "archive_refused",
            });
            failed(error.to_string())
        }
    }
}

/// Opens and checks a request. None: the process is stopping.
async fn open(
    node: &Arc<Node>,
    peer: &Peer,
    packet: &MailRequestPacket,
) -> Option<Result<ValidRequest, Refusal>> {
    let read = match packet {
        MailRequestPacket::Sealed(envelope) if envelope.size() > INLINE_BYTES => {
            let (node, envelope) = (Arc::clone(node), envelope.clone());
            tokio::task::spawn_blocking(move || unseal(&node, &envelope)).await.ok()?
        }
        MailRequestPacket::Sealed(envelope) => unseal(node, envelope),
        MailRequestPacket::Direct(direct) => Ok((direct.request.clone(), RequestForm::Direct)),
    };
    let valid = read.and_then(|(request, form)| request.validate(form, node.now()));
    Some(valid.and_then(|valid| {
        let admitted = node.mail_spacing.admit(&peer.key, node.clock.now());
        admitted.then_some(valid).ok_or(Refusal::RateLimited)
    }))
}

/// Hashes and decrypts the request's envelope.
fn unseal(node: &Node, envelope: &Envelope) -> Result<(MailRequest, RequestForm), Refusal> {
    let keys = RequestKeys { password: Some(&node.mail_key), node: None };
    let opened = open_request(envelope, keys, node.rules.min_pow)?;
    Ok(MailRequest::decode(&opened.payload)?)
}

/// Mail on its way to a peer, in packets that it reads.
struct PeerMailbox<'a> {
    node: &'a Node,
    outbound: &'a Outbound,
    dialect: Dialect,
    /// One envelope a packet: for requests that say so, and for go-ethereum.
    one_by_one: bool,
}

impl Mailbox for PeerMailbox<'_> {
    fn send<'a>(&'a self, envelopes: &'a [Envelope]) -> BoxFuture<'a, Result<(), PeerGone>> {
        async move {
            let packets = if self.one_by_one {
                envelopes.chunks(1).collect()
            } else {
                bundles(envelopes, self.node.rules.max_message_size)
            };
            for bundle in packets {
                let packet = Packet::MailMessages(bundle.to_vec());
                match timeout(BUNDLE_TIMEOUT, self.outbound.send(self.dialect, &packet)).await {
                    Ok(Ok(())) => self.node.metrics.mailed(bundle.len()),
                    Ok(Err(_)) | Err(_) => return Err(PeerGone),
                }
            }
            Ok(())
        }
        .boxed()
    }
}
