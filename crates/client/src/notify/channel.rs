//! The way to the network: messages on topics, live and from stored history. This one goes through a Waku v1 or Whisper
//! node; whoever uses it sees topics and frames only.
//!
//! Live messages and history may bring the same message twice, and a node may bring one back: receivers have to bear that.
//! A connection that has ended is opened anew by the next call; what was published in between is in history only.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use poste_rlpx::Enode;
use poste_waku::mail::Sealer;
use poste_waku::{Event, SendError, Session};
use poste_wire::mail::MAX_TOPICS;
use poste_wire::packet::{EnvelopeFault, MAX_TOPIC_INTEREST, MessageResponse, Messages, Options};
use poste_wire::{Bloom, Dialect, Envelope, Hash, Packet, Topic, password_key, pow};
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};

use super::Mail;
use crate::{ClientError, ConnectOptions, Fetch, Fetched, unix_now};

/// For how long nodes relay what is published, in seconds: as long as the deployed clients have it.
const TTL: u32 = 15;
/// The least proof of work of deployed clients, and of what is too large for that.
const MIN_POW: f64 = 0.002;
const MIN_POW_LARGE: f64 = 0.000_002;
/// From how many bytes on a frame is large.
const LARGE: usize = 50_000;
/// How long a nonce is searched for.
const MINING: Duration = Duration::from_secs(5);
/// The longest frame: with what is around it, it fits into a packet of 1 MiB.
const MAX_FRAME: usize = 1024 * 1024 - 40;
/// What may wait to be taken while the channel publishes, in bytes and messages; the oldest are dropped.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
const MAX_WAITING: usize = 10_000;
/// How far senders' clocks may be ahead.
const CLOCK_TOLERANCE_SECONDS: u32 = 60;
/// How long connecting and the handshakes may take altogether.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Envelopes on a page of history.
const PAGE_SIZE: u32 = 500;

/// How to reach the network.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// The node to go through.
    pub enode: Enode,
    /// The password of its mailserver, for history.
    pub mail_password: String,
    /// How long the node may take to confirm what is published, and be silent in the middle of history.
    pub patience: Duration,
    /// How long a history may take altogether: a node that sends a little from time to time, and that for ever, is not
    /// silent.
    pub history_patience: Duration,
}

impl ChannelOptions {
    /// Through this node, with the deployed network's (public) mail password, 10 s of patience, and 5 minutes for a
    /// history.
    pub fn new(enode: Enode) -> Self {
        Self {
            enode,
            mail_password: "status-offline-inbox".to_owned(),
            patience: Duration::from_secs(10),
            history_patience: Duration::from_secs(300),
        }
    }
}

/// What is known about a frame that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The node says that it has it.
    Confirmed,
    /// The node has it if nothing went wrong: it confirms nothing.
    Unconfirmed,
}

/// Why the network could not be used.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The connection, or history.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node does not take the frame.
    #[error("the node refuses the message: {0}")]
    Refused(String),
    /// The node was silent. It may have taken the frame.
    #[error("the node has not confirmed the message in time")]
    Silent,
    /// Longer than nodes take.
    #[error("a message of {0} bytes fits into no packet")]
    TooLong(usize),
    /// More topics than nodes take.
    #[error("{0} topics are more than a node relays at a time")]
    TooManyTopics(usize),
}

impl ChannelError {
    /// Whether another connection could help.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Client(_) | Self::Silent)
    }
}

impl From<poste_waku::SessionError> for ChannelError {
    fn from(error: poste_waku::SessionError) -> Self {
        Self::Client(error.into())
    }
}

impl From<SendError> for ChannelError {
    fn from(error: SendError) -> Self {
        Self::Client(error.into())
    }
}

/// A connection to the network, on which nobody can tell who we are: its node key is made for it alone.
#[derive(Debug)]
pub struct Channel {
    options: ChannelOptions,
    session: Session,
    /// Whether the session has ended.
    ended: bool,
    topics: BTreeSet<Topic>,
    /// Whether the node was told of these topics.
    is_told: bool,
    waiting: Waiting,
    /// Made when history is asked for the first time.
    sealer: Option<Sealer>,
}

