//! The foreign peers: Go programs in `peers/`, on go-ethereum, built once for each test program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

/// go-ethereum's Whisper node and mailserver: `post`, `fetch`, `mailserver`.
pub fn shh() -> Result<Command> {
    Ok(Command::new(build()?.join("shh")))
}

/// A waku/1 peer on go-ethereum's transport: `post`, `fetch`, `listen`.
pub fn waku() -> Result<Command> {
    Ok(Command::new(build()?.join("waku")))
}

/// The directory of the built programs.
fn build() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| go_build().map_err(|error| format!("{error:#}"))) {
        Ok(directory) => Ok(directory),
        Err(error) => Err(anyhow!("{error}")),
    }
}

fn go_build() -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let programs = crate::stack::target_directory()?.join("peers");
    std::fs::create_dir_all(&programs)?; // `go build -o` takes a directory only if it exists
    let mut go = Command::new("go");
    go.current_dir(sources).env("CGO_ENABLED", "0").arg("build");
    if refuses_linkname()? {
        // go-ethereum's memsize reaches into the runtime.
        go.arg("-ldflags=-checklinkname=0");
    }
    let status = go.arg("-o").arg(&programs).arg("./cmd/...").status().context(NEED_GO)?;
    ensure!(status.success(), "go build of the foreign peers failed");
    Ok(programs)
}

const NEED_GO: &str = "the foreign peers need Go 1.18 or later on the PATH; `scripts/test` installs it on Debian and \
                       Ubuntu, and POSTE_SKIP=go does without these tests";

/// Go's linker checks references into the runtime since 1.23, and knows the flag that stops it only since then.
fn refuses_linkname() -> Result<bool> {
    let output = Command::new("go").args(["env", "GOVERSION"]).output().context(NEED_GO)?;
    let version = String::from_utf8_lossy(&output.stdout);
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    Ok(minor.is_none_or(|minor| minor >= 23))
}
