//! A Status client with one device, as far as these tests need one: it publishes by a gateway, and finds its answers in
//! the archive.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_rpc::archive::v1::{QueryRequest, TopicSet, query_request};
use poste_rpc::gateway::v1::PublishRequest;
use poste_wire::status::proto::push_notification::PushNotificationType;
use poste_wire::status::proto::{
    PushNotification, PushNotificationQuery, PushNotificationQueryResponse, PushNotificationRegistration,
    PushNotificationRegistrationResponse, PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{
    ApplicationMessage, Grant, HashedPublicKey, MessageType, PushMessage, SharedKey, TopicName, frame,
    segment,
};
use poste_wire::{Envelope, Topic};
use rand::Rng;

use crate::stack::{Stack, eventually, random_key, soon, target};

const ACCESS_TOKEN: &str = "5c0fb5e9-3f71-4a6f-8e0c-1f7fbe6c1e11";
const INSTALLATION: &str = "0d4f5d4b-3f39-4c0a-8f1e-64ad6f4a2e01";

/// A client of one server.
pub(crate) struct Client {
    pub(crate) key: SecretKey,
    server: PublicKey,
}

fn fill(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}

pub(crate) fn now_s() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

impl Client {
    pub(crate) fn of(stack: &Stack) -> Self {
        Self { key: random_key(), server: stack.server_key() }
    }

    pub(crate) fn hash(&self) -> HashedPublicKey {
        HashedPublicKey::of(&self.key.public())
    }

    /// Data for the server's topic: a registration of this version.
    pub(crate) fn registration(&self, version: u64) -> (Topic, Vec<u8>) {
        self.sealed_registration(&self.registers_as(version))
    }

    fn registers_as(&self, version: u64) -> PushNotificationRegistration {
        let grant = Grant::sign(&self.key, &self.server, ACCESS_TOKEN);
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

    pub(crate) fn unregistration(&self, version: u64) -> (Topic, Vec<u8>) {
        self.sealed_registration(&PushNotificationRegistration {
            installation_id: INSTALLATION.into(),
            version,
            unregister: true,
            ..Default::default()
        })
    }

    fn sealed_registration(&self, registration: &PushNotificationRegistration) -> (Topic, Vec<u8>) {
        self.for_server(MessageType::PushNotificationRegistration, self.sealed(registration))
    }

    fn sealed(&self, registration: &PushNotificationRegistration) -> Vec<u8> {
        let mut nonce = [0; 12];
        fill(&mut nonce);
        SharedKey::between(&self.key, &self.server).seal(nonce, &registration.write())
    }

    /// A request that asks for a notification of `receiver`, about this message.
    pub(crate) fn request(&self, receiver: &Self, message_id: u8) -> (Topic, Vec<u8>) {
        let request = PushNotificationRequest {
            requests: vec![PushNotification {
                access_token: ACCESS_TOKEN.into(),
                public_key: Bytes::copy_from_slice(receiver.hash().as_bytes()),
                installation_id: INSTALLATION.into(),
                r#type: PushNotificationType::Message.into(),
                ..Default::default()
            }],
            message_id: Bytes::from(vec![message_id; 32]),
        };
        self.for_server(MessageType::PushNotificationRequest, request.write())
    }

    /// The same in segments, none of which is of use without the others.
    pub(crate) fn registration_in_segments(&self, version: u64) -> Vec<(Topic, Vec<u8>)> {
        self.in_segments(MessageType::PushNotificationRegistration, self.sealed(&self.registers_as(version)))
    }

    fn for_server(&self, kind: MessageType, payload: Vec<u8>) -> (Topic, Vec<u8>) {
        let message = ApplicationMessage::write(kind, payload, &self.key);
        self.frame(&message)
    }

    fn in_segments(&self, kind: MessageType, payload: Vec<u8>) -> Vec<(Topic, Vec<u8>)> {
        let message = ApplicationMessage::write(kind, payload, &self.key);
        let length = message.len().div_ceil(3);
        segment::split(message, length).iter().map(|piece| self.frame(piece)).collect()
    }

    fn frame(&self, content: &[u8]) -> (Topic, Vec<u8>) {
        let data = frame::seal_asymmetric(&self.server, content, &random_key(), fill).unwrap();
        (TopicName::partitioned(&self.server).topic(), data)
    }

    /// A query for the devices of `target`.
    pub(crate) fn query(&self, target: &Self) -> (Topic, Vec<u8>) {
        let query =
            PushNotificationQuery { public_keys: vec![Bytes::copy_from_slice(target.hash().as_bytes())] };
        let message = ApplicationMessage::write(MessageType::PushNotificationQuery, query.write(), &self.key);
        let topic = TopicName::query(&target.hash());
        let data = frame::seal_symmetric(&topic.derive_key(), &message, &random_key(), fill).unwrap();
        (topic.topic(), data)
    }

    /// All messages on this client's topic that it can open, with how many envelopes brought each.
    async fn messages(&self, archive: SocketAddr) -> BTreeMap<Vec<u8>, usize> {
        let topics = TopicSet {
            topics: vec![Bytes::copy_from_slice(&TopicName::partitioned(&self.key.public()).topic().0)],
        };
        let request = QueryRequest {
            space: "waku1".into(),
            to_ns: i64::MAX,
            filter: Some(query_request::Filter::Topics(topics)),
            ..QueryRequest::default()
        };
        // The archive may be away.
        let mut client = poste_rpc::archive::client(target(archive).channel());
        let Ok(page) = client.query(request).await else { return BTreeMap::new() };
        let mut messages = BTreeMap::new();
        for record in page.into_inner().records {
            let envelope = Envelope::decode(record.body).unwrap();
            if let Ok(raw) = frame::open_asymmetric(&self.key, envelope.data()) {
                *messages.entry(raw.to_vec()).or_default() += 1;
            }
        }
        messages
    }

    async fn answers<T: PushMessage>(&self, archive: SocketAddr, kind: MessageType) -> Vec<(T, usize)> {
        let messages = self.messages(archive).await.into_iter().filter_map(|(raw, copies)| {
            let message = ApplicationMessage::read(raw.into()).unwrap();
            assert_eq!(message.signer, self.server);
            let is_it = message.message_type() == Some(kind);
            is_it.then(|| (T::read(message.payload).unwrap(), copies))
        });
        messages.collect()
    }

    /// Answers to registrations that came until now, with how many envelopes brought each.
    pub(crate) async fn registered(
        &self,
        stack: &Stack,
    ) -> Vec<(PushNotificationRegistrationResponse, usize)> {
        self.answers(stack.archive_address, MessageType::PushNotificationRegistrationResponse).await
    }

    /// Answers to requests that came until now.
    pub(crate) async fn reported(&self, stack: &Stack) -> Vec<PushNotificationResponse> {
        let answers = self.answers(stack.archive_address, MessageType::PushNotificationResponse).await;
        answers.into_iter().map(|(answer, _)| answer).collect()
    }

    /// Answers to queries that came until now.
    pub(crate) async fn found(&self, stack: &Stack) -> Vec<PushNotificationQueryResponse> {
        let answers = self.answers(stack.archive_address, MessageType::PushNotificationQueryResponse).await;
        answers.into_iter().map(|(answer, _)| answer).collect()
    }

    /// Registers, and waits for the answer, which is a good one.
    pub(crate) async fn registers(&self, stack: &Stack, version: u64) {
        let before = self.registered(stack).await.len();
        publish(stack.gateway_address, self.registration(version)).await;
        eventually("the answer to a registration", async || self.registered(stack).await.len() > before)
            .await;
        assert!(self.registered(stack).await.iter().all(|(answer, _)| answer.success));
    }

    /// Waits until a device rang for a request of this client, and the report of it has come.
    pub(crate) async fn is_told(&self, stack: &Stack, reports: usize) {
        eventually("the report", async || self.reported(stack).await.len() == reports).await;
        let reported = self.reported(stack).await;
        assert!(reported.iter().all(|answer| answer.reports[0].success), "{reported:?}");
    }
}

/// Publishes data by a gateway.
pub(crate) async fn publish(gateway: SocketAddr, (topic, data): (Topic, Vec<u8>)) {
    let envelope = Envelope::new(now_s() + 15, 15, topic, &data, 0);
    let request = PublishRequest { envelope: envelope.rlp().clone(), mine_to_pow: Some(0.002) };
    let mut client = poste_rpc::gateway::client(target(gateway).channel());
    soon("Publish", client.publish(request)).await.unwrap();
}
