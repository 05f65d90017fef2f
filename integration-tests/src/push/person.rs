//! Somebody with a key who speaks with push servers: each message is made here as the specification has it, sent through a
//! real node, and each answer opened and compared. It decides nothing: whoever tests says what is sent, and when.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use poste_client::notify::channel::{Channel, ChannelOptions};
use poste_codec::{PublicKey, SecretKey};
use poste_wire::Topic;
use poste_wire::status::proto::{
    PushNotification, PushNotificationQuery, PushNotificationQueryInfo, PushNotificationQueryResponse,
    PushNotificationRegistration, PushNotificationRegistrationResponse, PushNotificationReport,
    PushNotificationRequest, PushNotificationResponse,
};
use poste_wire::status::{
    ApplicationMessage, Grant, HashedPublicKey, MessageType, PushMessage, RequestId, SharedKey, TopicName,
    frame,
};
use rand::Rng;
use tokio::time::timeout;

/// How long an answer may take. A loaded machine gets more than the network's clients give it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The access token of every device here.
pub const ACCESS_TOKEN: &str = "5c0fb5e9-3f71-4a6f-8e0c-1f7fbe6c1e11";

/// A device of this number.
#[must_use]
pub fn installation(number: u32) -> String {
    format!("{number:08x}-3f39-4c0a-8f1e-64ad6f4a2e01")
}

/// The device token of a device of this number.
#[must_use]
pub fn device_token(number: u32) -> String {
    format!("token-{number}")
}

/// A key, and a connection that hears what is sent to it.
#[derive(Debug)]
pub struct Person {
    /// Who it is.
    pub key: SecretKey,
    channel: Channel,
}

impl Person {
    /// Somebody new, connected to this node.
    pub async fn connect(enode: &str) -> Result<Self> {
        Self::connect_as(enode, SecretKey::random(|bytes| rand::rng().fill_bytes(bytes))).await
    }

    /// Somebody with this key.
    pub async fn connect_as(enode: &str, key: SecretKey) -> Result<Self> {
        let mut channel = Channel::connect(ChannelOptions::new(enode.parse()?)).await?;
        channel.subscribe([TopicName::partitioned(&key.public()).topic()]).await?;
        Ok(Self { key, channel })
    }

    /// What others know of the key.
    #[must_use]
    pub fn hash(&self) -> HashedPublicKey {
        HashedPublicKey::of(&self.key.public())
    }

    /// A registration of a device that a server takes, if its version is new.
    #[must_use]
    pub fn registration(
        &self,
        server: &PublicKey,
        device: u32,
        version: u64,
    ) -> PushNotificationRegistration {
        let grant = Grant::sign(&self.key, server, ACCESS_TOKEN);
        PushNotificationRegistration {
            token_type: 1,
            device_token: device_token(device),
            installation_id: installation(device),
            access_token: ACCESS_TOKEN.into(),
            enabled: true,
            version,
            grant: Bytes::copy_from_slice(grant.as_bytes()),
            apn_topic: "im.status.ethereum".into(),
            ..Default::default()
        }
    }

    /// Takes a registration back.
    #[must_use]
    pub fn unregistration(&self, device: u32, version: u64) -> PushNotificationRegistration {
        PushNotificationRegistration {
            installation_id: installation(device),
            version,
            unregister: true,
            ..Default::default()
        }
    }

    /// The message of a registration, sealed for this server.
    #[must_use]
    pub fn sealed(&self, server: &PublicKey, registration: &PushNotificationRegistration) -> Vec<u8> {
        let mut nonce = [0; 12];
        rand::rng().fill_bytes(&mut nonce);
        let sealed = SharedKey::between(&self.key, server).seal(nonce, &registration.write());
        ApplicationMessage::write(MessageType::PushNotificationRegistration, sealed, &self.key)
    }

    /// Sends the message of a registration to the server's personal topic, and says how it was answered: the error's number, or
    /// that it was stored.
    pub async fn register(&mut self, server: &PublicKey, message: &[u8]) -> Result<Result<(), i32>> {
        self.send(server, &TopicName::personal(server), message).await?;
        let sealed = ApplicationMessage::read(Bytes::copy_from_slice(message))?.payload;
        let request_id = RequestId::of(&sealed);
        let answer: PushNotificationRegistrationResponse = self
            .answer(
                MessageType::PushNotificationRegistrationResponse,
                server,
                |answer: &PushNotificationRegistrationResponse| answer.request_id[..] == request_id.0,
            )
            .await?;
        ensure!(!answer.success || answer.error == 0, "success with an error: {answer:?}");
        Ok(if answer.success { Ok(()) } else { Err(answer.error) })
    }

