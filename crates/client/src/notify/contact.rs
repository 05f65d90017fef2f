//! What shows how a contact's devices can be notified: its own advertisement, or a server's answer to a query. Nothing
//! of it is believed before the contact's grant was checked.

use std::fmt;

use poste_codec::{PublicKey, SecretKey};
use poste_wire::status::proto::{
    ContactCodeAdvertisement, PushNotificationQueryInfo, PushNotificationQueryResponse,
};
use poste_wire::status::{
    AccessToken, ApplicationMessage, Grant, GrantError, HashedPublicKey, InstallationId, MessageId,
    MessageType, PushMessage, TopicName, find_access_token, frame,
};
use poste_wire::{SymKey, Topic};
use thiserror::Error;

use super::Mail;
use super::mailbox::Segments;

/// The most devices that are looked at in one message, each once for each of its servers.
const MAX_INFOS: usize = 256;

/// How many of them may be for others. Finding that out has its price, and nobody's grant is checked before.
const MAX_NOT_ALLOWED: usize = 16;

/// A contact's device at one of its servers; the contact granted this server the use of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushInfo {
    /// The device.
    pub installation: InstallationId,
    /// The server that can notify it.
    pub server: PublicKey,
    /// What the server asks for.
    pub token: AccessToken,
    /// Of the device's registration.
    pub version: u64,
}

/// What one message showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// What we may use, in the message's order.
    pub infos: Vec<PushInfo>,
    /// Devices that are for other contacts than us. After 16 the rest of the message is not looked at.
    pub not_allowed: Vec<InstallationId>,
    /// Why the rest of the message was not looked at.
    pub stopped: Option<InfoError>,
    /// Whether the contact itself said so, and not a server.
    pub by_owner: bool,
}

/// Why something that shows a device is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InfoError {
    /// No compressed public key.
    #[error("the server's key is no key")]
    Server,
    /// Of somebody else, or nobody.
    #[error("the device is not the contact's")]
    Owner,
    /// No UUID.
    #[error("the access token is none")]
    Token,
    /// Not by the contact, or for another server or token.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

/// What a contact says about its devices in this message; `None` if it is no advertisement, or by somebody else. Stops at
/// the first device that is not to be believed.
pub fn advertised(own: &SecretKey, contact: &PublicKey, message: &ApplicationMessage) -> Option<Shown> {
    let is_theirs = message.message_type() == Some(MessageType::ContactCodeAdvertisement);
    if !is_theirs || message.signer != *contact {
        return None;
    }
    let advertisement = ContactCodeAdvertisement::read(message.payload.clone()).ok()?;
    let server = |info: &PushNotificationQueryInfo| {
        let compressed = info.server_public_key[..].try_into().map_err(|_| InfoError::Server)?;
        PublicKey::from_compressed(compressed).map_err(|_| InfoError::Server)
    };
    let shown = look(own, contact, &advertisement.push_notification_info, server);
    Some(Shown { by_owner: true, ..shown })
}

/// What the signer of this message, a server, says about a contact's devices; `None` if it is no answer to this query.
/// Stops at the first device that is not to be believed.
pub fn answered(
    own: &SecretKey,
    contact: &PublicKey,
    query: &MessageId,
    message: &ApplicationMessage,
) -> Option<Shown> {
    if message.message_type() != Some(MessageType::PushNotificationQueryResponse) {
        return None;
    }
    let response = PushNotificationQueryResponse::read(message.payload.clone()).ok()?;
    if !response.success || response.message_id != query.as_bytes()[..] {
        return None;
    }
    // Whatever an answer says of servers: its signer can speak for itself only.
    Some(look(own, contact, &response.info, |_| Ok(message.signer)))
}

fn look(
    own: &SecretKey,
    contact: &PublicKey,
    infos: &[PushNotificationQueryInfo],
    server: impl Fn(&PushNotificationQueryInfo) -> Result<PublicKey, InfoError>,
) -> Shown {
    let hash = HashedPublicKey::of(contact);
    let mut shown = Shown::default();
    for info in infos.iter().take(MAX_INFOS) {
        match check(own, contact, &hash, info, &server) {
            Ok(Info::Ours(info)) => shown.infos.push(info),
            Ok(Info::Nameless) => {}
            Ok(Info::ForOthers(installation)) => {
                shown.not_allowed.push(installation);
                if shown.not_allowed.len() == MAX_NOT_ALLOWED {
                    break;
                }
            }
            Err(error) => {
                shown.stopped = Some(error);
                break;
            }
        }
    }
    shown
}

/// A device of a message.
enum Info {
    Ours(PushInfo),
    /// No entry of the list is for us: the contact lets others notify.
    ForOthers(InstallationId),
    /// Its installation id is no UUID, which deployed clients and servers have throughout. Nobody could ask for it, but
    /// the contact's other devices are as good as before.
    Nameless,
}

fn check(
    own: &SecretKey,
    contact: &PublicKey,
    hash: &HashedPublicKey,
    info: &PushNotificationQueryInfo,
    server: impl Fn(&PushNotificationQueryInfo) -> Result<PublicKey, InfoError>,
) -> Result<Info, InfoError> {
    let server = server(info)?;
    if info.public_key != hash.as_bytes()[..] {
        return Err(InfoError::Owner);
    }
    let Ok(installation) = InstallationId::uuid(&info.installation_id) else { return Ok(Info::Nameless) };
    let token = if info.access_token.is_empty() {
        let entries = info.allowed_key_list.iter().map(AsRef::as_ref);
        match find_access_token(own, contact, entries) {
            Some(token) => token,
            None => return Ok(Info::ForOthers(installation)),
        }
    } else {
        AccessToken::uuid(&info.access_token).map_err(|_| InfoError::Token)?
    };
    Grant::from_bytes(&info.grant)?.verify(contact, &server, token.as_str())?;
    Ok(Info::Ours(PushInfo { installation, server, token, version: info.version }))
}

/// The topic on which a contact advertises, and what opens it.
pub struct ContactCode {
    contact: PublicKey,
    topic: Topic,
    key: SymKey,
    segments: Segments,
}

impl ContactCode {
    /// Of this contact. **Expensive**: see [`TopicName::derive_key`].
    pub fn derive(contact: &PublicKey) -> Self {
        let name = TopicName::contact_code(contact);
        Self { contact: *contact, topic: name.topic(), key: name.derive_key(), segments: Segments::new() }
    }

    /// The same, which has opened nothing yet: segments that come here and there are not joined.
    pub fn anew(&self) -> Self {
        Self { contact: self.contact, topic: self.topic, key: self.key.clone(), segments: Segments::new() }
    }

    /// Whose it is.
    pub fn contact(&self) -> &PublicKey {
        &self.contact
    }

    /// Where it comes.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// What the contact advertises in this mail, if it is an advertisement, or completes one. `now_seconds` is of any
    /// clock that does not go back.
    pub fn open(&mut self, own: &SecretKey, mail: &Mail, now_seconds: u64) -> Option<Shown> {
        if mail.topic != self.topic {
            return None;
        }
        let content = frame::open_symmetric(&self.key, &mail.data).ok()?;
        let message = self.segments.read(content, now_seconds)?;
        advertised(own, &self.contact, &message)
    }
}

impl fmt::Debug for ContactCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContactCode").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
