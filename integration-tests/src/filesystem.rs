//! A file system of its own on a loop device: it can be full, and its power can be cut. Needs root.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

const NEED_LOOP: &str = "this test makes file systems on loop devices: it needs root, mount, mkfs.ext4 and \
                         python3; POSTE_SKIP=loop does without these tests";

/// Waits for a line, then `ioctl(directory, EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH)`: from this instant on nothing
/// reaches the device any more, not even the file system's own journal. Python, because an ioctl of one's own is unsafe in
/// Rust.
const CUT: &str = "import fcntl, os, struct, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
print(flush=True)
sys.stdin.readline()
fcntl.ioctl(directory, 0x8004587D, struct.pack('I', 2))";

/// ext4 in a file, mounted. It is unmounted and removed when dropped.
#[derive(Debug)]
pub struct FileSystem {
    directory: TempDir,
    mounted: bool,
}

impl FileSystem {
    /// Makes and mounts one of that many bytes. It writes nothing back by itself for five minutes: what has to be durable
    /// must be synced.
    pub fn new(bytes: u64) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut this = Self { directory, mounted: false };
        std::fs::File::create(this.image())?.set_len(bytes)?;
        std::fs::create_dir(this.path())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(this.image()))?;
        this.mount()?;
        Ok(this)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// Mounts it again.
    pub fn mount(&mut self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop,commit=300"]).arg(self.image()).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it: once nobody has a file of it open any more.
    pub fn unmount(&mut self) -> Result<()> {
        let unmount = || run(Command::new("umount").arg(self.path()));
        // A process that was just killed may still be on its way out of a system call.
        for _ in 0..50 {
            if unmount().is_ok() {
                self.mounted = false;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        unmount()
    }

    /// Cuts its power at one instant: what was not synced is lost, and every use fails until it is mounted again.
    ///
    /// `just_before` is called right before that. What was told to be durable until then must be; later a machine without
    /// power could tell nothing. This one goes on, and a sync that is under way in this instant may succeed without having
    /// written anything: it finds its transaction gone from the journal and takes it for committed.
    pub fn cut(&self, just_before: impl FnOnce()) -> Result<()> {
        let mut python = Command::new("python3");
        python.args(["-c", CUT]).arg(self.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().context(NEED_LOOP)?;
        let mut ready = [0];
        python.stdout.take().context("a pipe")?.read_exact(&mut ready).context("python3 has ended")?;
        just_before();
        python.stdin.take().context("a pipe")?.write_all(b"\n")?;
        let status = python.wait()?;
        ensure!(status.success(), "the power was not cut: {status}");
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Then it goes when the last file is closed.
            let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}; {NEED_LOOP}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}; {NEED_LOOP}", said.trim());
    Ok(())
}
