use proptest::prelude::*;

use super::*;

const KIND: MessageType = MessageType::PushNotificationRequest;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn read(raw: &[u8]) -> Result<ApplicationMessage, MessageError> {
    ApplicationMessage::read(Bytes::copy_from_slice(raw))
}

fn metadata(raw: &[u8]) -> ApplicationMetadataMessage {
    ApplicationMetadataMessage::decode(raw).unwrap()
}

/// The signature's twin: the order of the group less S, and V turned round. It names the same signer.
fn malleated(raw: &[u8]) -> Vec<u8> {
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut message = metadata(raw);
    let mut signature = message.signature.to_vec();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i32::from(order[at]) - i32::from(signature[32 + at]) - borrow;
        borrow = i32::from(difference < 0);
        signature[32 + at] = difference.rem_euclid(256) as u8;
    }
    signature[64] ^= 1;
    message.signature = signature.into();
    message.encode_to_vec()
}

#[test]
fn a_message_names_its_signer_and_what_it_is() {
    let raw = ApplicationMessage::write(KIND, &b"payload"[..], &key(1));
    let message = read(&raw).unwrap();
    assert_eq!(message.signer, key(1).public());
    assert_eq!(message.message_type(), Some(KIND));
    assert_eq!(message.payload, "payload");
    assert_eq!(message.id, MessageId::of(&key(1).public(), &raw));
    assert_eq!(raw, ApplicationMessage::write(KIND, &b"payload"[..], &key(1)), "signing is deterministic");
    let printed = format!("{message:?}");
    assert_eq!(printed, "ApplicationMessage { kind: 20, payload: 7 bytes, .. }");
}

#[test]
fn a_malleated_signature_changes_the_id_but_not_the_dedupe_key() {
    let raw = ApplicationMessage::write(KIND, &b"payload"[..], &key(1));
    let (original, twin) = (read(&raw).unwrap(), read(&malleated(&raw)).unwrap());
    assert_eq!(malleated(&malleated(&raw)), raw);
    assert_eq!(twin.signer, original.signer);
    assert_ne!(twin.id, original.id);
    assert_eq!(twin.dedupe_key(), original.dedupe_key());
}

#[test]
fn another_encoding_changes_the_id_but_not_the_dedupe_key() {
    let raw = ApplicationMessage::write(KIND, &b"payload"[..], &key(1));
    let padded = [&raw[..], b"\xf8\x07\x01"].concat();
    let (original, padded) = (read(&raw).unwrap(), read(&padded).unwrap());
    assert_ne!(padded.id, original.id);
    assert_eq!(padded.dedupe_key(), original.dedupe_key());
}

#[test]
fn another_payload_kind_or_signer_has_another_dedupe_key() {
    let dedupe_key = |kind, payload: &'static [u8], signer| {
        read(&ApplicationMessage::write(kind, payload, &key(signer))).unwrap().dedupe_key()
    };
    let original = dedupe_key(KIND, b"payload", 1);
    assert_ne!(dedupe_key(KIND, b"payloae", 1), original);
    assert_ne!(dedupe_key(MessageType::PushNotificationQuery, b"payload", 1), original);
    assert_ne!(dedupe_key(KIND, b"payload", 2), original);
}

#[test]
fn without_a_signature_of_its_own_a_message_is_refused() {
    let message = metadata(&ApplicationMessage::write(KIND, &b"payload"[..], &key(1)));
    let with_signature = |signature: &[u8]| {
        let signature = Bytes::copy_from_slice(signature);
        read(&ApplicationMetadataMessage { signature, ..message.clone() }.encode_to_vec())
    };
    assert_eq!(with_signature(b""), Err(MessageError::SignatureLength(0)));
    assert_eq!(with_signature(&message.signature[..64]), Err(MessageError::SignatureLength(64)));
    assert_eq!(with_signature(&[0; 65]), Err(MessageError::Signature));
    let mut specified = message.signature.to_vec();
    specified[64] += 27;
    assert_eq!(with_signature(&specified), Err(MessageError::Signature));
    assert!(matches!(read(b"\xff\xff\xff"), Err(MessageError::Encoding(_))));
    assert_eq!(read(b""), Err(MessageError::SignatureLength(0)));
}

#[test]
fn a_kind_without_a_name_is_kept() {
    let mut message = metadata(&ApplicationMessage::write(KIND, &b"payload"[..], &key(1)));
    message.r#type = 77;
    let read = read(&message.encode_to_vec()).unwrap();
    assert_eq!((read.kind, read.message_type()), (77, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    // Thirty-two times 0xff is beyond the order of the curve: no key.
    fn what_was_written_is_read(payload: Vec<u8>, secret in 1..=254_u8) {
        let message = read(&ApplicationMessage::write(KIND, payload.clone(), &key(secret))).unwrap();
        prop_assert_eq!(message.signer, key(secret).public());
        prop_assert_eq!(&message.payload[..], &payload[..]);
    }

    #[test]
    fn reading_never_panics(raw: Vec<u8>, signature: [u8; 32], v in 0..6_u8, payload: Vec<u8>) {
        let _ = read(&raw);
        let signature = [&signature[..], &signature, &[v]].concat().into();
        let _ = read(&ApplicationMetadataMessage { signature, payload: payload.into(), r#type: 20 }.encode_to_vec());
    }
}
