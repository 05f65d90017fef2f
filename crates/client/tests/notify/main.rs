//! Push notifications: with real push servers, and over a real gateway and archive.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

mod channel;
mod receiver;
mod sender;
mod service;
mod stack;
mod whole;
mod world;
