//! The protobuf messages (`proto/status/`), generated. Enum fields are numbers, so that values without a name are kept:
//! read them with `TryFrom<i32>`; the generated getters take an unknown value for the first. What a `Debug` prints of a
//! message that holds secrets or hashes is in this module.

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/status.rs"));

impl fmt::Debug for ApplicationMetadataMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationMetadataMessage")
            .field("type", &self.r#type)
            .field("payload", &Length(&self.payload))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SegmentMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentMessage")
            .field("index", &self.index)
            .field("segments_count", &self.segments_count)
            .field("payload", &Length(&self.payload))
            .field("parity_segment_index", &self.parity_segment_index)
            .field("parity_segments_count", &self.parity_segments_count)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProtocolMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolMessage")
            .field("public_message", &Length(&self.public_message))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotificationRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationRegistration")
            .field("token_type", &self.token_type)
            .field("version", &self.version)
            .field("unregister", &self.unregister)
            .field("allowed_key_list", &Entries(&self.allowed_key_list))
            .field("blocked_chat_list", &Entries(&self.blocked_chat_list))
            .field("allowed_mentions_chat_list", &Entries(&self.allowed_mentions_chat_list))
            .field("muted_chat_list", &Entries(&self.muted_chat_list))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotificationRegistrationResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationRegistrationResponse")
            .field("success", &self.success)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ContactCodeAdvertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContactCodeAdvertisement")
            .field("push_notification_info", &self.push_notification_info)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotificationQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationQuery").field("public_keys", &Entries(&self.public_keys)).finish()
    }
}

impl fmt::Debug for PushNotificationQueryInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationQueryInfo")
            .field("version", &self.version)
            .field("allowed_key_list", &Entries(&self.allowed_key_list))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotificationQueryResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationQueryResponse")
            .field("info", &self.info)
            .field("success", &self.success)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotificationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationRequest").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotificationResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationResponse").field("reports", &self.reports).finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotification")
            .field("type", &self.r#type)
            .field("message", &Length(&self.message))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PushNotificationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushNotificationReport")
            .field("success", &self.success)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

struct Length<'b>(&'b [u8]);

impl fmt::Debug for Length<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

struct Entries<'b>(&'b [prost::bytes::Bytes]);

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;

    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let secret = "do-not-print".to_owned();
        let registration = PushNotificationRegistration {
            device_token: secret.clone(),
            access_token: secret.clone(),
            grant: secret.clone().into(),
            allowed_key_list: vec![secret.clone().into()],
            muted_chat_list: vec![secret.clone().into()],
            ..Default::default()
        };
        let info = PushNotificationQueryInfo {
            access_token: secret.clone(),
            grant: secret.clone().into(),
            ..Default::default()
        };
        let notification = PushNotification {
            access_token: secret.clone(),
            message: secret.clone().into(),
            author: secret.clone().into(),
            ..Default::default()
        };
        let message_id = Bytes::from(secret.clone());
        let response = PushNotificationQueryResponse {
            info: vec![info],
            message_id: message_id.clone(),
            ..Default::default()
        };
        let request =
            PushNotificationRequest { requests: vec![notification], message_id: message_id.clone() };
        let report = PushNotificationReport { public_key: secret.clone().into(), ..Default::default() };
        let answer = PushNotificationResponse { message_id, reports: vec![report] };
        let printed = format!("{registration:?} {response:?} {request:?} {answer:?}");
        // Debug shows bytes that are text as that text.
        assert!(format!("{:?}", Bytes::from(secret)).contains("print"));
        assert!(!printed.contains("print"), "{printed}");
        assert!(printed.contains("muted_chat_list: 1 entries"), "{printed}");
    }
}
