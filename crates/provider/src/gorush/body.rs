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
mod tests;
