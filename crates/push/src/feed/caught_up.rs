//! When everything in the archive had last been dealt with. Where another archive takes the place of the former one, this
//! says from when on its messages are news. A small file in the data directory:
//!
//! ```text
//! poste-push-caught-up 1
//! store <the archive's store id, hexadecimal>
//! time <seconds since 1970>
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "caught-up";
const DRAFT_NAME: &str = "caught-up.draft";
const FIRST_LINE: &str = "poste-push-caught-up 1";
const MAX_BYTES: u64 = 1024;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CaughtUp {
    pub(super) store_id: [u8; 16],
    pub(super) unix_s: u64,
}

impl CaughtUp {
    /// What a directory says. None where there is no file; one that cannot be read says no more than none, and is told in
    /// the log. It blocks.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let path = dir.join(FILE_NAME);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, file = FILE_NAME, "it cannot be read");
                return None;
            }
        }
        let read = Self::parse(&text);
        if read.is_none() {
            tracing::warn!(file = FILE_NAME, "it does not say when the archive was last read to its end");
        }
        read
    }

    /// Writes the file; it appears whole or not at all. It blocks.
    pub(super) fn write(self, dir: &Path) -> io::Result<()> {
        let draft: PathBuf = dir.join(DRAFT_NAME);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(FILE_NAME))?;
        File::open(dir)?.sync_all()
    }

    fn text(self) -> String {
        format!("{FIRST_LINE}\nstore {}\ntime {}\n", hex::encode(self.store_id), self.unix_s)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let is_known = lines.next()? == FIRST_LINE;
        let mut store_id = [0; 16];
        hex::decode_to_slice(lines.next()?.strip_prefix("store ")?, &mut store_id).ok()?;
        let unix_s = lines.next()?.strip_prefix("time ")?.parse().ok()?;
        (is_known && lines.next().is_none()).then_some(Self { store_id, unix_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_frozen() {
        let sample = "poste-push-caught-up 1\nstore 0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\ntime 1700000000\n";
        let read = CaughtUp { store_id: [0xb; 16], unix_s: 1_700_000_000 };
        assert_eq!((read.text().as_str(), CaughtUp::parse(sample)), (sample, Some(read)));
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(CaughtUp::read(dir.path()), None);
        let (first, second) =
            (CaughtUp { store_id: [1; 16], unix_s: 5 }, CaughtUp { store_id: [2; 16], unix_s: u64::MAX });
        for written in [first, second] {
            written.write(dir.path()).unwrap();
            assert_eq!(CaughtUp::read(dir.path()), Some(written));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays");
        for damaged in ["", "poste-push-caught-up 2\nstore 00\ntime 5\n", "\u{fffd}"] {
            fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
            assert_eq!(CaughtUp::read(dir.path()), None, "{damaged:?}");
        }
    }
}
