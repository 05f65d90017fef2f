//! Frames (26/WAKU2-PAYLOAD): opened, and sealed anew.

use poste_codec::{PublicKey, SecretKey, ecies};
use poste_wire::payload::{self, PayloadError};
use poste_wire::status::{TopicName, frame};
use poste_wire::{SymKey, password_key};

use crate::entry::{Entry, Outcome, same};
use crate::primitives::once;
use crate::{Common, public_key, secret_key, text};

/// A frame around so many equal bytes.
pub(crate) fn waku_frame(entry: &Entry<'_>, _: &Common) -> Outcome {
    let [byte] = entry.array("data_byte")?;
    let length = usize::try_from(entry.uint("data_len")?).map_err(text)?;
    let content = vec![byte; length];
    if content.is_empty() {
        same("byte of no content", byte, 0xa5)?;
    }
    let data = entry.bytes("payload")?;
    if entry.has("payload_len") {
        same("length", data.len() as u64, entry.uint("payload_len")?)?;
    }
    let signer = if entry.has("signer") { Some(public_key(entry, "signer")?) } else { None };
    let overhead = match entry.text("mode")? {
        "symmetric" => {
            let key = SymKey::from_bytes(entry.array("symkey")?).map_err(text)?;
            let password = entry.text("password")?;
            same("key of the password", once(password, || password_key(password)), key.clone())?;
            same("opened", &frame::open_symmetric(&key, &data).map_err(text)?[..], &content[..])?;
            signed_by(&payload::open_symmetric(&key, &data).map_err(text)?, signer)?;
            payload::SYMMETRIC_OVERHEAD
        }
        "asymmetric" => {
            let key = secret_key(entry, "to_private")?;
            same("to", key.public(), public_key(entry, "to_public")?)?;
            same("opened", &frame::open_asymmetric(&key, &data).map_err(text)?[..], &content[..])?;
            signed_by(&payload::open_asymmetric(&key, &data).map_err(text)?, signer)?;
            ecies::OVERHEAD
        }
        mode => return Err(format!("no such mode: {mode}")),
    };
    let plaintext =
        payload::build(&content, &vec![0; payload::padding_length(length, signer.is_some())], None);
    let signature = if signer.is_some() { payload::SIGNATURE_LENGTH } else { 0 };
    same("length as we would send", plaintext.map_err(text)?.len() + signature + overhead, data.len())
}

/// Whom a frame in an entry may be opened by.
pub(crate) enum Opener<'k> {
    /// The receiver.
    Key(&'k SecretKey),
    /// A receiver whose key the vectors do not have.
    UnknownKey,
    /// Everybody who knows the topic.
    Topic(&'k SymKey),
}

/// A frame with the topic it was sent on; gives what it carries.
pub(crate) fn frame(
    entry: &Entry<'_>,
    common: &Common,
    opener: &Opener<'_>,
    topics: &[TopicName],
) -> Result<Vec<u8>, String> {
    same("pubsub topic", entry.text("pubsub_topic")?, &common.pubsub_topic)?;
    let content_topic = entry.text("content_topic")?;
    if !topics.iter().any(|topic| topic.content_topic() == content_topic) {
        return Err(format!("content_topic: {content_topic} is none of those that we would use"));
    }
    let signer = public_key(entry, "envelope_signer")?;
    let (sealed, content) = (entry.bytes("payload")?, entry.bytes("data")?);
    match opener {
        Opener::Key(key) => {
            same("to", key.public(), public_key(entry, "to")?)?;
            same("opened", &frame::open_asymmetric(key, &sealed).map_err(text)?[..], &content[..])?;
            signed_by(&payload::open_asymmetric(key, &sealed).map_err(text)?, Some(signer))?;
            let ours = frame::seal_asymmetric(&key.public(), &content, key, |bytes| bytes.fill(7));
            let ours = ours.map_err(text)?;
            same("length as we would send", ours.len(), sealed.len())?;
            same("ours, opened", &frame::open_asymmetric(key, &ours).map_err(text)?[..], &content[..])?;
        }
        Opener::UnknownKey => {
            public_key(entry, "to")?;
        }
        Opener::Topic(key) => {
            same("key", *key.as_bytes(), entry.array("symkey")?)?;
            same("opened", &frame::open_symmetric(key, &sealed).map_err(text)?[..], &content[..])?;
            signed_by(&payload::open_symmetric(key, &sealed).map_err(text)?, Some(signer))?;
            let any = SecretKey::from_bytes(&[7; 32]).map_err(text)?;
            let ours = frame::seal_symmetric(key, &content, &any, |bytes| bytes.fill(7)).map_err(text)?;
            same("length as we would send", ours.len(), sealed.len())?;
            same("ours, opened", &frame::open_symmetric(key, &ours).map_err(text)?[..], &content[..])?;
        }
    }
    Ok(content)
}

fn signed_by(plaintext: &[u8], signer: Option<PublicKey>) -> Outcome {
    let parsed = payload::parse(plaintext).map_err(|error: PayloadError| error.to_string())?;
    same("signer of the envelope", parsed.signer, signer)
}
