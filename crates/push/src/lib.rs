//! The push notification server of 71/STATUS-PUSH-NOTIFICATION-SERVER.
//!
//! [`server`] is what it does with each message, [`answer`] what it says, [`topics`] where it listens. [`identity`] is the
//! key that the server is known by, [`store`] keeps the registrations, what became of each notification, the answers,
//! and how far the archive was read. None of these knows where messages come from, and how answers travel: [`start`]
//! puts a server between an archive, gateways and a provider.

pub(crate) mod admin;
pub mod answer;
mod config;
mod device;
mod feed;
mod feedback;
pub mod identity;
pub mod metrics;
mod publish;
mod query;
mod registration;
mod request;
mod run;
pub mod running;
pub mod server;
pub mod store;
pub mod topics;
mod turns;
mod upkeep;

pub use config::{ProviderUrl, PushConfig};
pub use run::{ProviderError, StartError, start, start_with_provider};
