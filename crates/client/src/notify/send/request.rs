//! A request to one server, by a key that is made for it alone, and the answer to it.

use std::time::Duration;

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_wire::Topic;
use poste_wire::payload::PayloadError;
use poste_wire::status::proto::push_notification_report::ErrorType;
use poste_wire::status::proto::{
    PushNotification, PushNotificationReport, PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{ApplicationMessage, MessageId, MessageType, PushMessage, TopicName, frame};

use super::{Failure, Outgoing};
use crate::notify::{Mail, Mailbox};

/// One request, for devices by their places among all of a sending.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) server: PublicKey,
    pub(super) devices: Vec<usize>,
    /// Whether it was published twice.
    pub(super) is_repeated: bool,
    is_answered: bool,
    mailbox: Mailbox,
    message: Vec<u8>,
}

impl Request {
    /// The answer comes to a fresh key from random bytes, so that nothing ties requests to each other or to us.
    pub(super) fn new(
        server: PublicKey,
        devices: Vec<usize>,
        entries: Vec<PushNotification>,
        message: &MessageId,
        fill: impl FnMut(&mut [u8]),
    ) -> Self {
        let key = SecretKey::random(fill);
        let message_id = Bytes::copy_from_slice(message.as_bytes());
        let request = PushNotificationRequest { requests: entries, message_id }.write();
        let message = ApplicationMessage::write(MessageType::PushNotificationRequest, request, &key);
        let mailbox = Mailbox::new(key);
        Self { server, devices, is_repeated: false, is_answered: false, mailbox, message }
    }

    pub(super) fn answer_topic(&self) -> Topic {
        self.mailbox.topic()
    }

    /// The frame, signed like the message inside. A second one differs in its padding only.
    pub(super) fn seal(&self, fill: impl FnMut(&mut [u8])) -> Result<Outgoing, PayloadError> {
        let frame = frame::seal_asymmetric(&self.server, &self.message, self.mailbox.key(), fill)?;
        let topic = TopicName::partitioned(&self.server).topic();
        Ok(Outgoing { topic, frame, answer_topic: self.answer_topic() })
    }

    /// The first answer in mail: to our key, by the server that was asked, about this message.
    pub(super) fn open(
        &mut self,
        mail: &Mail,
        message: &MessageId,
        now: Duration,
    ) -> Option<PushNotificationResponse> {
        if self.is_answered {
            return None;
        }
        let answer = self.mailbox.open(mail.topic, &mail.data, now.as_secs())?;
        let is_theirs = answer.message_type() == Some(MessageType::PushNotificationResponse);
        if !is_theirs || answer.signer != self.server {
            return None;
        }
        let response = PushNotificationResponse::read(answer.payload).ok()?;
        self.is_answered = response.message_id == message.as_bytes()[..];
        self.is_answered.then_some(response)
    }
}

/// What a server says of a device.
pub(super) fn read(report: Option<&PushNotificationReport>) -> Result<(), Failure> {
    match report {
        None => Err(Failure::LeftOut),
        Some(report) if report.success => Ok(()),
        Some(report) => Err(match ErrorType::try_from(report.error) {
            Ok(ErrorType::WrongToken) => Failure::WrongToken,
            Ok(ErrorType::InternalError) => Failure::InternalError,
            Ok(ErrorType::NotRegistered) => Failure::NotRegistered,
            Ok(ErrorType::UnknownErrorType) | Err(_) => Failure::Unknown(report.error),
        }),
    }
}
