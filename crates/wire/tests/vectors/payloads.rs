//! Payloads (7/WAKU-DATA): plaintexts built and taken apart, sealed and opened; keys from passwords.

use std::collections::BTreeMap;
use std::sync::Mutex;

use poste_codec::{PublicKey, SecretKey, ecies, keccak256};
use poste_wire::payload::{self, PayloadError, SIGNATURE_LENGTH};
use poste_wire::{SymKey, password_key};

use crate::entry::{Entry, Outcome, same};
use crate::plan::{Plan, Section};

/// The keys of the section, which all its entries share.
#[derive(Clone)]
struct Keys {
    symmetric: SymKey,
    signer: SecretKey,
    recipient: SecretKey,
}

impl Keys {
    fn read(entry: &Entry<'_>) -> Result<Self, String> {
        Ok(Self {
            symmetric: symmetric_key(entry, "symmetric_key")?,
            signer: secret_key(entry, "signer_private_key")?,
            recipient: secret_key(entry, "recipient_private_key")?,
        })
    }
}

const KEYS: [&str; 5] = [
    "symmetric_key",
    "signer_private_key",
    "signer_public_key",
    "recipient_private_key",
    "recipient_public_key",
];

pub(crate) fn add(section: &mut Section<'_>, plan: &mut Plan) {
    let mut value = serde_json::json!({});
    for name in KEYS {
        value[name] = section.member(name).clone();
    }
    let keys = Entry::new(&value)
        .and_then(|entry| Keys::read(&entry))
        .expect("the keys of the payloads can be read");
    let sample = section.member("symmetric")[0]["data"].as_str().and_then(|data| hex::decode(data).ok());
    let sample = sample.expect("the first symmetric payload has data");
    section.own(&KEYS, plan, move |entry| own_keys(entry, &sample));
    let symmetric = keys.clone();
    section.each("symmetric", plan, move |entry| sealed(entry, &symmetric, true));
    section.each("asymmetric", plan, move |entry| sealed(entry, &keys, false));
    section.each("odd_plaintexts", plan, odd_plaintext);
    section.finish();
}

/// The keys belong together, and the symmetric one opens what was sealed with it.
fn own_keys(entry: &Entry<'_>, sample: &[u8]) -> Outcome {
    let keys = Keys::read(entry)?;
    same("signer", keys.signer.public().to_sec1(), entry.array("signer_public_key")?)?;
    same("recipient", keys.recipient.public().to_sec1(), entry.array("recipient_public_key")?)?;
    payload::open_symmetric(&keys.symmetric, sample).map(|_| ()).map_err(|error| error.to_string())
}

fn sealed(entry: &Entry<'_>, keys: &Keys, symmetric: bool) -> Outcome {
    let signed = entry.flag("signed")?;
    let length = usize::try_from(entry.uint("payload_len")?).map_err(|error| error.to_string())?;
    let [byte] = entry.array("payload_byte")?;
    let content = vec![byte; length];
    if content.is_empty() {
        same("byte of no payload", byte, 0x40)?;
    }
    let padding_length = payload::padding_length(length, signed);
    same("padding length", padding_length as u64, entry.uint("padding_len")?)?;

    // Where a payload is long the file holds only the beginning of the data: the padding is not known, nor needed.
    let abridged = entry.has("data_prefix");
    let recorded = if abridged { Vec::new() } else { entry.bytes("plaintext")? };
    let padding = if abridged {
        vec![0; padding_length]
    } else {
        let parsed = payload::parse(&recorded).map_err(|error| error.to_string())?;
        same("payload", parsed.payload, &content[..])?;
        same("length of the padding", parsed.padding.len(), padding_length)?;
        parsed.padding.to_vec()
    };
    let built = payload::build(&content, &padding, signed.then_some(&keys.signer))
        .map_err(|error| error.to_string())?;
    same("plaintext's length", built.len() as u64, entry.uint("plaintext_len")?)?;
    let parsed = payload::parse(&built).map_err(|error| error.to_string())?;
    same("flags", [parsed.flags], entry.array("flags")?)?;
    same("signed", parsed.signature.is_some(), signed)?;
    if signed {
        signature(entry, &parsed, &built)?;
    }
    if abridged {
        return abridged_data(entry, keys, &built);
    }
    same("plaintext", &built[..], &recorded[..])?;

    let data = entry.bytes("data")?;
    let opened = if symmetric {
        let sealed = payload::seal_symmetric(&keys.symmetric, entry.array("nonce")?, &built);
        same("data", &sealed, &data)?;
        payload::open_symmetric(&keys.symmetric, &data)
    } else {
        same("length of the data", data.len(), built.len() + ecies::OVERHEAD)?;
        payload::open_asymmetric(&keys.recipient, &data)
    };
    same("opened", opened.map_err(|error| error.to_string())?.to_vec(), recorded)
}

