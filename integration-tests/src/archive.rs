//! An archive as a process of its own, on a directory that outlives it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use poste_rpc::archive::v1::archive_admin_service_client::ArchiveAdminServiceClient;
use poste_rpc::archive::v1::archive_service_client::ArchiveServiceClient;
use poste_rpc::client::Target;
use serde_json::Value;
use tonic::transport::Channel;

use crate::process::Process;
use crate::stack::{poste, start_within};

const NAME: &str = "the archive";

/// The program that serves the directory.
#[derive(Clone, Debug)]
pub enum Program {
    /// `poste serve archive`.
    Poste,
    /// What this gives for a directory: a process of this program, whose disk only says that it has synced (see
    /// [`crate::endurance::host::unsynced`]).
    Unsynced(fn(&Path) -> Result<Command>),
}

/// An archive and its directory. The process is killed when dropped; the directory is its caller's.
#[derive(Debug)]
pub struct Archive {
    /// What is started next time.
    pub program: Program,
    /// Further arguments of the next start.
    pub arguments: Vec<String>,
    /// How long a start may take.
    pub patience: Duration,
    directory: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    ready: Value,
}

impl Archive {
    /// An archive that does not run yet.
    pub fn new(program: Program, directory: &Path, arguments: &[&str]) -> Self {
        Self {
            program,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            patience: Duration::from_secs(60),
            directory: directory.to_owned(),
            running: None,
        }
    }

    /// The directory of its store.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts it; it accepts connections when this returns.
    pub fn start(&mut self) -> Result<()> {
        let (process, ready) = start_within(NAME, &mut self.command()?, self.patience)?;
        self.running = Some(Running { process, ready });
        Ok(())
    }

    /// Starts it and ends it (SIGKILL) after that time, wherever its start is then.
    pub fn start_and_kill(&mut self, after: Duration) -> Result<()> {
        let mut process = Process::start(NAME, &mut self.command()?)?;
        thread::sleep(after);
        process.kill()
    }

    fn command(&self) -> Result<Command> {
        let mut command = match &self.program {
            Program::Poste => {
                let mut command = poste()?;
                command.args(["serve", "archive", "--ephemeral-ports", "--store"]);
                command.arg(format!("local://{}", self.directory.display()));
                command
            }
            Program::Unsynced(command) => command(&self.directory)?,
        };
        command.args(&self.arguments);
        Ok(command)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |mut running| running.process.kill())
    }

    /// Asks it to stop (SIGTERM) and waits for that; it must succeed.
    pub fn stop(&mut self) -> Result<()> {
        let running = self.running.take().context("it runs")?;
        running.process.terminate()?;
        running.process.succeed(Duration::from_secs(60)).map(drop)
    }

    /// `host:port` of its gRPC.
    pub fn address(&self) -> Result<&str> {
        self.ready()?.pointer("/grpc/archive").and_then(Value::as_str).context("an address of the gRPC")
    }

    /// A client of its gRPC, on a connection of its own.
    pub fn client(&self) -> Result<ArchiveServiceClient<Channel>> {
        let target = Target::lazy(&format!("http://{}", self.address()?))?;
        Ok(poste_rpc::archive::client(target.channel()))
    }

    /// A client of its administration, if it has one.
    pub fn admin(&self) -> Result<ArchiveAdminServiceClient<Channel>> {
        let address =
            self.ready()?.pointer("/admin/archive").and_then(Value::as_str).context("an admin listener")?;
        Ok(poste_rpc::archive::admin_client(Target::lazy(&format!("http://{address}"))?.channel()))
    }

    /// Its ready line.
    pub fn ready(&self) -> Result<&Value> {
        Ok(&self.running.as_ref().context("it runs")?.ready)
    }

    /// A value of `/proc/…/status` in KiB, such as `VmRSS`.
    pub fn memory_kib(&self, name: &str) -> Result<u64> {
        self.running.as_ref().context("it runs")?.process.memory_kib(name)
    }
}
