//! Registrations with their answers: opened, decoded, encoded, sealed and written anew.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use bytes::Bytes;
use poste_codec::SecretKey;
use poste_wire::status::proto::push_notification_registration_response::ErrorType;
use poste_wire::status::proto::{PushNotificationRegistration, PushNotificationRegistrationResponse};
use poste_wire::status::segment::{SEGMENT_LENGTH, split};
use poste_wire::status::{
    ApplicationMessage, Grant, MessageType, PushMessage, PushMessageError, RequestId, SealedError, Segment,
    SharedKey, TopicName, shake256_64,
};

use crate::entry::{Entry, Outcome, same};
use crate::frames::{Opener, frame};
use crate::messages::message;
use crate::{Common, byte_list, inside, leave, public_key, secret_key, text};

/// A registration that the deployed server accepted or refused.
pub(crate) fn registration(entry: &Entry<'_>, common: &Common) -> Outcome {
    let name = entry.text("name")?;
    leave(entry, &["rule", "server_log"]);
    let client = secret_key(entry, "client_private")?;
    same("client", client.public(), public_key(entry, "client_public")?)?;
    let server = match entry.has("server_private") {
        true => secret_key(entry, "server_private")?,
        false => common.server.clone(),
    };
    same("server", server.public(), public_key(entry, "server_public")?)?;

    let kind = MessageType::PushNotificationRegistration;
    let message = message(entry, kind, Some(&client))?;
    let topics = [TopicName::personal(&server.public()), TopicName::partitioned(&server.public())];
    let content = inside(entry, "frame", |entry| frame(entry, common, &Opener::Key(&server), &topics))?;
    let opened = ApplicationMessage::read(content.into()).map_err(text)?;
    same("message in the frame", opened, message.clone())?;

    let encrypted = entry.bytes("encrypted")?;
    same("payload", &message.payload[..], &encrypted[..])?;
    same("request id", RequestId::of(&encrypted), entry.parsed("request_id")?)?;
    sealed(entry, name, &client, &server, &encrypted)?;
    answer(entry, common, &client, &server)
}

/// What is in the seal, and the seal itself.
fn sealed(
    entry: &Entry<'_>,
    name: &str,
    client: &SecretKey,
    server: &SecretKey,
    encrypted: &[u8],
) -> Outcome {
    let plaintext = entry.bytes("plaintext")?;
    let shared = SharedKey::between(server, &client.public());
    let recorded: [u8; 32] = entry.array("shared_key")?;
    // Sealed by somebody else, or to somebody else: then another key opens it, but not ours.
    let foreign = matches!(name, "sealed-by-another-key" | "sealed-to-another-server");
    same("shared key", *shared.as_bytes() == recorded, !foreign)?;
    match name {
        "sealed-by-another-key"
        | "sealed-to-another-server"
        | "blob-11-bytes"
        | "blob-empty"
        | "tag-tampered" => {
            same("opened", shared.open(encrypted), Err(SealedError))?;
            if entry.has("nonce") {
                same("nonce", &encrypted[..12], &entry.array::<12>("nonce")?[..])?;
                same("length", encrypted.len(), plaintext.len() + 28)?;
            }
            if foreign {
                let (nonce, sealed) = encrypted.split_at(12);
                let nonce = Nonce::try_from(nonce).map_err(text)?;
                let opened = Aes256Gcm::new(&recorded.into()).decrypt(&nonce, sealed).map_err(text)?;
                same("opened with the key of others", &opened, &plaintext)?;
            }
            if name == "tag-tampered" {
                let ours = shared.seal(entry.array("nonce")?, &plaintext);
                same("up to the tag", &ours[..ours.len() - 16], &encrypted[..ours.len() - 16])?;
            }
        }
        _ => {
            same("opened", shared.open(encrypted).map_err(text)?.to_vec(), plaintext.clone())?;
            let ours = shared.seal(entry.array("nonce")?, &plaintext);
            same("as we seal it", &ours[..], encrypted)?;
        }
    }
    decoded(entry, name, client, server, plaintext)
}

fn decoded(
    entry: &Entry<'_>,
    name: &str,
    client: &SecretKey,
    server: &SecretKey,
    plaintext: Vec<u8>,
) -> Outcome {
    let read = PushNotificationRegistration::read(plaintext.clone());
    if matches!(name, "not-a-protobuf" | "bad-utf8-in-device-token") {
        return same("refused", read, Err(PushMessageError::Encoding));
    }
    let read = read.map_err(text)?;
    if name == "unknown-field-accepted" {
        return same("without the unknown field", &read.write()[..], &plaintext[..plaintext.len() - 3]);
    }
    same("as we write it", read.write(), plaintext)?;
    if entry.has("registration") {
        inside(entry, "registration", |entry| fields(entry, &read))?;
        let verified = Grant::from_bytes(&read.grant)
            .and_then(|grant| grant.verify(&client.public(), &server.public(), &read.access_token));
        let refused = (name.starts_with("grant-") && name != "grant-high-s-accepted")
            || name == "access-token-empty" // its grant is for the token that was taken out
            || read.unregister
            || read.grant.is_empty();
        same("grant is good", verified.is_ok(), !refused)?;
    }
    Ok(())
}

