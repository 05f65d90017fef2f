//! Export files on this machine. Reading and writing have threads of their own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use indicatif::ProgressBar;
use poste_archive::export::{Decoder, Flaw, Header, Place};
use poste_rpc::archive::v1;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::ctl::output::size;

/// For nobody but its owner: the archive's own files are not readable by others either.
const MODE: u32 = 0o600;
const READ_BYTES: usize = 256 * 1024;
/// Chunks of up to about 1 MiB that wait for the disk.
const MAX_WAITING: usize = 4;

/// What there is of an export.
#[derive(Debug)]
pub(super) enum Found {
    /// No file.
    Nothing,
    /// A file without even a header.
    Empty,
    /// A file that has its end.
    Whole,
    /// A file that was cut off.
    Cut {
        /// Asks for the rest.
        request: v1::ExportRequest,
        /// What stays of it.
        sound_bytes: u64,
        /// What is behind that.
        dropped_bytes: u64,
    },
}

/// Reads a file to its end. One that is damaged is an error: what stands behind the damage may be the only copy.
pub(super) async fn read(path: &Path, progress: ProgressBar) -> anyhow::Result<Found> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || read_blocking(&path, &progress)).await?
}

fn read_blocking(path: &Path, progress: &ProgressBar) -> anyhow::Result<Found> {
    let name = || path.display().to_string();
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        file => file.with_context(name)?,
    };
    let file_bytes = file.metadata().with_context(name)?.len();
    progress.set_length(file_bytes);
    progress.set_message("reading what is there");
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; READ_BYTES];
    let damage = 'read: loop {
        let count = file.read(&mut buffer).with_context(name)?;
        if count == 0 {
            break decoder.finish().err();
        }
        decoder.push(&buffer[..count]);
        loop {
            match decoder.next_piece() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(damage) => break 'read Some(damage),
            }
        }
        progress.set_position(decoder.sound_bytes());
    };
    progress.finish_and_clear();
    let sound_bytes = decoder.sound_bytes();
    let behind_bytes = file_bytes.saturating_sub(sound_bytes);
    match (damage, decoder.header()) {
        (None, _) => Ok(Found::Whole),
        (Some(damage), Some(header)) if damage.flaw == Flaw::Unfinished => {
            let request = rest(header, decoder.place());
            Ok(Found::Cut { request, sound_bytes, dropped_bytes: behind_bytes })
        }
        (Some(damage), None) if damage.flaw == Flaw::Unfinished => Ok(Found::Empty),
        (Some(damage), Some(_)) => bail!(
            "{}: {damage}. Nothing was changed, as an archive may no longer hold what stands behind that place: export \
             into another file; or give up the {} behind it by `truncate --size={sound_bytes} FILE`, and --resume",
            name(),
            size(behind_bytes)
        ),
        (Some(damage), None) => bail!("{}: {damage}: it cannot be gone on with", name()),
    }
}

fn rest(header: &Header, place: Place) -> v1::ExportRequest {
    let Place { last, totals, unchecked_records, unchecked_bytes } = place;
    let after =
        last.map(|last| v1::Position { time_ns: last.time_ns, id: Bytes::copy_from_slice(&last.id.0) });
    let resume = v1::ExportResume {
        store_id: Bytes::copy_from_slice(&header.store_id.0),
        after,
        records: totals.records,
        record_bytes: totals.bytes,
        record_crc: totals.crc,
        unchecked_records,
        unchecked_bytes,
    };
    let Header { space, from_ns, to_ns, .. } = header.clone();
    v1::ExportRequest { space, from_ns, to_ns, resume: Some(resume) }
}

/// Where the bytes go, by a thread that writes them.
#[derive(Debug)]
pub(super) struct Output {
    chunks: mpsc::Sender<Bytes>,
    writer: JoinHandle<anyhow::Result<u64>>,
}

impl Output {
    /// A new file.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        Ok(Self::to_file(file, path.to_owned()))
    }

    /// A file of which only the first `sound_bytes` stay.
    pub(super) fn resume(path: &Path, sound_bytes: u64) -> anyhow::Result<Self> {
        let open = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path)?;
            file.set_len(sound_bytes)?;
            file.seek(SeekFrom::Start(sound_bytes))?;
            Ok(file)
        };
        let file = open().with_context(|| path.display().to_string())?;
        Ok(Self::to_file(file, path.to_owned()))
    }

    /// Stdout.
    pub(super) fn stdout() -> Self {
        Self::of(io::stdout(), "stdout".into(), io::Stdout::flush)
    }

    /// Hands over the next bytes. An error here is told by [`Output::finish`].
    pub(super) async fn write(&mut self, chunk: Bytes) -> anyhow::Result<()> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        // The thread ends by itself only by an error.
        (&mut self.writer).await?.map(drop)
    }

    /// Waits until everything is on disk. Returns how many bytes were written.
    pub(super) async fn finish(self) -> anyhow::Result<u64> {
        drop(self.chunks);
        self.writer.await?
    }

    fn to_file(file: File, name: PathBuf) -> Self {
        Self::of(file, name, |file| file.sync_all())
    }

    fn of<W: Write + Send + 'static>(mut out: W, name: PathBuf, sync: fn(&mut W) -> io::Result<()>) -> Self {
        let (chunks, mut waiting) = mpsc::channel::<Bytes>(MAX_WAITING);
        let writer = tokio::task::spawn_blocking(move || {
            let mut written = 0;
            let mut write = || -> io::Result<()> {
                while let Some(chunk) = waiting.blocking_recv() {
                    out.write_all(&chunk)?;
                    written += chunk.len() as u64;
                }
                sync(&mut out)
            };
            write().with_context(|| name.display().to_string())?;
            Ok(written)
        });
        Self { chunks, writer }
    }
}
