//! Registering a device with push servers: what is sent to which of them, when it is sent again, and which answers count
//! (71/STATUS-PUSH-NOTIFICATION-SERVER, the client's side; back-off as the deployed clients have it).
//!
//! Unlike the deployed clients, which repeat a version and stay unregistered for ever when the first answer is lost, a
//! version is used for one sending to a server only. It is durable before it is sent. Contacts' clients forget servers of
//! lower versions than another's: so when one has confirmed a raised version, the others are sent it, too.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_wire::Topic;
use poste_wire::status::proto::push_notification_registration_response::ErrorType;
use poste_wire::status::proto::{PushNotificationRegistration, PushNotificationRegistrationResponse};
use poste_wire::status::segment::{SEGMENT_LENGTH, split};
use poste_wire::status::{
    AccessToken, ApplicationMessage, Grant, MessageType, PushMessage, RequestId, SharedKey, TopicName, frame,
};

use super::access;
use super::profile::Profile;
use super::state::{ReceiverState, Registration, Standing};

/// The most servers that a device is registered with.
pub const MAX_SERVERS: usize = 3;
/// How often one registration is sent to a server that does not confirm it.
pub const MAX_SENDS: u32 = 12;
/// After the nth sending, this times n times 2^n is waited.
const BACK_OFF: Duration = Duration::from_secs(15);

/// A registration, or the end of one, on its way to a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Sending {
    /// The server.
    pub server: PublicKey,
    /// The version.
    pub version: u64,
    /// The how many-th sending of this change, from 1.
    pub attempt: u32,
    /// The topic.
    pub topic: Topic,
    /// What goes into envelopes: mostly one.
    pub frames: Vec<Vec<u8>>,
}

/// What a server has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationAnswer {
    /// It has registered the device.
    Registered {
        /// The server.
        server: PublicKey,
        /// The version that it confirms.
        version: u64,
    },
    /// It has forgotten the device.
    Left {
        /// The server.
        server: PublicKey,
    },
    /// It did not do as it was asked. It is asked again, as long as there are attempts.
    Refused {
        /// The server.
        server: PublicKey,
        /// Why.
        error: Refusal,
    },
}

/// Why a server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It finds the registration malformed.
    Malformed,
    /// It has a registration of this version or a later one.
    VersionMismatch,
    /// It does not serve such devices.
    UnsupportedTokenType,
    /// It could not do it now.
    Internal,
    /// It gives no reason that we know.
    Unknown,
}

impl Refusal {
    /// Whether the same would be refused again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Malformed | Self::UnsupportedTokenType)
    }

    fn of(error: i32) -> Self {
        match ErrorType::try_from(error) {
            Ok(ErrorType::MalformedMessage) => Self::Malformed,
            Ok(ErrorType::VersionMismatch) => Self::VersionMismatch,
            Ok(ErrorType::UnsupportedTokenType) => Self::UnsupportedTokenType,
            Ok(ErrorType::InternalError) => Self::Internal,
            Ok(ErrorType::UnknownErrorType) | Err(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it finds the registration malformed",
            Self::VersionMismatch => "it has a later version",
            Self::UnsupportedTokenType => "it does not serve devices of this type",
            Self::Internal => "it could not do it now",
            Self::Unknown => "it gives no reason",
        })
    }
}

/// Registers one device of one key. Off until asked: nothing is sent before [`Self::register`].
///
/// The key is the client's identity; for an anonymous registration it is another one, which approved contacts are told,
/// and everything else is the same.
pub struct Registrar {
    pub(super) identity: SecretKey,
    pub(super) state: ReceiverState,
    /// By server. What is not here was sent by a former process, or never.
    attempts: BTreeMap<PublicKey, Attempts>,
    /// What was sent since the last change, by its id.
    requests: HashMap<RequestId, Request>,
    /// The token for each contact, made once for all servers.
    pub(super) allowed_key_list: Option<Vec<Bytes>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    sends: u32,
    /// When the last one was.
    last: Option<Duration>,
    /// The version of the change, or one that another server has confirmed, as long as this server was not sent it.
    unsent: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    server: PublicKey,
    version: u64,
}

impl Registrar {
    /// With what is kept of this key's device.
    #[must_use]
    pub fn new(identity: SecretKey, state: ReceiverState) -> Self {
        Self { identity, state, attempts: BTreeMap::new(), requests: HashMap::new(), allowed_key_list: None }
    }

