//! One owner for a directory: an exclusive lock that a second process meets as a clear error.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::JournalError;

const LOCK_FILE: &str = "LOCK";

/// Proof that this process owns a directory. The lock ends with it, also when the process is killed.
pub struct DirectoryLock {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    _held: Box<dyn Any + Send + Sync>,
}

impl DirectoryLock {
    /// Makes the directory if it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`JournalError::Locked`] while another owner has it; [`JournalError::Io`] when the directory cannot
    /// be made or its lock file cannot be opened.
    pub fn acquire(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, JournalError> {
        disk.create_dir(dir).map_err(JournalError::io("create", dir))?;
        let path = dir.join(LOCK_FILE);
        match disk.lock(&path) {
            Ok(held) => Ok(Self { disk, dir: dir.to_path_buf(), _held: held }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(JournalError::Locked { dir: dir.to_path_buf() })
            }
            Err(error) => Err(JournalError::io("lock", &path)(error)),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The disk it is on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }
}

impl fmt::Debug for DirectoryLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryLock").field("dir", &self.dir).finish_non_exhaustive()
    }
}
