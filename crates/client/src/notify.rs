//! Push notifications, as a client of the network has them (71/STATUS-PUSH-NOTIFICATION-SERVER): a receiver registers
//! its devices with push servers and tells its contacts, a sender asks those servers to notify.
//!
//! Rules take time and randomness as arguments and know no network; [`Network`] is all that the rest asks of one.

mod access;
pub mod advertise;
pub mod channel;
pub mod contact;
mod file;
pub mod known;
mod mailbox;
mod missed;
mod network;
mod newest;
pub mod profile;
pub mod query;
#[cfg(test)]
mod real_client;
pub mod receiver;
pub mod register;
pub mod send;
mod sender;
pub mod state;
#[cfg(test)]
mod testing;

pub use channel::{Channel, ChannelError, ChannelOptions, Delivery};
pub use mailbox::Mailbox;
pub use network::{Mail, Network};
pub use profile::{Device, Profile, ProfileError};
pub use receiver::{Receiver, ReceiverError, ReceiverEvent};
pub use register::{Registrar, RegistrationAnswer};
pub use sender::{Discovered, Queried, SendReport, Sender, SenderError, SenderEvent};
pub use state::{ReceiverState, Standing, StateError, StateFile};
