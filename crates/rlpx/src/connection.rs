//! A connection on a stream: the handshakes of both roles ([`dial`], [`accept`]), and then a [`Receiver`] and
//! [`Sender`]s.
//!
//! Everything here runs on tokio and has a limit in time ([`Limits`]). A peer that is turned away is told
//! why, where the protocol has a reason for it, within one second.

mod link;
mod outbox;
mod receiver;
mod sender;
mod writer;

use std::fmt;
use std::time::Duration;

use poste_codec::{PublicKey, SecretKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::{Instant, timeout, timeout_at};

use crate::capability::{Offered, Shared, common};
use crate::disconnect::DisconnectReason;
use crate::error::{Breach, ConnectError};
use crate::hello::{BASE_PROTOCOL_VERSION, Hello};
use crate::{BASE_PROTOCOL_LENGTH, base_id, frame, snappy};
use link::Link;

pub use receiver::{Message, Receiver};
pub use sender::Sender;

/// Who this node is towards its peers.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// The node key.
    pub key: SecretKey,
    /// What Hello calls this software.
    pub client_name: String,
    /// What this node serves. A common capability shifts the message ids of those behind it, so offer only
    /// what is served.
    pub capabilities: Vec<Offered>,
    /// The TCP port that Hello names; 0 for none.
    pub listen_port: u16,
}

impl LocalNode {
    fn hello(&self) -> Hello {
        Hello {
            version: BASE_PROTOCOL_VERSION,
            client_name: self.client_name.clone(),
            capabilities: self.capabilities.iter().map(|offered| offered.capability.clone()).collect(),
            listen_port: self.listen_port,
            node_id: self.key.public().as_bytes().to_vec(),
        }
    }
}

/// Bounds in bytes and time. The defaults are those of Go's devp2p, and 1 MiB for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest message that is read, decompressed, in bytes; at most 16 MiB - 1. A larger one ends the
    /// connection with [`DisconnectReason::SubprotocolError`].
    pub max_message_size: usize,
    /// How many bytes may wait to be sent before [`Sender::send`] waits. A single message above it goes when
    /// the queue is empty.
    pub send_queue_bytes: usize,
    /// For both handshakes together.
    pub handshake_timeout: Duration,
    /// How long a peer may be silent while it is listened to.
    pub idle_timeout: Duration,
    /// How long a frame (small ones are written together, up to 64 KiB) may take to be written.
    pub write_timeout: Duration,
    /// From one Ping of ours to the next.
    pub ping_interval: Duration,
    /// For resolving a name and opening a TCP connection.
    pub dial_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 1 << 20,
            send_queue_bytes: 4 << 20,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(20),
            ping_interval: Duration::from_secs(15),
            dial_timeout: Duration::from_secs(15),
        }
    }
}

impl Limits {
    /// The largest body of a frame that can hold a message of the permitted size.
    fn frame_body(&self) -> usize {
        frame::MAX_ID_SIZE + snappy::max_compressed_len(self.max_message_size)
    }
}

/// How long a goodbye may take: writing it, and waiting for the peer to have read it.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a TCP connection to the node that owns `remote`, and makes both handshakes.
pub async fn dial(
    address: impl ToSocketAddrs,
    remote: &PublicKey,
    node: &LocalNode,
    limits: &Limits,
) -> Result<Connection, ConnectError> {
    let stream = timeout(limits.dial_timeout, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::DialTimeout)?
        .map_err(ConnectError::Unreachable)?;
    stream.set_nodelay(true).map_err(ConnectError::Unreachable)?;
    dial_over(stream, remote, node, limits).await
}

/// Makes both handshakes, as the dialling side, over a stream to the node that owns `remote`.
pub async fn dial_over<S>(
    mut stream: S,
    remote: &PublicKey,
    node: &LocalNode,
    limits: &Limits,
) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if *remote == node.key.public() {
        return Err(Breach::ConnectedToSelf.into());
    }
    let deadline = Instant::now() + limits.handshake_timeout;
    let secrets = timeout_at(deadline, link::initiate(&mut stream, &node.key, remote))
        .await
        .map_err(|_| ConnectError::HandshakeTimeout)??;
    let incoming = Incoming {
        link: Link::new(stream, secrets),
        remote: *remote,
        node: node.clone(),
        limits: limits.clone(),
        deadline,
    };
    incoming.finish().await
}

