//! The server's identity: a file of 64 hexadecimal digits that only its owner may read. Grants are made out to this
//! key, and clients do not register again by themselves: whoever loses it loses every registration, so it is never
//! overwritten, and never made anew beside registrations that were made for another one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use poste_codec::SecretKey;
use rand::Rng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::store;

/// The name of the file in a push server's data directory.
pub const FILE_NAME: &str = "identity.key";

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is one already.
    #[error("{} exists: a key is never overwritten; choose another file", .0.display())]
    Exists(PathBuf),
    /// Registrations are there, and the key that they were made for is not.
    #[error(
        "{} is missing, and there are registrations for it: bring the key back from its backup, or move the \
         directory away to start without registrations", .0.display()
    )]
    Lost(PathBuf),
    /// The file holds something else.
    #[error("{}: an identity file holds 64 hexadecimal digits of a secp256k1 key", .0.display())]
    Form(PathBuf),
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Reads the key of a data directory. Makes one where there is none, unless a store lies in the directory already.
///
/// # Errors
/// [`IdentityError::Lost`] when the store is there and its key is not, [`IdentityError::Form`] or
/// [`IdentityError::Io`] when the file cannot be read.
pub fn open(data: &Path) -> Result<SecretKey, IdentityError> {
    let path = data.join(FILE_NAME);
    match read(&path) {
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            match create(data) {
                // Another process was first.
                Err(IdentityError::Exists(_)) => read(&path),
                created => created,
            }
        }
        found => found,
    }
}

/// Makes a new key in a data directory.
///
/// # Errors
/// [`IdentityError::Exists`] when there is one, [`IdentityError::Lost`] when there are registrations for another one,
/// [`IdentityError::Io`] when it cannot be written.
pub fn create(data: &Path) -> Result<SecretKey, IdentityError> {
    let path = data.join(FILE_NAME);
    if !path.exists() && store::is_store(data) {
        return Err(IdentityError::Lost(path));
    }
    let key = SecretKey::random(|bytes| rand::rng().fill_bytes(bytes));
    export(&key, &path)?;
    Ok(key)
}

/// Reads an identity file.
///
/// # Errors
/// [`IdentityError::Form`] when it holds something else, [`IdentityError::Io`] when it cannot be read.
pub fn read(path: &Path) -> Result<SecretKey, IdentityError> {
    let failed = |source| IdentityError::Io { path: path.to_owned(), source };
    let form = || IdentityError::Form(path.to_owned());
    // With its capacity from the start, so that no piece of the key stays where the text once was.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_TEXT_BYTES + 1));
    let limit = MAX_TEXT_BYTES as u64 + 1;
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut text).map_err(failed)?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), bytes.as_mut()).map_err(|_| form())?;
    SecretKey::from_bytes(&bytes).map_err(|_| form())
}

/// Writes a key to a new file that only its owner may read (0600), and the directories above it: the backup, and how
/// an identity is made. The file appears whole or not at all, and is durable when this returns.
///
/// # Errors
/// [`IdentityError::Exists`] when there is a file of this name, [`IdentityError::Io`] when it cannot be written.
pub fn export(key: &SecretKey, to: &Path) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::Io { path: to.to_owned(), source };
    let parent = parent_of(to);
    make_dirs(parent).map_err(failed)?;
    let mut text = Zeroizing::new([b'\n'; 65]);
    hex::encode_to_slice(*key.to_bytes(), &mut text[..64]).expect("64 digits make 32 bytes");
    let mut draft = to.to_owned().into_os_string();
    // Nobody can put a file or a link there before, and two processes never share one.
    draft.push(format!(".draft-{:016x}", rand::rng().next_u64()));
    let draft = PathBuf::from(draft);
    write(&draft, text.as_ref()).map_err(failed)?;
    let written = fs::hard_link(&draft, to);
    let removed = fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(IdentityError::Exists(to.to_owned()));
        }
        written => written.and(removed).map_err(failed)?,
    }
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

/// More than any identity file has.
const MAX_TEXT_BYTES: usize = 1024;

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    if written.is_err() {
        // Ours, and of no use. What went wrong first is told.
        drop(fs::remove_file(path));
    }
    written
}

/// Makes a directory and those above it that are missing, for their owner alone, and durable.
fn make_dirs(dir: &Path) -> io::Result<()> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for made in missing {
        File::open(parent_of(made)).and_then(|parent| parent.sync_all())?;
    }
    Ok(())
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_identity_is_private_kept_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let key = open(&data).unwrap();
        let path = data.join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "no draft stays");
        assert_eq!(open(&data).unwrap().public(), key.public());
        let other = SecretKey::random(|bytes| rand::rng().fill_bytes(bytes));
        assert!(matches!(export(&other, &path), Err(IdentityError::Exists(_))));
        assert_eq!(read(&path).unwrap().public(), key.public());
    }

    #[test]
    fn a_draft_never_follows_or_overwrites_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let [victim, link] = ["victim", "link"].map(|name| dir.path().join(name));
        fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        for there in [&victim, &link] {
            let error = write(there, b"a secret").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert!(link.is_symlink());
    }

    #[test]
    fn a_backup_is_the_same_key_in_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let key = open(dir.path()).unwrap();
        let backup = dir.path().join("elsewhere/identity.backup");
        export(&key, &backup).unwrap();
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(*read(&backup).unwrap().to_bytes(), *key.to_bytes());
        assert_eq!(fs::read(&backup).unwrap(), fs::read(dir.path().join(FILE_NAME)).unwrap());
    }

    #[test]
    fn a_damaged_identity_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        for text in ["", "xyz", &"0".repeat(64), &"f".repeat(64), &"1".repeat(65), &"1".repeat(5000)] {
            fs::write(&path, text).unwrap();
            let error = open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE_NAME), "{error}");
        }
    }
}
