use bytes::Bytes;
use poste_wire::status::{PushMessage, encrypt_access_token, segment, transport};

use super::*;
use crate::notify::testing::{fill, key};

const TOKEN: &str = "5c0fb5e9-3f71-4a6f-8e0c-1f7fbe6c1e11";

fn own() -> SecretKey {
    key(1)
}

fn contact() -> SecretKey {
    key(2)
}

fn server() -> SecretKey {
    key(3)
}

/// Device `number` of the contact at the server, as it should be.
fn info(number: u8) -> PushNotificationQueryInfo {
    let grant = Grant::sign(&contact(), &server().public(), TOKEN);
    PushNotificationQueryInfo {
        access_token: TOKEN.into(),
        installation_id: InstallationId::from_random([number; 16]).to_string(),
        public_key: Bytes::copy_from_slice(HashedPublicKey::of(&contact().public()).as_bytes()),
        grant: Bytes::copy_from_slice(grant.as_bytes()),
        version: 7,
        server_public_key: Bytes::copy_from_slice(&server().public().to_compressed()),
        ..Default::default()
    }
}

fn advertisement(infos: Vec<PushNotificationQueryInfo>, signer: &SecretKey) -> ApplicationMessage {
    let advertisement =
        ContactCodeAdvertisement { push_notification_info: infos, ..Default::default() }.write();
    let message = ApplicationMessage::write(MessageType::ContactCodeAdvertisement, advertisement, signer);
    ApplicationMessage::read(message.into()).unwrap()
}

fn look_at(infos: Vec<PushNotificationQueryInfo>) -> Shown {
    advertised(&own(), &contact().public(), &advertisement(infos, &contact())).unwrap()
}

#[test]
fn an_advertisement_shows_devices_at_servers() {
    let shown = look_at(vec![info(1), info(2)]);
    let installations: Vec<_> = shown.infos.iter().map(|info| info.installation.to_string()).collect();
    assert_eq!(installations, [info(1).installation_id, info(2).installation_id]);
    let expected = PushInfo {
        installation: InstallationId::from_random([1; 16]),
        server: server().public(),
        token: AccessToken::uuid(TOKEN).unwrap(),
        version: 7,
    };
    assert_eq!(shown.infos[0], expected);
    assert_eq!((shown.not_allowed.len(), shown.stopped, shown.by_owner), (0, None, true));
}

#[test]
fn only_the_contact_advertises_for_itself() {
    let by_other = advertisement(vec![info(1)], &key(9));
    assert_eq!(advertised(&own(), &contact().public(), &by_other), None);
    let payload = advertisement(vec![info(1)], &contact()).payload;
    let other_kind =
        ApplicationMessage::write(MessageType::PushNotificationQueryResponse, payload, &contact());
    let other_kind = ApplicationMessage::read(other_kind.into()).unwrap();
    assert_eq!(advertised(&own(), &contact().public(), &other_kind), None);
}

#[test]
fn what_is_not_to_be_believed_stops_the_rest() {
    let grant = InfoError::Grant(GrantError::Signature);
    type Alter = fn(&mut PushNotificationQueryInfo);
    let alterations: [(Alter, InfoError); 9] = [
        (|info| info.server_public_key = Bytes::from_static(&[2; 32]), InfoError::Server),
        (|info| info.server_public_key = Bytes::from_static(&[0xff; 33]), InfoError::Server),
        (
            |info| info.server_public_key = key(4).public().to_compressed().to_vec().into(),
            InfoError::Grant(GrantError::Signature),
        ),
        (|info| info.public_key = HashedPublicKey::of(&key(9).public()).0.to_vec().into(), InfoError::Owner),
        (|info| info.public_key = Bytes::new(), InfoError::Owner),
        (|info| info.access_token = "token".into(), InfoError::Token),
        (|info| info.access_token = TOKEN.to_uppercase(), InfoError::Grant(GrantError::Signature)),
        (|info| info.grant = Bytes::new(), InfoError::Grant(GrantError::Length(0))),
        (
            |info| {
                let by_other = Grant::sign(&key(9), &server().public(), TOKEN);
                info.grant = Bytes::copy_from_slice(by_other.as_bytes());
            },
            grant,
        ),
    ];
    for (number, (alter, error)) in alterations.into_iter().enumerate() {
        let mut bad = info(2);
        alter(&mut bad);
        let shown = look_at(vec![info(1), bad, info(3)]);
        assert_eq!((shown.infos.len(), shown.stopped), (1, Some(error)), "alteration {number}");
    }
}

