//! The texts that count as a UUID: those that the deployed server accepts, of any version and in any case.

use thiserror::Error;

/// A text that is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected a UUID such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8")]
pub struct NotUuidError;

/// Whether the text is a UUID: 8-4-4-4-12 hex digits, the same behind `urn:uuid:` or between two characters that
/// stand for braces, or 32 hex digits.
pub fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    match bytes.len() {
        32 => bytes.iter().all(u8::is_ascii_hexdigit),
        36 => is_dashed(bytes),
        38 => is_dashed(&bytes[1..37]),
        45 => bytes[..9].eq_ignore_ascii_case(b"urn:uuid:") && is_dashed(&bytes[9..]),
        _ => false,
    }
}

/// A UUID of version 4 as text, lower case, from 16 random bytes.
pub(super) fn v4(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let digits = hex::encode(random);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn is_dashed(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_forms_are_read() {
        for text in [
            "7826f03f-2f6a-4deb-89ed-73d6e9300383",
            "7826F03F-2F6A-4DEB-89ED-73D6E9300383",
            "urn:uuid:7826f03f-2f6a-4deb-89ed-73d6e9300383",
            "{7826f03f-2f6a-4deb-89ed-73d6e9300383}",
            "7826f03f2f6a4deb89ed73d6e9300383",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(is_uuid(text), "{text}");
        }
        for text in [
            "",
            "7826f03f-2f6a-4deb-89ed-73d6e930038",
            "7826f03f-2f6a-4deb-89ed-73d6e930038g",
            "7826f03f-2f6a-4deb-89ed073d6e9300383",
            "7826f03f2f6a4deb89ed73d6e930038é",
            "urn-uuid:7826f03f-2f6a-4deb-89ed-73d6e9300383",
        ] {
            assert!(!is_uuid(text), "{text}");
        }
    }

    #[test]
    fn a_new_one_is_of_version_4() {
        assert_eq!(v4([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(v4([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