fn signature(entry: &Entry<'_>, parsed: &payload::Plaintext<'_>, built: &[u8]) -> Outcome {
    same("signature", parsed.signature, Some(entry.array("signature")?))?;
    let digest = keccak256(&built[..built.len() - SIGNATURE_LENGTH]);
    same("signed digest", digest, entry.array("signed_digest")?)?;
    let signer =
        PublicKey::from_bytes(&entry.bytes("recovered_pubkey")?).map_err(|error| error.to_string())?;
    same("recovered key", parsed.signer, Some(signer))?;
    same("recovered key's bytes", signer.to_sec1(), entry.array("recovered_pubkey")?)
}

/// The beginning of the data depends on the beginning of the plaintext only.
fn abridged_data(entry: &Entry<'_>, keys: &Keys, built: &[u8]) -> Outcome {
    let size_field = entry.bytes("size_field_bytes_le")?;
    same("size field", &built[1..1 + size_field.len()], &size_field[..])?;
    same("length of the size field", usize::from(built[0] & 3), size_field.len())?;
    let sealed = payload::seal_symmetric(&keys.symmetric, entry.array("nonce")?, built);
    same("length of the data", sealed.len() as u64, entry.uint("data_len")?)?;
    let prefix = entry.bytes("data_prefix")?;
    same("length of the prefix", prefix.len(), 32)?;
    same("beginning of the data", &sealed[..prefix.len()], &prefix[..])
}

/// Plaintexts that are hardly any, with our reason where the deployed parser refuses.
fn odd_plaintext(entry: &Entry<'_>) -> Outcome {
    let plaintext = entry.bytes("plaintext")?;
    let expected = match entry.text("plaintext")? {
        "" => Some(PayloadError::Empty),
        "01" | "0105" | "02" | "03ffffff" => Some(PayloadError::Truncated),
        "04" | "0400" | "ff00" => Some(PayloadError::NoRoomForSignature),
        _ => None,
    };
    let parsed = payload::parse(&plaintext);
    same("reason", parsed.as_ref().err(), expected.as_ref())?;
    same("accepted", parsed.is_ok(), entry.flag("accepted")?)?;
    same("unused flags", parsed.as_ref().map_or(0, |parsed| parsed.flags & !7), 0)?;
    let (content, padding) = parsed.map_or((&[][..], &[][..]), |parsed| (parsed.payload, parsed.padding));
    same("payload", content, &entry.bytes("payload")?[..])?;
    same("padding", padding, &entry.bytes("padding")?[..])
}

/// A password and its key.
pub(crate) fn password(entry: &Entry<'_>) -> Outcome {
    let key = derived(entry.text("password")?);
    same("key", *key.as_bytes(), entry.array("symkey")?)
}

/// The key of a password, derived once.
pub(crate) fn derived(password: &str) -> SymKey {
    static DERIVED: Mutex<BTreeMap<String, SymKey>> = Mutex::new(BTreeMap::new());
    let mut derived = DERIVED.lock().expect("derivation does not panic");
    derived.entry(password.to_owned()).or_insert_with(|| password_key(password)).clone()
}

pub(crate) fn symmetric_key(entry: &Entry<'_>, name: &str) -> Result<SymKey, String> {
    SymKey::from_bytes(entry.array(name)?).map_err(|error| format!("{name}: {error}"))
}

pub(crate) fn secret_key(entry: &Entry<'_>, name: &str) -> Result<SecretKey, String> {
    SecretKey::from_bytes(&entry.array(name)?).map_err(|error| format!("{name}: {error}"))
}
