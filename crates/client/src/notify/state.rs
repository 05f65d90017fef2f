//! What a receiver must not forget: the versions that it has used, its token, and where it is registered. Written before
//! anything of it is sent, so that a version that went out is never used again.

mod form;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use poste_codec::PublicKey;
use poste_wire::status::{AccessToken, InstallationId};
use thiserror::Error;

use super::file::{read_private, write_private};
use super::profile::Profile;

/// More than the longest file has: lists of 10,000 keys and chats.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// How things stand with one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was, or is to be, asked to register the device, and has not confirmed the present profile.
    Registering,
    /// It has confirmed the present profile.
    Registered {
        /// With this version.
        version: u64,
    },
    /// It was, or is to be, asked to forget the device, and has not confirmed that.
    Leaving,
}

impl Standing {
    /// The version that the server has confirmed.
    pub(super) fn version(&self) -> Option<u64> {
        match *self {
            Self::Registered { version } => Some(version),
            Self::Registering | Self::Leaving => None,
        }
    }
}

/// What a receiver must not forget. Tokens are not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceiverState {
    pub(super) installation: InstallationId,
    /// The highest that may have been sent; 0 if none.
    pub(super) version: u64,
    /// None before the first registration and after unregistering.
    pub(super) registration: Option<Registration>,
    pub(super) servers: BTreeMap<PublicKey, Standing>,
}

/// What is to be registered.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) profile: Profile,
    pub(super) token: AccessToken,
}

impl ReceiverState {
    /// Of a device that was never registered.
    #[must_use]
    pub fn new(installation: InstallationId) -> Self {
        Self { installation, version: 0, registration: None, servers: BTreeMap::new() }
    }

    /// The name of the device.
    #[must_use]
    pub fn installation(&self) -> &InstallationId {
        &self.installation
    }

    /// The highest version that may have been sent.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What is, or is to be, registered.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.registration.as_ref().map(|registration| &registration.profile)
    }

    /// How things stand with each server.
    pub fn servers(&self) -> impl Iterator<Item = (PublicKey, Standing)> + '_ {
        self.servers.iter().map(|(server, standing)| (*server, *standing))
    }
}

impl fmt::Debug for ReceiverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverState")
            .field("version", &self.version)
            .field("profile", &self.profile())
            .field("servers", &self.servers.len())
            .finish_non_exhaustive()
    }
}

/// Why a receiver's file is of no use.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file holds something else, or is of a later version of this program.
    #[error(
        "{}: not what this version writes of a registration ({what}); move it away to start anew, under another \
         installation id", .path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Versions and tokens are for one key only.
    #[error("{}: belongs to another key; use a state directory for each key", .0.display())]
    OtherKey(PathBuf),
    /// What another process writes must not be overwritten, nor a version of its used.
    #[error("{}: another process uses it; stop that first", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The file of what one key's device must not forget. Whoever writes it holds its lock.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
    owner: PublicKey,
}

impl StateFile {
    /// The name of the file in a state directory.
    pub const NAME: &str = "receiver.json";

    /// The file of this key in a state directory.
    #[must_use]
    pub fn new(directory: &Path, owner: PublicKey) -> Self {
        Self { path: directory.join(Self::NAME), owner }
    }

    /// Makes the directory, and keeps other processes out until the lock is dropped.
    ///
    /// # Errors
    /// [`StateError::InUse`], or [`StateError::Io`].
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.path.with_extension("lock");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = make.and_then(|()| open()).map_err(|source| self.io(source))?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock(file)),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(self.io(source)),
        }
    }

    /// Reads it; none where there is no file.
    ///
    /// # Errors
    /// [`StateError::Form`], [`StateError::OtherKey`], or [`StateError::Io`].
    pub fn read(&self) -> Result<Option<ReceiverState>, StateError> {
        let Some(bytes) = read_private(&self.path, MAX_FILE_BYTES).map_err(|source| self.io(source))? else {
            return Ok(None);
        };
        match form::decode(&bytes) {
            Ok((owner, _)) if owner != self.owner => Err(StateError::OtherKey(self.path.clone())),
            Ok((_, state)) => Ok(Some(state)),
            Err(what) => Err(StateError::Form { path: self.path.clone(), what }),
        }
    }

    /// Replaces it (0600); what was written is durable.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, state: &ReceiverState) -> Result<(), StateError> {
        write_private(&self.path, &form::encode(&self.owner, state)).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), source }
    }
}

/// As long as it lives, no other process takes the lock of the file.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "closing it ends the lock")] File);

#[cfg(test)]
mod tests;
