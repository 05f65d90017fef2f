//! What can go wrong, in words for a person and in kinds for a program.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why the journal could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk refused a call.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process owns the directory.
    #[error("{} is in use by another process: stop it, or name another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// An earlier write or fsync failed and the journal has not been reopened since.
    #[error("the journal takes nothing until it is reopened: an earlier write or fsync did not succeed")]
    Poisoned,
    /// A payload is empty or larger than a frame can hold, or a group larger than a segment can.
    #[error("{bytes} bytes do not fit: a payload holds 1 to {max} bytes")]
    TooLarge {
        /// Size of what was given, bytes.
        bytes: usize,
        /// The most that fits, bytes.
        max: usize,
    },
    /// A segment file carries the id of another journal.
    #[error("{} belongs to another journal: files of two stores were mixed in one directory", path.display())]
    Foreign {
        /// The segment file.
        path: PathBuf,
    },
    /// A segment file is of a format that this program does not know.
    #[error("{} has format version {version}, and this program reads only version {known}", path.display())]
    Version {
        /// The segment file.
        path: PathBuf,
        /// The version it states.
        version: u32,
        /// The version this program reads.
        known: u32,
    },
    /// A segment that is still written to cannot be removed.
    #[error("segment {segment} is still written to: seal it before removing it")]
    StillOpen {
        /// Number of the segment.
        segment: u32,
    },
    /// A frame does not verify when it is read.
    #[error("the frame at offset {offset} of segment {segment} is damaged")]
    Damaged {
        /// Number of the segment.
        segment: u32,
        /// Offset of the frame in its file, bytes.
        offset: u32,
    },
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Another process owns the directory.
    Busy,
    /// There is no space left: it passes when somebody makes room.
    Full,
    /// The disk does not answer as it should, or an earlier error is not yet repaired.
    Unavailable,
    /// Bytes on disk are not what was written.
    Corrupt,
    /// The request cannot be served, now or later.
    Invalid,
}

impl JournalError {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if is_full(source) => ErrorKind::Full,
            Self::Io { .. } | Self::Poisoned => ErrorKind::Unavailable,
            Self::Locked { .. } => ErrorKind::Busy,
            Self::TooLarge { .. } | Self::StillOpen { .. } => ErrorKind::Invalid,
            Self::Foreign { .. } | Self::Version { .. } | Self::Damaged { .. } => ErrorKind::Corrupt,
        }
    }

    /// For `map_err`: the disk refused to do `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}
