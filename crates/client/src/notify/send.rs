//! Asking push servers to notify a contact's devices of a message: which server for which device, and what to do with
//! each answer or without one.
//!
//! Every device is asked for at exactly one server at a time. When that one does not answer in time, knows the device no
//! more, or fails, the next server of the device is asked, for the same message: each server remembers which messages it
//! has notified of, but not what others have. So a device can ring twice, if the first server did notify it and only the
//! answer was lost; at most [`SendSettings::silent_servers`] times, and never through the same server.
//!
//! When the same message is sent again, a device that a server has reported as notified is left alone, and otherwise the
//! servers that may have notified it are asked first: what was asked is in [`Sending::attempts`], for a later
//! [`Sending::new`].

mod device;
mod notification;
mod request;

use std::collections::BTreeMap;
use std::time::Duration;

use poste_codec::PublicKey;
use poste_wire::Topic;
use poste_wire::payload::PayloadError;
use poste_wire::status::{HashedPublicKey, InstallationId};
use thiserror::Error;

use super::Mail;
use super::contact::{PushInfo, Shown};
use super::known::{Attempt, KnownInfo};
use device::{Device, State};
pub use notification::{Notification, NotificationKind};
use request::Request;

/// How a sender decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSettings {
    /// How long a server may take to answer; 3 s.
    pub answer_wait: Duration,
    /// The unit of the pauses before requests with a new token: 2 s, then n × 2ⁿ of them after n such requests.
    pub token_backoff: Duration,
    /// How often a request is made again with a new token; 5.
    pub token_retries: u32,
    /// At how many servers that do not answer a device may be asked for; 3.
    pub silent_servers: usize,
    /// Which devices.
    pub devices: Devices,
}

impl Default for SendSettings {
    fn default() -> Self {
        Self {
            answer_wait: Duration::from_secs(3),
            token_backoff: Duration::from_secs(2),
            token_retries: 5,
            silent_servers: 3,
            devices: Devices::All,
        }
    }
}

/// Which devices of a contact are to be notified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// All that are known.
    All,
    /// The most recently active ones; at least [`LEAST_DEVICES`] are taken, as the specification asks.
    Latest(usize),
    /// Those for which the message was encrypted.
    These(Vec<InstallationId>),
}

/// How many devices are notified at least, if that many are known.
pub const LEAST_DEVICES: usize = 3;

/// What became of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub installation: InstallationId,
    /// The server that reported success (which it also does for what the receiver has muted), or why none did.
    pub outcome: Result<PublicKey, Failure>,
    /// Whether the success is an earlier one, of the same message: no server was asked now.
    pub is_earlier: bool,
    /// Which servers were asked in vain before, and why, in their order.
    pub failed: Vec<(PublicKey, Failure)>,
}

/// Why a server has not notified a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Failure {
    /// No answer in time. It may have been notified.
    #[error("no answer in time")]
    NoAnswer,
    /// The device has another access token by now.
    #[error("the access token is outdated")]
    WrongToken,
    /// The server does not know the device.
    #[error("the device is not registered there")]
    NotRegistered,
    /// The server's fault.
    #[error("the server could not notify")]
    InternalError,
    /// The server does not know what became of it, or gives a reason that has no name. It may have been notified.
    #[error("the server does not say what became of it (error {0})")]
    Unknown(i32),
    /// The answer says nothing about the device.
    #[error("the server's answer leaves the device out")]
    LeftOut,
    /// No server is known for the device, or none is left.
    #[error("no server is known that could notify the device")]
    NoServer,
    /// The sender has stopped before.
    #[error("given up before an answer")]
    GivenUp,
}

impl Failure {
    /// Whether the server certainly has not notified.
    fn is_certain(self) -> bool {
        match self {
            Self::WrongToken | Self::NotRegistered | Self::InternalError | Self::NoServer => true,
            Self::NoAnswer | Self::Unknown(_) | Self::LeftOut | Self::GivenUp => false,
        }
    }
}

/// What happens on the way, for whoever waits. The reports have it all in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendEvent {
    /// A server is asked to notify devices.
    Asked {
        /// The server.
        server: PublicKey,
        /// Which devices.
        installations: Vec<InstallationId>,
        /// Whether it was asked the very same before, and was silent.
        is_repeated: bool,
    },
    /// A server has not notified a device.
    Failed {
        /// The server.
        server: PublicKey,
        /// The device.
        installation: InstallationId,
        /// Why not.
        why: Failure,
        /// After what time servers are asked for the device's new token; `None`: they are not, another server is next,
        /// if there is one.
        query_in: Option<Duration>,
    },
    /// Servers are asked how the contact can be notified.
    Queried,
}

