//! The `meta` file: what cannot be derived from the records. Format 1, 32 bytes: magic "POSTEARC" | version
//! u32 | store id, 16 bytes | crc32c of the 28 bytes before; integers little-endian. It is replaced whole:
//! written beside, fsynced, renamed, and the directory fsynced.

use std::io;
use std::path::Path;

use poste_journal::{DirectoryLock, Disk};

use crate::store::{StoreError, StoreId};

const NAME: &str = "meta";
const NEW_NAME: &str = "meta.new";
const MAGIC: &[u8; 8] = b"POSTEARC";
const VERSION: u32 = 1;
const BYTES: usize = 32;

/// What the `meta` file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) store_id: StoreId,
}

impl Meta {
    /// Reads the store's `meta`, or makes one with a random identity in an empty directory.
    pub(super) fn open(lock: &DirectoryLock) -> Result<Self, StoreError> {
        let (disk, dir) = (lock.disk().as_ref(), lock.dir());
        let names = disk.list(dir).map_err(|error| unusable(dir, &error))?;
        if names.iter().any(|name| name == NAME) {
            let bytes = read(disk, &dir.join(NAME)).map_err(|error| unusable(dir, &error))?;
            return Self::decode(&bytes)
                .map_err(|reason| StoreError::Corrupt(format!("{}: {reason}", dir.join(NAME).display())));
        }
        if names.iter().any(|name| name.ends_with(".journal")) {
            return Err(StoreError::Corrupt(format!(
                "{} holds journal files but no `meta`: restore it from a copy of the directory",
                dir.display()
            )));
        }
        let meta = Self { store_id: StoreId(rand::random()) };
        meta.write(disk, dir).map_err(|error| unusable(dir, &error))?;
        Ok(meta)
    }

    fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let (new, path) = (dir.join(NEW_NAME), dir.join(NAME));
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&new)?;
        let bytes = self.encode();
        let mut written = 0;
        while written < bytes.len() {
            match file.write_at(&bytes[written..], written as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                taken => written += taken,
            }
        }
        file.sync_data()?;
        disk.rename(&new, &path)?;
        disk.sync_dir(dir)
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.store_id.0);
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let damaged = "is damaged: restore it from a copy of the directory";
        let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| damaged)?;
        if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..28]).to_le_bytes() != bytes[28..] {
            return Err(damaged);
        }
        if bytes[8..12] != VERSION.to_le_bytes() {
            return Err("has a format that this program does not know: a newer program wrote it");
        }
        let mut store_id = StoreId([0; 16]);
        store_id.0.copy_from_slice(&bytes[12..28]);
        Ok(Self { store_id })
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    // One byte more than a good one has, so that a longer one is seen.
    let mut bytes = vec![0; BYTES + 1];
    let mut length = 0;
    loop {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            come => length += come,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn unusable(dir: &Path, error: &io::Error) -> StoreError {
    StoreError::Unreadable { path: dir.join(NAME), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_of_format_1_is_frozen() {
        let meta = Meta { store_id: StoreId(std::array::from_fn(|i| i as u8)) };
        assert_eq!(
            hex::encode(meta.encode()),
            "504f53544541524301000000000102030405060708090a0b0c0d0e0f570979a0"
        );
        assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
    }

    #[test]
    fn a_damaged_meta_is_never_believed() {
        let bytes = Meta { store_id: StoreId([7; 16]) }.encode();
        for bit in 0..BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Meta::decode(&flipped).is_err(), "bit {bit}");
        }
        assert!(Meta::decode(&bytes[..BYTES - 1]).is_err());
        assert!(Meta::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
