use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::status::proto::{
    ContactCodeAdvertisement, PushNotification, PushNotificationQuery, PushNotificationQueryInfo,
    PushNotificationQueryResponse, PushNotificationRegistration, PushNotificationRegistrationResponse,
    PushNotificationReport, PushNotificationRequest, PushNotificationResponse, push_notification,
};

fn too_many(field: &'static str, limit: usize) -> PushMessageError {
    PushMessageError::TooMany { field, limit }
}

fn too_long(field: &'static str, limit: usize) -> PushMessageError {
    PushMessageError::TooLong { field, limit }
}

#[test]
fn lists_have_a_bound() {
    let list = |entries| vec![Bytes::from_static(&[7; 64]); entries];
    let registration = |entries| {
        let muted_chat_list = list(entries);
        PushNotificationRegistration { muted_chat_list, ..Default::default() }.write()
    };
    assert!(PushNotificationRegistration::read(registration(MAX_LIST_ENTRIES)).is_ok());
    assert_eq!(
        PushNotificationRegistration::read(registration(MAX_LIST_ENTRIES + 1)),
        Err(too_many("muted_chat_list", MAX_LIST_ENTRIES))
    );
    let query = |keys| PushNotificationQuery { public_keys: list(keys) }.write();
    assert!(PushNotificationQuery::read(query(MAX_QUERY_KEYS)).is_ok());
    assert_eq!(
        PushNotificationQuery::read(query(MAX_QUERY_KEYS + 1)),
        Err(too_many("public_keys", MAX_QUERY_KEYS))
    );
    let requests = vec![PushNotification::default(); MAX_NOTIFICATIONS + 1];
    let request = PushNotificationRequest { requests, ..Default::default() }.write();
    assert_eq!(PushNotificationRequest::read(request), Err(too_many("requests", MAX_NOTIFICATIONS)));
}

/// Each list may be within its bound and all together still be too much.
#[test]
fn all_lists_of_a_message_have_a_bound_together() {
    let info = PushNotificationQueryInfo {
        allowed_key_list: vec![Bytes::new(); MAX_LIST_ENTRIES],
        ..Default::default()
    };
    let advertisement =
        ContactCodeAdvertisement { push_notification_info: vec![info; 5], ..Default::default() };
    assert!(matches!(
        ContactCodeAdvertisement::read(advertisement.write()),
        Err(PushMessageError::TooMany { field: "allowed_key_list", .. })
    ));
}

#[test]
fn texts_and_hashes_have_a_bound() {
    let token = |length| {
        PushNotificationRegistration { device_token: "t".repeat(length), ..Default::default() }.write()
    };
    assert!(PushNotificationRegistration::read(token(MAX_DEVICE_TOKEN_LENGTH)).is_ok());
    assert_eq!(
        PushNotificationRegistration::read(token(MAX_DEVICE_TOKEN_LENGTH + 1)),
        Err(too_long("device_token", MAX_DEVICE_TOKEN_LENGTH))
    );
    let notification = PushNotification { author: vec![7; 129].into(), ..Default::default() };
    let request = PushNotificationRequest { requests: vec![notification], ..Default::default() };
    assert_eq!(PushNotificationRequest::read(request.write()), Err(too_long("author", MAX_FIELD_LENGTH)));
}

#[test]
fn a_text_that_is_not_utf_8_fails_the_message() {
    // installation_id, and the same inside of a request.
    assert_eq!(PushNotificationRegistration::read(&b"\x1a\x01\xff"[..]), Err(PushMessageError::Encoding));
    assert_eq!(PushNotificationRequest::read(&b"\x0a\x03\x22\x01\xff"[..]), Err(PushMessageError::Encoding));
    assert_eq!(PushNotificationRequest::read(&b"\xff\xff\xff"[..]), Err(PushMessageError::Encoding));
}

