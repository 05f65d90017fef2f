//! A client, as far as tests need one.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;
use parking_lot::Mutex;
use poste_codec::SecretKey;
use poste_wire::status::proto::push_notification_registration_response::ErrorType;
use poste_wire::status::proto::{
    ApplicationMetadataMessage, PushNotification, PushNotificationQuery, PushNotificationQueryInfo,
    PushNotificationQueryResponse, PushNotificationRegistration, PushNotificationRegistrationResponse,
    PushNotificationReport, PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{
    ApplicationMessage, Grant, HashedPublicKey, InstallationId, MessageType, PushMessage, RequestId,
    SharedKey, TopicName, frame,
};
use poste_wire::{SymKey, Topic};

use prost::Message;

use super::{Handled, NOW, Rig};
use crate::answer::{Answer, AnswerKind};
use crate::store::DeviceId;

pub(crate) static SERVER: LazyLock<SecretKey> = LazyLock::new(|| key(200));

pub(crate) const ACCESS_TOKEN: &str = "5c0fb5e9-3f71-4a6f-8e0c-1f7fbe6c1e11";
pub(crate) const INSTALLATION: &str = "0d4f5d4b-3f39-4c0a-8f1e-64ad6f4a2e01";

pub(crate) fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

/// The topic where the server gets everything but registrations.
pub(crate) fn partitioned() -> Topic {
    TopicName::partitioned(&SERVER.public()).topic()
}

/// A frame for the server.
pub(crate) fn seal(content: &[u8]) -> Vec<u8> {
    frame::seal_asymmetric(&SERVER.public(), content, &key(100), |bytes| bytes.fill(7)).unwrap()
}

/// A frame for everybody who knows the topic.
pub(crate) fn seal_symmetric(topic: &TopicName, content: &[u8]) -> Vec<u8> {
    static DERIVED: LazyLock<Mutex<HashMap<Topic, SymKey>>> = LazyLock::new(Mutex::default);
    let known = DERIVED.lock().get(&topic.topic()).cloned();
    let topic_key = known.unwrap_or_else(|| {
        let derived = topic.derive_key();
        DERIVED.lock().insert(topic.topic(), derived.clone());
        derived
    });
    frame::seal_symmetric(&topic_key, content, &key(100), |bytes| bytes.fill(7)).unwrap()
}

/// The signature's twin: the order of the group less S, and V turned round. It names the same signer.
pub(crate) fn malleated(raw: &[u8]) -> Vec<u8> {
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut message = ApplicationMetadataMessage::decode(raw).unwrap();
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

/// A client with one device.
pub(crate) struct Client {
    pub(crate) key: SecretKey,
}

impl Client {
    pub(crate) fn new(byte: u8) -> Self {
        Self { key: key(byte) }
    }

    pub(crate) fn hash(&self) -> HashedPublicKey {
        HashedPublicKey::of(&self.key.public())
    }

    pub(crate) fn device(&self) -> DeviceId {
        DeviceId { key: self.hash(), installation: InstallationId::uuid(INSTALLATION).unwrap() }
    }

    pub(crate) fn query_topic(&self) -> TopicName {
        TopicName::query(&self.hash())
    }

    /// One that a server takes.
    pub(crate) fn registration(&self, version: u64) -> PushNotificationRegistration {
        let grant = Grant::sign(&self.key, &SERVER.public(), ACCESS_TOKEN);
        PushNotificationRegistration {
            token_type: 1,
            device_token: "device token".into(),
            installation_id: INSTALLATION.into(),
            access_token: ACCESS_TOKEN.into(),
            enabled: true,
            version,
            grant: Bytes::copy_from_slice(grant.as_bytes()),
            apn_topic: "im.status.ethereum".into(),
            ..Default::default()
        }
    }

    /// One that a short answer to a query has no room for.
    pub(crate) fn long_registration(&self, version: u64) -> PushNotificationRegistration {
        PushNotificationRegistration {
            allow_from_contacts_only: true,
            allowed_key_list: vec![Bytes::from_static(&[1; 64]); 1100],
            ..self.registration(version)
        }
    }

    pub(crate) fn unregistration(&self, version: u64) -> PushNotificationRegistration {
        PushNotificationRegistration {
            installation_id: INSTALLATION.into(),
            version,
            unregister: true,
            ..Default::default()
        }
    }

    /// The message of a registration. The same one has the same bytes.
    pub(crate) fn sealed_registration(&self, registration: &PushNotificationRegistration) -> Vec<u8> {
        self.sealed(&registration.write(), [registration.version as u8; 12])
    }

    pub(crate) fn sealed(&self, plaintext: &[u8], nonce: [u8; 12]) -> Vec<u8> {
        let sealed = SharedKey::between(&self.key, &SERVER.public()).seal(nonce, plaintext);
        ApplicationMessage::write(MessageType::PushNotificationRegistration, sealed, &self.key)
    }

    /// Sends a registration, and gives the answer's error.
    pub(crate) async fn register(
        &self,
        rig: &Rig,
        registration: &PushNotificationRegistration,
    ) -> Result<(), ErrorType> {
        self.send_registration(rig, &self.sealed_registration(registration)).await
    }

    pub(crate) async fn send_registration(&self, rig: &Rig, message: &[u8]) -> Result<(), ErrorType> {
        let topic = TopicName::personal(&SERVER.public()).topic();
        let handled = rig.bring(topic, seal(message), NOW).await;
        assert_eq!(handled, Ok(Handled::Answered(AnswerKind::Registration)));
        let published = rig.world.take_answers();
        let [answer] = &published[..] else { panic!("one answer") };
        let answer = PushNotificationRegistrationResponse::read(self.open(answer)).unwrap();
        let sealed = ApplicationMessage::read(Bytes::copy_from_slice(message)).unwrap().payload;
        assert_eq!(answer.request_id[..], RequestId::of(&sealed).0);
        result(&answer)
    }

    pub(crate) fn read_registration_answers(&self, rig: &Rig) -> Vec<Result<(), ErrorType>> {
        let answers = rig.world.take_answers();
        answers
            .iter()
            .map(|answer| result(&PushNotificationRegistrationResponse::read(self.open(answer)).unwrap()))
            .collect()
    }

    pub(crate) fn query_message(&self, about: &[&Client]) -> Vec<u8> {
        let public_keys =
            about.iter().map(|client| Bytes::copy_from_slice(client.hash().as_bytes())).collect();
        let query = PushNotificationQuery { public_keys }.write();
        ApplicationMessage::write(MessageType::PushNotificationQuery, query, &self.key)
    }

    pub(crate) async fn query(
        &self,
        rig: &Rig,
        topic: &TopicName,
        about: &[&Client],
    ) -> Result<Vec<PushNotificationQueryInfo>, Handled> {
        let message = self.query_message(about);
        let handled = rig.bring(topic.topic(), seal_symmetric(topic, &message), NOW).await.unwrap();
        if handled != Handled::Answered(AnswerKind::Query) {
            return Err(handled);
        }
        Ok(self.read_query_answer(rig, &message))
    }

    pub(crate) fn read_query_answer(&self, rig: &Rig, message: &[u8]) -> Vec<PushNotificationQueryInfo> {
        let answers = rig.world.take_answers();
        let answer = PushNotificationQueryResponse::read(self.open(&answers[0])).unwrap();
        assert!(answer.success);
        let id = ApplicationMessage::read(Bytes::copy_from_slice(message)).unwrap().id;
        assert_eq!(answer.message_id[..], id.0);
        answer.info
    }

    /// What somebody who has the token asks to notify this client's device.
    pub(crate) fn notification(&self) -> PushNotification {
        PushNotification {
            access_token: ACCESS_TOKEN.into(),
            chat_id: Bytes::from_static(&[3; 64]),
            public_key: Bytes::copy_from_slice(self.hash().as_bytes()),
            installation_id: INSTALLATION.into(),
            message: Bytes::new(),
            r#type: 1,
            author: Bytes::from_static(&[4; 64]),
        }
    }

    pub(crate) fn request(&self, message_id: &[u8], requests: &[PushNotification]) -> Vec<u8> {
        let message_id = Bytes::copy_from_slice(message_id);
        let request = PushNotificationRequest { requests: requests.to_vec(), message_id }.write();
        ApplicationMessage::write(MessageType::PushNotificationRequest, request, &self.key)
    }

    /// Sends a request, and gives the reports: success, error.
    pub(crate) async fn notify(
        &self,
        rig: &Rig,
        message_id: &[u8],
        requests: &[PushNotification],
    ) -> Vec<(bool, i32)> {
        let handled = rig.bring_sealed(&self.request(message_id, requests)).await;
        assert_eq!(handled, Handled::Answered(AnswerKind::Request));
        self.read_reports(rig, message_id).into_iter().map(|report| (report.success, report.error)).collect()
    }

    pub(crate) fn read_reports(&self, rig: &Rig, message_id: &[u8]) -> Vec<PushNotificationReport> {
        let published = rig.world.take_answers();
        let [answer] = &published[..] else { panic!("one answer, not {}", published.len()) };
        let response = PushNotificationResponse::read(self.open(answer)).unwrap();
        assert_eq!(response.message_id, message_id);
        response.reports
    }

    /// The payload of an answer to this client, which the server signed.
    fn open(&self, answer: &Answer) -> Bytes {
        assert_eq!(answer.topic, TopicName::partitioned(&self.key.public()).topic());
        let [data] = &answer.frames[..] else { panic!("one frame") };
        let message = ApplicationMessage::read(frame::open_asymmetric(&self.key, data).unwrap()).unwrap();
        assert_eq!(message.signer, SERVER.public());
        message.payload
    }
}

fn result(answer: &PushNotificationRegistrationResponse) -> Result<(), ErrorType> {
    let error = ErrorType::try_from(answer.error).unwrap();
    assert!(!answer.success || error == ErrorType::UnknownErrorType);
    if answer.success { Ok(()) } else { Err(error) }
}
