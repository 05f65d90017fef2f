//! The body of a call, as the deployed push server writes it, with `notif_id` added and no topic for Google.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::notification::{Notification, PushService};

/// Bytes of the longest notification object. Apple and Google take 4,096 of payload; token, topic, mark and names come
/// on top.
const MAX_BYTES: usize = 16 * 1024;

/// A notification object of the body.
pub(super) struct Rendered {
    pub(super) json: String,
    /// What gorush counts for it: the token, and a topic.
    pub(super) counts: u64,
}

/// Writes one notification; none if it is too large for anybody.
pub(super) fn render(notification: &Notification, notif_id: &str) -> Option<Rendered> {
    let data: usize = notification.data.iter().map(|(name, value)| name.len() + value.len()).sum();
    if notification.token.expose().len() + notification.message.len() + data > MAX_BYTES {
        return None;
    }
    let (topic, counts) = match &notification.service {
        PushService::Apns { topic } => (Some(topic.as_str()), 1 + u64::from(!topic.is_empty())),
        PushService::Fcm => (None, 1),
    };
    let is_apns = topic.is_some();
    let object = Object {
        tokens: [notification.token.expose()],
        platform: notification.service.service().platform(),
        message: &notification.message,
        topic,
        data: Data(notification),
        collapse_id: notification.collapse_id.filter(|_| is_apns).map(|id| hex::encode(id.0)),
        expiration: notification.expires.filter(|_| is_apns).map(|since_1970| since_1970.as_secs()),
        notif_id,
    };
    let json = serde_json::to_string(&object).expect("texts and numbers are JSON");
    (json.len() <= MAX_BYTES).then_some(Rendered { json, counts })
}

/// The body of a call with these notification objects.
pub(super) fn join<'j>(objects: impl Iterator<Item = &'j str> + Clone) -> String {
    const HEAD: &str = r#"{"notifications":["#;
    let len = objects.clone().map(|object| object.len() + 1).sum::<usize>() + HEAD.len() + 2;
    let mut body = String::with_capacity(len);
    body.push_str(HEAD);
    for (index, object) in objects.enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(object);
    }
    body.push_str("]}");
    body
}

#[derive(Serialize)]
struct Object<'n> {
    tokens: [&'n str; 1],
    platform: u8,
    message: &'n str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'n str>,
    data: Data<'n>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    notif_id: &'n str,
}

/// The notification's data, in its order.
struct Data<'n>(&'n Notification);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.data.len()))?;
        for (name, value) in &self.0.data {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::notification::{CollapseId, DeviceToken, Reference};

    fn notification(service: PushService, message: String) -> Notification {
        Notification {
            reference: Reference::new(b"row").unwrap(),
            sent_at: Duration::ZERO,
            token: DeviceToken::new("token"),
            service,
            message: message.into(),
            data: vec![("chatId".into(), "0x01".into())],
            collapse_id: Some(CollapseId([0xab; 32])),
            expires: Some(Duration::from_millis(1_700_000_000_900)),
        }
    }

    #[test]
    fn apple_gets_a_topic_and_google_never() {
        let apns = PushService::Apns { topic: "some.app".into() };
        let rendered = render(&notification(apns, "hi".into()), "id").unwrap();
        let collapse_id = "ab".repeat(32);
        let expected = format!(
            r#"{{"tokens":["token"],"platform":1,"message":"hi","topic":"some.app","data":{{"chatId":"0x01"}},"collapse_id":"{collapse_id}","expiration":1700000000,"notif_id":"id"}}"#
        );
        assert_eq!((rendered.json, rendered.counts), (expected, 2));

        let apns = PushService::Apns { topic: String::new() };
        assert_eq!(render(&notification(apns, "hi".into()), "id").unwrap().counts, 1, "an empty topic");

        let rendered = render(&notification(PushService::Fcm, "hi".into()), "id").unwrap();
        let expected =
            r#"{"tokens":["token"],"platform":2,"message":"hi","data":{"chatId":"0x01"},"notif_id":"id"}"#;
        assert_eq!((rendered.json.as_str(), rendered.counts), (expected, 1));
    }

    #[test]
    fn what_nobody_delivers_is_not_rendered() {
        let render = |len: usize, text: &str| render(&notification(PushService::Fcm, text.repeat(len)), "id");
        assert!(render(4096, "x").is_some(), "as much as Apple and Google take");
        assert!(render(MAX_BYTES, "x").is_none());
        assert!(render(MAX_BYTES / 4, "\u{1}").is_none(), "longer once it is escaped");
    }

    #[test]
    fn bodies_are_joined_as_gorush_reads_them() {
        assert_eq!(join(["{1}", "{2}"].into_iter()), r#"{"notifications":[{1},{2}]}"#);
        assert_eq!(join(["{1}"].into_iter()), r#"{"notifications":[{1}]}"#);
    }
}
