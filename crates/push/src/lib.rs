//! The push notification server of 71/STATUS-PUSH-NOTIFICATION-SERVER.
//!
//! [`identity`] is the key that the server is known by, [`store`] keeps the registrations, what became of each
//! notification, the answers, and how far the archive was read.

pub mod identity;
pub mod store;
