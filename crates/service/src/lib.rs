//! What every service of Poste does alike: configuration, clock, logs, metrics, readiness, health, shutdown.
//!
//! # The shape of a service
//!
//! A service crate offers its configuration and one function:
//!
//! ```text
//! pub struct ArchiveConfig { /* … */ }              // implements config::Section
//! pub async fn start(config: ArchiveConfig, context: Context) -> Result<RunningService, StartError>;
//! ```
//!
//! `start` binds every listener ([`listener::bind`], [`listener::bind_internal`]) and returns once all of them
//! accept connections. It takes from the [`Context`]
//! - the [`Clock`], the only source of wall time;
//! - a [`metrics::Scope`] of its own name, `context.metrics.scope("archive")`;
//! - named checks, `context.readiness.add("archive.store")`: a check begins as not ready;
//! - `context.draining`: when it is cancelled gRPC health says NOT_SERVING, and everything is served as before;
//! - `context.stop`: when it is cancelled the service stops accepting, ends or cuts what is open within
//!   `context.drain`, flushes, and its task ends.
//!
//! It hands back a [`RunningService`]: its bound [`Addresses`], and the task that ends when all of it has ended.
//! `poste` stops the gateway first, then the archive, and the health listener last.

pub mod clock;
pub mod config;
pub mod health;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod ready;
pub mod running;
pub mod shutdown;

pub use clock::Clock;
pub use running::{Addresses, Context, RunningService};
