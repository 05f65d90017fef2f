//! The push messages, decoded within bounds: a list is counted, and a text or hash measured, before anything is
//! allocated for it. A text that is not UTF-8 fails the whole message; an enum value without a name is kept, as is the
//! deployed clients' way.

mod bounds;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::fields::{FieldError, FieldValue, Fields};
use bounds::{Bound, Bounded};

/// The most entries of each list of a registration.
pub const MAX_LIST_ENTRIES: usize = 10_000;
/// The most keys of one query.
pub const MAX_QUERY_KEYS: usize = 100;
/// The most devices that an answer to a query, or an advertisement, may name.
pub const MAX_QUERY_INFOS: usize = 1_000;
/// The most entries of all lists of one message together.
pub const MAX_ENTRIES: usize = 4 * MAX_LIST_ENTRIES;
/// The most notifications of one request, and the most reports on one.
pub const MAX_NOTIFICATIONS: usize = 1_000;
/// The longest device token, in bytes.
pub const MAX_DEVICE_TOKEN_LENGTH: usize = 4096;
/// The longest APNs topic (an app's bundle id), in bytes.
pub const MAX_APN_TOPIC_LENGTH: usize = 256;
/// The longest encrypted message for the app, in bytes; no provider would carry that much.
pub const MAX_MESSAGE_LENGTH: usize = 65_536;
/// The longest of the other texts, hashes, keys, grants and encrypted tokens, in bytes.
pub const MAX_FIELD_LENGTH: usize = 128;

/// Why bytes are no push message that anybody should take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PushMessageError {
    /// Not a protobuf message, or not of these fields, or a text is not UTF-8.
    #[error("the bytes are no such push message")]
    Encoding,
    /// A list has more entries than anybody needs.
    #[error("{field} has more than {limit} entries")]
    TooMany {
        /// The list.
        field: &'static str,
        /// What would have been allowed.
        limit: usize,
    },
    /// A field is longer than anybody needs.
    #[error("{field} has more than {limit} bytes")]
    TooLong {
        /// The field.
        field: &'static str,
        /// What would have been allowed, in bytes.
        limit: usize,
    },
}

impl From<FieldError> for PushMessageError {
    fn from(_: FieldError) -> Self {
        Self::Encoding
    }
}

/// A message of the push protocol.
pub trait PushMessage: Message + Default + Bounded {
    /// Reads the message; its lists and hashes share the buffer.
    fn read(bytes: impl Into<Bytes>) -> Result<Self, PushMessageError> {
        let bytes = bytes.into();
        check(&bytes, Self::BOUNDS, &mut 0)?;
        Self::decode(bytes).map_err(|_| PushMessageError::Encoding)
    }

    /// Writes the message.
    fn write(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// Walks over the message before it is decoded. `total` counts the entries of all lists.
fn check(message: &[u8], bounds: &'static [Bound], total: &mut usize) -> Result<(), PushMessageError> {
    let mut counts = [0_usize; bounds::MAX_BOUNDS];
    for field in Fields::new(message) {
        let field = field?;
        let Some(at) = bounds.iter().position(|bound| bound.number == field.number) else { continue };
        // Of another wire type than the field has: decoding will refuse it.
        let FieldValue::Bytes(bytes) = field.value else { continue };
        let bound = &bounds[at];
        if bytes.len() > bound.length {
            return Err(PushMessageError::TooLong { field: bound.name, limit: bound.length });
        }
        if let Some(limit) = bound.entries {
            counts[at] += 1;
            *total += 1;
            if counts[at] > limit || *total > MAX_ENTRIES {
                return Err(PushMessageError::TooMany { field: bound.name, limit: limit.min(MAX_ENTRIES) });
            }
        }
        if let Some(inner) = bound.inner {
            check(bytes, inner, total)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
