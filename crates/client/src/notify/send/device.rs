//! One device of a contact, from the choice of its server to its report.

use std::time::Duration;

use poste_codec::PublicKey;
use poste_wire::status::{AccessToken, InstallationId};

use super::{DeviceReport, Devices, Failure, LEAST_DEVICES, SendEvent, SendSettings};
use crate::notify::contact::{PushInfo, Shown};
use crate::notify::known::{Attempt, KnownInfo};

#[derive(Debug)]
pub(super) struct Device {
    pub(super) installation: InstallationId,
    pub(super) state: State,
    /// Servers to be asked, the next one last.
    next: Vec<PushInfo>,
    /// What was asked for last, and the tokens that were refused.
    asked: Option<PushInfo>,
    /// Whether that server was not among the open ones before.
    is_first_time: bool,
    /// Servers that may have notified, also of an earlier sending: they are asked before others.
    open: Vec<PublicKey>,
    /// Whether an earlier sending had success.
    is_earlier: bool,
    refused: Vec<(PublicKey, AccessToken)>,
    failed: Vec<(PublicKey, Failure)>,
    token_retries: u32,
    /// What nobody was told yet.
    pub(super) events: Vec<SendEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The next server is to be asked.
    Due,
    /// A server was asked by this request, and may answer until then.
    Asked { request: usize, until: Duration },
    /// The token is outdated: at this time servers are asked for the new one.
    Outdated { at: Duration },
    /// They are being asked.
    Asking,
    /// Notified by this server, or not.
    Done(Result<PublicKey, Failure>),
}

impl State {
    /// When something happens if no mail comes.
    pub(super) fn until(&self) -> Option<Duration> {
        match self {
            Self::Asked { until, .. } => Some(*until),
            Self::Outdated { at } => Some(*at),
            // Both end within the step in which they began.
            Self::Due | Self::Asking => None,
            Self::Done(_) => None,
        }
    }
}

/// Which devices, in their order.
pub(super) fn choose(known: &[KnownInfo], wanted: &Devices) -> Vec<InstallationId> {
    let all = || known.iter().map(|row| &row.info.installation);
    match wanted {
        Devices::All => distinct(all()),
        Devices::Latest(count) => {
            let mut latest = distinct(all());
            latest.truncate((*count).max(LEAST_DEVICES));
            latest
        }
        Devices::These(these) => distinct(these),
    }
}

fn distinct<'i>(installations: impl IntoIterator<Item = &'i InstallationId>) -> Vec<InstallationId> {
    let mut distinct: Vec<InstallationId> = Vec::new();
    for installation in installations {
        if !distinct.contains(installation) {
            distinct.push(installation.clone());
        }
    }
    distinct
}

impl Device {
    pub(super) fn new(
        installation: InstallationId,
        known: &[KnownInfo],
        earlier: Option<&Attempt>,
        fill: impl FnMut(&mut [u8]),
    ) -> Self {
        let mut device = Self {
            installation,
            state: State::Due,
            next: Vec::new(),
            asked: None,
            is_first_time: true,
            open: Vec::new(),
            is_earlier: false,
            refused: Vec::new(),
            failed: Vec::new(),
            token_retries: 0,
            events: Vec::new(),
        };
        match earlier {
            Some(Attempt::Notified(server)) => {
                device.is_earlier = true;
                device.state = State::Done(Ok(*server));
                return device;
            }
            Some(Attempt::Open(servers)) => device.open.clone_from(servers),
            None => {}
        }
        device.choose_servers(known, &[], fill);
        device
    }

    /// The server to be asked now, with what it asks for.
    pub(super) fn next(&mut self) -> Option<PushInfo> {
        if self.state != State::Due {
            return None;
        }
        self.asked = self.next.pop();
        if let Some(PushInfo { server, .. }) = &self.asked {
            self.is_first_time = !self.open.contains(server);
            if self.is_first_time {
                self.open.push(*server);
            }
        }
        self.asked.clone()
    }

    /// What was asked for last.
    pub(super) fn asked(&self) -> Option<PushInfo> {
        self.asked.clone()
    }

    /// Whether another server can be asked if this one stays silent.
    pub(super) fn has_next(&self, settings: &SendSettings) -> bool {
        let silent = self.failed.iter().filter(|(_, failure)| *failure == Failure::NoAnswer).count();
        !self.next.is_empty() && silent + 1 < settings.silent_servers
    }

    /// What a server answered to a request. A late answer still counts: success at once, anything else for the report.
    pub(super) fn hear(
        &mut self,
        request: usize,
        server: PublicKey,
        answer: Result<(), Failure>,
        now: Duration,
        settings: &SendSettings,
    ) {
        let is_awaited = matches!(self.state, State::Asked { request: asked, .. } if asked == request);
        match answer {
            Ok(()) if matches!(self.state, State::Done(Ok(_))) => {}
            Ok(()) => {
                self.failed.retain(|failed| *failed != (server, Failure::NoAnswer));
                self.state = State::Done(Ok(server));
            }
            Err(failure) if is_awaited => self.fail(server, failure, now, settings),
            Err(failure) => {
                let late = self.failed.iter_mut().find(|failed| **failed == (server, Failure::NoAnswer));
                if let Some(late) = late {
                    late.1 = failure;
                }
            }
        }
    }

