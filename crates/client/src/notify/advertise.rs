//! Telling contacts, who listen to one's contact code, through which servers a device can be notified: on each success
//! of a registration, and from time to time.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use poste_wire::status::proto::{ContactCodeAdvertisement, PushNotificationQueryInfo};
use poste_wire::status::segment::{SEGMENT_LENGTH, split};
use poste_wire::status::{
    ApplicationMessage, HashedPublicKey, MessageType, PushMessage, TopicName, frame, transport,
};
use poste_wire::{SymKey, Topic};

use super::access;
use super::register::{Registrar, grant};
use super::state::{Registration, Standing};

/// An advertisement, for everybody who listens to the contact code.
#[derive(Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// How many servers are named.
    pub servers: usize,
    /// The topic.
    pub topic: Topic,
    /// What goes into envelopes: mostly one.
    pub frames: Vec<Vec<u8>>,
}

impl fmt::Debug for Advertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Advertisement").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// When to advertise. Time is that of any clock that does not go back.
#[derive(Debug, Clone, Copy)]
pub struct AdvertisingTimes {
    every: Option<Duration>,
    next: Option<Duration>,
}

impl AdvertisingTimes {
    /// Never, before [`Self::now`] is called; from then on this often.
    #[must_use]
    pub fn new(every: Option<Duration>) -> Self {
        Self { every, next: None }
    }

    /// There is something new to tell.
    pub fn now(&mut self) {
        self.next = Some(Duration::ZERO);
    }

    /// When it is time; `None`: there is nothing to tell.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.next
    }

    /// It was done, or tried, at this time.
    pub fn done(&mut self, at: Duration) {
        self.next = self.every.map(|every| at + every);
    }

    /// It could not be done: to be tried again then.
    pub fn again(&mut self, at: Duration) {
        self.next = Some(at);
    }
}

impl Registrar {
    /// The contact code: its key, which [`Self::advertisement`] takes, is derived from it.
    #[must_use]
    pub fn contact_code(&self) -> TopicName {
        TopicName::contact_code(&self.public())
    }

    /// What tells contacts of the servers that have confirmed the present registration; `None` if there are none. `key`
    /// is that of [`Self::contact_code`], `fill` gives random bytes.
    pub fn advertisement(&mut self, key: &SymKey, mut fill: impl FnMut(&mut [u8])) -> Option<Advertisement> {
        let message = self.contact_code_advertisement(&mut fill)?;
        let servers = message.push_notification_info.len();
        let kind = MessageType::ContactCodeAdvertisement;
        let message = ApplicationMessage::write(kind, message.write(), &self.identity);
        let wrapped = transport::wrap(message, self.state().installation());
        let seal = |piece: Bytes| {
            frame::seal_symmetric(key, &piece, &self.identity, &mut fill)
                .expect("a segment is shorter than a frame may be")
        };
        let frames = split(wrapped, SEGMENT_LENGTH).into_iter().map(seal).collect();
        Some(Advertisement { servers, topic: self.contact_code().topic(), frames })
    }

    /// One info for each server. Where only contacts may notify, each finds the token encrypted for itself, as in the
    /// servers' answers to a query.
    fn contact_code_advertisement(
        &mut self,
        fill: impl FnMut(&mut [u8]),
    ) -> Option<ContactCodeAdvertisement> {
        let Registration { profile, token } = self.state.registration.as_ref()?;
        let (access_token, allowed_key_list) = if profile.contacts_only {
            let make = || access::allowed_key_list(&self.identity, token, profile, fill);
            (String::new(), self.allowed_key_list.get_or_insert_with(make).clone())
        } else {
            (token.as_str().to_owned(), Vec::new())
        };
        let owner = HashedPublicKey::of(&self.identity.public());
        let info = |(server, standing): (&_, &_)| {
            let Standing::Registered { version } = *standing else { return None };
            let server: &poste_codec::PublicKey = server;
            Some(PushNotificationQueryInfo {
                access_token: access_token.clone(),
                installation_id: self.state.installation.to_string(),
                public_key: Bytes::copy_from_slice(owner.as_bytes()),
                allowed_key_list: allowed_key_list.clone(),
                grant: grant(&self.identity, server, token),
                version,
                server_public_key: Bytes::copy_from_slice(&server.to_compressed()),
            })
        };
        let infos: Vec<_> = self.state.servers.iter().filter_map(info).collect();
        let advertisement =
            ContactCodeAdvertisement { push_notification_info: infos, ..ContactCodeAdvertisement::default() };
        (!advertisement.push_notification_info.is_empty()).then_some(advertisement)
    }
}

#[cfg(test)]
mod tests;
