//! A place in the archive's order, as the deployed mailservers write it: creation time, then hash.

use thiserror::Error;

use crate::{Envelope, Hash};

/// Bytes that are no cursor, because there are not 36 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a cursor has 36 bytes, not {0}")]
pub struct CursorLengthError(
    /// How many bytes there are.
    pub usize,
);

/// Names an envelope as the last one that a page of history held; the next page begins behind it, whether or not it
/// is still stored. The order of cursors is the order of mail: oldest first, within a second by hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// Creation time of the envelope, unix seconds.
    pub sent: u32,
    /// Hash of the envelope.
    pub hash: Hash,
}

impl Cursor {
    /// How many bytes it has on the wire.
    pub const LENGTH: usize = 36;

    /// Its bytes on the wire: seconds, big-endian, then the hash.
    pub fn to_bytes(&self) -> [u8; 36] {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(&self.sent.to_be_bytes());
        bytes[4..].copy_from_slice(&self.hash.0);
        bytes
    }
}

impl From<[u8; 36]> for Cursor {
    fn from(bytes: [u8; 36]) -> Self {
        let mut hash = Hash::default();
        hash.0.copy_from_slice(&bytes[4..]);
        Self { sent: u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), hash }
    }
}

impl TryFrom<&[u8]> for Cursor {
    type Error = CursorLengthError;

    fn try_from(bytes: &[u8]) -> Result<Self, CursorLengthError> {
        <[u8; 36]>::try_from(bytes).map(Self::from).map_err(|_| CursorLengthError(bytes.len()))
    }
}

/// The key that a deployed mailserver's database files an envelope under: its cursor, then its topic.
pub fn archive_key(envelope: &Envelope) -> [u8; 40] {
    let mut key = [0; 40];
    key[..36].copy_from_slice(&envelope.cursor().to_bytes());
    key[36..].copy_from_slice(&envelope.topic().0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_sort_as_cursors_do() {
        let cursors = [(0, 9), (1, 0), (255, 1), (256, 0), (256, 255), (u32::MAX, 0)]
            .map(|(sent, hash)| Cursor { sent, hash: Hash([hash; 32]) });
        assert!(cursors.is_sorted());
        assert!(cursors.map(|cursor| cursor.to_bytes()).is_sorted());
        assert_eq!(cursors.map(|cursor| Cursor::from(cursor.to_bytes())), cursors);
    }

    #[test]
    fn cursors_of_every_other_length_are_refused() {
        for length in (0..=100).filter(|length| *length != 36) {
            assert_eq!(Cursor::try_from(&vec![0; length][..]), Err(CursorLengthError(length)));
        }
    }
}
