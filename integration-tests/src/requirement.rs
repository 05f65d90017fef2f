//! Tools that a test needs and a host may lack.

/// Whether this run does without `tool` (`go`, `docker` or `loop`) because `POSTE_SKIP`, a list separated by commas, names it.
/// Says so on stderr. A tool that is not named must be there, or the test fails.
pub fn skipped(tool: &str) -> bool {
    let listed = std::env::var("POSTE_SKIP").unwrap_or_default();
    let skip = listed.split(',').any(|name| name.trim() == tool);
    if skip {
        eprintln!("skipped: needs {tool}, and POSTE_SKIP names it");
    }
    skip
}
