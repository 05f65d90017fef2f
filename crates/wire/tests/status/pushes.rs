//! Queries and requests for notifications with their answers.

use poste_codec::SecretKey;
use poste_wire::status::proto::push_notification_report::ErrorType;
use poste_wire::status::proto::{
    PushNotification, PushNotificationQuery, PushNotificationQueryInfo, PushNotificationQueryResponse,
    PushNotificationReport, PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{
    ApplicationMessage, HashedPublicKey, MessageId, MessageType, PushMessage, TopicName,
};
use serde_json::Value;

use crate::entry::{Entry, Outcome, same};
use crate::frames::{Opener, frame};
use crate::messages::message;
use crate::primitives::derived;
use crate::{Common, byte_list, inside, leave, secret_key, text};

/// A query.
pub(crate) fn query(entry: &Entry<'_>, common: &Common) -> Outcome {
    leave(entry, &["name"]);
    let asker = secret_key(entry, "ephemeral_private")?;
    let message = message(entry, MessageType::PushNotificationQuery, Some(&asker))?;
    let read = PushNotificationQuery::read(message.payload.clone()).map_err(text)?;
    same("as we write it", &read.write()[..], &message.payload[..])?;
    same("query", read.write(), entry.bytes("query")?)?;
    let keys: Vec<Vec<u8>> = read.public_keys.iter().map(|key| key.to_vec()).collect();
    same("public keys", &keys, &byte_list(entry, "public_keys")?)?;

    // The topic is that of a key, mostly of one that is asked about.
    let target: HashedPublicKey = entry.parsed("topic_string")?;
    let topic = TopicName::query(&target);
    same("topic", topic.as_str(), entry.text("topic_string")?)?;
    let key = derived(&topic);
    let content = inside(entry, "frame", |entry| frame(entry, common, &Opener::Topic(&key), &[topic]))?;
    let opened = ApplicationMessage::read(content.into()).map_err(text)?;
    same("message in the frame", &opened, &message)?;

    inside(entry, "response", |entry| {
        let kind = MessageType::PushNotificationQueryResponse;
        let answer = answer(entry, common, kind, &asker)?;
        let read = PushNotificationQueryResponse::read(answer.payload.clone()).map_err(text)?;
        same("as we write it", &read.write()[..], &answer.payload[..])?;
        same("query's id", MessageId::try_from(&read.message_id[..]), Ok(message.id))?;
        inside(entry, "decoded", |entry| {
            same("message id", &read.message_id[..], &entry.bytes("message_id")?[..])?;
            same("success", read.success, entry.flag("success")?)?;
            each(entry, "info", &read.info, query_info)
        })
    })
}

pub(crate) fn query_info(entry: &Entry<'_>, read: &PushNotificationQueryInfo) -> Outcome {
    same("access token", read.access_token.as_str(), entry.text("access_token")?)?;
    same("installation id", read.installation_id.as_str(), entry.text("installation_id")?)?;
    same("public key", &read.public_key[..], &entry.bytes("public_key")?[..])?;
    let list: Vec<Vec<u8>> = read.allowed_key_list.iter().map(|bytes| bytes.to_vec()).collect();
    same("allowed key list", list, byte_list(entry, "allowed_key_list")?)?;
    same("grant", &read.grant[..], &entry.bytes("grant")?[..])?;
    same("version", read.version, entry.uint("version")?)?;
    same("server", &read.server_public_key[..], &entry.bytes("server_public_key")?[..])
}

/// A request for notifications.
pub(crate) fn notification(entry: &Entry<'_>, common: &Common) -> Outcome {
    leave(entry, &["name", "gorush", "server_log", "handler_error"]);
    let sender = secret_key(entry, "ephemeral_private")?;
    let message = message(entry, MessageType::PushNotificationRequest, Some(&sender))?;
    let topics = [TopicName::partitioned(&common.server.public())];
    let content =
        inside(entry, "frame", |entry| frame(entry, common, &Opener::Key(&common.server), &topics))?;
    let opened = ApplicationMessage::read(content.into()).map_err(text)?;
    same("message in the frame", &opened, &message)?;

    let read = PushNotificationRequest::read(message.payload.clone()).map_err(text)?;
    same("as we write it", &read.write()[..], &message.payload[..])?;
    same("request", read.write(), entry.bytes("request")?)?;
    if entry.has("decoded") {
        inside(entry, "decoded", |entry| {
            same("message id", &read.message_id[..], &entry.bytes("message_id")?[..])?;
            each(entry, "requests", &read.requests, single)
        })?;
    } else {
        same("name", entry.text("name")?, "chat-id-must-be-bytes-note")?;
        let chat_id = &read.requests.first().ok_or("no requests")?.chat_id;
        same("chat id is no text", std::str::from_utf8(chat_id).is_err(), true)?;
    }
    if *entry.value("response")? == Value::Null {
        return Ok(());
    }
    inside(entry, "response", |entry| {
        let answer = answer(entry, common, MessageType::PushNotificationResponse, &sender)?;
        let response = PushNotificationResponse::read(answer.payload.clone()).map_err(text)?;
        same("as we write it", &response.write()[..], &answer.payload[..])?;
        inside(entry, "decoded", |entry| {
            same("message id", &response.message_id[..], &entry.bytes("message_id")?[..])?;
            same("request's message id", &response.message_id, &read.message_id)?;
            each(entry, "reports", &response.reports, report)
        })
    })
}

fn single(entry: &Entry<'_>, read: &PushNotification) -> Outcome {
    same("access token", read.access_token.as_str(), entry.text("access_token")?)?;
    same("chat id", &read.chat_id[..], &entry.bytes("chat_id")?[..])?;
    same("public key", &read.public_key[..], &entry.bytes("public_key")?[..])?;
    same("installation id", read.installation_id.as_str(), entry.text("installation_id")?)?;
    same("message", &read.message[..], &entry.bytes("message")?[..])?;
    same("type", u64::try_from(read.r#type).ok(), Some(entry.uint("type")?))?;
    same("author", &read.author[..], &entry.bytes("author")?[..])
}

fn report(entry: &Entry<'_>, read: &PushNotificationReport) -> Outcome {
    same("success", read.success, entry.flag("success")?)?;
    same("error", u64::try_from(read.error).ok(), Some(entry.uint("error")?))?;
    let error = ErrorType::try_from(read.error).map_err(text)?;
    same("name of the error", error.as_str_name(), entry.text("error_name")?)?;
    same("public key", &read.public_key[..], &entry.bytes("public_key")?[..])?;
    same("installation id", read.installation_id.as_str(), entry.text("installation_id")?)
}

/// The message of an answer, sealed to the asker.
fn answer(
    entry: &Entry<'_>,
    common: &Common,
    kind: MessageType,
    asker: &SecretKey,
) -> Result<ApplicationMessage, String> {
    let message = message(entry, kind, Some(&common.server))?;
    let topics = [TopicName::partitioned(&asker.public())];
    let content = inside(entry, "frame", |entry| frame(entry, common, &Opener::Key(asker), &topics))?;
    let opened = ApplicationMessage::read(content.into()).map_err(text)?;
    same("message in the frame", &opened, &message)?;
    Ok(message)
}

fn each<T>(entry: &Entry<'_>, name: &str, read: &[T], check: impl Fn(&Entry<'_>, &T) -> Outcome) -> Outcome {
    let recorded = entry.list(name)?;
    same(name, read.len(), recorded.len())?;
    for (read, recorded) in read.iter().zip(recorded) {
        let recorded = Entry::new(recorded)?;
        check(&recorded, read)?;
        recorded.finish()?;
    }
    Ok(())
}
