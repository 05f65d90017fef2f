//! The mailserver archive: it keeps what gateways hand to it, and answers for it, page by page.
//!
//! A record is one envelope. Writers send (space, body); time, topic and id are derived from the body alone
//! ([`record`]). [`store`] is the seam to what keeps the records: [`LocalStore`] in a directory of journal
//! files, [`store::MemoryStore`] for tests. [`start`] serves a store over gRPC (`poste.archive.v1`).
//!
//! What it is not: it decides nothing about peers, PoW or expiry (the gateway does), and it never opens an
//! envelope's payload.

mod config;
pub mod export;
mod grpc;
mod local;
mod metrics;
mod quota;
pub mod record;
mod run;
pub mod store;

pub use config::{ArchiveConfig, StoreUrl};
pub use local::{LocalOptions, LocalStore};
pub use metrics::StoreMetrics;
pub use run::{StartError, start, start_with_store};
