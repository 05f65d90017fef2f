//! Opening what comes: where one key gets its mail, and joining segments. A topic is shared by one in 5000 keys, so that two throw-away keys of the same client may
//! well meet on it: whoever keeps mailboxes tries each of a topic, instead of keeping one for each topic.

use std::fmt;

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_wire::Topic;
use poste_wire::status::segment::{Accepted, ReassemblyBounds};
use poste_wire::status::{ApplicationMessage, Reassembly, Segment, TopicName, frame, transport};

/// A key, and the messages sealed to it of which segments are missing.
pub struct Mailbox {
    key: SecretKey,
    topic: Topic,
    segments: Segments,
}

impl Mailbox {
    /// The mailbox of this key, on its partitioned topic.
    pub fn new(key: SecretKey) -> Self {
        let topic = TopicName::partitioned(&key.public()).topic();
        Self { key, topic, segments: Segments::new() }
    }

    /// The topic of its mail.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// The key that its mail is sealed to.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The public key, which others seal to.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// The message in a frame, or the one that this frame completes; `None` if it is for somebody else, cannot be read,
    /// or lacks segments. `now_seconds` is of any clock that does not go back.
    pub fn open(&mut self, topic: Topic, data: &[u8], now_seconds: u64) -> Option<ApplicationMessage> {
        if topic != self.topic {
            return None;
        }
        let content = frame::open_asymmetric(&self.key, data).ok()?;
        self.segments.read(content, now_seconds)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// Messages that come in segments, few at a time.
pub(super) struct Segments(Reassembly);

impl Segments {
    pub(super) fn new() -> Self {
        let bounds = ReassemblyBounds { messages: 8, bytes: 8 << 20, ..ReassemblyBounds::default() };
        Self(Reassembly::new(bounds))
    }

    /// The message in a frame's content, wrapped by the secure transport or not, or the one that it completes.
    pub(super) fn read(&mut self, content: Bytes, now_seconds: u64) -> Option<ApplicationMessage> {
        let content = match Segment::read(&content) {
            None => content,
            Some(segment) => match self.0.accept(segment, now_seconds, 0) {
                Accepted::Complete(whole) => whole,
                _ => return None,
            },
        };
        ApplicationMessage::read(transport::unwrap(content)).ok()
    }
}

#[cfg(test)]
mod tests {
    use poste_wire::status::MessageType;
    use poste_wire::status::segment::split;

    use super::*;
    use crate::notify::testing::{fill, key, neighbours};

    fn seal(to: &PublicKey, content: &[u8]) -> Vec<u8> {
        frame::seal_asymmetric(to, content, &key(9), fill(1)).unwrap()
    }

    fn message(payload: Vec<u8>, signer: &SecretKey) -> Vec<u8> {
        ApplicationMessage::write(MessageType::PushNotificationResponse, payload, signer)
    }

    #[test]
    fn keys_on_one_topic_get_their_own_mail() {
        let mut mailboxes = neighbours().map(Mailbox::new);
        assert_eq!(mailboxes[0].topic(), mailboxes[1].topic());
        let (topic, signer) = (mailboxes[0].topic(), key(8));
        for to in 0..2 {
            let data = seal(&mailboxes[to].public(), &message(vec![to as u8], &signer));
            for (at, mailbox) in mailboxes.iter_mut().enumerate() {
                let opened = mailbox.open(topic, &data, 0).map(|message| message.payload[0]);
                assert_eq!(opened, (at == to).then_some(to as u8));
            }
        }
        let data = seal(&mailboxes[0].public(), &message(vec![1], &signer));
        assert!(mailboxes[0].open(Topic([0; 4]), &data, 0).is_none());
    }

    #[test]
    fn a_message_in_segments_is_joined_and_rubbish_is_not_read() {
        let (mut mailbox, signer) = (Mailbox::new(key(7)), key(8));
        let whole = message(vec![7; 5000], &signer);
        let pieces = split(whole, 1000);
        let (topic, public) = (mailbox.topic(), mailbox.public());
        let mut opened: Vec<_> =
            pieces.iter().rev().map(|piece| mailbox.open(topic, &seal(&public, piece), 0)).collect();
        let last = opened.pop().unwrap().unwrap();
        assert_eq!((last.signer, last.payload.len()), (signer.public(), 5000));
        assert!(opened.iter().all(Option::is_none));
        assert!(mailbox.open(topic, &seal(&public, b"rubbish"), 0).is_none());
        assert!(mailbox.open(topic, b"rubbish", 0).is_none());
    }
}
