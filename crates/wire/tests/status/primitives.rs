//! Keys with their hashes and topics, hashes, shared secrets, grants, encrypted access tokens.

use std::collections::BTreeMap;
use std::sync::Mutex;

use poste_codec::{PublicKey, keccak256};
use poste_wire::status::{
    AccessToken, AuthorHash, Grant, HashedChatId, HashedPublicKey, SharedKey, TopicName, chat_key,
    encrypt_access_token, find_access_token, partition, shake256_64,
};
use poste_wire::{SymKey, Topic};

use crate::entry::{Entry, Outcome, same};
use crate::{Common, inside, leave, public_key, secret_key, text};

/// A key and what is derived from it.
pub(crate) fn key(entry: &Entry<'_>, _: &Common) -> Outcome {
    let public = public_key(entry, "public")?;
    same("public", secret_key(entry, "private")?.public(), public)?;
    leave(entry, &["name"]);
    same("compressed", public.to_compressed(), entry.array("compressed")?)?;
    let read = PublicKey::from_compressed(&entry.array("compressed")?).map_err(text)?;
    same("read from its compressed form", read, public)?;
    let hashed = HashedPublicKey::of(&public);
    same("hashed public key", hashed, entry.parsed("hashed_public_key")?)?;
    same("chat key", chat_key(&public).as_str(), entry.text("chat_key")?)?;
    same("author hash", AuthorHash::of(&public), entry.parsed("author_hash")?)?;
    same("contact's hash", HashedChatId::of(&chat_key(&public)).0, entry.array("author_hash")?)?;
    same("partition", u64::from(partition(&public)), entry.uint("partition")?)?;

    topic(entry, "partitioned", &TopicName::partitioned(&public), false)?;
    topic(entry, "personal", &TopicName::personal(&public), false)?;
    topic(entry, "contact_code", &TopicName::contact_code(&public), true)?;
    topic(entry, "query", &TopicName::query(&hashed), true)?;
    topic(entry, "query_as_spec_text_not_as_impl", &TopicName::query_as_specified(&hashed), true)
}

fn topic(entry: &Entry<'_>, member: &str, name: &TopicName, symmetric: bool) -> Outcome {
    inside(entry, member, |entry| {
        same("string", name.as_str(), entry.text("string")?)?;
        same("topic", name.topic(), entry.parsed("topic")?)?;
        same("content topic", name.content_topic().as_str(), entry.text("content_topic")?)?;
        if symmetric {
            same("key", *derived(name).as_bytes(), entry.array("symkey")?)?;
        }
        Ok(())
    })
}

/// The key of a topic, derived once.
pub(crate) fn derived(name: &TopicName) -> SymKey {
    once(name.as_str(), || name.derive_key())
}

/// The key of a password, derived once.
pub(crate) fn once(password: &str, derive: impl FnOnce() -> SymKey) -> SymKey {
    static DERIVED: Mutex<BTreeMap<String, SymKey>> = Mutex::new(BTreeMap::new());
    if let Some(key) = DERIVED.lock().expect("nothing panics with it").get(password) {
        return key.clone();
    }
    let key = derive();
    DERIVED.lock().expect("nothing panics with it").insert(password.to_owned(), key.clone());
    key
}

/// A text and its hashes.
pub(crate) fn hash(entry: &Entry<'_>, _: &Common) -> Outcome {
    let text = entry.text("text")?;
    same("SHAKE-256", shake256_64(text.as_bytes()), entry.array("shake256_64")?)?;
    same("Keccak-256", keccak256(text.as_bytes()), entry.array("keccak256")?)?;
    same("topic", Topic::of_name(text), entry.parsed("topic")?)
}

/// Two keys and what they share.
pub(crate) fn ecdh(entry: &Entry<'_>, _: &Common) -> Outcome {
    let (a, b) = (secret_key(entry, "a_private")?, secret_key(entry, "b_private")?);
    same("a", a.public(), public_key(entry, "a_public")?)?;
    same("b", b.public(), public_key(entry, "b_public")?)?;
    let shared = entry.array("shared")?;
    same("shared", *SharedKey::between(&a, &b.public()).as_bytes(), shared)?;
    same("shared, by the other", *SharedKey::between(&b, &a.public()).as_bytes(), shared)?;
    let zeros = match entry.text("name")? {
        "two-leading-zero-bytes" => 2,
        name => usize::from(name.starts_with("leading-zero-byte")),
    };
    if !entry.text("name")?.starts_with("plain-") {
        same("leading zeros", shared.iter().take_while(|byte| **byte == 0).count(), zeros)?;
    }
    Ok(())
}

/// A grant.
pub(crate) fn grant(entry: &Entry<'_>, _: &Common) -> Outcome {
    let client = secret_key(entry, "client_private")?;
    let (public, server) = (public_key(entry, "client_public")?, public_key(entry, "server_public")?);
    same("client", client.public(), public)?;
    let token = entry.text("access_token")?;
    let material = Grant::material(&public, &server, token);
    same("material", &material, &entry.bytes("material")?)?;
    same("digest", keccak256(&material), entry.array("digest")?)?;
    let grant = Grant::sign(&client, &server, token);
    same("grant", *grant.as_bytes(), entry.array("grant")?)?;
    grant.verify(&public, &server, token).map_err(text)
}

/// An access token for one contact.
pub(crate) fn encrypted_access_token(entry: &Entry<'_>, _: &Common) -> Outcome {
    let (owner, contact) = (secret_key(entry, "owner_private")?, secret_key(entry, "contact_private")?);
    same("owner", owner.public(), public_key(entry, "owner_public")?)?;
    same("contact", contact.public(), public_key(entry, "contact_public")?)?;
    let shared = SharedKey::between(&owner, &contact.public());
    same("shared key", *shared.as_bytes(), entry.array("shared_key")?)?;
    let token = AccessToken::uuid(entry.text("access_token")?).map_err(text)?;
    let encrypted = entry.bytes("encrypted")?;
    let ours = encrypt_access_token(&owner, &contact.public(), entry.array("nonce")?, &token);
    same("encrypted", &ours, &encrypted)?;
    let found = find_access_token(&contact, &owner.public(), [&encrypted[..]]);
    same("found", found, Some(token))
}
