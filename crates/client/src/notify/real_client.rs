//! What real clients and the real server said to each other, read by this sender: advertisements, answers to queries, and
//! the requests that a sender has to make. Recorded from status-go; the whole record is read from the directory that
//! `POSTE_VECTORS` names, without it a part that is kept here.

use std::path::PathBuf;
use std::{env, fs};

use bytes::Bytes;
use poste_codec::SecretKey;
use poste_wire::status::proto::{PushNotificationQuery, PushNotificationRequest};
use poste_wire::status::{
    ApplicationMessage, HashedPublicKey, InstallationId, MessageId, MessageType, PushMessage, TopicName,
};
use serde_json::Value;

use super::contact::{ContactCode, PushInfo, Shown, answered};
use super::send::{Notification, NotificationKind};
use super::{Mail, testing};

/// The clients a, b and c; b has all contacts.
struct Record {
    steps: Vec<Value>,
    server: SecretKey,
    a: SecretKey,
    b: SecretKey,
    c: SecretKey,
}

impl Record {
    fn load() -> Self {
        let kept = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata");
        let directory = env::var_os("POSTE_VECTORS").map_or_else(kept, PathBuf::from);
        let text = fs::read_to_string(directory.join("status-push.json")).unwrap();
        let mut root: Value = serde_json::from_str(&text).unwrap();
        let root = root["real_client"].take();
        let key = |name: &str| {
            let keys = root["keys"].as_array().unwrap();
            let key = keys.iter().find(|key| key["name"] == name).unwrap();
            SecretKey::from_bytes(bytes(&key["private"])[..].try_into().unwrap()).unwrap()
        };
        let steps = root["steps"].as_array().unwrap().clone();
        Self { server: key("server"), a: key("a"), b: key("b"), c: key("c"), steps }
    }

    /// Of every step that has one of this kind, the first.
    fn frames(&self, kind: u64) -> impl Iterator<Item = (&Value, &Value)> {
        self.steps.iter().filter_map(move |step| {
            let frames = step["frames"].as_array().unwrap();
            Some((step, frames.iter().find(|frame| frame["amm"]["type"].as_u64() == Some(kind))?))
        })
    }

    /// The one of a and c whom these bytes name.
    fn contact(&self, hash: &[u8]) -> &SecretKey {
        let named = |key: &&SecretKey| HashedPublicKey::of(&key.public()).as_bytes()[..] == *hash;
        [&self.a, &self.c].into_iter().find(named).unwrap()
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn message(frame: &Value) -> ApplicationMessage {
    ApplicationMessage::read(bytes(&frame["amm"]["bytes"]).into()).unwrap()
}

fn assert_shows_one(shown: &Shown, record: &Record) {
    assert_eq!((shown.infos.len(), shown.not_allowed.len(), shown.stopped), (1, 0, None));
    assert_eq!(shown.infos[0].server, record.server.public());
}

#[test]
fn real_advertisements_are_read_the_encrypted_token_by_its_contact_only() {
    let record = Record::load();
    let stranger = testing::key(7);
    let mut seen = 0;
    for (_, frame) in record.frames(15) {
        let signer = message(frame).signer;
        let mut code = ContactCode::derive(&signer);
        let mail = Mail { topic: code.topic(), data: bytes(&frame["payload"]).into(), made_at: 0 };
        assert_eq!(frame["content_topic"], TopicName::contact_code(&signer).content_topic());
        assert_shows_one(&code.open(&record.b, &mail, 0).unwrap(), &record);

        let by_stranger = code.open(&stranger, &mail, 0).unwrap();
        let is_for_all = signer == record.a.public();
        assert_eq!(
            (by_stranger.infos.len(), by_stranger.not_allowed.len()),
            if is_for_all { (1, 0) } else { (0, 1) }
        );
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn real_answers_are_read_and_real_requests_are_what_we_would_ask() {
    let record = Record::load();
    let mut known: Vec<(HashedPublicKey, PushInfo)> = Vec::new();
    for (step, answer) in record.frames(19) {
        let query = step["frames"].as_array().unwrap().iter().find(|frame| frame["amm"]["type"] == 18);
        let query = message(query.unwrap());
        let asked = PushNotificationQuery::read(query.payload).unwrap().public_keys;
        let contact = record.contact(&asked[0]).public();
        let answer = message(answer);
        assert_eq!(answer.message_type(), Some(MessageType::PushNotificationQueryResponse));
        let shown = answered(&record.b, &contact, &query.id, &answer).unwrap();
        assert_shows_one(&shown, &record);
        let info = shown.infos[0].clone();
        let used = &step["notified"][0];
        assert_eq!(
            (&used["installation_id"], &used["access_token"]),
            (&info.installation.as_str().into(), &info.token.as_str().into())
        );
        known.push((HashedPublicKey::of(&contact), info));
    }
    assert_eq!(known.len(), 2);

    let mut compared = 0;
    for (step, request) in record.frames(20) {
        let theirs = PushNotificationRequest::read(message(request).payload).unwrap();
        let entry = &theirs.requests[0];
        let (hash, info) = known.iter().find(|(hash, _)| hash.as_bytes()[..] == entry.public_key).unwrap();
        let contact = record.contact(hash.as_bytes()).public();
        assert_eq!(info.installation, InstallationId::uuid(&entry.installation_id).unwrap());
        let message = MessageId::try_from(&bytes(&step["message_id"])[..]).unwrap();
        let notification = Notification { kind: NotificationKind::OneToOne, message };
        let ours = PushNotificationRequest {
            requests: vec![notification.entry(&record.b.public(), &contact, info)],
            message_id: Bytes::copy_from_slice(message.as_bytes()),
        };
        assert_eq!(ours, theirs);
        compared += 1;
    }
    assert!(compared >= 2);
}
