//! What a notification says: of whom and where, in hashes only. The message itself is not in it.

use bytes::Bytes;
use poste_codec::PublicKey;
use poste_wire::status::proto::PushNotification;
use poste_wire::status::proto::push_notification::PushNotificationType;
use poste_wire::status::{AuthorHash, HashedChatId, HashedPublicKey, MessageId, chat_key};

use crate::notify::contact::PushInfo;

/// What to notify of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What happened, and where.
    pub kind: NotificationKind,
    /// The message; the first one of several that are sent together; the request to join, if that is what happened.
    pub message: MessageId,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotificationKind {
    /// A message from us to the contact.
    OneToOne,
    /// A message in the chat of this id.
    Group(String),
    /// A message in the chat of this id that mentions the contact, or replies to it.
    Mention(String),
    /// We want to join a community that the contact manages.
    RequestToJoin,
}

impl Notification {
    /// The entry of a request, for one device.
    pub(in crate::notify) fn entry(
        &self,
        own: &PublicKey,
        contact: &PublicKey,
        info: &PushInfo,
    ) -> PushNotification {
        let chat = match &self.kind {
            // The receiver knows the chat by our key.
            NotificationKind::OneToOne => chat_key(own),
            NotificationKind::Group(id) | NotificationKind::Mention(id) => id.clone(),
            NotificationKind::RequestToJoin => chat_key(contact),
        };
        PushNotification {
            access_token: info.token.as_str().to_owned(),
            chat_id: Bytes::copy_from_slice(HashedChatId::of(&chat).as_bytes()),
            public_key: Bytes::copy_from_slice(HashedPublicKey::of(contact).as_bytes()),
            installation_id: info.installation.to_string(),
            message: Bytes::new(),
            r#type: self.kind.number(),
            author: Bytes::copy_from_slice(AuthorHash::of(own).as_bytes()),
        }
    }
}

impl NotificationKind {
    fn number(&self) -> i32 {
        let kind = match self {
            Self::OneToOne | Self::Group(_) => PushNotificationType::Message,
            Self::Mention(_) => PushNotificationType::Mention,
            Self::RequestToJoin => PushNotificationType::RequestToJoinCommunity,
        };
        kind.into()
    }
}