impl Channel {
    /// Connects. Nothing is received before [`Self::subscribe`].
    ///
    /// # Errors
    /// [`ChannelError::Client`] when there is no connection.
    pub async fn connect(options: ChannelOptions) -> Result<Self, ChannelError> {
        let session = open(&options, &BTreeSet::new()).await?;
        Ok(Self {
            options,
            session,
            ended: false,
            topics: BTreeSet::new(),
            is_told: true,
            waiting: Waiting::default(),
            sealer: None,
        })
    }

    /// Receives what is published on these topics, too, from now on and as far as the node still relays it. Where there
    /// is no connection, the next one begins with them.
    ///
    /// # Errors
    /// [`ChannelError::TooManyTopics`], or there is no connection.
    pub async fn subscribe(&mut self, topics: impl IntoIterator<Item = Topic>) -> Result<(), ChannelError> {
        let mut wanted = self.topics.clone();
        wanted.extend(topics);
        if wanted.len() > MAX_TOPIC_INTEREST {
            return Err(ChannelError::TooManyTopics(wanted.len()));
        }
        self.want(wanted).await
    }

    /// Receives nothing on these topics any more.
    ///
    /// # Errors
    /// When there is no connection; the next one begins without them.
    pub async fn unsubscribe(&mut self, topics: impl IntoIterator<Item = Topic>) -> Result<(), ChannelError> {
        let mut wanted = self.topics.clone();
        for topic in topics {
            wanted.remove(&topic);
        }
        self.want(wanted).await
    }

    /// Publishes a frame, and waits until the node confirms that it has it. What comes meanwhile waits for
    /// [`Self::next`].
    ///
    /// # Errors
    /// After [`ChannelError::Silent`] and [`ChannelError::Client`] it may have been published all the same.
    pub async fn publish(&mut self, topic: Topic, frame: impl Into<Bytes>) -> Result<Delivery, ChannelError> {
        let frame: Bytes = frame.into();
        if frame.len() > MAX_FRAME {
            return Err(ChannelError::TooLong(frame.len()));
        }
        self.revive().await?;
        let sent = self.send(topic, frame).await;
        self.ended |= sent.as_ref().is_err_and(ChannelError::is_connection);
        sent
    }

    async fn send(&mut self, topic: Topic, frame: Bytes) -> Result<Delivery, ChannelError> {
        let (dialect, peer) = self.session.best().ok_or(ClientError::Invalid("the session is not ready"))?;
        let (confirms, asked) = (peer.settings.confirmations, peer.settings.pow_requirement);
        let envelope = envelope(topic, frame, asked).await?;
        let hash = envelope.hash();
        let messages = Messages::new(vec![envelope]);
        let batch = messages.batch_hash;
        let deadline = Instant::now() + self.options.patience;
        timeout_at(deadline, self.session.outbound().send(dialect, &Packet::Messages(messages)))
            .await
            .map_err(|_| ChannelError::Silent)??;
        if confirms {
            timeout_at(deadline, self.confirmed(batch, hash)).await.map_err(|_| ChannelError::Silent)??;
            return Ok(Delivery::Confirmed);
        }
        timeout_at(deadline, self.session.outbound().flush()).await.map_err(|_| ChannelError::Silent)??;
        Ok(Delivery::Unconfirmed)
    }

    /// The next message on a subscribed topic. Cancel safe.
    ///
    /// # Errors
    /// When the connection has ended, or none is to be had.
    pub async fn next(&mut self) -> Result<Mail, ChannelError> {
        loop {
            if let Some(message) = self.waiting.take() {
                return Ok(message);
            }
            self.revive().await?;
            let event = self.session.next().await.inspect_err(|_| self.ended = true)?;
            self.hear(event);
        }
    }

