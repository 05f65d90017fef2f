//! How bytes become durable: append-only, checksummed segment files with group commit.
//!
//! A journal is a directory of numbered segment files, owned by one process. Groups of payloads are
//! appended to the last segment and become durable together by one fdatasync. The journal knows nothing of
//! what it stores. It keeps these promises:
//!
//! - **J1**: what [`Journal::sync`] has returned for is there after a crash, with its bytes;
//! - **J2**: after any error of a write or of an fsync the journal is poisoned: it takes nothing more until
//!   [`Journal::reopen`] has verified on disk what was durable before;
//! - **J3**: a tail is cut only from the last segment, and only where no valid frame follows; any other
//!   damage stays on disk and is reported, and reading goes on at the next valid frame.
//!
//! Start at [`DirectoryLock::acquire`] and [`Journal::open`]. The format is described in [`segment`].

mod disk;
mod error;
mod group;
mod journal;
mod lock;
mod reader;
mod scan;
pub mod segment;

#[cfg(any(test, feature = "faults"))]
pub use disk::faulty::{FaultyDisk, Odds};
pub use disk::{Disk, DiskFile, read_exact_at, real::RealDisk, write_all_at};
pub use error::{ErrorKind, JournalError};
pub use group::Group;
pub use journal::{Appended, Damage, Journal, Options, Recovery, Reopened, Replay};
pub use lock::DirectoryLock;
pub use reader::{Reader, ScanReport};
pub use segment::{FrameAt, MAX_PAYLOAD_BYTES};
