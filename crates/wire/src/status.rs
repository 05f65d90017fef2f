//! What Status clients and push notification servers say to each other (71/STATUS-PUSH-NOTIFICATION-SERVER, as
//! status-go really speaks it), from the frame that an envelope carries down to the push messages.
//!
//! ```text
//! envelope data ── frame::open ──► [segment ── Reassembly ──►] [transport::unwrap ──►] ApplicationMessage ──► push
//! ```
//!
//! Both sides build and read with the same code: topics and their keys ([`TopicName`]), signed messages
//! ([`ApplicationMessage`]), the push messages ([`push`], [`proto`]), grants, sealed registrations ([`SharedKey`]) and
//! encrypted access tokens. What it is not: a rule about what a server answers or a client sends.
//!
//! Nothing that came from the network is trusted before it was bounded, and tokens, grants and keys are not printed.

mod access_token;
mod fields;
pub mod frame;
mod grant;
mod ids;
mod installation;
mod message;
pub mod proto;
pub mod push;
mod sealed;
pub mod segment;
mod topics;
pub mod transport;
mod uuid;

pub use access_token::{AccessToken, encrypt_access_token, find_access_token};
pub use grant::{GRANT_LENGTH, Grant, GrantError};
pub use ids::{
    AuthorHash, DedupeKey, HashedChatId, HashedPublicKey, IdLengthError, MessageId, RequestId, chat_key,
    shake256_64,
};
pub use installation::{InstallationId, InstallationIdError, MAX_INSTALLATION_ID_LENGTH};
pub use message::{ApplicationMessage, MessageError, MessageType};
pub use push::{PushMessage, PushMessageError};
pub use sealed::{SealedError, SharedKey};
pub use segment::{Reassembly, Segment};
pub use topics::{PARTITIONS, TopicName, partition};
pub use uuid::{NotUuidError, is_uuid};
