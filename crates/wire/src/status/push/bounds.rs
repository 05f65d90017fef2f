//! What is allowed of each field of the push messages.

use super::{
    MAX_APN_TOPIC_LENGTH, MAX_DEVICE_TOKEN_LENGTH, MAX_FIELD_LENGTH, MAX_LIST_ENTRIES, MAX_MESSAGE_LENGTH,
    MAX_NOTIFICATIONS, MAX_QUERY_INFOS, MAX_QUERY_KEYS, PushMessage,
};
use crate::status::proto::{
    ContactCodeAdvertisement, PushNotificationQuery, PushNotificationQueryResponse,
    PushNotificationRegistration, PushNotificationRegistrationResponse, PushNotificationRequest,
    PushNotificationResponse,
};

/// The most fields of one message that have a bound.
pub(super) const MAX_BOUNDS: usize = 9;

/// A message whose fields have bounds.
pub trait Bounded {
    /// At most `MAX_BOUNDS`.
    const BOUNDS: &'static [Bound];
}

/// What is allowed of one field.
#[derive(Debug)]
pub struct Bound {
    pub(super) number: u32,
    pub(super) name: &'static str,
    /// In bytes.
    pub(super) length: usize,
    /// The most entries of a list. What is no list may be repeated: the last one counts.
    pub(super) entries: Option<usize>,
    /// The bounds of the message inside.
    pub(super) inner: Option<&'static [Bound]>,
}

const fn one(number: u32, name: &'static str, length: usize) -> Bound {
    Bound { number, name, length, entries: None, inner: None }
}

const fn list(number: u32, name: &'static str, entries: usize) -> Bound {
    Bound { number, name, length: MAX_FIELD_LENGTH, entries: Some(entries), inner: None }
}

const fn messages(number: u32, name: &'static str, entries: usize, inner: &'static [Bound]) -> Bound {
    assert!(inner.len() <= MAX_BOUNDS);
    Bound { number, name, length: usize::MAX, entries: Some(entries), inner: Some(inner) }
}

macro_rules! push_message {
    ($name:ident, $bounds:expr) => {
        impl Bounded for $name {
            const BOUNDS: &'static [Bound] = &$bounds;
        }

        impl PushMessage for $name {}

        const _: () = assert!(<$name as Bounded>::BOUNDS.len() <= MAX_BOUNDS);
    };
}

push_message!(
    PushNotificationRegistration,
    [
        one(2, "device_token", MAX_DEVICE_TOKEN_LENGTH),
        one(3, "installation_id", MAX_FIELD_LENGTH),
        one(4, "access_token", MAX_FIELD_LENGTH),
        list(7, "allowed_key_list", MAX_LIST_ENTRIES),
        list(8, "blocked_chat_list", MAX_LIST_ENTRIES),
        one(10, "grant", MAX_FIELD_LENGTH),
        one(12, "apn_topic", MAX_APN_TOPIC_LENGTH),
        list(14, "allowed_mentions_chat_list", MAX_LIST_ENTRIES),
        list(15, "muted_chat_list", MAX_LIST_ENTRIES),
    ]
);

push_message!(PushNotificationRegistrationResponse, [one(3, "request_id", MAX_FIELD_LENGTH)]);

push_message!(PushNotificationQuery, [list(1, "public_keys", MAX_QUERY_KEYS)]);

const QUERY_INFO: &[Bound] = &[
    one(1, "access_token", MAX_FIELD_LENGTH),
    one(2, "installation_id", MAX_FIELD_LENGTH),
    one(3, "public_key", MAX_FIELD_LENGTH),
    list(4, "allowed_key_list", MAX_LIST_ENTRIES),
    one(5, "grant", MAX_FIELD_LENGTH),
    one(7, "server_public_key", MAX_FIELD_LENGTH),
];

push_message!(
    PushNotificationQueryResponse,
    [messages(1, "info", MAX_QUERY_INFOS, QUERY_INFO), one(2, "message_id", MAX_FIELD_LENGTH)]
);

push_message!(ContactCodeAdvertisement, [messages(1, "push_notification_info", MAX_QUERY_INFOS, QUERY_INFO)]);

const NOTIFICATION: &[Bound] = &[
    one(1, "access_token", MAX_FIELD_LENGTH),
    one(2, "chat_id", MAX_FIELD_LENGTH),
    one(3, "public_key", MAX_FIELD_LENGTH),
    one(4, "installation_id", MAX_FIELD_LENGTH),
    one(5, "message", MAX_MESSAGE_LENGTH),
    one(7, "author", MAX_FIELD_LENGTH),
];

push_message!(
    PushNotificationRequest,
    [messages(1, "requests", MAX_NOTIFICATIONS, NOTIFICATION), one(2, "message_id", MAX_FIELD_LENGTH)]
);

const REPORT: &[Bound] =
    &[one(3, "public_key", MAX_FIELD_LENGTH), one(4, "installation_id", MAX_FIELD_LENGTH)];

push_message!(
    PushNotificationResponse,
    [one(1, "message_id", MAX_FIELD_LENGTH), messages(2, "reports", MAX_NOTIFICATIONS, REPORT)]
);
