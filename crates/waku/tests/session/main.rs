//! Sessions over a stream in memory: our session on one end, a peer that says exactly what a test wants on the other.
//! Time stands still unless everybody waits, so nothing here waits in vain.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

mod lanes;
mod mail;
mod meeting;
mod settings;
mod status;
