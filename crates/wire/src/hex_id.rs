//! The two identifiers of the network: the 32-byte hash that names an envelope, a batch or a request, and the 4-byte
//! topic that an envelope is sorted by. As text both are lower-case hex.

use std::fmt;

use poste_codec::keccak256;
use thiserror::Error;

/// A text that is no identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {digits} hex digits, with or without 0x in front")]
pub struct ParseIdError {
    pub(crate) digits: usize,
}

/// What every identifier can do, whatever its `Debug` shows: its bytes, and its text.
macro_rules! id_bytes {
    ($name:ident, $length:literal) => {
        impl $name {
            /// How many bytes it has.
            pub const LENGTH: usize = $length;

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $length];
                let digits = text.strip_prefix("0x").unwrap_or(text);
                hex::decode_to_slice(digits, &mut bytes)
                    .map_err(|_| $crate::ParseIdError { digits: 2 * $length })?;
                Ok(Self(bytes))
            }
        }
    };
}
pub(crate) use id_bytes;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $length]);

        id_bytes!($name, $length);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hex_id! {
    /// 32 bytes that name something: an envelope (Keccak-256 of its RLP), a batch of envelopes, a mail request.
    Hash, 32
}

hex_id! {
    /// The 4 bytes that an envelope is sorted by: all that a relay learns about its content.
    Topic, 4
}

impl Hash {
    /// Keccak-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(keccak256(bytes))
    }
}

impl Topic {
    /// The topic of a chat's name: the first four bytes of its Keccak-256 (Status specification 10).
    pub fn of_name(name: &str) -> Self {
        let [a, b, c, d, ..] = keccak256(name.as_bytes());
        Self([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        let topic: Topic = "0x9C22ff5f".parse().unwrap();
        assert_eq!(topic, Topic::of_name("test"));
        assert_eq!(topic.to_string(), "9c22ff5f");
        assert_eq!(format!("{topic:?}"), "9c22ff5f");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "0x", "9c22ff5", "9c22ff5f0", "9c22ff5g", "0x0x9c22"] {
            let error = text.parse::<Topic>().unwrap_err();
            assert_eq!(error.to_string(), "expected 8 hex digits, with or without 0x in front", "{text}");
        }
        assert!("00".repeat(32).parse::<Hash>().is_ok());
    }
}
