//! One notification for one device token.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of the longest [`Reference`].
pub const MAX_REFERENCE_BYTES: usize = 128;

/// One notification for one device.
#[derive(Debug)]
pub struct Notification {
    /// Which registration it is for; comes back in [`crate::Feedback`].
    pub reference: Reference,
    /// The caller's time since 1970; comes back in [`crate::Feedback`].
    pub sent_at: Duration,
    /// The device.
    pub token: DeviceToken,
    /// Who reaches the device.
    pub service: PushService,
    /// The text that the person sees if the app does nothing about it. Goes through Apple or Google in clear.
    pub message: Cow<'static, str>,
    /// What the app gets beside it, in this order. Goes through Apple or Google in clear.
    pub data: Vec<(Cow<'static, str>, String)>,
    /// Notifications with the same one replace each other on the device. Only Apple's.
    pub collapse_id: Option<CollapseId>,
    /// When the notification has lost its use, since 1970. Only Apple's.
    pub expires: Option<Duration>,
}

/// A push service, with what it needs to know of the app.
#[derive(Clone, PartialEq, Eq)]
pub enum PushService {
    /// Apple's.
    Apns {
        /// The bundle id of the app. May be empty.
        topic: String,
    },
    /// Google's. Never has a topic: to Google that is a broadcast to everybody who subscribed to it.
    Fcm,
}

impl PushService {
    /// The service without the app.
    pub fn service(&self) -> Service {
        match self {
            Self::Apns { .. } => Service::Apns,
            Self::Fcm => Service::Fcm,
        }
    }
}

impl fmt::Debug for PushService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service().fmt(f)
    }
}

/// Who reaches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging.
    Fcm,
}

impl Service {
    /// gorush's number for it.
    pub(crate) fn platform(self) -> u8 {
        match self {
            Self::Apns => 1,
            Self::Fcm => 2,
        }
    }

    pub(crate) fn from_platform(platform: u8) -> Option<Self> {
        match platform {
            1 => Some(Self::Apns),
            2 => Some(Self::Fcm),
            _ => None,
        }
    }

    /// The value of a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
        }
    }
}

/// The capability to make one device ring. Never printed; wiped from memory when dropped.
#[derive(Clone)]
pub struct DeviceToken(Zeroizing<String>);

impl DeviceToken {
    /// A token as the device gave it.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// The token itself, for whoever must hand it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceToken(…)")
    }
}

/// By what a device knows that two notifications are the same: 32 bytes, which Apple gets as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CollapseId(pub [u8; 32]);

impl fmt::Debug for CollapseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CollapseId(…)")
    }
}

/// By what the caller finds a registration again: opaque bytes, at most [`MAX_REFERENCE_BYTES`].
///
/// It travels through gorush, its logs and its feedback in clear: a row's number says less than a person's key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference(Vec<u8>);

impl Reference {
    /// Copies the bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, ReferenceTooLong> {
        if bytes.len() > MAX_REFERENCE_BYTES {
            return Err(ReferenceTooLong { len: bytes.len() });
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({} bytes)", self.0.len())
    }
}

/// A reference has too many bytes.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("a reference has at most {MAX_REFERENCE_BYTES} bytes, this one {len}")]
pub struct ReferenceTooLong {
    /// Its bytes.
    pub len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_device_is_printed() {
        let notification = Notification {
            reference: Reference::new(b"secret-reference").unwrap(),
            sent_at: Duration::ZERO,
            token: DeviceToken::new("secret-token"),
            service: PushService::Apns { topic: "secret.app".into() },
            message: "hello".into(),
            data: Vec::new(),
            collapse_id: None,
            expires: None,
        };
        let text = format!("{notification:?}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn references_are_bounded() {
        assert!(Reference::new(&[0; MAX_REFERENCE_BYTES]).is_ok());
        assert_eq!(Reference::new(&[0; 129]), Err(ReferenceTooLong { len: 129 }));
    }
}