    /// The message of a query about a person.
    #[must_use]
    pub fn query(&self, about: &HashedPublicKey) -> Vec<u8> {
        let public_keys = vec![Bytes::copy_from_slice(about.as_bytes())];
        let query = PushNotificationQuery { public_keys }.write();
        ApplicationMessage::write(MessageType::PushNotificationQuery, query, &self.key)
    }

    /// Sends the message of a query about a person on this topic, and reads the answer of that server.
    pub async fn ask(
        &mut self,
        server: &PublicKey,
        topic: &TopicName,
        message: &[u8],
    ) -> Result<Vec<PushNotificationQueryInfo>> {
        self.send_query(topic, message).await?;
        let id = ApplicationMessage::read(Bytes::copy_from_slice(message))?.id;
        let answer: PushNotificationQueryResponse = self
            .answer(
                MessageType::PushNotificationQueryResponse,
                server,
                |answer: &PushNotificationQueryResponse| answer.message_id[..] == id.0,
            )
            .await?;
        ensure!(answer.success, "a query without success");
        Ok(answer.info)
    }

    /// Sends the message of a query on this topic.
    pub async fn send_query(&mut self, topic: &TopicName, message: &[u8]) -> Result<()> {
        let frame = frame::seal_symmetric(&topic.derive_key(), message, &self.key, fill)?;
        self.publish(topic.topic(), frame).await
    }

    /// What somebody who has the token asks to notify this device of.
    #[must_use]
    pub fn notification(of: &HashedPublicKey, device: u32) -> PushNotification {
        PushNotification {
            access_token: ACCESS_TOKEN.into(),
            chat_id: Bytes::from_static(&[3; 64]),
            public_key: Bytes::copy_from_slice(of.as_bytes()),
            installation_id: installation(device),
            message: Bytes::new(),
            r#type: 1,
            author: Bytes::from_static(&[4; 64]),
        }
    }

    /// The message of a request for notifications of a chat message.
    #[must_use]
    pub fn request(&self, message_id: &[u8], requests: Vec<PushNotification>) -> Vec<u8> {
        let request =
            PushNotificationRequest { requests, message_id: Bytes::copy_from_slice(message_id) }.write();
        ApplicationMessage::write(MessageType::PushNotificationRequest, request, &self.key)
    }

    /// Sends the message of a request to the server's partitioned topic, and reads the reports.
    pub async fn notify(
        &mut self,
        server: &PublicKey,
        message_id: &[u8],
        message: &[u8],
    ) -> Result<Vec<PushNotificationReport>> {
        self.send_request(server, message).await?;
        self.reports(server, message_id).await
    }

    /// Sends the message of a request to the server's partitioned topic.
    pub async fn send_request(&mut self, server: &PublicKey, message: &[u8]) -> Result<()> {
        self.send(server, &TopicName::partitioned(server), message).await
    }

    /// Waits for the reports on a request.
    pub async fn reports(
        &mut self,
        server: &PublicKey,
        message_id: &[u8],
    ) -> Result<Vec<PushNotificationReport>> {
        let answer: PushNotificationResponse = self
            .answer(MessageType::PushNotificationResponse, server, |answer: &PushNotificationResponse| {
                answer.message_id == message_id
            })
            .await?;
        Ok(answer.reports)
    }

    /// Fails if anything comes for this key until `within` has passed.
    pub async fn hears_nothing(&mut self, within: Duration) -> Result<()> {
        let heard = async {
            loop {
                let message = self.channel.next().await?;
                if frame::open_asymmetric(&self.key, &message.data).is_ok() {
                    bail!("an answer came");
                }
            }
        };
        timeout(within, heard).await.unwrap_or(Ok(()))
    }

    async fn send(&mut self, to: &PublicKey, topic: &TopicName, message: &[u8]) -> Result<()> {
        let frame = frame::seal_asymmetric(to, message, &self.key, fill)?;
        self.publish(topic.topic(), frame).await
    }

    async fn publish(&mut self, topic: Topic, frame: Vec<u8>) -> Result<()> {
        self.channel.publish(topic, frame).await.map(drop).context("publishing")
    }

    /// The next answer of this kind by that server that `wanted` takes. Others are passed over: answers come twice.
    async fn answer<T: PushMessage>(
        &mut self,
        kind: MessageType,
        server: &PublicKey,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let answered = async {
            loop {
                let message = self.channel.next().await?;
                let Ok(content) = frame::open_asymmetric(&self.key, &message.data) else { continue };
                let message = ApplicationMessage::read(content).context("an answer")?;
                if message.message_type() != Some(kind) || message.signer != *server {
                    continue;
                }
                let answer = T::read(message.payload).context("an answer's payload")?;
                if wanted(&answer) {
                    return Ok(answer);
                }
            }
        };
        timeout(PATIENCE, answered).await.with_context(|| format!("no answer ({kind:?}) in time"))?
    }
}

fn fill(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}
