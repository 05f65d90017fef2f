//! Application messages.

use bytes::Bytes;
use poste_codec::{SecretKey, keccak256, recover};
use poste_wire::status::proto::{ApplicationMetadataMessage, PushNotificationRegistration};
use poste_wire::status::{
    ApplicationMessage, MessageError, MessageType, PushMessage, Segment, SharedKey, transport,
};
use prost::Message;

use crate::entry::{Entry, Outcome, same};
use crate::{Common, inside, leave, public_key, text};

/// The member `amm` of an entry; written anew if the key of its signer is known.
pub(crate) fn message(
    entry: &Entry<'_>,
    kind: MessageType,
    signer: Option<&SecretKey>,
) -> Result<ApplicationMessage, String> {
    inside(entry, "amm", |entry| {
        let raw = Bytes::from(entry.bytes("bytes")?);
        same("is no segment", Segment::read(&raw), None)?;
        same("is not wrapped", transport::unwrap(raw.clone()), raw.clone())?;
        let message = ApplicationMessage::read(raw.clone()).map_err(text)?;
        same("signer", message.signer, public_key(entry, "signer")?)?;
        same("message id", message.id, entry.parsed("message_id")?)?;
        same("type", message.message_type(), Some(kind))?;
        same("number of the type", u64::try_from(message.kind).ok(), Some(entry.uint("type")?))?;
        same("payload", &message.payload[..], &entry.bytes("payload")?[..])?;
        let recovered = recover(&keccak256(&message.payload), &entry.array("signature")?).map_err(text)?;
        same("recovered from the signature", recovered, message.signer)?;
        let metadata = ApplicationMetadataMessage::decode(raw.clone()).map_err(text)?;
        same("signature", &metadata.signature[..], &entry.bytes("signature")?[..])?;
        same("encoded anew", Bytes::from(metadata.encode_to_vec()), raw.clone())?;
        if let Some(signer) = signer {
            same("known signer", signer.public(), message.signer)?;
            let written = ApplicationMessage::write(kind, message.payload.clone(), signer);
            same("as we write it", &written[..], &raw[..])?;
        }
        Ok(message)
    })
}

/// Messages whose envelope or signature is odd.
pub(crate) fn envelope_case(entry: &Entry<'_>, common: &Common) -> Outcome {
    let raw = Bytes::from(entry.bytes("amm")?);
    let read = ApplicationMessage::read(raw.clone());
    match entry.text("name")? {
        // The deployed server drops it; ours does not look at the envelope's signature.
        "unsigned envelope" => {
            leave(entry, &["answered", "error"]);
            let message = read.map_err(text)?;
            is_registration(&message, common)
        }
        "envelope signed by an unrelated key: the answer goes to the inner signer" => {
            leave(entry, &["answered", "error"]);
            let message = read.map_err(text)?;
            same("signer", message.signer, public_key(entry, "inner_signer")?)?;
            same("receiver of the answer", message.signer, public_key(entry, "answer_to")?)
        }
        "inner signature absent, envelope signed by the client" => {
            leave(entry, &["answered", "error"]);
            same("refused", read, Err(MessageError::SignatureLength(0)))
        }
        "inner signature with v 27/28" => {
            leave(entry, &["answered", "error"]);
            same("refused", read, Err(MessageError::Signature))
        }
        "an AMM read as SegmentMessage" => {
            let message = read.map_err(text)?;
            let metadata = ApplicationMetadataMessage::decode(raw.clone()).map_err(text)?;
            same("length of the hash", metadata.signature.len() as u64, entry.uint("hash_len")?)?;
            same(
                "number of segments",
                u64::try_from(message.kind).ok(),
                Some(entry.uint("segments_count")?),
            )?;
            same("piece", Segment::read(&raw).is_some(), entry.flag("payload_present")?)?;
            is_registration(&message, common)
        }
        name => Err(format!("no such case: {name}")),
    }
}

fn is_registration(message: &ApplicationMessage, common: &Common) -> Outcome {
    same("kind", message.message_type(), Some(MessageType::PushNotificationRegistration))?;
    let opened = SharedKey::between(&common.server, &message.signer).open(&message.payload);
    PushNotificationRegistration::read(opened.map_err(text)?.to_vec()).map_err(text).map(|_| ())
}
