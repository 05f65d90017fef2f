//! The stack of `docker-compose.yml` on a real Docker Engine, as a project of its own, removed when dropped.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// How often the engine is asked about health: docker-compose 1.29 cannot wait for it.
const POLL: Duration = Duration::from_millis(200);

const NEED_DOCKER: &str = "this test needs a Docker Engine and docker-compose; `scripts/test` installs them on Debian and \
                           Ubuntu, and POSTE_SKIP=docker does without these tests";

/// The name of the file with what is altered.
const ALTERATION: &str = "altered.yml";

/// What runs in it.
pub const SERVICES: [&str; 3] = ["archive", "gateway", "push"];

/// A compose project.
#[derive(Debug)]
pub struct Project {
    name: String,
    rlpx_port: u16,
    /// What is altered in `docker-compose.yml`, as compose files are laid over one another.
    alteration: Option<TempDir>,
}

impl Project {
    /// Starts all services from the image that `scripts/images` made (`POSTE_IMAGE`, default `poste:dev`), with
    /// RLPx published on a free port of 127.0.0.1.
    pub fn up() -> Result<Self> {
        Self::up_with(None)
    }

    /// The same with `alteration`, a compose file, laid over `docker-compose.yml`.
    pub fn up_altered(alteration: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join(ALTERATION), alteration)?;
        Self::up_with(Some(directory))
    }

    fn up_with(alteration: Option<TempDir>) -> Result<Self> {
        let image = std::env::var("POSTE_IMAGE").unwrap_or_else(|_| "poste:dev".to_owned());
        run(Command::new("docker").args(["image", "inspect", &image]))
            .with_context(|| format!("no image {image}: make it by `scripts/images`; {NEED_DOCKER}"))?;
        let rlpx_port = free_port()?;
        let name = format!("poste-test-{}-{rlpx_port}", std::process::id());
        let project = Self { name, rlpx_port, alteration };
        project.bring_up(&SERVICES)?;
        Ok(project)
    }

    /// Starts these services and what they depend on, as far as they do not run.
    pub fn bring_up(&self, services: &[&str]) -> Result<()> {
        run(self.compose().args(["up", "--detach", "--no-build"]).args(services)).map(drop)
    }

    /// What the engine says of every service's health.
    pub fn health(&self) -> Result<Vec<(&'static str, String)>> {
        let health = |service| Ok((service, self.inspect(service, "{{.State.Health.Status}}")?));
        SERVICES.into_iter().map(health).collect()
    }

    /// Waits until every service's health check passes: all live, which is not yet that they are ready.
    pub fn wait_healthy(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let states = self.health()?;
            if states.iter().all(|(_, health)| health == "healthy") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not healthy within {within:?}: {states:?}\n{}", self.logs()?);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the engine has checked the health of `service` so many times more.
    pub fn wait_checked(&self, service: &str, times: usize, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut seen = BTreeSet::new();
        let mut before = None;
        loop {
            let log: Value = serde_json::from_str(&self.inspect(service, "{{json .State.Health.Log}}")?)?;
            let checks = log.as_array().into_iter().flatten();
            seen.extend(checks.filter_map(|check| check["Start"].as_str().map(str::to_owned)));
            if seen.len() >= *before.get_or_insert(seen.len()) + times {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{service} was not checked {times} times within {within:?}");
            thread::sleep(POLL);
        }
    }

    /// The gateway's address as the host reaches it, from its ready line.
    pub fn enode(&self) -> Result<String> {
        let container = self.container("gateway")?;
        let output = run(Command::new("docker").args(["logs", &container]))?;
        let lines = String::from_utf8_lossy(&output.stdout);
        let ready = lines.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let enode = ready
            .filter(|line| line["event"] == "ready")
            .find_map(|line| line["enode"].as_str().map(str::to_owned))
            .context("no ready line in the gateway's log")?;
        ensure!(
            enode.ends_with(&format!("@127.0.0.1:{}", self.rlpx_port)),
            "{enode} is not the published port"
        );
        Ok(enode)
    }

    /// Kills a service's container (SIGKILL).
    pub fn kill(&self, service: &str) -> Result<()> {
        run(Command::new("docker").args(["kill", &self.container(service)?])).map(drop)
    }

    /// Starts a killed container again.
    pub fn start(&self, service: &str) -> Result<()> {
        run(Command::new("docker").args(["start", &self.container(service)?])).map(drop)
    }

    /// Removes a service's container, but not its volume.
    pub fn remove(&self, service: &str) -> Result<()> {
        run(Command::new("docker").args(["rm", "--force", &self.container(service)?])).map(drop)
    }

    /// Runs a command in a service's container, and gives what it prints.
    pub fn exec(&self, service: &str, command: &[&str]) -> Result<String> {
        let output = run(Command::new("docker").args(["exec", &self.container(service)?]).args(command))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until a service says that it is ready.
    pub fn wait_ready(&self, service: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while let Err(error) = self.exec(service, &["/poste", "health"]) {
            ensure!(Instant::now() < deadline, "{service} is not ready: {error:#}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// What a Go template of `docker inspect` says about a service's container.
    pub fn inspect(&self, service: &str, template: &str) -> Result<String> {
        let container = self.container(service)?;
        let output = run(Command::new("docker").args(["inspect", "--format", template, &container]))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The last lines of all logs.
    pub fn logs(&self) -> Result<String> {
        let output = run(self.compose().args(["logs", "--no-color", "--tail", "40"]))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn container(&self, service: &str) -> Result<String> {
        let output = run(Command::new("docker").args([
            "ps",
            "--all",
            "--quiet",
            "--filter",
            &format!("label=com.docker.compose.project={}", self.name),
            "--filter",
            &format!("label=com.docker.compose.service={service}"),
        ]))?;
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(!id.is_empty() && !id.contains('\n'), "not one container of {service}: {id:?}");
        Ok(id)
    }

    fn compose(&self) -> Command {
        let plugin = run(Command::new("docker").args(["compose", "version"])).is_ok();
        let mut command = Command::new(if plugin { "docker" } else { "docker-compose" });
        if plugin {
            command.arg("compose");
        }
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).args([
            "--project-name",
            &self.name,
            "--file",
            "docker-compose.yml",
        ]);
        if let Some(directory) = &self.alteration {
            command.arg("--file").arg(directory.path().join(ALTERATION));
        }
        command
            .env("POSTE_RLPX_PORT", self.rlpx_port.to_string())
            .env("POSTE_RLPX_BIND", "127.0.0.1")
            .env("POSTE_GATEWAY__ADVERTISE", "127.0.0.1");
        command
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if thread::panicking()
            && let Ok(logs) = self.logs()
        {
            eprintln!("{logs}");
        }
        if let Err(error) = run(self.compose().args(["down", "--volumes", "--timeout", "10"])) {
            eprintln!("the project {} stays behind: {error:#}", self.name);
        }
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}; {NEED_DOCKER}"))?;
    let said = [&output.stderr, &output.stdout].map(|said| String::from_utf8_lossy(said));
    ensure!(output.status.success(), "{command:?}: {}{}", said[0], said[1]);
    Ok(output)
}
