//! The running state that administration sees and steers: how far the stream is read, and whether it is.

use std::fmt;

use bytes::Bytes;
use poste_wire::Topic;
use tokio::sync::mpsc;

/// What administration asks of a server at work.
#[tonic::async_trait]
pub trait Running: fmt::Debug + Send + Sync + 'static {
    /// How it stands with the stream of messages.
    fn status(&self) -> FeedStatus;

    /// From now on no message is taken, or they are again. What was taken before is dealt with to the end.
    fn pause(&self, paused: bool);

    /// Returns when nothing is in progress. Of use while it is paused.
    async fn drained(&self);

    /// Joins a topic for whoever keeps the result: what is archived on it from now on arrives there.
    fn listen(&self, topic: Topic) -> LoopbackMail;
}

/// How it stands with the stream of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedStatus {
    /// A stream from the archive is open.
    pub connected: bool,
    /// The stream brings everything, and what is not wanted is left out here.
    pub everything: bool,
    /// Topics that are listened to.
    pub topics: u64,
    /// Everything up to here was dealt with, in the archive's order of arrival.
    pub seq: u64,
    /// The newest record of the archive, as far as is known.
    pub head: u64,
    /// The archive's store; none was met if there is none.
    pub store_id: Option<[u8; 16]>,
    /// Messages that are being dealt with.
    pub in_progress: usize,
    /// No message is taken.
    pub paused: bool,
    /// Why there is no stream, or why the last one ended.
    pub last_error: Option<String>,
}

/// The data of envelopes on one topic. The topic is left when this is dropped.
pub struct LoopbackMail {
    mail: mpsc::Receiver<Bytes>,
    leave: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl LoopbackMail {
    /// Mail that arrives in a bounded channel, and what to do when nobody wants it any more.
    #[must_use]
    pub fn new(mail: mpsc::Receiver<Bytes>, leave: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { mail, leave: Some(Box::new(leave)) }
    }

    /// The next; none when the server stops. Cancel safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.mail.recv().await
    }
}

impl Drop for LoopbackMail {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave();
        }
    }
}

impl fmt::Debug for LoopbackMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoopbackMail")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_topic_is_left_with_its_mail() {
        let (sender, mail) = mpsc::channel(1);
        let left = Arc::new(AtomicBool::new(false));
        let leave = left.clone();
        let mut mail = LoopbackMail::new(mail, move || leave.store(true, Ordering::Relaxed));
        sender.send(Bytes::from_static(b"data")).await.unwrap();
        assert_eq!(mail.next().await.unwrap(), &b"data"[..]);
        drop(sender);
        assert_eq!(mail.next().await, None);
        assert!(!left.load(Ordering::Relaxed));
        drop(mail);
        assert!(left.load(Ordering::Relaxed));
    }
}
