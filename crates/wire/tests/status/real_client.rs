//! What the deployed clients and server said to each other.

use bytes::Bytes;
use poste_codec::PublicKey;
use poste_wire::status::proto::{
    ContactCodeAdvertisement, PushNotificationQuery, PushNotificationQueryResponse,
    PushNotificationRegistration, PushNotificationRegistrationResponse, PushNotificationRequest,
    PushNotificationResponse,
};
use poste_wire::status::{
    AccessToken, ApplicationMessage, Grant, HashedPublicKey, MessageType, PushMessage, SharedKey, TopicName,
    find_access_token, transport,
};

use crate::entry::{Entry, Outcome, same};
use crate::frames::{Opener, frame};
use crate::messages::message;
use crate::primitives::derived;
use crate::{Common, leave, public_key, secret_key, text};

/// The key of a client or of the server.
pub(crate) fn key(entry: &Entry<'_>, _: &Common) -> Outcome {
    same("public", secret_key(entry, "private")?.public(), public_key(entry, "public")?)?;
    same("name", ["server", "a", "b", "c"].contains(&entry.text("name")?), true)
}

/// What was sent in one step.
pub(crate) fn step(step: &Entry<'_>, common: &Common) -> Outcome {
    leave(step, &["step", "gorush", "registered", "notified"]);
    let mut requested = None;
    for (at, value) in step.list("frames")?.iter().enumerate() {
        let frame = Entry::new(value)?;
        let seen = frame_of_step(&frame, common).and_then(|seen| frame.finish().map(|()| seen));
        requested = seen.map_err(|error| format!("frame {at}: {error}"))?.or(requested);
    }
    if step.has("message_id") {
        same("message id", requested, Some(step.bytes("message_id")?))?;
    }
    Ok(())
}

/// Gives the message id of a request for notifications.
fn frame_of_step(entry: &Entry<'_>, common: &Common) -> Result<Option<Vec<u8>>, String> {
    let number = i32::try_from(entry.uint("type")?).map_err(text)?;
    let kind = MessageType::try_from(number).map_err(text)?;
    let signer = inner_signer(entry)?;
    let message = message(entry, kind, common.real_keys.get(&signer))?;

    let content = if entry.has("symkey") {
        let topic = match kind {
            MessageType::ContactCodeAdvertisement => TopicName::contact_code(&signer),
            _ => {
                let query = PushNotificationQuery::read(message.payload.clone()).map_err(text)?;
                let target = query.public_keys.first().ok_or("the query asks about nobody")?;
                TopicName::query(&HashedPublicKey::try_from(&target[..]).map_err(text)?)
            }
        };
        let key = derived(&topic);
        frame(entry, common, &Opener::Topic(&key), &[topic])?
    } else {
        let to = public_key(entry, "to")?;
        let topic = match kind {
            MessageType::PushNotificationRegistration => TopicName::personal(&to),
            _ => TopicName::partitioned(&to),
        };
        let opener = common.real_keys.get(&to).map_or(Opener::UnknownKey, Opener::Key);
        frame(entry, common, &opener, &[topic])?
    };
    let content = Bytes::from(content);
    let wrapped = transport::unwrap(content.clone()) != content;
    let recorded = if entry.has("protocol_message") { entry.flag("protocol_message")? } else { false };
    same("wrapped", wrapped, recorded)?;
    let inner = ApplicationMessage::read(transport::unwrap(content)).map_err(text)?;
    same("message in the frame", &inner, &message)?;
    decoded(entry, common, kind, &message)
}

fn decoded(
    entry: &Entry<'_>,
    common: &Common,
    kind: MessageType,
    message: &ApplicationMessage,
) -> Result<Option<Vec<u8>>, String> {
    match kind {
        MessageType::ContactCodeAdvertisement => {
            let read = again::<ContactCodeAdvertisement>(&message.payload)?;
            advertisement(common, &message.signer, &read)?;
        }
        MessageType::PushNotificationRegistration => {
            let server = common.real_keys.get(&public_key(entry, "to")?).ok_or("to an unknown server")?;
            let opened = SharedKey::between(server, &message.signer).open(&message.payload).map_err(text)?;
            again::<PushNotificationRegistration>(&opened)?;
        }
        MessageType::PushNotificationRegistrationResponse => {
            again::<PushNotificationRegistrationResponse>(&message.payload)?;
        }
        MessageType::PushNotificationQuery => {
            again::<PushNotificationQuery>(&message.payload)?;
        }
        MessageType::PushNotificationQueryResponse => {
            again::<PushNotificationQueryResponse>(&message.payload)?;
        }
        MessageType::PushNotificationRequest => {
            let read = again::<PushNotificationRequest>(&message.payload)?;
            return Ok(Some(read.message_id.to_vec()));
        }
        MessageType::PushNotificationResponse => {
            again::<PushNotificationResponse>(&message.payload)?;
        }
        MessageType::Unknown => return Err("a message of no kind".to_owned()),
    }
    Ok(None)
}

/// The owner granted the server the token, which is in clear or for one of the real clients.
fn advertisement(common: &Common, owner: &PublicKey, read: &ContactCodeAdvertisement) -> Outcome {
    same("devices", read.push_notification_info.is_empty(), false)?;
    for info in &read.push_notification_info {
        same("owner", HashedPublicKey::try_from(&info.public_key[..]), Ok(HashedPublicKey::of(owner)))?;
        let server = info.server_public_key[..].try_into().map_err(text)?;
        let server = PublicKey::from_compressed(&server).map_err(text)?;
        let entries = || info.allowed_key_list.iter().map(|entry| &entry[..]);
        let token = match info.access_token.as_str() {
            "" => common.real_keys.values().find_map(|own| find_access_token(own, owner, entries())),
            token => AccessToken::uuid(token).ok(),
        };
        let token = token.ok_or("no token")?;
        let grant = Grant::from_bytes(&info.grant).map_err(text)?;
        grant.verify(owner, &server, token.as_str()).map_err(text)?;
    }
    Ok(())
}

/// Read, and written as it was.
fn again<M: PushMessage>(payload: &[u8]) -> Result<M, String> {
    let read = M::read(Bytes::copy_from_slice(payload)).map_err(text)?;
    same("as we write it", &read.write()[..], payload)?;
    Ok(read)
}

fn inner_signer(entry: &Entry<'_>) -> Result<PublicKey, String> {
    let signer = entry.value("amm")?["signer"].as_str().ok_or("no signer")?;
    PublicKey::from_bytes(&hex::decode(signer).map_err(text)?).map_err(text)
}