    /// Hands what was published on these topics since then (unix seconds), and is stored, to `take`. Says why that may
    /// not be everything. Live messages wait meanwhile.
    ///
    /// # Errors
    /// [`ChannelError::TooManyTopics`], or there is no connection.
    pub async fn history(
        &mut self,
        topics: &[Topic],
        since: u32,
        mut take: impl FnMut(Mail),
    ) -> Result<Option<String>, ChannelError> {
        if topics.len() > MAX_TOPICS {
            return Err(ChannelError::TooManyTopics(topics.len()));
        }
        if topics.is_empty() {
            return Err(ClientError::Invalid("history of no topic").into());
        }
        // A connection of its own: whoever waits for mail drops what is relayed.
        let options = ConnectOptions::quiet();
        let key = match self.sealer.take() {
            Some(sealer) => sealer.key,
            None => {
                let password = self.options.mail_password.clone();
                let deriving = tokio::task::spawn_blocking(move || password_key(&password));
                deriving.await.map_err(|_| ClientError::Stopping)?
            }
        };
        let sealer = self.sealer.insert(Sealer { key, signer: options.key.clone() });
        // Senders' clocks may be ahead of ours.
        let until = unix_now().saturating_add(CLOCK_TOLERANCE_SECONDS).max(since);
        let fetch = Fetch {
            sealer: sealer.clone(),
            topics: topics.to_vec(),
            since,
            until,
            page_size: PAGE_SIZE,
            silence: self.options.patience,
        };
        let patience = self.options.history_patience;
        let fetching = async {
            let mut session = crate::connect(&self.options.enode, &options).await?;
            crate::fetch(&mut session, &fetch, |envelope| take(mail(&envelope))).await
        };
        Ok(match timeout(patience, Box::pin(fetching)).await {
            Ok(fetched) => {
                let Fetched { complete, reason, .. } = fetched?;
                (!complete).then_some(reason)
            }
            Err(_) => Some(format!("the node has not come to an end within {} s", patience.as_secs())),
        })
    }

    /// Connects anew where the connection has ended.
    async fn revive(&mut self) -> Result<(), ChannelError> {
        if self.ended {
            self.session = open(&self.options, &self.topics).await?;
            self.is_told = true;
            self.ended = false;
        }
        Ok(())
    }

    async fn want(&mut self, topics: BTreeSet<Topic>) -> Result<(), ChannelError> {
        self.waiting.keep(&topics);
        if topics != self.topics {
            self.topics = topics;
            self.is_told = false;
        }
        // A connection that died while nobody listened is noticed here, and then replaced.
        self.hear_what_came().await;
        if !self.is_told && !self.ended {
            self.is_told = self.tell_topics().await.is_ok();
            self.ended = !self.is_told;
        }
        self.revive().await
    }

    /// Without waiting for more; also that the connection has ended.
    async fn hear_what_came(&mut self) {
        while !self.ended {
            let polled = {
                let mut next = pin!(self.session.next());
                poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await
            };
            match polled {
                Poll::Pending => return,
                Poll::Ready(Ok(event)) => self.hear(event),
                Poll::Ready(Err(_)) => self.ended = true,
            }
        }
    }

    /// Tells every lane that there is, also where the node has not said its Status yet: it goes by its best one.
    async fn tell_topics(&mut self) -> Result<(), SendError> {
        let outbound = self.session.outbound();
        for dialect in Dialect::ALL {
            let packet = if dialect.is_waku() {
                let topic_interest = Some(self.topics.iter().copied().collect());
                Packet::StatusUpdate(Options { topic_interest, ..Options::default() })
            } else {
                Packet::BloomFilter(Bloom::of_topics(self.topics.iter().copied()))
            };
            match outbound.send(dialect, &packet).await {
                Err(SendError::NoLane(_)) => {}
                sent => sent?,
            }
        }
        Ok(())
    }

    async fn confirmed(&mut self, batch: Hash, envelope: Hash) -> Result<(), ChannelError> {
        let mut fault = None;
        loop {
            match self.session.next().await? {
                Event::Packet(_, Packet::MessageResponse(MessageResponse { batch_hash, faults }))
                    if batch_hash == batch =>
                {
                    let ours = faults.into_iter().find(|fault| fault.hash == envelope);
                    fault = fault.or(ours.map(|EnvelopeFault { description, .. }| description));
                }
                Event::Packet(_, Packet::BatchAcknowledged(hash)) if hash == batch => {
                    return fault.map_or(Ok(()), |fault| Err(ChannelError::Refused(fault)));
                }
                event => self.hear(event),
            }
        }
    }