    /// What must be kept.
    #[must_use]
    pub fn state(&self) -> &ReceiverState {
        &self.state
    }

    /// The key that is registered.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.identity.public()
    }

    /// Asks these servers to register this profile, at every change of it and at every start. Servers that are not
    /// among them any more are asked to forget the device. `keep` makes the state durable; if it cannot, nothing has
    /// changed. The profile must pass [`Profile::check`]. `fill` gives random bytes.
    ///
    /// # Errors
    /// That of `keep`.
    pub fn register<E>(
        &mut self,
        profile: Profile,
        servers: &[PublicKey],
        mut fill: impl FnMut(&mut [u8]),
        keep: impl FnOnce(&ReceiverState) -> Result<(), E>,
    ) -> Result<(), E> {
        let present = self.state.registration.as_ref();
        let usable = present.filter(|present| !access::is_outdated(&present.profile, &profile));
        let token = usable.map_or_else(
            || {
                let mut bytes = [0; 16];
                fill(&mut bytes);
                AccessToken::from_random(bytes)
            },
            |present| present.token.clone(),
        );
        let mut standings = self.leaving();
        standings.extend(servers.iter().map(|server| (*server, Standing::Registering)));
        self.change(Some(Registration { profile, token }), standings, keep)
    }

    /// Registers what is kept with the same servers once more: at every start, because a server may have lost it, or
    /// found the device's token dead. Nothing is registered that was not before.
    ///
    /// # Errors
    /// That of `keep`.
    pub fn register_again<E>(
        &mut self,
        fill: impl FnMut(&mut [u8]),
        keep: impl FnOnce(&ReceiverState) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(profile) = self.state.profile().cloned() else { return Ok(()) };
        let stays = |(server, standing)| (standing != Standing::Leaving).then_some(server);
        let servers: Vec<_> = self.state.servers().filter_map(stays).collect();
        self.register(profile, &servers, fill, keep)
    }

    /// Asks all servers to forget the device. The access token is never used again.
    ///
    /// # Errors
    /// That of `keep`; nothing has changed then.
    pub fn unregister<E>(&mut self, keep: impl FnOnce(&ReceiverState) -> Result<(), E>) -> Result<(), E> {
        let standings = self.leaving();
        self.change(None, standings, keep)
    }

    /// What is to be sent now. Time is that of any clock that does not go back. Versions that go out are made durable
    /// by `keep` first; if it cannot, nothing is to be sent, and no attempt is counted.
    ///
    /// # Errors
    /// That of `keep`.
    pub fn due<E>(
        &mut self,
        now: Duration,
        mut fill: impl FnMut(&mut [u8]),
        keep: impl FnOnce(&ReceiverState) -> Result<(), E>,
    ) -> Result<Vec<Sending>, E> {
        let is_due = |server: &PublicKey| self.due_at(server).is_some_and(|at| at <= now);
        let servers: Vec<_> = self.state.servers.keys().copied().filter(is_due).collect();
        let is_used = |server: &PublicKey| self.attempts_at(server).unsent.is_none();
        if servers.iter().any(is_used) {
            // Whatever was sent before may have been taken.
            let mut raised = self.state.clone();
            raised.version = raised.version.saturating_add(1);
            keep(&raised)?;
            self.state = raised;
        }
        Ok(servers.into_iter().map(|server| self.send(server, now, &mut fill)).collect())
    }

    /// When [`Self::due`] has something next; `None`: not before the next change.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.state.servers.keys().filter_map(|server| self.due_at(server)).min()
    }

    /// Whether everything that was asked for is confirmed, by all servers with one version.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state.servers.values().all(|standing| matches!(standing, Standing::Registered { .. }))
            && self.is_level()
    }

    /// Whether the servers that have confirmed have confirmed the same version. Where they have not, some of them are
    /// about to be sent the highest.
    #[must_use]
    pub fn is_level(&self) -> bool {
        !self.state.servers.values().any(|standing| self.is_behind(*standing))
    }

    /// Takes what may be a server's answer. It is none, and changes nothing, unless it names a request of ours and is
    /// signed by the very server that this was sent to; or when it tells nothing new. `unix_seconds` is the time of
    /// day. A server that knows a later version than ours (our state was lost) makes us go on from the time of day,
    /// which is later than any number that we may have counted to.
    ///
    /// # Errors
    /// That of `keep`; what was learnt is in force all the same, and kept with the next change.
    pub fn take<E>(
        &mut self,
        message: &ApplicationMessage,
        unix_seconds: u64,
        keep: impl FnOnce(&ReceiverState) -> Result<(), E>,
    ) -> Result<Option<RegistrationAnswer>, E> {
        let Some((request, response)) = self.response(message) else { return Ok(None) };
        let Request { server, version } = request;
        let Some(standing) = self.state.servers.get_mut(&server) else { return Ok(None) };
        if response.success {
            match *standing {
                Standing::Leaving => {
                    self.state.servers.remove(&server);
                    keep(&self.state)?;
                    return Ok(Some(RegistrationAnswer::Left { server }));
                }
                Standing::Registered { version: known } if known >= version => return Ok(None),
                Standing::Registered { .. } | Standing::Registering => {}
            }
            *standing = Standing::Registered { version };
            self.level();
            keep(&self.state)?;
            return Ok(Some(RegistrationAnswer::Registered { server, version }));
        }
        // A copy of a registration that was taken is refused for its version.
        if matches!(standing, Standing::Registered { version: known } if *known >= version) {
            return Ok(None);
        }
        let error = Refusal::of(response.error);
        if error == Refusal::VersionMismatch {
            // Kept before the next version is sent.
            self.state.version = self.state.version.max(unix_seconds);
        }
        Ok(Some(RegistrationAnswer::Refused { server, error }))
    }

    /// The servers that have not confirmed, and are sent nothing any more before the next change.
    pub fn given_up(&self) -> impl Iterator<Item = PublicKey> + '_ {
        let open = |standing: &Standing| !matches!(standing, Standing::Registered { .. });
        let servers = self.state.servers.iter().filter(move |(_, standing)| open(standing));
        servers.map(|(server, _)| *server).filter(|server| self.attempts_at(server).sends >= MAX_SENDS)
    }

    /// What a server is asked for: to register the device, with its grant and a version, or to forget it.
    fn wanted(
        &mut self,
        server: &PublicKey,
        version: u64,
        fill: impl FnMut(&mut [u8]),
    ) -> PushNotificationRegistration {
        let installation_id = self.state.installation.to_string();
        let leaves = self.state.servers.get(server) == Some(&Standing::Leaving);
        let Some(Registration { profile, token }) = self.state.registration.as_ref().filter(|_| !leaves)
        else {
            // No grant: the servers ask for none, and there may be no token to grant.
            let unregister = true;
            return PushNotificationRegistration {
                installation_id,
                version,
                unregister,
                ..Default::default()
            };
        };
        let list = self
            .allowed_key_list
            .get_or_insert_with(|| access::allowed_key_list(&self.identity, token, profile, fill));
        PushNotificationRegistration {
            token_type: profile.device.token_type().into(),
            device_token: profile.device.token().to_owned(),
            apn_topic: profile.device.apn_topic().to_owned(),
            installation_id,
            access_token: token.as_str().to_owned(),
            grant: grant(&self.identity, server, token),
            enabled: true,
            version,
            allow_from_contacts_only: profile.contacts_only,
            allowed_key_list: list.clone(),
            blocked_chat_list: profile.blocked_list(),
            muted_chat_list: profile.muted_list(),
            allowed_mentions_chat_list: profile.mentions_list(),
            block_mentions: profile.block_mentions,
            unregister: false,
        }
    }

    /// Every server that may know the device, as one to leave.
    fn leaving(&self) -> BTreeMap<PublicKey, Standing> {
        self.state.servers.keys().map(|server| (*server, Standing::Leaving)).collect()
    }

    fn change<E>(
        &mut self,
        registration: Option<Registration>,
        servers: BTreeMap<PublicKey, Standing>,
        keep: impl FnOnce(&ReceiverState) -> Result<(), E>,
    ) -> Result<(), E> {
        let version = self.state.version.saturating_add(1);
        let installation = self.state.installation.clone();
        let changed = ReceiverState { installation, version, registration, servers };
        keep(&changed)?;
        self.state = changed;
        self.requests.clear();
        self.allowed_key_list = None;
        let fresh = Attempts { unsent: Some(version), ..Attempts::default() };
        self.attempts = self.state.servers.keys().map(|server| (*server, fresh)).collect();
        Ok(())
    }

    /// The highest version that a server has confirmed.
    fn highest(&self) -> Option<u64> {
        self.state.servers.values().filter_map(Standing::version).max()
    }

    fn is_behind(&self, standing: Standing) -> bool {
        standing.version() < self.highest() && standing.version().is_some()
    }

    /// Has servers that are behind sent the highest version, at once unless they were sent it, or a later one, already.
    fn level(&mut self) {
        let Some(highest) = self.highest() else { return };
        let was_sent = |server: &PublicKey| {
            self.requests.values().any(|request| request.server == *server && request.version >= highest)
        };
        let servers = self.state.servers.iter();
        let behind = servers.filter(|(server, standing)| self.is_behind(**standing) && !was_sent(server));
        let behind: Vec<_> = behind.map(|(server, _)| *server).collect();
        for server in behind {
            self.attempts.entry(server).or_default().unsent = Some(highest);
        }
    }

    fn attempts_at(&self, server: &PublicKey) -> Attempts {
        self.attempts.get(server).copied().unwrap_or_default()
    }

    /// When a server is to be sent something; `None`: never, as things stand.
    fn due_at(&self, server: &PublicKey) -> Option<Duration> {
        let Attempts { sends, last, unsent } = self.attempts_at(server);
        let standing = *self.state.servers.get(server)?;
        let is_done = standing.version().is_some() && !self.is_behind(standing);
        if is_done || sends >= MAX_SENDS {
            return None;
        }
        Some(last.filter(|_| unsent.is_none()).map_or(Duration::ZERO, |last| last + back_off(sends)))
    }

    fn send(&mut self, server: PublicKey, now: Duration, mut fill: impl FnMut(&mut [u8])) -> Sending {
        let present = self.state.version;
        let attempts = self.attempts.entry(server).or_default();
        attempts.sends += 1;
        attempts.last = Some(now);
        let (attempt, version) = (attempts.sends, attempts.unsent.take().unwrap_or(present));
        let payload = self.wanted(&server, version, &mut fill);
        let mut nonce = [0; 12];
        fill(&mut nonce);
        let sealed = SharedKey::between(&self.identity, &server).seal(nonce, &payload.write());
        self.requests.insert(RequestId::of(&sealed), Request { server, version });
        let kind = MessageType::PushNotificationRegistration;
        let message = ApplicationMessage::write(kind, sealed, &self.identity);
        let seal = |piece: Bytes| {
            frame::seal_asymmetric(&server, &piece, &self.identity, &mut fill)
                .expect("a segment is shorter than a frame may be")
        };
        let frames = split(message, SEGMENT_LENGTH).into_iter().map(seal).collect();
        Sending { server, version, attempt, topic: TopicName::personal(&server).topic(), frames }
    }

    fn response(
        &self,
        message: &ApplicationMessage,
    ) -> Option<(Request, PushNotificationRegistrationResponse)> {
        if message.message_type() != Some(MessageType::PushNotificationRegistrationResponse) {
            return None;
        }
        let response = PushNotificationRegistrationResponse::read(message.payload.clone()).ok()?;
        let id = RequestId::try_from(&response.request_id[..]).ok()?;
        let request = self.requests.get(&id).filter(|request| request.server == message.signer)?;
        Some((*request, response))
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").field("state", &self.state).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("version", &self.version)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// The servers to register with: those that were asked for; else those of the last registration; else up to
/// [`MAX_SERVERS`] of a list, picked at random. `fill` gives random bytes.
#[must_use]
pub fn choose_servers(
    asked_for: &[PublicKey],
    state: &ReceiverState,
    list: &[PublicKey],
    mut fill: impl FnMut(&mut [u8]),
) -> Vec<PublicKey> {
    if !asked_for.is_empty() {
        return asked_for.to_vec();
    }
    let stays = |(server, standing)| (standing != Standing::Leaving).then_some(server);
    let known: Vec<_> = state.servers().filter_map(stays).collect();
    if !known.is_empty() {
        return known;
    }
    let mut left = list.to_vec();
    left.sort_unstable();
    left.dedup();
    let mut picked = Vec::new();
    while picked.len() < MAX_SERVERS && !left.is_empty() {
        let mut random = [0; 8];
        fill(&mut random);
        // Of 2^64 numbers; how uneven that is for a list in memory is nothing that anybody could see.
        let at = u64::from_be_bytes(random) % left.len() as u64;
        picked.push(left.swap_remove(at as usize));
    }
    picked
}

pub(super) fn grant(identity: &SecretKey, server: &PublicKey, token: &AccessToken) -> Bytes {
    Bytes::copy_from_slice(Grant::sign(identity, server, token.as_str()).as_bytes())
}

fn back_off(sends: u32) -> Duration {
    BACK_OFF * (sends << sends)
}

#[cfg(test)]
mod tests;
