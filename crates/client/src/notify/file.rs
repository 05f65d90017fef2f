//! Small files that only their owner may read: access tokens are in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::Rng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The file's format alone, whatever else a later version puts into it.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// What stands in a file: JSON for people, with a member `format`.
pub(super) fn encode(file: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(file).expect("texts and numbers are JSON");
    bytes.push(b'\n');
    Zeroizing::new(bytes)
}

/// What [`encode`] wrote in this format, or what is wrong with it. Nothing of its content is in the error.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], wanted: u32) -> Result<T, String> {
    let place = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    let Format { format } = serde_json::from_slice(bytes).map_err(place)?;
    if format != wanted {
        return Err(format!("format {format}"));
    }
    serde_json::from_slice(bytes).map_err(place)
}

/// Replaces the file as a whole (0600), and makes the directories above it (0700). What was there before stays until
/// the new bytes are durable.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let mut draft = path.to_owned().into_os_string();
    // Nobody can put a file or a link there before, and two processes never share one.
    draft.push(format!(".draft-{:016x}", rand::rng().next_u64()));
    let draft = PathBuf::from(draft);
    let written = write(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // Ours, and of no use. What went wrong first is told.
        drop(fs::remove_file(&draft));
    }
    written?;
    File::open(parent)?.sync_all()
}

/// Keeps others who change the file away, until it is dropped; waits for them to be ready. What is locked is a file beside
/// it, as the file itself is replaced.
pub(super) fn lock(path: &Path) -> io::Result<File> {
    let path = path.with_extension("lock");
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    file.lock()?;
    Ok(file)
}

/// The bytes of a file of at most so many; `None` when there is none.
pub(super) fn read_private(path: &Path, most_bytes: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let too_long = || io::Error::other(format!("the file is longer than {most_bytes} bytes"));
    if length > most_bytes {
        return Err(too_long());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1));
    file.take(most_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes { Err(too_long()) } else { Ok(Some(bytes)) }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file.json");
        assert_eq!(read_private(&path, 10).unwrap(), None);
        for bytes in [&b"first"[..], b"2"] {
            write_private(&path, bytes).unwrap();
            assert_eq!(*read_private(&path, 5).unwrap().unwrap(), bytes);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft stays");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_private(&path, b"12345").unwrap();
        assert!(read_private(&path, 5).is_ok());
        assert!(read_private(&path, 4).unwrap_err().to_string().contains("4 bytes"));
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        // A directory is not replaced by a file.
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_private(&path, b"bytes").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays");
    }
}
