//! The client of a self-test: one key, one device, and what it says to the server and hears from it. Written as the
//! network's clients do it, so that a server that passes is one that they can use.

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_wire::SymKey;
use poste_wire::status::proto::push_notification::PushNotificationType;
use poste_wire::status::proto::push_notification_registration::TokenType;
use poste_wire::status::proto::{
    PushNotification, PushNotificationQuery, PushNotificationQueryResponse, PushNotificationRegistration,
    PushNotificationRegistrationResponse, PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{
    ApplicationMessage, AuthorHash, Grant, HashedChatId, HashedPublicKey, InstallationId, MessageId,
    MessageType, PushMessage, RequestId, SharedKey, TopicName, chat_key, frame,
};
use rand::Rng;
use sha2::{Digest, Sha256};

use crate::answer::{Answer, AnswerKind};
use crate::store::DeviceId;

/// An app's name that no app has: nothing is ever sent with it.
const APN_TOPIC: &str = "poste.self-test";
/// What the key is derived for.
const KEY: &[u8] = b"poste push: client of self-tests 1";
/// The only device that it has.
const INSTALLATION: [u8; 16] = *b"poste self-tests";

/// The client of all self-tests of a server. Being the same one, it leaves one device at most, whatever ends a self-test
/// in the middle, and the next one, or a start, clears that up.
pub(super) struct Client {
    key: SecretKey,
    server: PublicKey,
    installation: InstallationId,
    access_token: String,
    /// Of its registration.
    version: u64,
}

/// A message for the server, and what its answer will name.
#[derive(Debug)]
pub(super) struct Said<Id> {
    pub(super) envelopes: Answer,
    pub(super) id: Id,
}

impl Client {
    /// The client of the server with this identity.
    pub(super) fn of(identity: &SecretKey) -> Self {
        let digest = Sha256::new_with_prefix(KEY).chain_update(identity.to_bytes().as_slice()).finalize();
        Self {
            key: SecretKey::from_bytes(&digest.into()).expect("one hash in 2^127 is no key"),
            server: identity.public(),
            installation: InstallationId::from_random(INSTALLATION),
            access_token: InstallationId::from_random(rand::random()).to_string(),
            version: 1,
        }
    }

    /// Goes on behind the version that the server has of its device.
    pub(super) fn behind(self, version: Option<u64>) -> Self {
        Self { version: version.unwrap_or(0).saturating_add(1), ..self }
    }

    /// The version that its device ends with: no registration of it counts any more.
    pub(super) fn last_version(&self) -> u64 {
        self.version.saturating_add(1)
    }

    pub(super) fn hash(&self) -> HashedPublicKey {
        HashedPublicKey::of(&self.key.public())
    }

    pub(super) fn device(&self) -> DeviceId {
        DeviceId { key: self.hash(), installation: self.installation.clone() }
    }

    /// Where answers to it come.
    pub(super) fn inbox(&self) -> TopicName {
        TopicName::partitioned(&self.key.public())
    }

    /// The chat that its notification is about, as the notification names it.
    pub(super) fn chat(&self) -> HashedChatId {
        HashedChatId::of(&chat_key(&self.key.public()))
    }

    pub(super) fn registration(&self, device_token: &str) -> Result<Said<RequestId>, String> {
        let grant = Grant::sign(&self.key, &self.server, &self.access_token);
        self.register(&PushNotificationRegistration {
            token_type: TokenType::ApnToken.into(),
            device_token: device_token.to_owned(),
            installation_id: self.installation.to_string(),
            access_token: self.access_token.clone(),
            enabled: true,
            version: self.version,
            grant: Bytes::copy_from_slice(grant.as_bytes()),
            apn_topic: APN_TOPIC.to_owned(),
            ..PushNotificationRegistration::default()
        })
    }

    pub(super) fn unregistration(&self) -> Result<Said<RequestId>, String> {
        self.register(&PushNotificationRegistration {
            installation_id: self.installation.to_string(),
            version: self.last_version(),
            unregister: true,
            ..PushNotificationRegistration::default()
        })
    }

    fn register(&self, registration: &PushNotificationRegistration) -> Result<Said<RequestId>, String> {
        let mut nonce = [0; 12];
        fill(&mut nonce);
        let sealed = SharedKey::between(&self.key, &self.server).seal(nonce, &registration.write());
        let id = RequestId::of(&sealed);
        let message = ApplicationMessage::write(MessageType::PushNotificationRegistration, sealed, &self.key);
        Ok(Said { envelopes: self.to_server(&TopicName::personal(&self.server), &message)?, id })
    }

    /// Where others ask which devices it has.
    pub(super) fn query_topic(&self) -> TopicName {
        TopicName::query(&self.hash())
    }

    /// Asks that, with the key of the topic.
    pub(super) fn query(&self, key: &SymKey) -> Result<Said<MessageId>, String> {
        let public_keys = vec![Bytes::copy_from_slice(self.hash().as_bytes())];
        let query = PushNotificationQuery { public_keys };
        let message = ApplicationMessage::write(MessageType::PushNotificationQuery, query.write(), &self.key);
        let sealed = frame::seal_symmetric(key, &message, &self.key, fill);
        let envelopes = envelopes(&self.query_topic(), sealed.map_err(|error| error.to_string())?);
        Ok(Said { envelopes, id: MessageId::of(&self.key.public(), &message) })
    }

    /// Asks to notify its device, with the access token that a query has brought.
    pub(super) fn request(&self, access_token: String) -> Result<Said<[u8; 32]>, String> {
        let message_id: [u8; 32] = rand::random();
        let request = PushNotificationRequest {
            requests: vec![PushNotification {
                access_token,
                chat_id: Bytes::copy_from_slice(self.chat().as_bytes()),
                public_key: Bytes::copy_from_slice(self.hash().as_bytes()),
                installation_id: self.installation.to_string(),
                message: Bytes::new(),
                r#type: PushNotificationType::Message.into(),
                author: Bytes::copy_from_slice(AuthorHash::of(&self.key.public()).as_bytes()),
            }],
            message_id: Bytes::copy_from_slice(&message_id),
        };
        let message =
            ApplicationMessage::write(MessageType::PushNotificationRequest, request.write(), &self.key);
        let envelopes = self.to_server(&TopicName::partitioned(&self.server), &message)?;
        Ok(Said { envelopes, id: message_id })
    }

    fn to_server(&self, topic: &TopicName, message: &[u8]) -> Result<Answer, String> {
        let sealed = frame::seal_asymmetric(&self.server, message, &self.key, fill);
        Ok(envelopes(topic, sealed.map_err(|error| error.to_string())?))
    }

    /// What the server says by this data of an envelope; nothing when it is for somebody else or by somebody else.
    pub(super) fn hear(&self, data: &[u8]) -> Option<ApplicationMessage> {
        let content = frame::open_asymmetric(&self.key, data).ok()?;
        let message = ApplicationMessage::read(content).ok()?;
        (message.signer == self.server).then_some(message)
    }

    /// Whether this answers a registration, and if so, what it says.
    pub(super) fn registered(
        &self,
        answer: &ApplicationMessage,
        id: &RequestId,
    ) -> Option<Result<(), String>> {
        let response: PushNotificationRegistrationResponse =
            read(answer, MessageType::PushNotificationRegistrationResponse)?;
        (response.request_id[..] == *id.as_bytes()).then(|| {
            let refused = || format!("the answer is {}", response.error().as_str_name());
            if response.success { Ok(()) } else { Err(refused()) }
        })
    }

    /// Whether this answers the query, and if so, with which access token for its device.
    pub(super) fn found(
        &self,
        answer: &ApplicationMessage,
        id: &MessageId,
    ) -> Option<Result<String, String>> {
        let response: PushNotificationQueryResponse =
            read(answer, MessageType::PushNotificationQueryResponse)?;
        if response.message_id[..] != *id.as_bytes() {
            return None;
        }
        let installation = self.installation.as_str();
        let Some(info) = response.info.iter().find(|info| info.installation_id == installation) else {
            return Some(Err("the answer does not name the device that registered".to_owned()));
        };
        let granted = Grant::from_bytes(&info.grant)
            .and_then(|grant| grant.verify(&self.key.public(), &self.server, &info.access_token));
        Some(granted.map(|()| info.access_token.clone()).map_err(|error| error.to_string()))
    }

    /// Whether this answers the request, and if so, whether its device was notified.
    pub(super) fn notified(&self, answer: &ApplicationMessage, id: &[u8; 32]) -> Option<Result<(), String>> {
        let response: PushNotificationResponse = read(answer, MessageType::PushNotificationResponse)?;
        (response.message_id[..] == *id).then(|| match &response.reports[..] {
            [report] if report.success => Ok(()),
            [report] => Err(format!("the report is {}", report.error().as_str_name())),
            reports => Err(format!("{} reports instead of one", reports.len())),
        })
    }
}

/// The payload, if the message is of this kind and can be read.
fn read<M: PushMessage>(message: &ApplicationMessage, kind: MessageType) -> Option<M> {
    (message.message_type() == Some(kind)).then(|| M::read(message.payload.clone()).ok()).flatten()
}

/// The publisher brings it out like an answer; `kind` keeps it from doing so twice, as it does with some.
fn envelopes(topic: &TopicName, frame: Vec<u8>) -> Answer {
    Answer { kind: AnswerKind::Query, topic: topic.topic(), frames: vec![frame] }
}

fn fill(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}
