//! Asking push servers about a contact: who notifies its devices, and with which token. Everybody who serves the contact
//! hears the question and answers it, so it is asked by a key that is made for it alone.

use std::time::Duration;

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_wire::payload::PayloadError;
use poste_wire::status::proto::PushNotificationQuery;
use poste_wire::status::{
    ApplicationMessage, HashedPublicKey, MessageId, MessageType, PushMessage, TopicName, frame,
};
use poste_wire::{SymKey, Topic};

use super::contact::{self, Shown};
use super::{Mail, Mailbox};

/// How long answers are waited for: all of that time, as several servers may answer.
pub const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// One question about one contact. The same message goes to both topics, so that an answer names it whichever it came by.
#[derive(Debug)]
pub struct Query {
    contact: PublicKey,
    mailbox: Mailbox,
    message: Vec<u8>,
    id: MessageId,
}

impl Query {
    /// With a fresh key from random bytes, which nothing ties to us.
    pub fn new(contact: &PublicKey, fill: impl FnMut(&mut [u8])) -> Self {
        let key = SecretKey::random(fill);
        let hash = Bytes::copy_from_slice(HashedPublicKey::of(contact).as_bytes());
        let query = PushNotificationQuery { public_keys: vec![hash] }.write();
        let message = ApplicationMessage::write(MessageType::PushNotificationQuery, query, &key);
        let id = MessageId::of(&key.public(), &message);
        Self { contact: *contact, mailbox: Mailbox::new(key), message, id }
    }

    /// Where to ask: first where deployed servers listen, then, if nobody has answered, where the specification says
    /// that servers do.
    pub fn topics(contact: &PublicKey) -> [TopicName; 2] {
        let hash = HashedPublicKey::of(contact);
        [TopicName::query(&hash), TopicName::query_as_specified(&hash)]
    }

    /// Whom it is about.
    pub fn contact(&self) -> &PublicKey {
        &self.contact
    }

    /// Where answers come.
    pub fn answer_topic(&self) -> Topic {
        self.mailbox.topic()
    }

    /// The frame for a topic with this key, signed like the message inside.
    ///
    /// # Errors
    /// Never for a message of this length.
    pub fn seal(&self, key: &SymKey, fill: impl FnMut(&mut [u8])) -> Result<Vec<u8>, PayloadError> {
        frame::seal_symmetric(key, &self.message, self.mailbox.key(), fill)
    }

    /// The message to this question's key in this mail, if there is one. `now_seconds` is of any clock that does not go
    /// back.
    pub fn open(&mut self, mail: &Mail, now_seconds: u64) -> Option<ApplicationMessage> {
        self.mailbox.open(mail.topic, &mail.data, now_seconds)
    }

    /// What a server says about the contact's devices; `None` if the message is no answer to this question. Checks
    /// grants: a recovered key for each device.
    pub fn read(&self, own: &SecretKey, message: &ApplicationMessage) -> Option<Shown> {
        contact::answered(own, &self.contact, &self.id, message)
    }
}

#[cfg(test)]
mod tests;
