//! What the journal asks of a disk: a small set of calls, so that tests can put a faulty one beneath it.

#[cfg(any(test, feature = "faults"))]
pub(crate) mod faulty;
pub(crate) mod real;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Directories and names: everything that is done to a file as a whole.
pub trait Disk: Debug + Send + Sync {
    /// Makes the directory and its missing parents, durably. Fine when it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a new, empty file; `AlreadyExists` when there is one. Durable after [`Disk::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of the files in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name, replacing what had it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that this process may still write on the file system of an existing directory, as far as the system
    /// knows. Others write there too: it is an estimate.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock of a file, made when it is missing; `WouldBlock` while another owner has
    /// it. Dropping what is returned gives the lock back.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// One open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Writes at an offset and returns how many bytes were taken: possibly fewer than given.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads at an offset and returns how many bytes came: possibly fewer than asked for, 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// fdatasync: contents and length are durable when it returns.
    fn sync_data(&self) -> io::Result<()>;
    /// Sets the length. Durable after [`DiskFile::sync_data`].
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Drops what the operating system caches of this file, so that the next read comes from the disk.
    /// After a failed fsync the cache may hold pages that will never be written.
    fn forget_cached(&self) -> io::Result<()>;
}

/// Writes all bytes at an offset, over as many calls as it takes.
///
/// # Errors
/// What the file answers; a part may have been written then.
pub fn write_all_at(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => {
                bytes = &bytes[taken..];
                offset += taken as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills the whole buffer from an offset.
///
/// # Errors
/// `UnexpectedEof` when the file ends before, else what the file answers.
pub fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(come) => {
                buffer = &mut buffer[come..];
                offset += come as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
