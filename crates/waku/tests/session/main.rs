//! Sessions over a stream in memory: our session on one end, a peer that says exactly what a test wants on the other.
//! Time stands still unless everybody waits, so nothing here waits in vain.

mod lanes;
mod mail;
mod meeting;
mod settings;
mod status;
