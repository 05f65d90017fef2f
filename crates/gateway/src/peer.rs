//! The life of one peer: its session from Status to the end, and the three tasks beside its reader that send to it:
//! relayed envelopes, confirmations, and mail. The reader does not wait for them, so Ping is answered however long a
//! delivery takes; only a refusal that it gives itself waits for room on the connection.

mod confirm;
mod intake;
mod mail;
mod relay;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use poste_rlpx::{Connection, DisconnectReason};
use poste_waku::{Event, Session, SessionError};
use poste_wire::packet::code;
use poste_wire::{Dialect, Packet};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::node::Node;
use crate::peers::{Peer, Seat, Wants, add};
use confirm::Batches;
use mail::TurnedAway;

/// How long a peer may take to send its Status.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);
/// How long the connection's last words may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Packets that cannot be read, before the peer has to go.
const MAX_UNDECODABLE: u32 = 20;
/// Mail requests of one peer that wait for those before them.
const MAX_WAITING_REQUESTS: usize = 16;

/// Serves a connected peer until it leaves, it has to go, or `stop`.
pub(crate) async fn serve(
    node: Arc<Node>,
    connection: Connection,
    address: SocketAddr,
    inbound: bool,
    counts: bool,
    stop: CancellationToken,
) {
    let hello = connection.hello();
    let peer = Peer::new(*connection.remote(), address, hello.client_name.clone(), inbound, node.clock.now());
    let seat = match node.peers.seat(peer, counts) {
        Ok(seat) => seat,
        // It connected twice, or others took the last seats, while the handshakes went on.
        Err(reason) => {
            node.metrics.connection_refused("late");
            let (receiver, sender) = connection.split();
            sender.disconnect(reason);
            drop(receiver);
            sender.closed().await;
            return;
        }
    };
    let opened = tokio::select! {
        opened = Session::open(connection, node.status(), STATUS_PATIENCE) => opened,
        () = stop.cancelled() => return,
    };
    let cause = match opened {
        Err(error) => error.label(),
        Ok(session) => Reader::start(&node, &seat, session).run(stop).await,
    };
    debug!(cause, "a session ended");
    node.metrics.session_ended(cause);
}

/// Reads a peer's packets and hands them to where they belong.
struct Reader<'a> {
    node: &'a Arc<Node>,
    seat: &'a Seat,
    session: Session,
    batches: Batches,
    requests: mpsc::Sender<mail::Request>,
    undecodable: u32,
    /// Ends with the reader.
    tasks: JoinSet<()>,
}

impl<'a> Reader<'a> {
    fn start(node: &'a Arc<Node>, seat: &'a Seat, session: Session) -> Self {
        let outbound = session.outbound();
        let (batches, confirming) = confirm::channel(outbound.clone());
        let (requests, waiting) = mpsc::channel(MAX_WAITING_REQUESTS);
        let mut tasks = JoinSet::new();
        tasks.spawn(confirming.run());
        tasks.spawn(relay::run(Arc::clone(node), seat.slot, Arc::clone(&seat.peer), outbound.clone()));
        tasks.spawn(mail::run(Arc::clone(node), Arc::clone(&seat.peer), outbound.clone(), waiting));
        seat.begin_marking();
        let reader = Self { node, seat, session, batches, requests, undecodable: 0, tasks };
        reader.show_wants();
        reader
    }

    /// Until the end; says the cause.
    async fn run(mut self, stop: CancellationToken) -> &'static str {
        loop {
            let outcome = tokio::select! {
                outcome = self.step() => outcome,
                () = stop.cancelled() => {
                    self.session.outbound().disconnect(DisconnectReason::Quitting);
                    self.farewell().await;
                    return "stopped";
                }
            };
            if let Err(error) = outcome {
                self.farewell().await;
                return error.label();
            }
            if self.undecodable > MAX_UNDECODABLE {
                self.session.outbound().disconnect(DisconnectReason::SubprotocolError);
                self.farewell().await;
                return "too_many_undecodable";
            }
        }
    }

    /// Takes the next thing that the peer says. Waits while an answer that it causes has no room.
    async fn step(&mut self) -> Result<(), SessionError> {
        let event = self.session.next().await?;
        self.take(event).await;
        Ok(())
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Ready(_) | Event::Settings(_) => self.show_wants(),
            Event::Packet(dialect, packet) => self.take_packet(dialect, packet).await,
            Event::Undecodable { code, error, .. } => {
                debug!(code, %error, "a packet cannot be read");
                self.undecodable += 1;
                self.node.metrics.undecodable_packet();
                if code == code::MAIL_REQUEST {
                    self.node.metrics.mail_request("undecodable");
                }
            }
            Event::Ignored { .. } => self.node.metrics.ignored_packet(),
        }
    }

    async fn take_packet(&mut self, dialect: Dialect, packet: Packet) {
        match packet {
            Packet::Messages(messages) => {
                add(&self.seat.peer.envelopes_in, messages.envelopes.len());
                let taken = intake::take(self.node, self.seat, dialect, messages, &self.batches).await;
                if let Some(batch) = taken {
                    self.batches.confirm(self.node, batch).await;
                }
            }
            Packet::MailRequest(packet) => {
                add(&self.seat.peer.mail_requests, 1);
                self.take_request(mail::Request { dialect, packet }).await;
            }
            // Mail that nobody here asked for, confirmations of what was relayed, and the sync of mailservers.
            Packet::BatchAcknowledged(_) | Packet::MessageResponse(_) => {}
            _ => self.node.metrics.ignored_packet(),
        }
    }

    async fn take_request(&mut self, request: mail::Request) {
        let outbound = self.session.outbound();
        if request.is_too_large() {
            return mail::turn_away(self.node, outbound, &request, TurnedAway::TooLarge).await;
        }
        match self.requests.try_send(request) {
            Ok(()) => {}
            Err(TrySendError::Full(request)) => {
                mail::turn_away(self.node, outbound, &request, TurnedAway::TooMany).await;
            }
            // Nobody answers requests any more: better no connection than one that is silent.
            Err(TrySendError::Closed(_)) => outbound.disconnect(DisconnectReason::Requested),
        }
    }

    /// Tells the forwarder, and whoever lists peers, what the peer wants now.
    fn show_wants(&self) {
        let wants = self
            .session
            .best()
            .map(|(dialect, peer)| Wants { dialect, settings: Arc::new(peer.settings.clone()) });
        self.seat.peer.wants.send_replace(wants);
    }

    async fn farewell(&mut self) {
        // To their very end: nothing of this peer may mark envelopes once its slot is free.
        self.tasks.shutdown().await;
        // Hands over the reading half, so that what is under way can be drained and the peer sees the reason. Whatever
        // happens, the connection ends when the session is dropped.
        let outbound = self.session.outbound().clone();
        let last_words = async {
            while self.session.next().await.is_ok() {}
            outbound.closed().await;
        };
        let _ = tokio::time::timeout(FAREWELL, last_words).await;
    }
}