fn fields(entry: &Entry<'_>, read: &PushNotificationRegistration) -> Outcome {
    let lists = [
        ("allowed_key_list", &read.allowed_key_list),
        ("blocked_chat_list", &read.blocked_chat_list),
        ("allowed_mentions_chat_list", &read.allowed_mentions_chat_list),
        ("muted_chat_list", &read.muted_chat_list),
    ];
    for (name, list) in lists {
        let list: Vec<Vec<u8>> = list.iter().map(|bytes| bytes.to_vec()).collect();
        same(name, list, byte_list(entry, name)?)?;
    }
    same("token type", u64::try_from(read.token_type).ok(), Some(entry.uint("token_type")?))?;
    same("device token", read.device_token.as_str(), entry.text("device_token")?)?;
    same("installation id", read.installation_id.as_str(), entry.text("installation_id")?)?;
    same("access token", read.access_token.as_str(), entry.text("access_token")?)?;
    same("enabled", read.enabled, entry.flag("enabled")?)?;
    same("version", read.version, entry.uint("version")?)?;
    same("unregister", read.unregister, entry.flag("unregister")?)?;
    same("grant", &read.grant[..], &entry.bytes("grant")?[..])?;
    same("contacts only", read.allow_from_contacts_only, entry.flag("allow_from_contacts_only")?)?;
    same("apn topic", read.apn_topic.as_str(), entry.text("apn_topic")?)?;
    same("block mentions", read.block_mentions, entry.flag("block_mentions")?)
}

/// The deployed server's answer, as what it is; whether ours answers so is not asked here.
fn answer(entry: &Entry<'_>, common: &Common, client: &SecretKey, server: &SecretKey) -> Outcome {
    let request_id: RequestId = entry.parsed("request_id")?;
    inside(entry, "response", |entry| {
        let kind = MessageType::PushNotificationRegistrationResponse;
        let message = message(entry, kind, Some(server))?;
        let topics = [TopicName::partitioned(&client.public())];
        let content = inside(entry, "frame", |entry| frame(entry, common, &Opener::Key(client), &topics))?;
        let opened = ApplicationMessage::read(content.into()).map_err(text)?;
        same("message in the frame", opened, message.clone())?;
        let read = PushNotificationRegistrationResponse::read(message.payload.clone()).map_err(text)?;
        same("as we write it", &read.write()[..], &message.payload[..])?;
        same("request", RequestId::try_from(&read.request_id[..]), Ok(request_id))?;
        inside(entry, "decoded", |entry| {
            same("request id", &read.request_id[..], &entry.bytes("request_id")?[..])?;
            same("success", read.success, entry.flag("success")?)?;
            same("error", u64::try_from(read.error).ok(), Some(entry.uint("error")?))?;
            let error = ErrorType::try_from(read.error).map_err(text)?;
            same("name of the error", error.as_str_name(), entry.text("error_name")?)
        })
    })
}

/// A registration of 165 kB, of which the vectors hold the shape only.
pub(crate) fn segmented(entry: &Entry<'_>, common: &Common) -> Outcome {
    leave(entry, &["note"]);
    let (client, server) = (secret_key(entry, "client_private")?, secret_key(entry, "server_private")?);
    answer(entry, common, &client, &server)?;

    let muted = (0..2500).map(|at| shake256_64(format!("chat {at}").as_bytes()).to_vec().into()).collect();
    let lists = PushNotificationRegistration { muted_chat_list: muted, ..Default::default() }.write();
    let length = usize::try_from(entry.uint("blob_len")?).map_err(text)?;
    same("the lists are the bulk of it", (length - 500..length).contains(&lists.len()), true)?;
    let blob = [lists.clone(), vec![0; length - lists.len()]].concat();
    let kind = MessageType::PushNotificationRegistration;
    let message = Bytes::from(ApplicationMessage::write(kind, blob, &client));
    let ours = split(message, SEGMENT_LENGTH);

    let recorded = entry.list("segments")?;
    same("number of segments", ours.len(), recorded.len())?;
    let topic = TopicName::personal(&server.public()).content_topic();
    for (ours, recorded) in ours.iter().zip(recorded) {
        let recorded = Entry::new(recorded)?;
        let Some(Segment::Data { whole, index, count, piece }) = Segment::read(ours) else {
            return Err("ours is no segment".to_owned());
        };
        same("index", u64::from(index), recorded.uint("index")?)?;
        same("count", u64::from(count), recorded.uint("segments_count")?)?;
        same("length", piece.len() as u64, recorded.uint("payload_len")?)?;
        same("content topic", topic.as_str(), recorded.text("content_topic")?)?;
        // Of another message than ours, so that only the length and that it is one can be compared.
        same("length of the hash", recorded.bytes("entire_message_hash")?.len(), whole.len())?;
        same("one hash", recorded.text("entire_message_hash")?, first_hash(entry)?)?;
        recorded.finish()?;
    }
    Ok(())
}

fn first_hash<'v>(entry: &Entry<'v>) -> Result<&'v str, String> {
    let first = entry.list("segments")?.first().ok_or("no segments")?;
    first["entire_message_hash"].as_str().ok_or_else(|| "no hash".to_owned())
}
