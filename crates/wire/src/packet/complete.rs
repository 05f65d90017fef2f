//! The end of an answer to a request for mail (125, "P2P request complete"): one string, no list, as deployed nodes
//! write and read it. 8/WAKU-MAIL has it as a list, which nobody sends.

use thiserror::Error;

use crate::{Cursor, Hash};

/// What the error form begins with.
const ERROR_PREFIX: &[u8] = b"ERROR=";

/// How a request for mail ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// Everything that was asked for, up to the limit, has been sent.
    Done {
        /// Which request: the hash of the request's envelope, or the id of a direct request.
        request_id: Hash,
        /// The last envelope that was sent; zero if there was none.
        last_hash: Hash,
        /// Where the next page begins, if there may be one.
        cursor: Option<Cursor>,
    },
    /// The request was refused, or the answer is incomplete.
    Failed {
        /// Which request.
        request_id: Hash,
        /// Why, in words for a person.
        error: String,
    },
}

/// A completion of a length that means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a completion has 32 to 100 bytes, not {0}")]
pub struct CompletionError(
    /// How many bytes there are.
    pub usize,
);

impl Completion {
    /// The request that it ends.
    pub fn request_id(&self) -> Hash {
        match self {
            Self::Done { request_id, .. } | Self::Failed { request_id, .. } => *request_id,
        }
    }

    /// Reads the content of the string, by the rules of deployed clients: beside the full forms, 32 to 63 bytes are an
    /// id only, and 64 to 99 bytes an id and a hash.
    pub fn decode(bytes: &[u8]) -> Result<Self, CompletionError> {
        let error = CompletionError(bytes.len());
        if bytes.len() < 32 {
            return Err(error);
        }
        if let Some((id, text)) = bytes.strip_prefix(ERROR_PREFIX).and_then(|rest| rest.split_first_chunk()) {
            return Ok(Self::Failed {
                request_id: Hash(*id),
                error: String::from_utf8_lossy(text).into_owned(),
            });
        }
        if bytes.len() > 100 {
            return Err(error);
        }
        let (request_id, rest) = bytes.split_first_chunk().ok_or(error)?;
        let (last_hash, rest) = rest.split_first_chunk().unwrap_or((&[0; 32], &[]));
        let cursor = Cursor::try_from(rest).ok();
        Ok(Self::Done { request_id: Hash(*request_id), last_hash: Hash(*last_hash), cursor })
    }

    /// The content of the string.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Done { request_id, last_hash, cursor } => {
                let mut bytes = [request_id.0, last_hash.0].concat();
                bytes.extend(cursor.iter().flat_map(Cursor::to_bytes));
                bytes
            }
            Self::Failed { request_id, error } => [ERROR_PREFIX, &request_id.0, error.as_bytes()].concat(),
        }
    }
}
