//! The push server as a service, on a real gateway and a real archive over gRPC.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

mod client;
mod life;
mod neighbours;
mod source;
mod stack;
mod topics;
