use std::collections::BTreeSet;
use std::convert::Infallible;

use poste_codec::{PublicKey, SecretKey};
use poste_wire::status::proto::ProtocolMessage;
use poste_wire::status::{AccessToken, Grant, InstallationId, find_access_token};
use prost::Message as _;

use super::*;
use crate::notify::profile::{Device, Profile};
use crate::notify::state::ReceiverState;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn public(byte: u8) -> PublicKey {
    key(byte).public()
}

fn symmetric() -> SymKey {
    SymKey::from_bytes([3; 32]).unwrap()
}

fn registrar(contacts_only: bool, standings: &[(u8, Standing)]) -> Registrar {
    let profile = Profile {
        contacts_only,
        contacts: BTreeSet::from([public(2)]),
        ..Profile::open_to_all(Device::Firebase { token: "token".into() })
    };
    let token = AccessToken::from_random([4; 16]);
    let servers = standings.iter().map(|(server, standing)| (public(*server), *standing)).collect();
    let state = ReceiverState {
        registration: Some(Registration { profile, token }),
        servers,
        ..ReceiverState::new(InstallationId::from_random([1; 16]))
    };
    Registrar::new(key(1), state)
}

/// What a contact reads.
fn read(advertisement: &Advertisement) -> Vec<PushNotificationQueryInfo> {
    assert_eq!(advertisement.topic, TopicName::contact_code(&public(1)).topic());
    let [data] = &advertisement.frames[..] else { panic!("one frame") };
    let plaintext = poste_wire::payload::open_symmetric(&symmetric(), data).unwrap();
    assert_eq!(poste_wire::payload::parse(&plaintext).unwrap().signer, Some(public(1)));
    let content = frame::open_symmetric(&symmetric(), data).unwrap();
    let wrapped = ProtocolMessage::decode(content).unwrap();
    let message = ApplicationMessage::read(wrapped.public_message).unwrap();
    assert_eq!((message.signer, message.kind), (public(1), 15));
    ContactCodeAdvertisement::read(message.payload).unwrap().push_notification_info
}

const REGISTERED: Standing = Standing::Registered { version: 7 };

#[test]
fn every_server_that_has_confirmed_is_named() {
    let standings =
        [(11, REGISTERED), (12, Standing::Registering), (13, Standing::Leaving), (14, REGISTERED)];
    let mut registrar = registrar(false, &standings);
    let advertisement = registrar.advertisement(&symmetric(), |bytes| bytes.fill(9)).unwrap();
    let infos = read(&advertisement);
    assert_eq!((infos.len(), advertisement.servers), (2, 2));
    for server in [11, 14] {
        let key = public(server);
        let info = infos.iter().find(|info| info.server_public_key[..] == key.to_compressed()).unwrap();
        assert_eq!(info.installation_id, registrar.state().installation().as_str());
        assert_eq!(info.public_key[..], HashedPublicKey::of(&public(1)).as_bytes()[..]);
        assert_eq!(info.version, 7);
        assert!(info.allowed_key_list.is_empty());
        let grant = Grant::from_bytes(&info.grant).unwrap();
        grant.verify(&public(1), &key, &info.access_token).unwrap();
    }
}

#[test]
fn where_only_contacts_may_notify_nobody_else_reads_the_token() {
    let mut registrar = registrar(true, &[(11, REGISTERED)]);
    let advertisement = registrar.advertisement(&symmetric(), |bytes| bytes.fill(9)).unwrap();
    let [info] = &read(&advertisement)[..] else { panic!("one server") };
    assert!(info.access_token.is_empty());
    let find =
        |own| find_access_token(&key(own), &public(1), info.allowed_key_list.iter().map(|entry| &entry[..]));
    let token = find(2).unwrap();
    assert_eq!(find(5), None);
    let grant = Grant::from_bytes(&info.grant).unwrap();
    grant.verify(&public(1), &public(11), token.as_str()).unwrap();
}

#[test]
fn there_is_nothing_to_tell_before_a_success_and_after_unregistering() {
    let mut registrar = registrar(false, &[(12, Standing::Registering)]);
    assert_eq!(registrar.advertisement(&symmetric(), |bytes| bytes.fill(9)), None);
    let mut registrar = self::registrar(false, &[(11, REGISTERED)]);
    registrar.unregister(|_| Ok::<_, Infallible>(())).unwrap();
    assert_eq!(registrar.advertisement(&symmetric(), |bytes| bytes.fill(9)), None);
}

#[test]
fn an_advertisement_is_due_after_a_success_and_then_from_time_to_time() {
    let at = Duration::from_secs;
    let mut times = AdvertisingTimes::new(Some(at(100)));
    assert_eq!(times.next_due(), None);
    times.now();
    assert_eq!(times.next_due(), Some(at(0)));
    times.done(at(50));
    assert_eq!(times.next_due(), Some(at(150)));
    times.again(at(155));
    assert_eq!(times.next_due(), Some(at(155)));
    let mut once = AdvertisingTimes::new(None);
    once.now();
    once.done(at(1));
    assert_eq!(once.next_due(), None);
}