    /// The server has not notified: on to the next, or to a new token, or to the end.
    pub(super) fn fail(
        &mut self,
        server: PublicKey,
        failure: Failure,
        now: Duration,
        settings: &SendSettings,
    ) {
        let has_next = match failure {
            Failure::NoAnswer => self.has_next(settings),
            _ => !self.next.is_empty(),
        };
        self.failed.push((server, failure));
        // What a server refuses now it may have done earlier, with another token.
        if failure.is_certain() && self.is_first_time {
            self.open.retain(|open| *open != server);
        }
        let is_retried = failure == Failure::WrongToken && self.token_retries < settings.token_retries;
        let query_in = is_retried.then(|| backoff(settings, self.token_retries));
        let installation = self.installation.clone();
        self.events.push(SendEvent::Failed { server, installation, why: failure, query_in });
        if failure == Failure::WrongToken {
            self.refused.extend(self.asked.take().map(|asked| (asked.server, asked.token)));
        }
        self.state = match query_in {
            Some(pause) => State::Outdated { at: now + pause },
            None if has_next => State::Due,
            None => State::Done(Err(failure)),
        };
    }

    /// Whether a query is to be made for this device now.
    pub(super) fn begin_query(&mut self, now: Duration) -> bool {
        let is_due = matches!(self.state, State::Outdated { at } if at <= now);
        if is_due {
            self.state = State::Asking;
        }
        is_due
    }

    pub(super) fn put_query_off(&mut self, at: Duration) {
        if self.state == State::Asking {
            self.state = State::Outdated { at };
        }
    }

    pub(super) fn end_query(
        &mut self,
        known: &[KnownInfo],
        answers: &[(PublicKey, Shown)],
        fill: impl FnMut(&mut [u8]),
    ) {
        if self.state == State::Asking {
            self.token_retries += 1;
            self.choose_servers(known, answers, fill);
        }
    }

    pub(super) fn give_up(&mut self) {
        if !matches!(self.state, State::Done(_)) {
            self.state = State::Done(Err(Failure::GivenUp));
        }
    }

    pub(super) fn report(&self) -> DeviceReport {
        let outcome = match self.state {
            State::Done(outcome) => outcome,
            _ => Err(Failure::GivenUp),
        };
        let (installation, failed) = (self.installation.clone(), self.failed.clone());
        DeviceReport { installation, outcome, is_earlier: self.is_earlier, failed }
    }

    /// What is to be remembered.
    pub(super) fn attempt(&self) -> Attempt {
        match self.state {
            State::Done(Ok(server)) => Attempt::Notified(server),
            _ => Attempt::Open(self.open.clone()),
        }
    }

    /// All servers of the device but for those that have failed. Those that may have notified come first, as they would
    /// not do so again, then those that the contact has named, of these the ones with the latest version, in a random
    /// order; those that have refused the very token that is known of them
    /// come last, unless they have shown the device since, and so have no other token for us. An answer that lacks the
    /// device says nothing about it: servers leave out what they have no room for.
    fn choose_servers(
        &mut self,
        known: &[KnownInfo],
        answers: &[(PublicKey, Shown)],
        fill: impl FnMut(&mut [u8]),
    ) {
        let has_failed = |server: &PublicKey| {
            self.failed.iter().any(|(failed, why)| failed == server && *why != Failure::WrongToken)
        };
        let refused = |info: &PushInfo| {
            self.refused.iter().any(|(server, token)| *server == info.server && *token == info.token)
        };
        let is_shown = |info: &PushInfo| {
            let by_server = answers.iter().filter(|(server, _)| *server == info.server);
            by_server.map(|(_, shown)| shown).any(|shown| {
                let is_same = |it: &PushInfo| it.installation == info.installation && it.token == info.token;
                shown.not_allowed.contains(&info.installation) || shown.infos.iter().any(is_same)
            })
        };
        let is_hopeless = |info: &PushInfo| has_failed(&info.server) || refused(info) && is_shown(info);
        let is_ours =
            |row: &&KnownInfo| row.info.installation == self.installation && !is_hopeless(&row.info);
        let mut next: Vec<&KnownInfo> = known.iter().filter(is_ours).collect();
        shuffle(&mut next, fill);
        next.sort_by_key(|row| {
            let is_open = self.open.contains(&row.info.server);
            (!refused(&row.info), is_open, row.is_advertised, row.as_of)
        });
        let next: Vec<PushInfo> = next.into_iter().map(|row| row.info.clone()).collect();
        self.state = match (next.is_empty(), self.failed.last()) {
            (false, _) => State::Due,
            (true, Some((_, failure))) => State::Done(Err(*failure)),
            (true, None) => State::Done(Err(Failure::NoServer)),
        };
        self.next = next;
    }
}

/// The pause before the request that follows so many others: none, then n × 2ⁿ units.
fn backoff(settings: &SendSettings, retries: u32) -> Duration {
    settings.token_backoff.saturating_mul(retries.saturating_mul(2_u32.saturating_pow(retries)))
}

/// Fisher-Yates. The lists are so short that the remainder's bias is nothing.
fn shuffle<T>(list: &mut [T], mut fill: impl FnMut(&mut [u8])) {
    for end in (1..list.len()).rev() {
        let mut random = [0; 8];
        fill(&mut random);
        let at = u64::from_le_bytes(random) % (end as u64 + 1);
        list.swap(at as usize, end);
    }
}
