//! What a store can answer instead of records.

use std::path::PathBuf;

use poste_journal::JournalError;

/// Why a store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The journal or its disk.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is on disk is not what a store of this program writes.
    #[error("{0}")]
    Corrupt(String),
    /// A file of the store cannot be read or made.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The store was closed, or its writer ended.
    #[error("the store is closed")]
    Closed,
    /// What a writer says on a connection that another of its connections has followed.
    #[error("another connection of this writer has taken the place of this one")]
    Displaced,
    /// The question makes no sense to a store.
    #[error("{0}")]
    Invalid(String),
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Another process owns the store.
    Busy,
    /// There is no space left.
    Full,
    /// Bytes on disk are not what was written.
    Corrupt,
    /// It may work later.
    Unavailable,
    /// It cannot be done, now or later.
    Invalid,
}

impl StoreError {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Journal(error) => match error.kind() {
                poste_journal::ErrorKind::Busy => ErrorKind::Busy,
                poste_journal::ErrorKind::Full => ErrorKind::Full,
                poste_journal::ErrorKind::Unavailable => ErrorKind::Unavailable,
                poste_journal::ErrorKind::Corrupt => ErrorKind::Corrupt,
                poste_journal::ErrorKind::Invalid => ErrorKind::Invalid,
            },
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Unreadable { .. } | Self::Closed => ErrorKind::Unavailable,
            Self::Displaced | Self::Invalid(_) => ErrorKind::Invalid,
        }
    }
}
