//! `scripts/test` on a host without Go and Docker: it names what it skips, and with CI=true that is a failure.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// What the script itself needs: Rust, a C compiler, and what every Unix has.
const PRESENT: [&str; 9] = ["bash", "cargo", "cc", "dirname", "env", "git", "id", "sed", "realpath"];

#[test]
fn without_go_and_docker_the_skipped_parts_are_named_and_ci_fails() -> Result<()> {
    let tools = tempfile::tempdir()?;
    for tool in PRESENT {
        symlink(find(tool)?, tools.path().join(tool))?;
    }
    let skipped = [
        "skipped: foreign peers, kill -9, compose stack: no Go",
        "skipped: compose stack: no Docker Engine",
        "skipped: power cuts, full disks: no file systems on loop devices",
    ];

    let here = plan(tools.path(), None)?;
    let said = String::from_utf8_lossy(&here.stderr);
    ensure!(here.status.success(), "{said}");
    ensure!(skipped.iter().all(|line| said.contains(line)), "{said}");
    ensure!(said.contains("would run: crates") && !said.contains("would install"), "{said}");

    let ci = plan(tools.path(), Some("true"))?;
    let said = String::from_utf8_lossy(&ci.stderr);
    ensure!(!ci.status.success(), "skipped parts passed with CI=true: {said}");
    ensure!(skipped.iter().all(|line| said.contains(line)), "{said}");
    Ok(())
}

fn plan(path: &Path, ci: Option<&str>) -> Result<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test");
    let mut command = Command::new("bash");
    command.arg(script).args(["--plan", "--no-install"]).env("PATH", path).env_remove("CI");
    if let Some(ci) = ci {
        command.env("CI", ci);
    }
    command.output().context("bash")
}

fn find(tool: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(tool));
    candidates.find(|candidate| candidate.is_file()).with_context(|| format!("no {tool} on the PATH"))
}
