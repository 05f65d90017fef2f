//! Byte-true stand-ins for programs that no registry serves, for tests and the demo: they answer as the real ones were
//! recorded to, and fail on demand.
//!
//! What they are not: models for our own side. That is written against the recordings; no service depends on a double,
//! and a double shares no code with the part that is tested against it.
//!
//! Start with [`gorush::Gorush`].

pub mod gorush;
