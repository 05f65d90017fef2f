//! A real gateway on a real archive, on loopback, and the peers that a network has: good ones, slow ones, bad ones.
//!
//! [`node`] tests what a good peer sees, [`bad_input`] what a bad one gets and that nobody else notices. Wall time is a
//! manual clock that stands still unless a test moves it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

mod bad_input;
mod envelopes;
mod node;
mod panics;
mod peer;
mod proxy;
mod raw;
mod stack;
mod witness;
