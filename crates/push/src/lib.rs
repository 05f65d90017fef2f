//! The push notification server of 71/STATUS-PUSH-NOTIFICATION-SERVER.
//!
//! [`server`] is what it does with each message, [`answer`] what it says, [`topics`] where it listens. [`identity`] is the
//! key that the server is known by, [`store`] keeps the registrations, what became of each notification, the answers,
//! and how far the archive was read. Where messages come from, and how answers travel, is not decided here.

pub(crate) mod admin;
pub mod answer;
mod device;
mod feedback;
pub mod identity;
pub mod metrics;
mod query;
mod registration;
mod request;
pub mod running;
pub mod server;
pub mod store;
pub mod topics;
mod turns;
mod upkeep;
