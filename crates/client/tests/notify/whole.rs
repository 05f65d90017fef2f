//! From a registration to a notification, over a real gateway, archive and push server.

use poste_client::notify::known::KnownFile;
use poste_client::notify::send::{Notification, NotificationKind, SendSettings};
use poste_client::notify::{Device, Profile, Receiver, ReceiverEvent, Sender};
use poste_codec::{PublicKey, SecretKey};
use poste_wire::status::MessageId;
use rand::Rng;
use tempfile::TempDir;

use crate::stack::{DEADLINE, Stack, soon};

fn random_key() -> SecretKey {
    SecretKey::random(|bytes| rand::rng().fill_bytes(bytes))
}

#[tokio::test]
async fn who_was_told_notifies_and_so_does_who_asks() {
    let stack = Stack::start().await;
    let push = stack.push_server().await;
    let server = hex::decode(push.addresses().push_key.as_deref().unwrap()).unwrap();
    let server = PublicKey::from_compressed(server[..].try_into().unwrap()).unwrap();
    let (identity, state) = (random_key(), TempDir::new().unwrap());
    let contact = identity.public();
    let channel = stack.channel().await;
    let mut receiver = Receiver::open(channel, identity, state.path(), None, None).await.unwrap();
    let device = Device::Firebase { token: "token of a device".into() };
    receiver.register(Profile::open_to_all(device), &[server], &[]).await.unwrap();
    while !matches!(soon("contacts told", receiver.step()).await.unwrap(), ReceiverEvent::Advertised { .. }) {
    }

    // One finds the advertisement in history, the other asks the server.
    for by_history in [true, false] {
        let (own, state) = (random_key(), TempDir::new().unwrap());
        let file = KnownFile::new(state.path(), own.public());
        let mut sender = Sender::open(stack.channel().await, own, file).await.unwrap();
        if by_history {
            let found = soon("history", sender.discover(&contact, 0)).await.unwrap();
            assert_eq!((found.advertisements, found.incomplete), (1, None));
        } else {
            let queried = soon("answers", sender.query(&contact)).await.unwrap();
            assert_eq!((queried.answers.len(), queried.answers[0].0), (1, server));
        }
        let message = MessageId([u8::from(by_history); 32]);
        let notification = Notification { kind: NotificationKind::OneToOne, message };
        let report = sender.notify(&contact, notification, SendSettings::default(), DEADLINE).await.unwrap();
        assert_eq!((report.trouble, report.not_kept), (None, None));
        assert_eq!(report.devices[0].installation, *receiver.state().installation());
        assert_eq!(report.devices[0].outcome, Ok(server));
    }
    assert_eq!(stack.notifications(), 2);

    drop(receiver);
    push.stop(DEADLINE).await.unwrap();
    stack.end().await;
}
