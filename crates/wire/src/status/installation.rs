//! The name of a device: a text that its owner chose, a UUID with every known client.

use std::fmt;

use thiserror::Error;

use super::uuid::{NotUuidError, is_uuid, v4};

/// The longest installation id that is taken where other texts than UUIDs are allowed, in bytes.
pub const MAX_INSTALLATION_ID_LENGTH: usize = 128;

/// A text that is no installation id, even where any text may be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected 1 to {MAX_INSTALLATION_ID_LENGTH} bytes, not {0}")]
pub struct InstallationIdError(usize);

/// Names one device of a client. Compared as text: the same UUID in another case is another device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstallationId(Box<str>);

impl InstallationId {
    /// A UUID (see [`is_uuid`]): what the deployed server takes.
    pub fn uuid(text: &str) -> Result<Self, NotUuidError> {
        if is_uuid(text) { Ok(Self(text.into())) } else { Err(NotUuidError) }
    }

    /// Any text of 1 to [`MAX_INSTALLATION_ID_LENGTH`] bytes: what the specification allows.
    pub fn any(text: &str) -> Result<Self, InstallationIdError> {
        match text.len() {
            1..=MAX_INSTALLATION_ID_LENGTH => Ok(Self(text.into())),
            length => Err(InstallationIdError(length)),
        }
    }

    /// A new one, from 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(v4(bytes).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_asked_for_unless_any_text_will_do() {
        assert!(InstallationId::uuid("7826f03f-2f6a-4deb-89ed-73d6e9300383").is_ok());
        assert_eq!(InstallationId::uuid("phone"), Err(NotUuidError));
        assert_eq!(InstallationId::any("phone").unwrap().as_str(), "phone");
        assert_eq!(InstallationId::any(""), Err(InstallationIdError(0)));
        assert_eq!(InstallationId::any(&"x".repeat(129)), Err(InstallationIdError(129)));
    }

    #[test]
    fn case_tells_devices_apart() {
        let lower = InstallationId::from_random([0xab; 16]);
        let upper = InstallationId::uuid(&lower.as_str().to_uppercase()).unwrap();
        assert_ne!(lower, upper);
    }
}
