//! Push notifications, as a client of the network has them (71/STATUS-PUSH-NOTIFICATION-SERVER): a receiver registers
//! its devices with push servers and tells its contacts, a sender asks those servers to notify.
//!
//! Rules take time and randomness as arguments and know no network; [`Network`] is all that the rest asks of one.

pub mod channel;
mod file;
mod mailbox;
mod network;

pub use channel::{Channel, ChannelError, ChannelOptions, Delivery};
pub use mailbox::Mailbox;
pub use network::{Mail, Network};
