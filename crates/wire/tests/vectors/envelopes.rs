//! Envelopes with their proof of work, and topics with their bloom filters.

use bytes::Bytes;
use poste_wire::packet::code;
use poste_wire::{Bloom, Cursor, Dialect, Envelope, Packet, SymKey, Topic, archive_key, payload, pow};

use crate::entry::{Entry, Outcome, same};

/// An envelope: read, made anew from its fields, measured, opened, mined.
pub(crate) fn envelope(entry: &Entry<'_>) -> Outcome {
    let rlp = Bytes::from(entry.bytes("rlp")?);
    let envelope = Envelope::decode(rlp.clone()).map_err(|error| error.to_string())?;
    same("expiry", u64::from(envelope.expiry()), entry.uint("expiry")?)?;
    same("ttl", u64::from(envelope.ttl()), entry.uint("ttl")?)?;
    same("topic", envelope.topic(), entry.parsed("topic")?)?;
    same("nonce", envelope.nonce(), entry.parsed("nonce")?)?;
    same("hash", envelope.hash(), entry.parsed("hash")?)?;
    same("sent", u64::from(envelope.sent()), entry.uint("sent")?)?;
    same("size", envelope.size() as u64, entry.uint("size_field")?)?;
    // Left out of the file where it is long; then the RLP is all there is.
    if entry.has("data") {
        same("data", envelope.data().to_vec(), entry.bytes("data")?)?;
    }
    let made =
        Envelope::new(envelope.expiry(), envelope.ttl(), envelope.topic(), envelope.data(), envelope.nonce());
    same("made anew", made.rlp(), &rlp)?;

    same("bloom", Bloom::sample(envelope.topic()), Bloom(entry.array("bloom")?))?;
    let cursor = Cursor::from(entry.array("cursor")?);
    same("cursor", envelope.cursor(), cursor)?;
    same("cursor's bytes", envelope.cursor().to_bytes(), entry.array("cursor")?)?;
    same("archive key", archive_key(&envelope), entry.array("archive_key")?)?;

    same("short length", pow::Work::of(&envelope).short_length as u64, entry.uint("rlp_without_nonce_len")?)?;
    same("pow", envelope.pow(), entry.float("pow")?)?;
    same("bits of the pow", envelope.pow().to_bits().to_be_bytes(), entry.array("pow_ieee754_hex")?)?;

    let as_mail =
        Packet::decode(Dialect::Shh6, code::MAIL_MESSAGES, rlp).map_err(|error| error.to_string())?;
    let same_in_whisper = matches!(as_mail, Some(Packet::MailMessages(read)) if read == [envelope.clone()]);
    same("the same in whisper", same_in_whisper, entry.flag("whisper_hash_same")?)?;

    if entry.has("note") {
        same("note", "hand-made, data is not an encrypted payload", entry.text("note")?)?;
    }
    if entry.has("symmetric_key") {
        let key = SymKey::from_bytes(entry.array("symmetric_key")?).map_err(|error| error.to_string())?;
        let plaintext = payload::open_symmetric(&key, envelope.data()).map_err(|error| error.to_string())?;
        let parsed = payload::parse(&plaintext).map_err(|error| error.to_string())?;
        same("payload length", parsed.payload.len() as u64, entry.uint("plaintext_payload_len")?)?;
    }
    if entry.has("pow_target") {
        mined(&envelope, entry.float("pow_target")?)?;
    }
    Ok(())
}

/// Mining finds the recorded nonce; it is stopped when it has gone well past it.
fn mined(envelope: &Envelope, target: f64) -> Outcome {
    let mut rounds = envelope.nonce() / 1024 + 1;
    let stop = || {
        rounds = rounds.saturating_sub(1);
        rounds == 0
    };
    let (expiry, ttl, topic) = (envelope.expiry(), envelope.ttl(), envelope.topic());
    let mined = pow::mine(expiry, ttl, topic, envelope.data(), target, stop);
    same("mined", mined.map(|envelope| envelope.nonce()), Ok(envelope.nonce()))?;
    same("the target is reached", envelope.pow() >= target, true)
}

/// A chat's name, its topic, and the sample that deployed nodes make of it.
pub(crate) fn topic(entry: &Entry<'_>) -> Outcome {
    let topic: Topic = entry.parsed("topic")?;
    same("topic", Topic::of_name(entry.text("name")?), topic)?;
    same("bloom", Bloom::sample(topic), Bloom(entry.array("bloom")?))
}
