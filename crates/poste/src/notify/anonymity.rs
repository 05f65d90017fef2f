//! What the network and the disk see of somebody who registers by `--anonymous` beside an identity.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::future;

use bytes::Bytes;
use clap::Command;
use poste_client::notify::{Device, Mail, Network, Profile, Receiver, ReceiverEvent};
use poste_codec::{PublicKey, SecretKey};
use poste_gateway::node_key;
use poste_wire::status::proto::PushNotificationRegistrationResponse;
use poste_wire::status::{
    ApplicationMessage, HashedPublicKey, MessageType, PushMessage, RequestId, SharedKey, TopicName, frame,
    transport,
};
use poste_wire::{Topic, payload};
use rand::Rng;

/// A network with one server, which confirms every registration. It keeps what it sees.
#[derive(Debug)]
struct Witness {
    server: SecretKey,
    topics: Vec<Topic>,
    frames: Vec<(Topic, Vec<u8>)>,
    answers: VecDeque<Mail>,
}

impl Network for Witness {
    type Error = Infallible;

    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), Infallible> {
        self.topics.extend(topics);
        Ok(())
    }

    async fn unsubscribe(&mut self, _: &[Topic]) -> Result<(), Infallible> {
        Ok(())
    }

    async fn publish(&mut self, topic: Topic, data: Vec<u8>) -> Result<(), Infallible> {
        if let Ok(content) = frame::open_asymmetric(&self.server, &data) {
            let registration = ApplicationMessage::read(transport::unwrap(content)).unwrap();
            let request_id = RequestId::of(&registration.payload).as_bytes().to_vec().into();
            let response = PushNotificationRegistrationResponse { success: true, error: 0, request_id };
            let kind = MessageType::PushNotificationRegistrationResponse;
            let answer = ApplicationMessage::write(kind, response.write(), &self.server);
            let data = frame::seal_asymmetric(&registration.signer, &answer, &self.server, fill).unwrap();
            let topic = TopicName::partitioned(&registration.signer).topic();
            self.answers.push_back(Mail { topic, data: data.into(), made_at: 0 });
        }
        self.frames.push((topic, data));
        Ok(())
    }

    async fn next(&mut self) -> Result<Mail, Infallible> {
        match self.answers.pop_front() {
            Some(mail) => Ok(mail),
            None => future::pending().await,
        }
    }

    async fn history(
        &mut self,
        _: &[Topic],
        _: u32,
        _: impl FnMut(Mail) + Send,
    ) -> Result<Option<String>, Infallible> {
        Ok(None)
    }
}

fn fill(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}

/// Who has signed the outside and the inside of a frame, and what is in it.
fn signers(plaintext: &[u8]) -> ([PublicKey; 2], ApplicationMessage) {
    let outside = payload::parse(plaintext).unwrap();
    let content = Bytes::copy_from_slice(outside.payload);
    let message = ApplicationMessage::read(transport::unwrap(content)).unwrap();
    ([outside.signer.unwrap(), message.signer], message)
}

#[tokio::test]
async fn an_anonymous_registration_and_its_advertisement_carry_nothing_of_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (key_file, state) = (dir.path().join("key"), dir.path().join("state"));
    let identity = node_key::create(&key_file).unwrap();
    let command = Command::new("test").args(super::common_args()).arg(super::anonymous_arg());
    let command = command.mut_arg("enode", |arg| arg.required(false));
    let [key_file, state] = [&key_file, &state].map(|path| path.to_str().unwrap());
    let arguments = ["test", "--key", key_file, "--state", state, "--anonymous"];
    let (anonymous, directory) = super::receiver(&command.try_get_matches_from(arguments).unwrap()).unwrap();
    let (anonymous_key, server) = (anonymous.public(), SecretKey::random(fill));

    let witness =
        Witness { server: server.clone(), topics: Vec::new(), frames: Vec::new(), answers: VecDeque::new() };
    let mut receiver = Receiver::open(witness, anonymous.clone(), &directory, None, None).await.unwrap();
    let profile = Profile::open_to_all(Device::Firebase { token: "token".into() });
    receiver.register(profile, &[server.public()], &[]).await.unwrap();
    while receiver.step().await.unwrap() != (ReceiverEvent::Advertised { servers: 1 }) {}
    let seen = receiver.into_network();

    let topics_of = |key: &PublicKey| {
        [TopicName::partitioned(key), TopicName::personal(key), TopicName::contact_code(key)]
            .map(|name| name.topic())
    };
    let (theirs, servers) = (topics_of(&anonymous_key), topics_of(&server.public()));
    assert!(seen.topics.iter().all(|topic| theirs.contains(topic)), "{:?}", seen.topics);
    let [(registered_on, registration), (advertised_on, advertisement)] = &seen.frames[..] else {
        panic!("one of each: {} frames", seen.frames.len());
    };
    assert_eq!((*registered_on, *advertised_on), (servers[1], theirs[2]));

    let (by, registration) = signers(&payload::open_asymmetric(&server, registration).unwrap());
    assert_eq!(by, [anonymous_key; 2]);
    let opened = SharedKey::between(&server, &anonymous_key).open(&registration.payload).unwrap();
    let contact_code = TopicName::contact_code(&anonymous_key).derive_key();
    let (by, advertisement) = signers(&payload::open_symmetric(&contact_code, advertisement).unwrap());
    assert_eq!(by, [anonymous_key; 2]);

    // What names the identity, as bytes and as text.
    let public = identity.public();
    let names = [
        public.to_compressed()[1..].to_vec(),
        HashedPublicKey::of(&public).as_bytes().to_vec(),
        identity.to_bytes().to_vec(),
    ];
    let names: Vec<Vec<u8>> =
        names.into_iter().flat_map(|name| [hex::encode(&name).into_bytes(), name]).collect();
    let mut places = vec![opened.to_vec(), advertisement.payload.to_vec()];
    for entry in fs::read_dir(&directory).unwrap() {
        places.push(fs::read(entry.unwrap().path()).unwrap());
    }
    assert_eq!(fs::read_dir(state).unwrap().count(), 1, "the state of the identity is not begun");
    assert!(places.len() >= 4, "the key and the state are there");
    for (name, place) in names.iter().flat_map(|name| places.iter().map(move |place| (name, place))) {
        assert!(!place.windows(name.len()).any(|window| window == name), "the identity's name is there");
    }
}