#[test]
fn a_device_whose_name_is_no_uuid_hides_no_other() {
    for name in ["", "phone", "\x1b[2K\n1 of 1 device notified"] {
        let ours = PushNotificationQueryInfo { installation_id: name.into(), ..info(2) };
        let for_others = PushNotificationQueryInfo { access_token: String::new(), ..ours.clone() };
        let shown = look_at(vec![ours, info(1), for_others, info(3)]);
        let shown_devices: Vec<_> = shown.infos.iter().map(|info| info.installation.to_string()).collect();
        assert_eq!(shown_devices, [info(1), info(3)].map(|info| info.installation_id), "{name:?}");
        assert_eq!((shown.not_allowed.len(), shown.stopped), (0, None), "{name:?}");
    }
}

#[test]
fn a_token_is_found_in_the_list_or_the_device_is_for_others() {
    let token = AccessToken::uuid(TOKEN).unwrap();
    let entry = |to: u8| Bytes::from(encrypt_access_token(&contact(), &key(to).public(), [to; 12], &token));
    let listed = |to: &[u8]| PushNotificationQueryInfo {
        access_token: String::new(),
        allowed_key_list: to.iter().map(|to| entry(*to)).collect(),
        ..info(1)
    };
    // Ours is that of key 1.
    let shown = look_at(vec![listed(&[7, 8]), listed(&[7, 1, 8]), listed(&[])]);
    assert_eq!((shown.infos.len(), shown.not_allowed.len(), shown.stopped), (1, 2, None));
    assert_eq!(shown.infos[0].token, token);
    // A token that the contact did not grant to the server is none, whoever it was encrypted for.
    let other = AccessToken::from_random([4; 16]);
    let entry = encrypt_access_token(&contact(), &own().public(), [5; 12], &other);
    let shown =
        look_at(vec![PushNotificationQueryInfo { allowed_key_list: vec![entry.into()], ..listed(&[]) }]);
    assert_eq!(shown.stopped, Some(InfoError::Grant(GrantError::Signature)));
}

#[test]
fn a_server_answers_for_itself_only() {
    let query = MessageId([6; 32]);
    let answer = |signer: &SecretKey, id: &[u8], success: bool| {
        let message_id = Bytes::copy_from_slice(id);
        // What an answer says of servers is not looked at: deployed servers leave it empty.
        let info = PushNotificationQueryInfo { server_public_key: Bytes::from_static(b"x"), ..info(1) };
        let response = PushNotificationQueryResponse { info: vec![info], message_id, success }.write();
        let message = ApplicationMessage::write(MessageType::PushNotificationQueryResponse, response, signer);
        let message = ApplicationMessage::read(message.into()).unwrap();
        answered(&own(), &contact().public(), &query, &message)
    };
    let shown = answer(&server(), &[6; 32], true).unwrap();
    assert_eq!((shown.infos[0].server, shown.by_owner), (server().public(), false));
    let by_other = answer(&key(4), &[6; 32], true).unwrap();
    assert_eq!((by_other.infos.len(), by_other.stopped), (0, Some(InfoError::Grant(GrantError::Signature))));
    assert_eq!(answer(&server(), &[5; 32], true), None, "of another query");
    assert_eq!(answer(&server(), &[], true), None);
    assert_eq!(answer(&server(), &[6; 32], false), None);
}

#[test]
fn one_message_makes_only_so_much_work() {
    let many = (0..=255).chain(0..=255).map(info).collect();
    assert_eq!(look_at(many).infos.len(), MAX_INFOS);
    let for_others = |number| PushNotificationQueryInfo { access_token: String::new(), ..info(number) };
    let shown = look_at((0..=255).map(for_others).chain([info(1)]).collect());
    assert_eq!((shown.infos.len(), shown.not_allowed.len(), shown.stopped), (0, MAX_NOT_ALLOWED, None));
}

#[test]
fn a_contact_code_is_opened_whole_or_in_segments() {
    let mut code = ContactCode::derive(&contact().public());
    let message =
        ContactCodeAdvertisement { push_notification_info: vec![info(1)], ..Default::default() }.write();
    let message = ApplicationMessage::write(MessageType::ContactCodeAdvertisement, message, &contact());
    let wrapped = transport::wrap(message, &InstallationId::from_random([1; 16]));
    let name = TopicName::contact_code(&contact().public());
    let symkey = name.derive_key();
    let mail = |content: &[u8]| {
        let data = frame::seal_symmetric(&symkey, content, &contact(), fill(9)).unwrap();
        Mail { topic: name.topic(), data: data.into(), made_at: 0 }
    };
    let expected = Some(look_at(vec![info(1)]));
    assert_eq!(code.open(&own(), &mail(&wrapped), 0), expected);
    let pieces = segment::split(wrapped.clone(), 100);
    let (last, others) = pieces.split_last().unwrap();
    assert!(others.iter().all(|piece| code.open(&own(), &mail(piece), 0).is_none()));
    assert_eq!(code.open(&own(), &mail(last), 0), expected);
    let elsewhere = Mail { topic: Topic([0; 4]), ..mail(&wrapped) };
    assert_eq!(code.open(&own(), &elsewhere, 0), None);
    assert_eq!(code.open(&own(), &mail(b"rubbish"), 0), None);
}