    fn hear(&mut self, event: Event) {
        if let Event::Packet(_, Packet::Messages(Messages { envelopes, .. })) = event {
            // A bloom filter lets others through.
            let wanted = envelopes.iter().filter(|envelope| self.topics.contains(&envelope.topic()));
            wanted.for_each(|envelope| self.waiting.put(mail(envelope)));
        }
    }
}

async fn open(options: &ChannelOptions, topics: &BTreeSet<Topic>) -> Result<Session, ChannelError> {
    let mut connect = ConnectOptions::quiet();
    connect.topics = Some(topics.iter().copied().collect());
    let session = timeout(CONNECT_PATIENCE, Box::pin(crate::connect(&options.enode, &connect)));
    Ok(session.await.map_err(|_| ChannelError::Silent)??)
}

async fn envelope(topic: Topic, frame: Bytes, asked: f64) -> Result<Envelope, ClientError> {
    let least = if frame.len() > LARGE { MIN_POW_LARGE } else { MIN_POW };
    let target = asked.max(least);
    let mining = tokio::task::spawn_blocking(move || {
        let began = std::time::Instant::now();
        let expiry = unix_now().saturating_add(TTL);
        pow::mine(expiry, TTL, topic, &frame, target, || began.elapsed() > MINING)
    });
    Ok(mining.await.map_err(|_| ClientError::Stopping)??)
}

/// In an allocation of its own: a slice would keep the whole packet that it came in, whatever is counted of it.
fn mail(envelope: &Envelope) -> Mail {
    let data = Bytes::copy_from_slice(envelope.data());
    Mail { topic: envelope.topic(), data, made_at: envelope.sent() }
}

/// What came and was not taken yet.
#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Mail>,
    bytes: usize,
}

impl Waiting {
    fn put(&mut self, message: Mail) {
        self.bytes += message.data.len();
        self.messages.push_back(message);
        while self.bytes > MAX_WAITING_BYTES || self.messages.len() > MAX_WAITING {
            self.take();
        }
    }

    fn take(&mut self) -> Option<Mail> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.data.len();
        Some(message)
    }

    fn keep(&mut self, topics: &BTreeSet<Topic>) {
        self.messages.retain(|message| topics.contains(&message.topic));
        self.bytes = self.messages.iter().map(|message| message.data.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: u8, length: usize) -> Mail {
        Mail { topic: Topic([topic; 4]), data: vec![topic; length].into(), made_at: 0 }
    }

    #[test]
    fn what_waits_is_bounded_and_the_newest_stays() {
        let mut waiting = Waiting::default();
        for topic in 0..20 {
            waiting.put(message(topic, 1024 * 1024));
        }
        assert_eq!(waiting.bytes, MAX_WAITING_BYTES);
        assert_eq!(waiting.take().unwrap().topic, Topic([4; 4]));
        for _ in 0..=MAX_WAITING {
            waiting.put(message(99, 1));
        }
        assert_eq!((waiting.messages.len(), waiting.bytes), (MAX_WAITING, MAX_WAITING));
    }

    #[test]
    fn what_waits_does_not_keep_the_packet_that_it_came_in() {
        let packet = Bytes::from(vec![7; 1000]);
        let envelope = Envelope::new(100, 10, Topic([1; 4]), &packet[..3], 5);
        let read = Envelope::decode(envelope.rlp().clone()).unwrap();
        let [mail, slice] = [mail(&read).data, read.data().clone()];
        assert_eq!(mail, slice);
        drop((envelope, read));
        assert!(mail.is_unique());
    }

    #[test]
    fn topics_that_are_left_leave_nothing_behind() {
        let mut waiting = Waiting::default();
        waiting.put(message(1, 10));
        waiting.put(message(2, 20));
        waiting.keep(&BTreeSet::from([Topic([2; 4])]));
        assert_eq!((waiting.bytes, waiting.take()), (20, Some(message(2, 20))));
        assert_eq!(waiting.take(), None);
        assert_eq!(waiting.bytes, 0);
    }
}
