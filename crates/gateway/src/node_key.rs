//! The node key on disk: a file of 64 hexadecimal digits that only its owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use poste_codec::SecretKey;
use rand::Rng;
use thiserror::Error;
use zeroize::Zeroizing;

/// The name of the file in a gateway's data directory.
pub const FILE_NAME: &str = "node.key";

/// Why there is no node key.
#[derive(Debug, Error)]
pub enum NodeKeyError {
    /// There is one already.
    #[error("{} exists: a key is never overwritten; choose another file", .0.display())]
    Exists(PathBuf),
    /// The file holds something else.
    #[error("{}: a node key file holds 64 hexadecimal digits of a secp256k1 key", .0.display())]
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

/// Reads the key of a data directory, or makes one.
pub fn open(data: &Path) -> Result<SecretKey, NodeKeyError> {
    let path = data.join(FILE_NAME);
    match read(&path) {
        Err(NodeKeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            match create(&path) {
                // Another process was first.
                Err(NodeKeyError::Exists(_)) => read(&path),
                created => created,
            }
        }
        found => found,
    }
}

/// Makes a new key, and the directories above its file. The file appears whole or not at all.
pub fn create(path: &Path) -> Result<SecretKey, NodeKeyError> {
    let failed = |error| NodeKeyError::Io { path: path.to_owned(), source: error };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed)?;
    let key = SecretKey::random(|bytes| rand::rng().fill_bytes(bytes));
    let text = Zeroizing::new(hex::encode(*key.to_bytes()) + "\n");
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let written = write(&draft, text.as_bytes()).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(NodeKeyError::Exists(path.to_owned()));
        }
        written => written.and(removed).map_err(failed)?,
    }
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    Ok(key)
}

/// Reads a key file.
pub fn read(path: &Path) -> Result<SecretKey, NodeKeyError> {
    let failed = |error| NodeKeyError::Io { path: path.to_owned(), source: error };
    let form = || NodeKeyError::Form(path.to_owned());
    let mut text = Zeroizing::new(String::new());
    File::open(path).map_err(failed)?.take(1024).read_to_string(&mut text).map_err(failed)?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), bytes.as_mut()).map_err(|_| form())?;
    SecretKey::from_bytes(&bytes).map_err(|_| form())
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_key_is_private_readable_again_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/node.key");
        let key = create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft stays");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() == 65 && text.ends_with('\n'));
        assert_eq!(read(&path).unwrap().public(), key.public());
        assert!(matches!(create(&path), Err(NodeKeyError::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_data_directory_keeps_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap().public();
        assert_eq!(open(dir.path()).unwrap().public(), first);
    }

    #[test]
    fn a_damaged_key_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        for text in ["", "xyz", &"0".repeat(64), &"f".repeat(64), &"1".repeat(65)] {
            fs::write(&path, text).unwrap();
            let error = open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE_NAME), "{error}");
        }
    }
}
