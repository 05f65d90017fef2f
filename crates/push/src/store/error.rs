//! What a store can answer instead of what was asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Why a store could not do something.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the directory.
    #[error("{} is in use by another process: stop it, or choose another directory", .dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A file of the store is not there, and others are.
    #[error(
        "{} is missing beside the other files of a store: bring all of them back from one backup, or move the \
         directory away to start without registrations", .path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The store was made for another identity.
    #[error(
        "{} belongs to another identity: bring back the identity key that its registrations were made for, or move \
         the directory away to start without registrations", .dir.display()
    )]
    OtherIdentity {
        /// The directory.
        dir: PathBuf,
    },
    /// A file does not fit the others, or is of a version that this program does not know, or is damaged.
    #[error("{name}: {reason}")]
    Corrupt {
        /// The file, or what of it.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// More is damaged than the rows of a few.
    #[error(
        "much of it is damaged: look at the disk, and if it stays so, stop the push server, and bring all of its files \
         back from one copy, or move those of the store away and let the archive bring the registrations back"
    )]
    Damaged,
    /// The system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What it said.
        source: Arc<io::Error>,
    },
    /// The database refused.
    #[error("the store's database: {0}")]
    Database(Arc<redb::Error>),
    /// What was to be stored is larger than a store takes.
    #[error("{what} has {bytes} bytes, and at most {max} are stored")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The most.
        max: usize,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
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
    /// It may work after the store was opened again.
    Unavailable,
    /// It cannot be done, now or later.
    Invalid,
}

impl StoreError {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked { .. } => ErrorKind::Busy,
            Self::Corrupt { .. } | Self::Missing { .. } | Self::Damaged => ErrorKind::Corrupt,
            Self::OtherIdentity { .. } | Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::Closed => ErrorKind::Unavailable,
            Self::Io { source, .. } => kind_of_io(source),
            Self::Database(error) => match error.as_ref() {
                redb::Error::Io(error) => kind_of_io(error),
                redb::Error::DatabaseAlreadyOpen => ErrorKind::Busy,
                redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            },
        }
    }

    /// Whether it is only about what was asked for, such as a damaged row: then trying again is of no use, and others are
    /// served. Everything else concerns the whole store, which may serve again when it was opened again, or repaired.
    #[must_use]
    pub fn is_of_one_owner(&self) -> bool {
        matches!(self.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) && !matches!(self, Self::Damaged)
    }

    /// For `map_err` behind a call of the system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// For what a file holds and no store writes.
    pub(super) fn corrupt(name: &str, reason: &str) -> Self {
        Self::Corrupt { name: name.to_owned(), reason: reason.to_owned() }
    }
}

macro_rules! from_database {
    ($($error:ty)*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Arc::new(error.into()))
            }
        }
    )*};
}

from_database! {
    redb::StorageError redb::TableError redb::TransactionError redb::CommitError redb::DatabaseError
    redb::SetDurabilityError
}

fn kind_of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    }
}
