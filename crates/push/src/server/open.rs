//! From an envelope's data to a message with its signer.

use std::time::Duration;

use bytes::Bytes;
use poste_wire::status::segment::Accepted;
use poste_wire::status::{ApplicationMessage, Segment, frame, transport};
use poste_wire::{SymKey, Topic};

use super::segments::{Hold, Joined};
use super::{Incoming, PushServer, Unanswered};

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

/// A message, and what to release when it was dealt with.
pub(super) struct Opened {
    pub(super) channel: Channel,
    pub(super) message: Result<ApplicationMessage, Unanswered>,
    pub(super) hold: Option<Hold>,
}

impl PushServer {
    pub(super) async fn open(&self, incoming: Incoming, now: Duration) -> Result<Opened, Unanswered> {
        let Incoming { topic, data, position, .. } = incoming;
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
                let joined = self.join(segment, now, position).await?;
                (joined.message, Some(joined.hold))
            }
        };
        let bytes = content.len();
        let read = move || ApplicationMessage::read(transport::unwrap(content)).ok();
        let message = compute(bytes, read).await.flatten().ok_or(Unanswered::NoMessage);
        Ok(Opened { channel, message, hold })
    }

    async fn open_own(&self, topic: Topic, data: &Bytes) -> Option<Bytes> {
        if !self.own_topics.contains(&topic) {
            return None;
        }
        let (identity, data) = (self.identity.clone(), data.clone());
        compute(data.len(), move || frame::open_asymmetric(&identity, &data).ok()).await?
    }

    async fn open_query(&self, topic: Topic, data: &Bytes) -> Result<Option<Bytes>, Unanswered> {
        for (owner, form) in self.topics.of_topic(topic) {
            let keys = match self.store.topic_keys(&owner).await {
                Ok(Some(keys)) => keys,
                Ok(None) => continue,
                Err(error) => {
                    self.store_failed(&error);
                    return Err(Unanswered::StoreFailed);
                }
            };
            let Ok(key) = SymKey::from_bytes(*form.key(&keys)) else { continue };
            let data = data.clone();
            let opened = compute(data.len(), move || frame::open_symmetric(&key, &data).ok()).await;
            if let Some(Some(content)) = opened {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    /// The whole message, if this was its last segment.
    async fn join(&self, segment: Segment, now: Duration, position: u64) -> Result<Joined, Unanswered> {
        let segments = self.segments.clone();
        let joined = tokio::task::spawn_blocking(move || {
            (segments.accept(segment, now, position), segments.incomplete())
        });
        // A runtime that ends does no work; the message will come again.
        let Ok((joined, incomplete)) = joined.await else { return Err(Unanswered::BadSegment) };
        self.metrics.segmented_messages.set(i64::try_from(incomplete).unwrap_or(i64::MAX));
        joined.map_err(|accepted| match accepted {
            Accepted::Kept => Unanswered::Segment,
            _ => Unanswered::BadSegment,
        })
    }
}

/// Does work on so many bytes, here or where it does no harm. None if the runtime ends meanwhile.
pub(crate) async fn compute<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if bytes <= LARGE_BYTES { Some(work()) } else { tokio::task::spawn_blocking(work).await.ok() }
}
