//! Whose a spool is: the file `writer` in its directory, three lines of text. It is written once.
//!
//! ```text
//! poste-spool 1
//! writer <the writer id under which the archive knows the gateway>
//! journal <the id of the spool's journal, 32 hexadecimal digits>
//! ```

use std::io;
use std::path::Path;

use poste_journal::{DirectoryLock, JournalError, read_exact_at, write_all_at};
use rand::Rng;

use super::SpoolError;

const FILE_NAME: &str = "writer";
const DRAFT_NAME: &str = "writer.draft";
const FIRST_LINE: &str = "poste-spool 1";
const MAX_BYTES: u64 = 1024;
const MAX_ID_BYTES: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) writer_id: String,
    pub(super) journal_id: [u8; 16],
}

/// Whether a gateway has ever had its spool in this directory.
pub(crate) fn is_spool(dir: &Path) -> bool {
    dir.join(FILE_NAME).is_file()
}

impl Identity {
    /// Reads the identity of a spool, or makes one for `writer_id` in a directory that holds no spool yet.
    pub(super) fn open(lock: &DirectoryLock, writer_id: &str) -> Result<Self, SpoolError> {
        let path = lock.dir().join(FILE_NAME);
        let refuse = |reason: String| SpoolError::Identity { path: path.clone(), reason };
        let disk = lock.disk();
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::create(lock, writer_id),
            Err(error) => return Err(refuse(error.to_string())),
        };
        let bytes = file.len().map_err(|error| refuse(error.to_string()))?;
        let mut text = vec![0; usize::try_from(bytes.min(MAX_BYTES)).unwrap_or_default()];
        read_exact_at(file.as_ref(), &mut text, 0).map_err(|error| refuse(error.to_string()))?;
        let read = std::str::from_utf8(&text).ok().and_then(Self::parse);
        read.ok_or_else(|| {
            refuse(
                "it does not say whose spool this is: restore the file, or move the directory away"
                    .to_owned(),
            )
        })
    }

    fn create(lock: &DirectoryLock, writer_id: &str) -> Result<Self, SpoolError> {
        let (disk, dir) = (lock.disk(), lock.dir());
        let path = dir.join(FILE_NAME);
        let refuse = |reason: String| SpoolError::Identity { path: path.clone(), reason };
        let names = disk.list(dir).map_err(|error| refuse(error.to_string()))?;
        if names.iter().any(|name| name.starts_with("segment-")) {
            return Err(refuse(
                "it is missing, and there are envelopes: restore it, or move the directory away".into(),
            ));
        }
        let mut journal_id = [0; 16];
        rand::rng().fill_bytes(&mut journal_id);
        let identity = Self { writer_id: writer_id.to_owned(), journal_id };
        let draft = dir.join(DRAFT_NAME);
        let written = (|| {
            match disk.remove(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = disk.create(&draft)?;
            write_all_at(file.as_ref(), identity.text().as_bytes(), 0)?;
            file.sync_data()?;
            disk.rename(&draft, &path)?;
            disk.sync_dir(dir)
        })();
        written.map_err(|source| JournalError::Io { action: "write", path, source })?;
        Ok(identity)
    }

    fn text(&self) -> String {
        format!("{FIRST_LINE}\nwriter {}\njournal {}\n", self.writer_id, hex::encode(self.journal_id))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let known = lines.next()? == FIRST_LINE;
        let writer_id = lines.next()?.strip_prefix("writer ")?.to_owned();
        let mut journal_id = [0; 16];
        hex::decode_to_slice(lines.next()?.strip_prefix("journal ")?, &mut journal_id).ok()?;
        let whole = lines.next().is_none() && (1..=MAX_ID_BYTES).contains(&writer_id.len());
        (known && whole).then_some(Self { writer_id, journal_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_journal::{Disk, FaultyDisk};
    use std::sync::Arc;

    /// Frozen sample of version 1.
    const SAMPLE: &str = "poste-spool 1\nwriter c0ffee\njournal 000102030405060708090a0b0c0d0e0f\n";

    #[test]
    fn version_1_is_frozen() {
        let identity =
            Identity { writer_id: "c0ffee".into(), journal_id: std::array::from_fn(|at| at as u8) };
        assert_eq!(identity.text(), SAMPLE);
        assert_eq!(Identity::parse(SAMPLE), Some(identity));
    }

    #[test]
    fn anything_else_is_refused() {
        for (from, to) in
            [("spool 1", "spool 2"), ("writer c0ffee", "writer "), ("0f\n", "0\n"), ("0f\n", "0f\nx\n")]
        {
            assert_eq!(Identity::parse(&SAMPLE.replace(from, to)), None, "{to:?}");
        }
        assert_eq!(Identity::parse(""), None);
    }

    #[test]
    fn it_is_made_once_and_outlives_a_power_cut() {
        for seed in 0..20 {
            let disk = FaultyDisk::new(seed);
            let dir = Path::new("/spool");
            let lock = || DirectoryLock::acquire(Arc::new(disk.clone()), dir).unwrap();
            let made = Identity::open(&lock(), "first").unwrap();
            disk.crash();
            assert_eq!(Identity::open(&lock(), "second").unwrap(), made, "seed {seed}");
            disk.damage(&dir.join(FILE_NAME), 0, 1).unwrap();
            assert!(matches!(Identity::open(&lock(), "second"), Err(SpoolError::Identity { .. })));
            disk.remove(&dir.join(FILE_NAME)).unwrap();
            disk.create(&dir.join("segment-0000000001.journal")).unwrap();
            let error = Identity::open(&lock(), "second").unwrap_err().to_string();
            assert!(error.contains("it is missing"), "{error}");
        }
    }
}