#[test]
fn a_chat_id_is_bytes_and_an_unknown_type_is_kept() {
    let notification = PushNotification { chat_id: vec![0xff; 64].into(), r#type: 77, ..Default::default() };
    let request = PushNotificationRequest { requests: vec![notification], ..Default::default() };
    let read = PushNotificationRequest::read(request.write()).unwrap();
    assert_eq!(read, request);
    assert!(push_notification::PushNotificationType::try_from(read.requests[0].r#type).is_err());
    assert_eq!(push_notification::PushNotificationType::RequestToJoinCommunity as i32, 3);
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..MAX_FIELD_LENGTH).prop_map(Bytes::from)
}

fn list() -> impl Strategy<Value = Vec<Bytes>> {
    vec(bytes(), 0..4)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,30}"
}

prop_compose! {
    fn registration()(
        (token_type, version, enabled, unregister) in any::<(i32, u64, bool, bool)>(),
        (device_token, installation_id, access_token, apn_topic) in (text(), text(), text(), text()),
        (allowed_key_list, blocked_chat_list, allowed_mentions_chat_list, muted_chat_list)
            in (list(), list(), list(), list()),
        (allow_from_contacts_only, block_mentions) in any::<(bool, bool)>(),
        grant in bytes(),
    ) -> PushNotificationRegistration {
        PushNotificationRegistration {
            token_type, device_token, installation_id, access_token, enabled, version, allowed_key_list,
            blocked_chat_list, unregister, grant, allow_from_contacts_only, apn_topic, block_mentions,
            allowed_mentions_chat_list, muted_chat_list,
        }
    }
}

prop_compose! {
    fn query_info()(
        (access_token, installation_id) in (text(), text()),
        (public_key, grant, server_public_key) in (bytes(), bytes(), bytes()),
        allowed_key_list in list(),
        version: u64,
    ) -> PushNotificationQueryInfo {
        PushNotificationQueryInfo {
            access_token, installation_id, public_key, allowed_key_list, grant, version, server_public_key,
        }
    }
}

prop_compose! {
    fn notification()(
        (access_token, installation_id) in (text(), text()),
        (chat_id, public_key, message, author) in (bytes(), bytes(), bytes(), bytes()),
        kind: i32,
    ) -> PushNotification {
        PushNotification { access_token, chat_id, public_key, installation_id, message, r#type: kind, author }
    }
}

prop_compose! {
    fn report()(
        (success, error) in any::<(bool, i32)>(),
        public_key in bytes(),
        installation_id in text(),
    ) -> PushNotificationReport {
        PushNotificationReport { success, error, public_key, installation_id }
    }
}

fn read_again<M: PushMessage + PartialEq>(message: &M) -> Result<(), TestCaseError> {
    prop_assert!(M::read(message.write()).as_ref() == Ok(message));
    Ok(())
}

fn read_anything<M: PushMessage>(bytes: &[u8]) {
    if let Ok(message) = M::read(Bytes::copy_from_slice(bytes)) {
        assert!(M::read(message.write()).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(
        registration in registration(),
        infos in vec(query_info(), 0..3),
        notifications in vec(notification(), 0..3),
        reports in vec(report(), 0..3),
        public_keys in list(),
        (id, chat_identity) in (bytes(), proptest::option::of(bytes())),
        (success, error) in any::<(bool, i32)>(),
    ) {
        read_again(&registration)?;
        read_again(&PushNotificationRegistrationResponse { success, error, request_id: id.clone() })?;
        read_again(&PushNotificationQuery { public_keys })?;
        read_again(&ContactCodeAdvertisement { push_notification_info: infos.clone(), chat_identity })?;
        read_again(&PushNotificationQueryResponse { info: infos, message_id: id.clone(), success })?;
        read_again(&PushNotificationRequest { requests: notifications, message_id: id.clone() })?;
        read_again(&PushNotificationResponse { message_id: id, reports })?;
    }

    #[test]
    fn reading_never_panics(bytes: Vec<u8>) {
        read_anything::<PushNotificationRegistration>(&bytes);
        read_anything::<PushNotificationRegistrationResponse>(&bytes);
        read_anything::<PushNotificationQuery>(&bytes);
        read_anything::<PushNotificationQueryResponse>(&bytes);
        read_anything::<ContactCodeAdvertisement>(&bytes);
        read_anything::<PushNotificationRequest>(&bytes);
        read_anything::<PushNotificationResponse>(&bytes);
    }
}
