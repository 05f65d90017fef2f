//! A receiver and a push server that both hang on a real gateway and archive.

use std::time::{SystemTime, UNIX_EPOCH};

use poste_client::notify::{Device, Profile, Receiver, ReceiverEvent, RegistrationAnswer, Standing};
use poste_codec::{PublicKey, SecretKey};
use poste_wire::status::proto::ContactCodeAdvertisement;
use poste_wire::status::{ApplicationMessage, PushMessage, TopicName, frame, transport};
use rand::Rng;
use tempfile::TempDir;

use crate::stack::{Stack, soon};

fn random_key() -> SecretKey {
    SecretKey::random(|bytes| rand::rng().fill_bytes(bytes))
}

#[tokio::test]
async fn a_device_is_registered_told_of_and_forgotten_over_the_network() {
    let stack = Stack::start().await;
    let push = stack.push_server().await;
    let server = push.addresses().push_key.as_deref().expect("it has a key");
    let server: [u8; 33] = hex::decode(server).unwrap().try_into().unwrap();
    let server = PublicKey::from_compressed(&server).unwrap();
    let nobody = random_key().public();
    let identity = random_key();
    let contact_code = TopicName::contact_code(&identity.public());
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;

    let dir = TempDir::new().unwrap();
    let channel = stack.channel().await;
    let mut receiver = Receiver::open(channel, identity, dir.path(), None, None).await.unwrap();
    // More than an envelope holds, so that it goes in segments.
    let muted = (0..2000).map(|number| format!("chat {number}")).collect();
    let profile = Profile { muted, ..Profile::open_to_all(Device::Firebase { token: "token".into() }) };
    receiver.register(profile, &[server, nobody], &[]).await.unwrap();
    loop {
        match soon("an event", receiver.step()).await.unwrap() {
            ReceiverEvent::Sent { attempt, .. } => assert_eq!(attempt, 1),
            ReceiverEvent::Answered(answer) => {
                assert_eq!(answer, RegistrationAnswer::Registered { server, version: 1 });
            }
            ReceiverEvent::Advertised { servers } => {
                assert_eq!(servers, 1);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!receiver.is_settled(), "nobody has not answered");

    let mut contact = stack.channel().await;
    let mut told = Vec::new();
    let topics = [contact_code.topic()];
    soon("history", contact.history(&topics, began, |mail| told.push(mail.data))).await.unwrap();
    let content = frame::open_symmetric(&contact_code.derive_key(), &told[0]).unwrap();
    let message = ApplicationMessage::read(transport::unwrap(content)).unwrap();
    let infos = ContactCodeAdvertisement::read(message.payload).unwrap().push_notification_info;
    assert_eq!(infos[0].server_public_key[..], server.to_compressed());

    receiver.unregister().await.unwrap();
    let left = ReceiverEvent::Answered(RegistrationAnswer::Left { server });
    while soon("an event", receiver.step()).await.unwrap() != left {}
    assert_eq!(receiver.state().servers().collect::<Vec<_>>(), [(nobody, Standing::Leaving)]);

    drop(receiver);
    push.stop(crate::stack::DEADLINE).await.unwrap();
    stack.end().await;
}
