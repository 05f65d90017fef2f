//! Answers: signed by the server, sealed to whoever signed the message inside, split where one envelope is too small.
//!
//! The key that an answer goes to is used for this answer and kept nowhere.

use std::fmt;

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_wire::Topic;
use poste_wire::payload::PayloadError;
use poste_wire::status::segment::{SEGMENT_LENGTH, split};
use poste_wire::status::{ApplicationMessage, MessageType, TopicName, frame};
use thiserror::Error;

/// What an answer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerKind {
    /// A registration. The deployed clients never recover from the loss of the first answer to one.
    Registration,
    /// A query.
    Query,
    /// A request for notifications.
    Request,
}

impl AnswerKind {
    /// The value of a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Query => "query",
            Self::Request => "request",
        }
    }

    fn message_type(self) -> MessageType {
        match self {
            Self::Registration => MessageType::PushNotificationRegistrationResponse,
            Self::Query => MessageType::PushNotificationQueryResponse,
            Self::Request => MessageType::PushNotificationResponse,
        }
    }
}

/// What goes into the envelopes of one answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it answers.
    pub kind: AnswerKind,
    /// The topic of the envelopes.
    pub topic: Topic,
    /// The data of each envelope: one, or several for an answer that is longer than one envelope carries.
    pub frames: Vec<Vec<u8>>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("kind", &self.kind).field("frames", &self.frames.len()).finish()
    }
}

impl Answer {
    /// Signs a payload, the frame and the message inside alike, and seals it to `to`. `fill` gives random bytes.
    ///
    /// # Errors
    /// When the payload does not fit into frames, which answers within their bounds do.
    pub fn seal(
        identity: &SecretKey,
        to: &PublicKey,
        kind: AnswerKind,
        payload: impl Into<Bytes>,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<Self, PayloadError> {
        let message = ApplicationMessage::write(kind.message_type(), payload, identity);
        let pieces = split(message, SEGMENT_LENGTH);
        let frames = pieces
            .iter()
            .map(|piece| frame::seal_asymmetric(to, piece, identity, &mut fill))
            .collect::<Result<_, _>>();
        Ok(Self { kind, topic: TopicName::partitioned(to).topic(), frames: frames? })
    }
}

/// Brings answers to the network.
#[tonic::async_trait]
pub trait Publisher: fmt::Debug + Send + Sync + 'static {
    /// Publishes an answer, all of its frames; an error when that is not sure. Every wait inside has a deadline.
    async fn publish(&self, answer: Answer) -> Result<(), PublishError>;
}

/// An answer could not be published: [`crate::server::PushServer::answer`] has to be called again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Nobody took it, this time.
    #[error("the answer was not published: {0}")]
    Away(String),
    /// All refuse it, for reasons that another attempt alone does not change.
    #[error("the answer is refused by all gateways: {0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use poste_wire::status::{Reassembly, Segment, segment};

    use super::*;

    fn fill(bytes: &mut [u8]) {
        bytes.fill(9);
    }

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn an_answer_is_for_one_key_and_by_the_server() {
        let answer =
            Answer::seal(&key(1), &key(2).public(), AnswerKind::Query, &b"payload"[..], fill).unwrap();
        assert_eq!(answer.topic, TopicName::partitioned(&key(2).public()).topic());
        let [data] = &answer.frames[..] else { panic!("one frame") };
        assert!(frame::open_asymmetric(&key(3), data).is_err());
        let message = ApplicationMessage::read(frame::open_asymmetric(&key(2), data).unwrap()).unwrap();
        assert_eq!((message.signer, &message.payload[..]), (key(1).public(), &b"payload"[..]));
        assert_eq!(message.message_type(), Some(MessageType::PushNotificationQueryResponse));
        assert_eq!(format!("{answer:?}"), "Answer { kind: Query, frames: 1 }");
    }

    #[test]
    fn a_long_answer_goes_in_pieces() {
        let payload = vec![7; 2 * SEGMENT_LENGTH];
        let answer = Answer::seal(&key(1), &key(2).public(), AnswerKind::Query, payload.clone(), fill);
        let mut reassembly = Reassembly::new(segment::ReassemblyBounds::default());
        let whole = answer.unwrap().frames.iter().find_map(|data| {
            let piece = Segment::read(&frame::open_asymmetric(&key(2), data).unwrap()).unwrap();
            match reassembly.accept(piece, 0, 0) {
                segment::Accepted::Complete(whole) => Some(whole),
                other => {
                    assert_eq!(other, segment::Accepted::Kept);
                    None
                }
            }
        });
        assert_eq!(ApplicationMessage::read(whole.unwrap()).unwrap().payload, payload);
    }
}
