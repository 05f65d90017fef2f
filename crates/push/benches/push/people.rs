//! Who registers and who asks. Each has a number, and is the same in every process.

use std::time::Duration;

use bytes::Bytes;
use poste_codec::SecretKey;
use poste_push::store::{DeviceData, DeviceId, NewRegistration, TokenType, TopicKeys};
use poste_wire::status::proto::{PushNotification, PushNotificationRegistration, PushNotificationRequest};
use poste_wire::status::{
    ApplicationMessage, Grant, HashedPublicKey, InstallationId, MessageType, PushMessage, SharedKey, frame,
};
use sha2::{Digest, Sha256};

/// When it all happens, since 1970.
pub(crate) const NOW: Duration = Duration::from_secs(1_700_000_000);

const ACCESS_TOKEN: &str = "5c0fb5e9-3f71-4a6f-8e0c-1f7fbe6c1e11";
const CONTACTS: u32 = 20;
/// The first byte of what a row of the store holds, and the message that it came in.
const ROW_VERSION: u8 = 1;

pub(crate) fn key(what: &str, number: u32) -> SecretKey {
    let hash: [u8; 32] = hash(what, number);
    SecretKey::from_bytes(&hash).expect("no hash is zero or beyond the order, but by a chance of 2^-128")
}

pub(crate) fn server() -> SecretKey {
    key("server", 0)
}

fn hash(what: &str, number: u32) -> [u8; 32] {
    Sha256::new_with_prefix(what).chain_update(number.to_be_bytes()).finalize().into()
}

fn long_hash(what: &str, number: u32) -> Bytes {
    [hash(what, number), hash(what, !number)].concat().into()
}

fn installation(number: u32) -> String {
    format!("{number:08x}-3f39-4c0a-8f1e-64ad6f4a2e01")
}

/// A receiver who is only known by a hash: nobody has the key.
pub(crate) fn receiver(number: u32) -> HashedPublicKey {
    HashedPublicKey::try_from(&long_hash("receiver", number)[..]).expect("64 bytes")
}

/// A registration for contacts only, as clients make it.
fn registration(number: u32, version: u64, grant: &[u8]) -> PushNotificationRegistration {
    PushNotificationRegistration {
        token_type: 1,
        device_token: hex::encode(hash("token", number)),
        installation_id: installation(number),
        access_token: ACCESS_TOKEN.into(),
        enabled: true,
        version,
        allowed_key_list: (0..CONTACTS).map(|contact| long_hash("contact", number ^ contact)).collect(),
        allow_from_contacts_only: true,
        grant: Bytes::copy_from_slice(grant),
        apn_topic: "im.status.ethereum".into(),
        ..Default::default()
    }
}

/// The registration of an owner as a server stores it, with keys of topics that are nobody's.
pub(crate) fn stored(owner: HashedPublicKey, number: u32) -> NewRegistration {
    let registration = registration(number, 1, &[7; 65]).write();
    let data = [&[ROW_VERSION][..], &hash("message", number), &registration].concat();
    NewRegistration {
        device: DeviceId {
            key: owner,
            installation: InstallationId::any(&installation(number)).expect("short"),
        },
        version: 1,
        token_type: TokenType::Apn,
        data: DeviceData::new(data),
        topic_keys: TopicKeys::new(&hash("bare", number), &hash("prefixed", number)),
        at_unix_s: NOW.as_secs(),
    }
}

/// The data of an envelope that registers an owner's device.
pub(crate) fn registration_envelope(number: u32, version: u64) -> Bytes {
    let (owner, server) = (key("owner", number), server().public());
    let grant = Grant::sign(&owner, &server, ACCESS_TOKEN);
    let plaintext = registration(number, version, grant.as_bytes()).write();
    let mut nonce = [0; 12];
    nonce.copy_from_slice(&hash("nonce", number)[..12]);
    let sealed = SharedKey::between(&owner, &server).seal(nonce, &plaintext);
    let message = ApplicationMessage::write(MessageType::PushNotificationRegistration, sealed, &owner);
    seal(&message, &owner)
}

/// Who makes the request of this number.
pub(crate) fn asker(number: u32) -> SecretKey {
    key("asker", number)
}

/// The data of an envelope that asks to notify these receivers: of its own ephemeral key and message.
pub(crate) fn request_envelope(number: u32, receivers: impl Iterator<Item = u32>) -> Bytes {
    let asker = asker(number);
    seal(&request(number, receivers, &asker), &asker)
}

pub(crate) fn request(number: u32, receivers: impl Iterator<Item = u32>, asker: &SecretKey) -> Vec<u8> {
    let entry = |receiver_number: u32| PushNotification {
        access_token: ACCESS_TOKEN.into(),
        chat_id: long_hash("chat", number),
        public_key: Bytes::copy_from_slice(receiver(receiver_number).as_bytes()),
        installation_id: installation(receiver_number),
        // By this the provider knows which request it was.
        message: Bytes::copy_from_slice(&number.to_be_bytes()),
        r#type: 1,
        author: long_hash("author", number),
    };
    let message_id = Bytes::copy_from_slice(&hash("chat message", number));
    let request = PushNotificationRequest { requests: receivers.map(entry).collect(), message_id };
    ApplicationMessage::write(MessageType::PushNotificationRequest, request.write(), asker)
}

fn seal(message: &[u8], signer: &SecretKey) -> Bytes {
    let sealed = frame::seal_asymmetric(&server().public(), message, signer, |bytes| {
        rand::Rng::fill_bytes(&mut rand::rng(), bytes);
    });
    sealed.expect("it is short").into()
}