/// Answers a handshake on a stream that was accepted. (On TCP set `nodelay` first: Pings are small.)
pub async fn accept<S>(mut stream: S, node: &LocalNode, limits: &Limits) -> Result<Incoming, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let deadline = Instant::now() + limits.handshake_timeout;
    let (remote, secrets) = timeout_at(deadline, link::respond(&mut stream, &node.key))
        .await
        .map_err(|_| ConnectError::HandshakeTimeout)??;
    Ok(Incoming {
        link: Link::new(stream, secrets),
        remote,
        node: node.clone(),
        limits: limits.clone(),
        deadline,
    })
}

/// A peer whose handshake was answered and that has not been sent Hello: the moment to turn it away.
pub struct Incoming {
    link: Link,
    remote: PublicKey,
    node: LocalNode,
    limits: Limits,
    deadline: Instant,
}

impl Incoming {
    /// The key that the peer claims. It is proven only when [`finish`](Self::finish) succeeds (the first
    /// frame with a right MAC proves it): enough to refuse a peer, not enough to end another connection in
    /// its favour.
    pub fn remote(&self) -> &PublicKey {
        &self.remote
    }

    /// Exchanges Hello. The peer's must come within what is left of the handshake timeout.
    pub async fn finish(mut self) -> Result<Connection, ConnectError> {
        let exchanged = timeout_at(self.deadline, self.exchange_hello()).await;
        let error = match exchanged {
            Ok(Ok((hello, shared))) => {
                self.link.set_limit(self.limits.frame_body());
                let Self { link, remote, limits, .. } = self;
                return Ok(Connection { link, remote, hello, shared, limits });
            }
            Ok(Err(error)) => error,
            Err(_) => return Err(ConnectError::HandshakeTimeout),
        };
        if let Some(reason) = error.reason() {
            self.link.farewell(reason).await;
        }
        Err(error)
    }

    /// Turns the peer away: Disconnect in place of Hello. Takes at most one second.
    pub async fn reject(mut self, reason: DisconnectReason) {
        self.link.farewell(reason).await;
    }

    async fn exchange_hello(&mut self) -> Result<(Hello, Vec<Shared>), ConnectError> {
        if self.remote == self.node.key.public() {
            return Err(Breach::ConnectedToSelf.into());
        }
        let frame = self.link.exchange_first(&self.node.hello().encode()).await?;
        let hello = match frame.id {
            base_id::HELLO => Hello::decode(&frame.payload)?,
            base_id::DISCONNECT => {
                return Err(ConnectError::Disconnected(DisconnectReason::decode(&frame.payload)));
            }
            id => return Err(Breach::ExpectedHello { id }.into()),
        };
        if hello.speaks_snappy() {
            self.link.enable_snappy();
        }
        hello.check_identity(&self.remote)?;
        let shared = common(&self.node.capabilities, &hello.capabilities);
        if shared.is_empty() {
            return Err(Breach::UselessPeer.into());
        }
        Ok((hello, shared))
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

/// A connection after both handshakes. Nothing is read or sent until it is [`split`](Self::split).
pub struct Connection {
    link: Link,
    remote: PublicKey,
    hello: Hello,
    shared: Vec<Shared>,
    limits: Limits,
}

impl Connection {
    /// The peer's proven key.
    pub fn remote(&self) -> &PublicKey {
        &self.remote
    }

    /// What the peer said about itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The common capabilities, at least one; messages name them by their index here.
    pub fn shared(&self) -> &[Shared] {
        &self.shared
    }

    /// Starts the connection: spawns the task that writes, on the current tokio runtime. The connection lives
    /// as long as its Receiver; the task ends with it.
    pub fn split(self) -> (Receiver, Sender) {
        receiver::start(self)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// Whether an id is the base protocol's.
fn is_base(id: u32) -> bool {
    id < BASE_PROTOCOL_LENGTH
}

#[cfg(test)]
mod tests;
