//! Whole-stack tests: real processes on loopback, foreign peers, containers, faults.
//!
//! The library is what the tests share: [`process`] starts programs that print JSON lines and waits for lines instead of
//! sleeping, [`stack`] runs `poste`, [`peers`] builds and runs the foreign peers of `peers/`, [`containers`] drives
//! docker-compose, [`mail`] compares what was posted with what was fetched, [`requirement`] says which tools a run does
//! without.
//!
//! For archives: [`set`] makes envelopes from numbers, [`archive`] runs `poste serve archive`, [`load`] appends to it and
//! remembers what was acknowledged, [`audit`] compares that with what is found, [`filesystem`] can be full or lose its
//! power. [`endurance`] puts them together; its long forms are run by `scripts/endurance`.
//!
//! For push servers: [`push`].
//!
//! The tests need the `poste` binary (the environment variable `POSTE_BIN`, otherwise the one that cargo built in the same
//! target directory), Go, a Docker Engine, and loop devices. `scripts/test` provides all of them.

pub mod archive;
pub mod audit;
pub mod containers;
pub mod endurance;
pub mod filesystem;
pub mod load;
pub mod mail;
pub mod peers;
pub mod process;
pub mod push;
pub mod requirement;
pub mod set;
pub mod stack;
