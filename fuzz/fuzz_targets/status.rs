//! What a push server and its clients read: opened frames, application messages, segments, push messages.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use poste_codec::SecretKey;
use poste_wire::status::proto::{
    ContactCodeAdvertisement, PushNotificationQuery, PushNotificationQueryResponse,
    PushNotificationRegistration, PushNotificationRegistrationResponse, PushNotificationRequest,
    PushNotificationResponse,
};
use poste_wire::status::segment::{Accepted, ReassemblyBounds};
use poste_wire::status::{
    AccessToken, ApplicationMessage, Grant, InstallationId, PushMessage, Reassembly, Segment, SharedKey,
    find_access_token, transport,
};

fuzz_target!(|contents: Vec<&[u8]>| {
    let bounds =
        ReassemblyBounds { messages: 4, bytes: 4096, segments: 8, message_bytes: 2048, age_seconds: 60 };
    let mut reassembly = Reassembly::new(bounds);
    for (now, content) in (0..).zip(contents) {
        let content = Bytes::copy_from_slice(content);
        let whole = match Segment::read(&content) {
            Some(segment) => match reassembly.accept(segment, now, now) {
                Accepted::Complete(whole) => whole,
                _ => continue,
            },
            None => content,
        };
        assert!(reassembly.len() <= bounds.messages && reassembly.bytes() <= bounds.bytes);
        let unwrapped = transport::unwrap(whole);
        if let Ok(message) = ApplicationMessage::read(unwrapped.clone()) {
            let _ = (message.dedupe_key(), message.message_type());
            read_payload(&message.payload);
        }
        // The signature of a message is hard to come by.
        read_payload(&unwrapped);
    }
});

fn read_payload(payload: &Bytes) {
    let key = SecretKey::from_bytes(&[1; 32]).expect("a key");
    let _ = SharedKey::between(&key, &key.public()).open(payload);
    if let Some(registration) = read_again::<PushNotificationRegistration>(payload) {
        let _ = AccessToken::uuid(&registration.access_token);
        let _ = InstallationId::uuid(&registration.installation_id);
        if let Ok(grant) = Grant::from_bytes(&registration.grant) {
            let _ = grant.verify(&key.public(), &key.public(), &registration.access_token);
        }
    }
    read_again::<PushNotificationRegistrationResponse>(payload);
    read_again::<PushNotificationQuery>(payload);
    read_again::<PushNotificationRequest>(payload);
    read_again::<PushNotificationResponse>(payload);
    read_again::<ContactCodeAdvertisement>(payload);
    if let Some(response) = read_again::<PushNotificationQueryResponse>(payload) {
        for info in &response.info {
            let entries = info.allowed_key_list.iter().map(|entry| &entry[..]);
            let _ = find_access_token(&key, &key.public(), entries);
        }
    }
}

fn read_again<M: PushMessage + PartialEq>(payload: &Bytes) -> Option<M> {
    let message = M::read(payload.clone()).ok()?;
    assert!(M::read(message.write()).as_ref() == Ok(&message));
    Some(message)
}
