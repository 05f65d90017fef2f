//! `scripts/test` on a host without Go and Docker: it names what it skips, and with CI=true that is a failure;
//! `scripts/conformance` on tables with faults; `scripts/context` on ignore files that leave out what the build needs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use poste_integration_tests::stack;

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

#[test]
fn a_requirement_without_a_test_is_noticed() -> Result<()> {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance-push.md");
    let whole = std::fs::read_to_string(&table)?;
    let said = conformance(&table)?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));

    let directory = tempfile::tempdir()?;
    let altered = directory.path().join("table.md");
    for (row, fault) in [
        ("| Z1 | MUST: nobody tests this | server | |", "Z1: no test"),
        (
            "| Z1 | MUST: this neither | server | push: no_such_thing |",
            "Z1: no such test: push: no_such_thing",
        ),
        (
            "| Z1 | MUST: this is only a child of a test | server | push: child |",
            "Z1: no such test: push: child",
        ),
        ("| Z1 | MUST: no reason | server | none of ours: |", "Z1: no such test: none of ours:"),
        ("| Z1 | MUST: too few cells | push: no_such_thing |", "Z1: a row has four cells"),
        ("| R1 | MUST: twice | server | push: every_fault_has_its_code |", "R1: there is another row"),
    ] {
        std::fs::write(&altered, format!("{whole}\n{row}\n"))?;
        let said = conformance(&altered)?;
        let text = String::from_utf8_lossy(&said.stdout);
        ensure!(!said.status.success() && text.contains(fault), "{row}: {text}");
    }
    std::fs::write(&altered, "no table at all\n")?;
    ensure!(!conformance(&altered)?.status.success(), "a file without rows passed");
    Ok(())
}

#[test]
fn what_the_dockerfile_needs_and_the_ignore_file_leaves_out_is_noticed() -> Result<()> {
    let ignore = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.dockerignore");
    let whole = std::fs::read_to_string(&ignore)?;
    let said = context(&ignore)?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    let directory = tempfile::tempdir()?;
    let altered = directory.path().join("dockerignore");
    for (line, fault) in [
        ("!integration-tests/benches", "can't find `mail` bench"),
        ("!integration-tests/examples", "can't find `endurance` example"),
        ("!Cargo.lock", "cargo cannot build what it lets in"),
        ("!proto", "proto/poste/archive/v1/archive.proto is left out, and the build reads it"),
        ("*", "stands before *"),
    ] {
        let left: Vec<&str> = whole.lines().filter(|there| *there != line).collect();
        std::fs::write(&altered, left.join("\n"))?;
        let said = context(&altered)?;
        let text = String::from_utf8_lossy(&said.stderr);
        ensure!(!said.status.success() && text.contains(fault), "{line}: {text}");
    }
    Ok(())
}

/// With what cargo wrote beside the binary under test.
fn context(ignore: &Path) -> Result<Output> {
    let mut dep_info = stack::poste()?.get_program().to_owned();
    dep_info.push(".d");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/context");
    Command::new("bash").arg(script).arg(ignore).arg(dep_info).output().context("bash")
}

fn conformance(table: &Path) -> Result<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/conformance");
    Command::new("bash").arg(script).arg(table).output().context("bash")
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
