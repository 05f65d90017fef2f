//! A notification as the apps expect it: the deployed server's texts and names. Hashes only, no content: it goes
//! through Apple or Google in clear.

use std::borrow::Cow;
use std::time::Duration;

use poste_provider::{DeviceToken, Notification, PushService, Reference};
use poste_wire::status::proto::push_notification::PushNotificationType;
use poste_wire::status::proto::{PushNotification, PushNotificationRegistration};

use crate::store::{Registration, TokenType};

pub(super) fn build(
    kind: PushNotificationType,
    asked: &PushNotification,
    row: &Registration,
    registration: &PushNotificationRegistration,
    now: Duration,
) -> Notification {
    let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    let service = match row.token_type {
        TokenType::Apn => PushService::Apns { topic: registration.apn_topic.clone() },
        TokenType::Firebase => PushService::Fcm,
    };
    Notification {
        // It travels in clear, and so does the same hash among the data.
        reference: Reference::new(row.device.key.as_bytes()).expect("a hashed key is short enough"),
        sent_at: now,
        token: DeviceToken::new(registration.device_token.clone()),
        service,
        message: Cow::Borrowed(text(kind)),
        data: vec![
            (Cow::Borrowed("encryptedMessage"), hex(&asked.message)),
            (Cow::Borrowed("chatId"), hex(&asked.chat_id)),
            (Cow::Borrowed("publicKey"), hex(&asked.public_key)),
        ],
        collapse_id: None,
        expires: None,
    }
}

fn text(kind: PushNotificationType) -> &'static str {
    match kind {
        PushNotificationType::Message => "You have a new message",
        PushNotificationType::RequestToJoinCommunity => {
            "Someone requested to join a community you are an admin of"
        }
        PushNotificationType::Mention | PushNotificationType::UnknownPushNotificationType => {
            "Someone mentioned you"
        }
    }
}
