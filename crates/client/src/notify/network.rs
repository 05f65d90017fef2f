//! What the rest asks of a network.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use poste_wire::Topic;

use super::channel::{Channel, ChannelError};

/// What came on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The topic.
    pub topic: Topic,
    /// A frame: see [`poste_wire::status::frame`].
    pub data: Bytes,
    /// When it was made by its sender's clock, unix seconds.
    pub made_at: u32,
}

/// A network that sorts frames by topics, and keeps some. Every wait has a deadline but that of [`Self::next`], and
/// that one loses nothing when it is dropped.
pub trait Network: Send {
    /// Why something is not to be had.
    type Error: Error + Send + Sync + 'static;

    /// Receives what is published on these topics, too.
    fn subscribe(&mut self, topics: &[Topic]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Receives nothing on these topics any more.
    fn unsubscribe(&mut self, topics: &[Topic]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Publishes a frame, and waits until it is on its way as surely as the network can tell. After an error it may
    /// be on its way all the same.
    fn publish(
        &mut self,
        topic: Topic,
        frame: Vec<u8>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The next mail on a subscribed topic.
    fn next(&mut self) -> impl Future<Output = Result<Mail, Self::Error>> + Send;

    /// Hands what is kept of these topics since then (unix seconds) to `take`. Says why that may not be everything.
    fn history(
        &mut self,
        topics: &[Topic],
        since: u32,
        take: impl FnMut(Mail) + Send,
    ) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;
}

impl Network for Channel {
    type Error = ChannelError;

    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), ChannelError> {
        Channel::subscribe(self, topics.iter().copied()).await
    }

    async fn unsubscribe(&mut self, topics: &[Topic]) -> Result<(), ChannelError> {
        Channel::unsubscribe(self, topics.iter().copied()).await
    }

    async fn publish(&mut self, topic: Topic, frame: Vec<u8>) -> Result<(), ChannelError> {
        Channel::publish(self, topic, frame).await.map(drop)
    }

    async fn next(&mut self) -> Result<Mail, ChannelError> {
        Channel::next(self).await
    }

    async fn history(
        &mut self,
        topics: &[Topic],
        since: u32,
        take: impl FnMut(Mail) + Send,
    ) -> Result<Option<String>, ChannelError> {
        Channel::history(self, topics, since, take).await
    }
}
