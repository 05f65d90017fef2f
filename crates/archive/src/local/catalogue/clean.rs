//! The file that makes a catalogue believed, `catalogue.clean`; integers little-endian: magic "POSTECLN" | version
//! u32 | stamp, 16 bytes | count of files u32 | for each its path below the catalogue: length u16 and bytes, then its
//! length u64 and crc32c u32 | crc32c u32 of all before. The version is also that of what is in sled.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::SLED_DIR;

const NAME: &str = "catalogue.clean";
const NEW_NAME: &str = "catalogue.clean.new";
const MAGIC: &[u8; 8] = b"POSTECLN";
const VERSION: u32 = 1;
/// A file that is longer is none of ours.
const MAX_BYTES: u64 = 1024 * 1024;
/// sled has its files directly in its directory, and in one below it.
const MAX_DEPTH: usize = 2;
const MAX_FILES: usize = 1000;
/// sled's lock is on this file.
const SLED_LOCK: &str = "db";
/// So long sled may take to let its files go.
const RELEASE: Duration = Duration::from_secs(5);

/// Each file's path below the catalogue to its length and checksum.
type Files = BTreeMap<String, (u64, u32)>;

/// Looks whether the catalogue is what was closed with this stamp, and takes the proof of it away, durably: from now
/// on it may change. The inner error says why it is not to be believed.
pub(super) fn take(dir: &Path, stamp: [u8; 16]) -> io::Result<Result<(), &'static str>> {
    let path = dir.join(NAME);
    let bytes = match File::open(&path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
            bytes
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err("it was not closed")),
        Err(error) => return Err(error),
    };
    let believed = verify(dir, stamp, &bytes);
    fs::remove_file(&path)?;
    sync_dir(dir)?;
    Ok(believed)
}

/// Makes the catalogue's files durable and notes what they are. sled must have let them go.
pub(super) fn write(dir: &Path, stamp: [u8; 16]) -> io::Result<()> {
    let sled_dir = dir.join(SLED_DIR);
    wait_for_release(&sled_dir)?;
    sync_files(&sled_dir)?;
    let bytes = encode(stamp, &files(&sled_dir)?);
    let (new, path) = (dir.join(NEW_NAME), dir.join(NAME));
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync_dir(dir)
}

/// Deletes the catalogue, whatever it is, durably.
pub(super) fn delete(dir: &Path) -> io::Result<()> {
    let sled_dir = dir.join(SLED_DIR);
    let removed = match fs::symlink_metadata(&sled_dir) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&sled_dir),
        Ok(_) => fs::remove_file(&sled_dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    removed?;
    sync_dir(dir)
}

fn verify(dir: &Path, stamp: [u8; 16], bytes: &[u8]) -> Result<(), &'static str> {
    let Some((body, crc)) = bytes.split_last_chunk() else { return Err("its proof is cut short") };
    if crc32c::crc32c(body).to_le_bytes() != *crc {
        return Err("its proof is damaged");
    }
    let files = files(&dir.join(SLED_DIR)).map_err(|_| "its files cannot be read")?;
    // The same bytes come only of the same version, stamp and files.
    if encode(stamp, &files) == bytes { Ok(()) } else { Err("it is not what was closed") }
}

fn encode(stamp: [u8; 16], files: &Files) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &stamp].concat();
    bytes.extend_from_slice(&(files.len() as u32).to_le_bytes());
    for (path, (length, crc)) in files {
        bytes.extend_from_slice(&(path.len() as u16).to_le_bytes());
        bytes.extend_from_slice(path.as_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Every file of the catalogue. Anything that sled does not make is an error.
fn files(sled_dir: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    walk(sled_dir, "", MAX_DEPTH, &mut |name, path| {
        if files.len() == MAX_FILES {
            return Err(io::Error::other("too many files"));
        }
        files.insert(name, checksum(path)?);
        Ok(())
    })?;
    Ok(files)
}

fn sync_files(sled_dir: &Path) -> io::Result<()> {
    walk(sled_dir, "", MAX_DEPTH, &mut |_, path| File::open(path)?.sync_all())?;
    for entry in fs::read_dir(sled_dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_dir(&path)?;
        }
    }
    sync_dir(sled_dir)
}

/// Visits each file with its path below the catalogue.
fn walk(
    dir: &Path,
    prefix: &str,
    depth: usize,
    visit: &mut impl FnMut(String, &Path) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(io::Error::other("a foreign name"));
        };
        let (name, kind) = (format!("{prefix}{name}"), entry.file_type()?);
        if kind.is_file() {
            visit(name, &entry.path())?;
        } else if kind.is_dir() && depth > 1 {
            walk(&entry.path(), &format!("{name}/"), depth - 1, visit)?;
        } else {
            return Err(io::Error::other("neither a file nor a directory of sled"));
        }
    }
    Ok(())
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut length, mut crc) = (0, 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((length, crc)),
            Ok(come) => {
                length += come as u64;
                crc = crc32c::crc32c_append(crc, &buffer[..come]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// sled's threads may still write when its handle is gone: its lock ends with the last of them.
fn wait_for_release(sled_dir: &Path) -> io::Result<()> {
    let file = File::open(sled_dir.join(SLED_LOCK))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() > RELEASE => {
                return Err(io::Error::other("sled does not let its files go"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
