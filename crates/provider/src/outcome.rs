//! What came of a notification, in the three kinds on which a claim rests.

use thiserror::Error;

/// What came of handing over one notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it. Whether the device rings is another matter: failures come as [`crate::Feedback`].
    Sent,
    /// Surely not sent: it may be tried again without the device ringing twice.
    Refused(Refused),
    /// It may or may not have been sent: it must not be tried again.
    Unknown(Unknown),
}

/// Why a notification was surely not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// No byte of the request was written: the connection failed before.
    #[error("the provider cannot be reached")]
    Unreachable,
    /// The provider answered 400.
    #[error("the provider calls the request bad")]
    BadRequest,
    /// The queue towards the provider is full, or the notification waited in it past its deadline.
    #[error("too many notifications wait for the provider")]
    Busy,
    /// The notification is larger than any provider takes.
    #[error("the notification is too large")]
    TooLarge,
    /// This provider is being stopped.
    #[error("this service is stopping")]
    Stopping,
}

/// Why nobody can say whether a notification was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unknown {
    /// No whole answer came in time.
    #[error("the provider did not answer in time")]
    Timeout,
    /// The connection ended after a part of the request was written, or within the answer.
    #[error("the connection to the provider was lost")]
    ConnectionLost,
    /// A status other than 200 and 400.
    #[error("the provider answered with status {0}")]
    Status(u16),
    /// A 200 whose body is not an answer that we know, or is longer than we read.
    #[error("the provider's answer cannot be read")]
    BadAnswer,
    /// A 200 that counts fewer notifications than the call held: some were dropped, and it does not say which.
    #[error("the provider took fewer notifications than it was given")]
    CountedTooFew,
    /// A 200 whose log says that this one failed. A hint only: the provider may be wrong about it.
    #[error("the provider says that the push failed")]
    ReportedFailed(FailureReason),
}

/// Why Apple or Google did not deliver, as far as gorush's text for it can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The token is dead: 410 `Unregistered` or `ExpiredToken` of Apple, `UNREGISTERED` of Google.
    Unregistered,
    /// Apple's `BadDeviceToken`, Google's invalid registration token: the token, or our environment, is wrong.
    BadToken,
    /// Apple's `DeviceTokenNotForTopic`: the token is another app's, or our topic is wrong.
    WrongTopic,
    /// Google's `SENDER_ID_MISMATCH`: the token is another project's, or our credentials are wrong.
    WrongSender,
    /// The notification itself is refused, for its size for example.
    BadPayload,
    /// Too many pushes.
    Throttled,
    /// Our credentials are refused.
    Credentials,
    /// Apple or Google cannot be reached, or fails itself.
    Unavailable,
    /// Anything else.
    Other,
}

impl FailureReason {
    /// Reads gorush's text: a reason word of Apple's, or the message of Google's library.
    pub(crate) fn read(service: crate::Service, error: &str) -> Self {
        match service {
            crate::Service::Apns => apns(error.trim()),
            crate::Service::Fcm => fcm(error),
        }
    }

    /// The value of a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unregistered => "unregistered",
            Self::BadToken => "bad_token",
            Self::WrongTopic => "wrong_topic",
            Self::WrongSender => "wrong_sender",
            Self::BadPayload => "bad_payload",
            Self::Throttled => "throttled",
            Self::Credentials => "credentials",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
        }
    }
}

fn apns(error: &str) -> FailureReason {
    match error {
        "Unregistered" | "ExpiredToken" => FailureReason::Unregistered,
        "BadDeviceToken" | "MissingDeviceToken" => FailureReason::BadToken,
        "DeviceTokenNotForTopic" | "BadTopic" | "TopicDisallowed" | "MissingTopic" => {
            FailureReason::WrongTopic
        }
        "PayloadTooLarge" | "PayloadEmpty" | "BadCollapseId" | "BadExpirationDate" | "BadMessageId"
        | "BadPriority" => FailureReason::BadPayload,
        "TooManyRequests" | "TooManyProviderTokenUpdates" => FailureReason::Throttled,
        "ExpiredProviderToken"
        | "InvalidProviderToken"
        | "MissingProviderToken"
        | "BadCertificate"
        | "BadCertificateEnvironment"
        | "Forbidden" => FailureReason::Credentials,
        "InternalServerError" | "ServiceUnavailable" | "Shutdown" | "IdleTimeout" => {
            FailureReason::Unavailable
        }
        _ if error.starts_with("Post ") => FailureReason::Unavailable,
        _ => FailureReason::Other,
    }
}

fn fcm(error: &str) -> FailureReason {
    let says = |text: &str| error.contains(text);
    if says("failed to establish a connection") || says("UNAVAILABLE") || says("INTERNAL") {
        FailureReason::Unavailable
    } else if says("Requested entity was not found") || says("UNREGISTERED") {
        FailureReason::Unregistered
    } else if says("registration token is not a valid") || says("invalid registration token") {
        FailureReason::BadToken
    } else if says("SenderId mismatch") || says("SENDER_ID_MISMATCH") {
        FailureReason::WrongSender
    } else if says("QUOTA_EXCEEDED") || says("RESOURCE_EXHAUSTED") {
        FailureReason::Throttled
    } else if says("THIRD_PARTY_AUTH_ERROR") || says("PERMISSION_DENIED") || says("UNAUTHENTICATED") {
        FailureReason::Credentials
    } else if says("INVALID_ARGUMENT") {
        FailureReason::BadPayload
    } else {
        FailureReason::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Service;

    #[test]
    fn only_the_words_of_dead_tokens_mean_dead_tokens() {
        let apns = |error| FailureReason::read(Service::Apns, error);
        assert_eq!(apns("Unregistered"), FailureReason::Unregistered);
        assert_eq!(apns("ExpiredToken"), FailureReason::Unregistered);
        assert_eq!(apns("BadDeviceToken"), FailureReason::BadToken);
        assert_eq!(apns("ExpiredProviderToken"), FailureReason::Credentials);
        let fcm = |error| FailureReason::read(Service::Fcm, error);
        assert_eq!(fcm("Requested entity was not found."), FailureReason::Unregistered);
        assert_eq!(fcm("SenderId mismatch"), FailureReason::WrongSender);
        assert_eq!(fcm("Unregistered"), FailureReason::Other, "that is Apple's word");
    }

    #[test]
    fn a_token_that_reads_like_a_reason_is_not_believed() {
        let error = "Post \"https://api.push.apple.com/3/device/Unregistered\": dial tcp: connection refused";
        assert_eq!(FailureReason::read(Service::Apns, error), FailureReason::Unavailable);
        let error = "failed to establish a connection: Post \"https://x/UNREGISTERED\": connection refused";
        assert_eq!(FailureReason::read(Service::Fcm, error), FailureReason::Unavailable);
    }
}
