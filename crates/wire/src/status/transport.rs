//! The secure transport's frame, `ProtocolMessage` (53/WAKU2-X3DH). Push messages go without it; contact codes are wrapped,
//! but not encrypted. Reading double-ratchet messages is not for servers, nor for what our client does.

use bytes::Bytes;
use prost::Message;

use super::fields::{FieldValue, Fields};
use super::installation::InstallationId;
use super::proto::ProtocolMessage;

const INSTALLATION_ID: u32 = 2;
const PUBLIC_MESSAGE: u32 = 102;

/// The application message in a frame's content: the public message of a `ProtocolMessage` if the content is one, else
/// the content itself. Never an error: an application message is hardly ever readable as a `ProtocolMessage`.
pub fn unwrap(content: Bytes) -> Bytes {
    match public_message(&content) {
        Some(message) => content.slice_ref(message),
        None => content,
    }
}

/// Wraps an application message for a contact code topic.
pub fn wrap(message: impl Into<Bytes>, sender: &InstallationId) -> Vec<u8> {
    let wrapped = ProtocolMessage {
        installation_id: sender.to_string(),
        public_message: message.into(),
        ..ProtocolMessage::default()
    };
    wrapped.encode_to_vec()
}

/// Without decoding the rest, which may be long and is of no use here.
fn public_message(content: &[u8]) -> Option<&[u8]> {
    let mut public_message = None;
    for field in Fields::new(content) {
        let field = field.ok()?;
        match (field.number, field.value) {
            (INSTALLATION_ID, FieldValue::Bytes(text)) => {
                std::str::from_utf8(text).ok()?;
            }
            (PUBLIC_MESSAGE, FieldValue::Bytes(message)) => public_message = Some(message),
            _ => {}
        }
    }
    public_message.filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use poste_codec::SecretKey;
    use proptest::prelude::*;

    use super::*;
    use crate::status::{ApplicationMessage, MessageType};

    #[test]
    fn a_message_that_is_not_wrapped_stays_as_it_is() {
        let key = SecretKey::from_bytes(&[1; 32]).unwrap();
        for payload in [&b"\xff not text"[..], b"text", b""] {
            let kind = MessageType::PushNotificationQuery;
            let message = Bytes::from(ApplicationMessage::write(kind, Bytes::copy_from_slice(payload), &key));
            assert_eq!(unwrap(message.clone()), message);
        }
    }

    #[test]
    fn an_installation_id_that_is_no_text_makes_it_no_protocol_message() {
        let readable = Bytes::from_static(b"\x12\x01a\xb2\x06\x01m");
        assert_eq!(unwrap(readable), "m");
        let unreadable = Bytes::from_static(b"\x12\x01\xff\xb2\x06\x01m");
        assert_eq!(unwrap(unreadable.clone()), unreadable);
    }

    proptest! {
        #[test]
        fn what_was_wrapped_comes_out(message in proptest::collection::vec(any::<u8>(), 1..200)) {
            let wrapped = wrap(message.clone(), &InstallationId::from_random([1; 16]));
            let decoded = ProtocolMessage::decode(&wrapped[..]).unwrap();
            prop_assert_eq!(&decoded.public_message[..], &message[..]);
            prop_assert_eq!(unwrap(wrapped.into()), message);
        }

        #[test]
        fn unwrapping_never_panics(content: Vec<u8>) {
            let unwrapped = unwrap(Bytes::from(content.clone()));
            prop_assert!(unwrapped.len() <= content.len());
        }
    }
}
