//! Posting envelopes, and waiting for the node to confirm them.

use std::collections::HashMap;
use std::time::Duration;

use poste_waku::{Event, Session};
use poste_wire::packet::{EnvelopeFault, MessageResponse, Messages};
use poste_wire::{Dialect, Envelope, Hash, Packet, Topic, pow};
use rand::Rng;
use tokio::time::{Instant, timeout_at};

use crate::{ClientError, unix_now};

/// How long a nonce is searched for.
const MINING: Duration = Duration::from_secs(5);
/// Envelopes and bytes of one packet.
const PACKET_ENVELOPES: usize = 100;
const PACKET_BYTES: usize = 256 * 1024;
/// Packets that may wait for their confirmation.
const WINDOW: usize = 8;
/// Bytes of an envelope around its data, at most.
const OVERHEAD: usize = 40;
/// The largest packet that deployed nodes take.
const MAX_PACKET: usize = 1024 * 1024;

/// What to post.
#[derive(Debug, Clone)]
pub struct Post {
    /// The topic of every envelope.
    pub topic: Topic,
    /// How many.
    pub count: usize,
    /// Bytes of data of each: random, as encrypted data looks.
    pub size: usize,
    /// Seconds for which they are relayed.
    pub ttl: u32,
    /// How long the node may take to confirm a packet.
    pub patience: Duration,
}

/// An envelope that was posted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The envelope.
    pub envelope: Envelope,
    /// Whether the node confirmed that it keeps it.
    pub confirmed: bool,
    /// What the node said against it, if it did.
    pub fault: Option<String>,
}

/// How many were posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PostSummary {
    /// Sent.
    pub posted: usize,
    /// Confirmed.
    pub confirmed: usize,
}

/// Posts envelopes of random data, and hands each to `take` when its fate is known. Whatever is not confirmed within
/// the patience counts as not confirmed; so does everything sent to a node that confirms nothing.
pub async fn post(
    session: &mut Session,
    post: &Post,
    take: impl FnMut(Posted),
) -> Result<PostSummary, ClientError> {
    if post.size + OVERHEAD > MAX_PACKET {
        return Err(ClientError::Invalid("an envelope of that size fits into no packet"));
    }
    if post.ttl == 0 {
        return Err(ClientError::Invalid("the ttl must be at least 1 second"));
    }
    let (dialect, peer) = session.best().ok_or(ClientError::Invalid("the session is not ready"))?;
    let confirms = peer.settings.confirmations;
    let pow = peer.settings.pow_requirement;
    let mut poster = Poster { waiting: HashMap::new(), summary: PostSummary::default(), take };
    let outcome = poster.run(session, post, dialect, pow, confirms).await;
    // Only when the session has ended early; what was sent before is reported all the same.
    poster.give_up("the connection ended before a confirmation");
    outcome.map(|()| poster.summary)
}

/// The next packet's envelopes. Each has the present as its time of creation.
async fn make(post: &Post, left: usize, pow: f64) -> Result<Vec<Envelope>, ClientError> {
    let fit = (PACKET_BYTES / (post.size + OVERHEAD)).clamp(1, PACKET_ENVELOPES).min(left);
    let Post { topic, size, ttl, .. } = *post;
    let making = tokio::task::spawn_blocking(move || {
        let began = std::time::Instant::now();
        (0..fit)
            .map(|_| {
                let mut data = vec![0; size];
                rand::rng().fill_bytes(&mut data);
                let expiry = unix_now().saturating_add(ttl);
                pow::mine(expiry, ttl, topic, &data, pow, || began.elapsed() > MINING)
            })
            .collect::<Result<Vec<_>, _>>()
    });
    Ok(making.await.map_err(|_| ClientError::Stopping)??)
}

struct Waiting {
    envelopes: Vec<Envelope>,
    faults: HashMap<Hash, String>,
}

impl Waiting {
    /// Remembers what the node says against envelopes of this packet, and of no other.
    fn blame(&mut self, faults: Vec<EnvelopeFault>) {
        for EnvelopeFault { hash, description, .. } in faults {
            if self.envelopes.iter().any(|envelope| envelope.hash() == hash) {
                self.faults.insert(hash, description);
            }
        }
    }
}

struct Poster<T> {
    waiting: HashMap<Hash, Waiting>,
    summary: PostSummary,
    take: T,
}

impl<T: FnMut(Posted)> Poster<T> {
    async fn run(
        &mut self,
        session: &mut Session,
        post: &Post,
        dialect: Dialect,
        pow: f64,
        confirms: bool,
    ) -> Result<(), ClientError> {
        let mut left = post.count;
        while left > 0 {
            let envelopes = make(post, left, pow).await?;
            left -= envelopes.len();
            self.send(session, dialect, envelopes, confirms).await?;
            while self.waiting.len() >= WINDOW {
                self.hear(session, post.patience).await?;
            }
        }
        while !self.waiting.is_empty() {
            self.hear(session, post.patience).await?;
        }
        Ok(session.outbound().flush().await?)
    }

    async fn send(
        &mut self,
        session: &Session,
        dialect: Dialect,
        envelopes: Vec<Envelope>,
        confirms: bool,
    ) -> Result<(), ClientError> {
        let messages = Messages::new(envelopes);
        let (batch, envelopes) = (messages.batch_hash, messages.envelopes.clone());
        session.outbound().send(dialect, &Packet::Messages(messages)).await?;
        self.summary.posted += envelopes.len();
        if confirms {
            self.waiting.insert(batch, Waiting { envelopes, faults: HashMap::new() });
        } else {
            self.report(envelopes, |_| (false, Some("the node confirms nothing".to_owned())));
        }
        Ok(())
    }

    /// Waits for the confirmation of one packet; when none comes in time, gives up on all that wait.
    async fn hear(&mut self, session: &mut Session, patience: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            let Ok(event) = timeout_at(deadline, session.next()).await else {
                self.give_up("no confirmation in time");
                return Ok(());
            };
            match event? {
                Event::Packet(_, Packet::MessageResponse(MessageResponse { batch_hash, faults })) => {
                    if let Some(waiting) = self.waiting.get_mut(&batch_hash) {
                        waiting.blame(faults);
                    }
                }
                Event::Packet(_, Packet::BatchAcknowledged(batch)) => {
                    if let Some(Waiting { envelopes, mut faults }) = self.waiting.remove(&batch) {
                        self.report(envelopes, |hash| {
                            let fault = faults.remove(&hash);
                            (fault.is_none(), fault)
                        });
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    /// Whatever waits is not confirmed.
    fn give_up(&mut self, why: &str) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            self.report(waiting.envelopes, |_| (false, Some(why.to_owned())));
        }
    }

    fn report(&mut self, envelopes: Vec<Envelope>, mut fate: impl FnMut(Hash) -> (bool, Option<String>)) {
        for envelope in envelopes {
            let (confirmed, fault) = fate(envelope.hash());
            self.summary.confirmed += usize::from(confirmed);
            (self.take)(Posted { envelope, confirmed, fault });
        }
    }
}
