//! From an envelope's data to a message with its signer.

use std::time::Duration;

use bytes::Bytes;
use poste_codec::PublicKey;
use poste_wire::status::segment::Accepted;
use poste_wire::status::{ApplicationMessage, MessageType, Segment, frame, transport};
use poste_wire::{SymKey, Topic};

use super::frames::FramesOut;
use super::segments::{Hold, Joined};
use super::{Incoming, PushServer, Taken, Unanswered};
use crate::answer::AnswerKind;

/// Work on more bytes than this leaves the thread of the async runtime: it takes about a millisecond or more.
const LARGE_BYTES: usize = 64 * 1024;

/// Where a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Sealed to the server's key.
    Own,
    /// Encrypted with the key of a query topic, which everybody has who knows the target.
    Query,
}

/// A message that was opened, and how far it was dealt with: see [`PushServer::answer`].
#[derive(Debug)]
pub struct Opened {
    pub(super) channel: Channel,
    /// Where a query came: see [`PushServer::query`].
    pub(super) topic: Topic,
    /// A request for which the provider has no time.
    pub(super) is_turned_away: bool,
    pub(super) made_at: Duration,
    pub(super) progress: Progress,
    pub(super) taken: Taken,
    /// How much of the answer went out.
    pub(super) out: FramesOut,
    /// There until it is dealt with, if it came in segments.
    pub(super) hold: Option<Hold>,
}

/// How far a message was dealt with.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing was decided.
    Message(ApplicationMessage),
    /// The payload of the answer.
    Decided { kind: AnswerKind, to: PublicKey, payload: Bytes },
}

impl PushServer {
    /// Opens a message that came, at this time, since 1970. What opens, and was the last of its segments, is for
    /// [`Self::answer`].
    ///
    /// # Errors
    /// Why there is nothing to answer. It stays so, but for [`Unanswered::StoreFailed`]: then nothing was done, and the
    /// same can be tried again.
    pub async fn open(&self, incoming: Incoming, now: Duration) -> Result<Opened, Unanswered> {
        let opened = self.open_message(incoming, now).await;
        opened.inspect_err(|why| self.metrics.message(why.label()))
    }

    async fn open_message(&self, incoming: Incoming, now: Duration) -> Result<Opened, Unanswered> {
        let Incoming { topic, data, position, made_at } = incoming;
        self.segments.note_time(made_at, now);
        let opened = match self.open_own(topic, &data).await {
            Some(content) => Some((Channel::Own, content)),
            None => self.open_query(topic, &data).await?.map(|content| (Channel::Query, content)),
        };
        let (channel, content) = opened.ok_or(Unanswered::NotForUs)?;
        let (content, hold) = match Segment::read(&content) {
            None => (content, None),
            // Nobody asks so much in a query.
            Some(_) if channel == Channel::Query => return Err(Unanswered::BadSegment),
            Some(segment) => {
                let joined = self.join(segment, position).await?;
                (joined.message, Some(joined.hold))
            }
        };
        let bytes = content.len();
        let read = move || ApplicationMessage::read(transport::unwrap(content)).ok();
        match compute(bytes, read).await.flatten() {
            Some(mut message) => {
                if message.payload.len() < bytes / 2 {
                    // It may wait for long: a slice would keep all that came around it in memory.
                    message.payload = Bytes::copy_from_slice(&message.payload);
                }
                let progress = Progress::Message(message);
                let (taken, out) = (Taken::default(), FramesOut::default());
                Ok(Opened { channel, topic, is_turned_away: false, made_at, progress, taken, out, hold })
            }
            None => {
                if let Some(hold) = hold {
                    hold.release();
                }
                Err(Unanswered::NoMessage)
            }
        }
    }

    async fn open_own(&self, topic: Topic, data: &Bytes) -> Option<Bytes> {
        if !self.own_topics.contains(&topic) {
            return None;
        }
        let (identity, data) = (self.identity.clone(), data.clone());
        compute(data.len(), move || frame::open_asymmetric(&identity, &data).ok()).await?
    }

    async fn open_query(&self, topic: Topic, data: &Bytes) -> Result<Option<Bytes>, Unanswered> {
        let mut is_damaged = false;
        for (owner, form) in self.topics.of_topic(topic) {
            let keys = match self.store.topic_keys(&owner).await {
                Ok(Some(keys)) => keys,
                Ok(None) => continue,
                Err(error) => {
                    self.only_damaged(&error)?;
                    is_damaged = true;
                    continue;
                }
            };
            let Ok(key) = SymKey::from_bytes(*form.key(&keys)) else { continue };
            let data = data.clone();
            let opened = compute(data.len(), move || frame::open_symmetric(&key, &data).ok()).await;
            if let Some(Some(content)) = opened {
                return Ok(Some(content));
            }
        }
        if is_damaged { Err(Unanswered::Damaged) } else { Ok(None) }
    }

    /// The whole message, if this was its last segment.
    async fn join(&self, segment: Segment, position: u64) -> Result<Joined, Unanswered> {
        let segments = self.segments.clone();
        let joined =
            tokio::task::spawn_blocking(move || (segments.accept(segment, position), segments.incomplete()));
        // A runtime that ends does no work; the message will come again.
        let Ok((joined, incomplete)) = joined.await else { return Err(Unanswered::BadSegment) };
        self.metrics.segmented_messages.set(i64::try_from(incomplete).unwrap_or(i64::MAX));
        joined.map_err(|accepted| match accepted {
            Accepted::Kept => Unanswered::Segment,
            _ => Unanswered::BadSegment,
        })
    }
}

impl Opened {
    /// Lets go of its segments: it is dealt with, and a restart need not read them again.
    pub(crate) fn release(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release();
        }
    }

    /// What it will be answered as, if it is.
    #[must_use]
    pub fn kind(&self) -> Option<AnswerKind> {
        match &self.progress {
            Progress::Message(message) => match message.message_type()? {
                MessageType::PushNotificationRegistration => Some(AnswerKind::Registration),
                MessageType::PushNotificationQuery => Some(AnswerKind::Query),
                MessageType::PushNotificationRequest => Some(AnswerKind::Request),
                _ => None,
            },
            Progress::Decided { kind, .. } => Some(*kind),
        }
    }

    /// Whether dealing with it takes the provider: not any more once it is decided what is answered.
    #[must_use]
    pub(crate) fn asks_provider(&self) -> bool {
        matches!(self.progress, Progress::Message(_)) && self.kind() == Some(AnswerKind::Request)
    }

    /// The query that it is, if it is one.
    #[must_use]
    pub(crate) fn query(&self) -> Option<&ApplicationMessage> {
        match &self.progress {
            Progress::Message(message) if self.kind() == Some(AnswerKind::Query) => Some(message),
            _ => None,
        }
    }

    /// So many bytes are in memory for it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.progress {
            Progress::Message(message) => message.payload.len(),
            Progress::Decided { payload, .. } => payload.len(),
        }
    }
}

/// Does work on so many bytes, here or where it does no harm. None if the runtime ends meanwhile.
///
/// # Panics
/// Where the work does.
pub(crate) async fn compute<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if bytes <= LARGE_BYTES {
        return Some(work());
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_elsewhere_panics_here() {
        for bytes in [0, LARGE_BYTES + 1] {
            let working = tokio::spawn(compute(bytes, || panic!("on purpose")));
            assert!(working.await.unwrap_err().is_panic(), "{bytes} bytes");
        }
        assert_eq!(compute(LARGE_BYTES + 1, || 7).await, Some(7));
    }
}
