//! The stack in one process: `poste up` on ports of its own and a data directory of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;

/// How long a start may take. A loaded machine gets more than the promise of five seconds.
const START: Duration = Duration::from_secs(30);

/// A running `poste up`. It is killed when dropped, and its data directory removed.
#[derive(Debug)]
pub struct Stack {
    process: Option<Process>,
    arguments: Vec<String>,
    data: TempDir,
    ready: Value,
}

impl Stack {
    /// Starts a stack on an empty data directory, with further `arguments` of `poste up`.
    pub fn up(arguments: &[&str]) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut command = poste()?;
        command.arg("up").arg("--data").arg(data.path()).arg("--ephemeral-ports").args(&arguments);
        let (process, ready) = start("poste up", &mut command)?;
        Ok(Self { process: Some(process), arguments, data, ready })
    }

    /// The address of the node.
    pub fn enode(&self) -> &str {
        self.ready["enode"].as_str().unwrap_or_default()
    }

    /// The ready line.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Its resident memory now, KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        self.process.as_ref().context("it runs")?.memory_kib("VmRSS")
    }

    /// Kills it at once (SIGKILL), as a power button would end the process.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Asks it to stop (SIGTERM) and waits for it, which must be exit code 0 within the time.
    pub fn stop(&mut self, within: Duration) -> Result<()> {
        let process = self.process.take().context("it runs")?;
        process.terminate()?;
        process.succeed(within).map(drop)
    }

    /// Starts it again after [`Stack::kill`] or [`Stack::stop`], on the same data and the same RLPx port: the enode is the same.
    pub fn restart(&mut self) -> Result<()> {
        let address = self.enode().rsplit_once('@').context("an enode with an address")?.1.to_owned();
        let mut command = poste()?;
        command.arg("up").arg("--data").arg(self.data.path()).arg("--ephemeral-ports");
        command.args(["--gateway-rlpx-listen", &address]).args(&self.arguments);
        let (process, ready) = start("poste up", &mut command)?;
        ensure!(ready["enode"] == self.ready["enode"], "another enode after the restart: {ready}");
        (self.process, self.ready) = (Some(process), ready);
        Ok(())
    }
}

/// The binary under test: `POSTE_BIN`, otherwise what cargo built into the same target directory.
pub fn poste() -> Result<Command> {
    let binary = match std::env::var_os("POSTE_BIN") {
        Some(binary) => PathBuf::from(binary),
        None => target_directory()?.join("poste"),
    };
    ensure!(
        binary.is_file(),
        "{} is not there: run `cargo build -p poste` first, or name a binary in POSTE_BIN",
        binary.display()
    );
    let mut command = Command::new(binary);
    // Whatever POSTE_… variables steer the tests are no settings.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTE_")) {
        command.env_remove(name);
    }
    Ok(command)
}

/// Where cargo puts programs of this profile: the directory above the one of this test program.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory =
        program.parent().and_then(|deps| deps.parent()).context("a test program in target/…/deps")?;
    Ok(directory.to_owned())
}

/// Starts a server and waits for its ready line.
pub fn start(name: &str, command: &mut Command) -> Result<(Process, Value)> {
    start_within(name, command, START)
}

/// The same with another patience.
pub fn start_within(name: &str, command: &mut Command, within: Duration) -> Result<(Process, Value)> {
    let process = Process::start(name, command)?;
    let ready = process.event("ready", within)?;
    Ok((process, ready))
}
