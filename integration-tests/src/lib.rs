//! Whole-stack tests: real processes on loopback, foreign peers, containers, faults.
//!
//! The library is what the tests share: [`process`] starts programs that print JSON lines and waits for lines instead of
//! sleeping, [`stack`] runs `poste`, [`peers`] builds and runs the foreign peers of `peers/`, [`containers`] drives
//! docker-compose, [`mail`] compares what was posted with what was fetched, [`requirement`] says which tools a run does
//! without.
//!
//! The tests need the `poste` binary (the environment variable `POSTE_BIN`, otherwise the one that cargo built in the same
//! target directory), Go, and a Docker Engine. `scripts/test` provides all of them.

pub mod containers;
pub mod mail;
pub mod peers;
pub mod process;
pub mod requirement;
pub mod stack;