/// Nobody notifies own devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("own devices are not notified: name another contact")]
pub struct OwnDevicesError;

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Subscribe to the topics and publish the frames, then tell [`Sending::published`].
    Publish(Vec<Outgoing>),
    /// Ask servers about the contact, whatever was asked before; then tell [`Sending::learned`], or
    /// [`Sending::not_asked`].
    Query,
    /// Nothing before this time, unless mail comes.
    Wait(Duration),
    /// All devices are dealt with.
    Done,
}

/// A request on its way.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it is published.
    pub topic: Topic,
    /// What is published.
    pub frame: Vec<u8>,
    /// Where the answer comes.
    pub answer_topic: Topic,
}

/// The sending of one notification to one contact. Times are of any clock that does not go back.
#[derive(Debug)]
pub struct Sending {
    own: PublicKey,
    contact: PublicKey,
    notification: Notification,
    settings: SendSettings,
    devices: Vec<Device>,
    requests: Vec<Request>,
    /// What nobody was told yet, besides what the devices have.
    events: Vec<SendEvent>,
}

impl Sending {
    /// To devices of which this is known (the most recently active first, see [`super::known::Known::infos`]), after these
    /// attempts with the same message. `fill` gives random bytes, for the choice of servers.
    ///
    /// # Errors
    /// When the contact is oneself.
    pub fn new(
        own: PublicKey,
        contact: PublicKey,
        notification: Notification,
        known: &[KnownInfo],
        earlier: &[(InstallationId, Attempt)],
        settings: SendSettings,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<Self, OwnDevicesError> {
        if own == contact {
            return Err(OwnDevicesError);
        }
        let chosen = device::choose(known, &settings.devices).into_iter();
        let device = |installation| {
            let attempt =
                earlier.iter().find(|(device, _)| *device == installation).map(|(_, attempt)| attempt);
            Device::new(installation, known, attempt, &mut fill)
        };
        let devices = chosen.map(device).collect();
        Ok(Self { own, contact, notification, settings, devices, requests: Vec::new(), events: Vec::new() })
    }

    /// What to do now. `fill` gives random bytes.
    ///
    /// # Errors
    /// Never for the few devices that a contact can have.
    pub fn step(&mut self, now: Duration, mut fill: impl FnMut(&mut [u8])) -> Result<Step, PayloadError> {
        let mut publish = self.repeats(now, &mut fill);
        publish.extend(self.requests(now, &mut fill));
        if !publish.is_empty() {
            let outgoing = publish.into_iter().map(|at| self.requests[at].seal(&mut fill));
            return Ok(Step::Publish(outgoing.collect::<Result<_, _>>()?));
        }
        let mut wants_query = false;
        for device in &mut self.devices {
            wants_query |= device.begin_query(now);
        }
        if wants_query {
            self.events.push(SendEvent::Queried);
            return Ok(Step::Query);
        }
        let next = self.devices.iter().filter_map(|device| device.state.until()).min();
        Ok(next.map_or(Step::Done, Step::Wait))
    }

    /// Takes mail, if it is an answer to one of the requests: by the server that was asked, sealed to the key that
    /// asked, and about this message.
    pub fn accept(&mut self, mail: &Mail, now: Duration) {
        for (at, request) in self.requests.iter_mut().enumerate() {
            if let Some(answer) = request.open(mail, &self.notification.message, now) {
                let (server, hash) = (request.server, HashedPublicKey::of(&self.contact));
                for device in request.devices.clone() {
                    let device = &mut self.devices[device];
                    let report = answer.reports.iter().find(|report| {
                        report.public_key == hash.as_bytes()[..]
                            && report.installation_id == device.installation.as_str()
                    });
                    device.hear(at, server, request::read(report), now, &self.settings);
                }
                return;
            }
        }
    }

    /// Tells that what [`Step::Publish`] asked for was published, or has failed. No mail was read meanwhile, so that
    /// everything that was asked may take its time from now.
    pub fn published(&mut self, now: Duration) {
        for device in &mut self.devices {
            if let State::Asked { until, .. } = &mut device.state {
                *until = now + self.settings.answer_wait;
            }
        }
    }

    /// Tells that servers could not be asked: that is for a later [`Step::Query`]. Otherwise as [`Self::published`].
    pub fn not_asked(&mut self, now: Duration) {
        self.published(now);
        let again = now + self.settings.answer_wait;
        self.devices.iter_mut().for_each(|device| device.put_query_off(again));
    }

    /// Takes what is known after the query that [`Step::Query`] asked for, and what servers have answered: a server that
    /// shows a device and no other token for it than the refused one would refuse that again. `fill` gives random bytes.
    pub fn learned(
        &mut self,
        known: &[KnownInfo],
        answers: &[(PublicKey, Shown)],
        mut fill: impl FnMut(&mut [u8]),
    ) {
        for device in &mut self.devices {
            device.end_query(known, answers, &mut fill);
        }
    }

    /// What has happened since this was last called.
    pub fn take_events(&mut self) -> Vec<SendEvent> {
        let mut events: Vec<SendEvent> =
            self.devices.iter_mut().flat_map(|device| device.events.drain(..)).collect();
        events.append(&mut self.events);
        events
    }

    /// Stops: what has no answer yet stays without one.
    pub fn give_up(&mut self) {
        self.devices.iter_mut().for_each(Device::give_up);
    }

    /// What is to be remembered before anything is published, and in the end: of each device who was asked, or has notified.
    pub fn attempts(&self) -> impl Iterator<Item = (InstallationId, Attempt)> {
        self.devices.iter().map(|device| (device.installation.clone(), device.attempt()))
    }

    /// What became of each device.
    pub fn reports(&self) -> Vec<DeviceReport> {
        self.devices.iter().map(Device::report).collect()
    }

    /// Moves devices on whose server was silent, and gives the requests to publish once more: those of devices that
    /// have no other server. The very same message again notifies nobody twice, and what was lost may have been the
    /// request. So it is published again only if all of its devices wait for it still; otherwise the others get one of
    /// their own.
    fn repeats(&mut self, now: Duration, mut fill: impl FnMut(&mut [u8])) -> Vec<usize> {
        let mut silent: BTreeMap<usize, Vec<(usize, PushInfo)>> = BTreeMap::new();
        for (place, device) in self.devices.iter_mut().enumerate() {
            let State::Asked { request: at, until } = device.state else { continue };
            if until > now {
                continue;
            }
            let request = &self.requests[at];
            match device.asked() {
                Some(info) if !request.is_repeated && !device.has_next(&self.settings) => {
                    silent.entry(at).or_default().push((place, info));
                }
                _ => device.fail(request.server, Failure::NoAnswer, now, &self.settings),
            }
        }
        let mut repeats = Vec::new();
        for (mut at, infos) in silent {
            if infos.len() < self.requests[at].devices.len() {
                let server = self.requests[at].server;
                at = self.request(server, infos, now, &mut fill);
            } else {
                self.wait_for(at, now);
                self.tell_asked(at, true);
            }
            self.requests[at].is_repeated = true;
            repeats.push(at);
        }
        repeats
    }

    /// Makes one request for each server that is next for some device.
    fn requests(&mut self, now: Duration, mut fill: impl FnMut(&mut [u8])) -> Vec<usize> {
        let mut by_server: BTreeMap<PublicKey, Vec<(usize, PushInfo)>> = BTreeMap::new();
        for (place, device) in self.devices.iter_mut().enumerate() {
            if let Some(info) = device.next() {
                by_server.entry(info.server).or_default().push((place, info));
            }
        }
        by_server.into_iter().map(|(server, infos)| self.request(server, infos, now, &mut fill)).collect()
    }

    /// Makes a request for devices by their places.
    fn request(
        &mut self,
        server: PublicKey,
        infos: Vec<(usize, PushInfo)>,
        now: Duration,
        fill: impl FnMut(&mut [u8]),
    ) -> usize {
        let entries = infos.iter().map(|(_, info)| self.notification.entry(&self.own, &self.contact, info));
        let entries = entries.collect();
        let devices = infos.iter().map(|(place, _)| *place).collect();
        self.requests.push(Request::new(server, devices, entries, &self.notification.message, fill));
        let at = self.requests.len() - 1;
        self.wait_for(at, now);
        self.tell_asked(at, false);
        at
    }

    fn tell_asked(&mut self, at: usize, is_repeated: bool) {
        let Request { server, devices, .. } = &self.requests[at];
        let installations = devices.iter().map(|place| self.devices[*place].installation.clone()).collect();
        self.events.push(SendEvent::Asked { server: *server, installations, is_repeated });
    }

    /// Has all devices of a request wait for its answer.
    fn wait_for(&mut self, at: usize, now: Duration) {
        let until = now + self.settings.answer_wait;
        for place in &self.requests[at].devices {
            self.devices[*place].state = State::Asked { request: at, until };
        }
    }
}

#[cfg(test)]
mod tests;
