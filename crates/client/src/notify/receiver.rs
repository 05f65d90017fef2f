//! Drives a [`Registrar`] over a network: sends what is due, takes the answers, advertises, and keeps the state.

use std::collections::VecDeque;
use std::future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use poste_codec::{PublicKey, SecretKey};
use poste_wire::status::InstallationId;
use poste_wire::{SymKey, Topic};
use rand::Rng;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::advertise::AdvertisingTimes;
use super::missed::{Missed, RETRY};
use super::profile::{Profile, ProfileError};
use super::register::{MAX_SERVERS, Registrar, RegistrationAnswer, Sending, choose_servers};
use super::state::{ReceiverState, StateError, StateFile, StateLock};
use super::{Mail, Mailbox, Network};
use crate::unix_now;

/// How long contacts are not told of a success, while servers that are behind its version are asked for it.
const LEVELLING: Duration = Duration::from_secs(5);

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// A server was sent a registration, or the end of one.
    Sent {
        /// The server.
        server: PublicKey,
        /// The version.
        version: u64,
        /// The how many-th sending of this change, from 1.
        attempt: u32,
    },
    /// The network did not take it. It is sent again when its time has come.
    NotSent {
        /// The server.
        server: PublicKey,
        /// What the network said.
        reason: String,
    },
    /// A server has answered.
    Answered(RegistrationAnswer),
    /// Contacts were told of this many servers.
    Advertised {
        /// How many.
        servers: usize,
    },
    /// The network did not take the advertisement. It is tried again soon.
    NotAdvertised {
        /// What the network said.
        reason: String,
    },
    /// The connection to the network has ended; what comes meanwhile is asked for afterwards.
    Disconnected {
        /// What the network said.
        reason: String,
    },
}

/// Why a receiver cannot go on.
#[derive(Debug, Error)]
pub enum ReceiverError {
    /// The state could not be read or kept. Nothing was sent that is not kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// No server would take it.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The state is another device's.
    #[error("the state directory is that of installation {0}; use another directory for each device")]
    OtherInstallation(InstallationId),
    /// Nobody to register with, or too many.
    #[error("a device is registered with 1 to {MAX_SERVERS} servers, not {0}")]
    Servers(usize),
    /// The network could not be used.
    #[error("the network: {0}")]
    Network(String),
    /// The runtime is shutting down.
    #[error("the process is stopping")]
    Stopping,
}

/// One device of one key that is to be notified.
#[derive(Debug)]
pub struct Receiver<N> {
    network: N,
    registrar: Arc<Mutex<Registrar>>,
    /// What servers have answered and nobody was told yet, also when [`Self::step`] was dropped at that time.
    answers: Arc<Answers>,
    file: StateFile,
    _lock: StateLock,
    mailbox: Mailbox,
    /// Of the contact code, once it was needed.
    contact_code_key: Option<SymKey>,
    advertising: AdvertisingTimes,
    began: Instant,
    /// Answers that a lost connection may have taken with it.
    missed: Missed,
    events: VecDeque<ReceiverEvent>,
}

/// Answers that are in the state already.
#[derive(Debug, Default)]
struct Answers {
    taken: Mutex<VecDeque<RegistrationAnswer>>,
    came: Notify,
}

impl<N: Network> Receiver<N> {
    /// Opens what is kept in the directory, and listens to the answers for `identity`: the client's own key, or another
    /// one for an anonymous registration. A new device gets this name, or a random one. Contacts are told after each
    /// success, and then this often.
    ///
    /// # Errors
    /// [`ReceiverError::State`], [`ReceiverError::OtherInstallation`], or [`ReceiverError::Network`].
    pub async fn open(
        mut network: N,
        identity: SecretKey,
        directory: &Path,
        installation: Option<InstallationId>,
        advertise_every: Option<Duration>,
    ) -> Result<Self, ReceiverError> {
        let file = StateFile::new(directory, identity.public());
        let reading = file.clone();
        let reading = blocking(move || Ok::<_, StateError>((reading.lock()?, reading.read()?)));
        let (lock, state) = reading.await??;
        if let (Some(state), Some(installation)) = (&state, &installation)
            && state.installation() != installation
        {
            return Err(ReceiverError::OtherInstallation(state.installation().clone()));
        }
        let named = || installation.unwrap_or_else(|| InstallationId::from_random(random()));
        let state = state.unwrap_or_else(|| ReceiverState::new(named()));
        let mailbox = Mailbox::new(identity.clone());
        let subscribing = network.subscribe(&[mailbox.topic()]).await;
        subscribing.map_err(|error| ReceiverError::Network(error.to_string()))?;
        let mut advertising = AdvertisingTimes::new(advertise_every);
        if state.servers().any(|(_, standing)| matches!(standing, super::Standing::Registered { .. })) {
            advertising.now();
        }
        Ok(Self {
            network,
            registrar: Arc::new(Mutex::new(Registrar::new(identity, state))),
            answers: Arc::default(),
            file,
            _lock: lock,
            mailbox,
            contact_code_key: None,
            advertising,
            began: Instant::now(),
            missed: Missed::nothing(),
            events: VecDeque::new(),
        })
    }

    /// What is kept.
    #[must_use]
    pub fn state(&self) -> ReceiverState {
        self.registrar.lock().state().clone()
    }

    /// The servers that have not confirmed, and are sent nothing any more before the next change.
    #[must_use]
    pub fn given_up(&self) -> Vec<PublicKey> {
        self.registrar.lock().given_up().collect()
    }

    /// Whether everything that was asked for is confirmed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.registrar.lock().is_settled()
    }

    /// Has the device registered with these servers; without any, with those of the last registration, else with up to
    /// three of the list, picked at random. [`Self::step`] does the rest.
    ///
    /// # Errors
    /// [`ReceiverError::Profile`], [`ReceiverError::Servers`], or [`ReceiverError::State`].
    pub async fn register(
        &mut self,
        profile: Profile,
        servers: &[PublicKey],
        list: &[PublicKey],
    ) -> Result<(), ReceiverError> {
        profile.check()?;
        let chosen = choose_servers(servers, self.registrar.lock().state(), list, fill);
        if !(1..=MAX_SERVERS).contains(&chosen.len()) {
            return Err(ReceiverError::Servers(chosen.len()));
        }
        self.change(move |registrar, file| {
            registrar.register(profile, &chosen, fill, |state| file.write(state))
        })
        .await
    }

    /// Has registered what is kept once more: at every start.
    ///
    /// # Errors
    /// [`ReceiverError::State`].
    pub async fn register_again(&mut self) -> Result<(), ReceiverError> {
        self.change(|registrar, file| registrar.register_again(fill, |state| file.write(state))).await
    }

    /// Has the device forgotten by all servers.
    ///
    /// # Errors
    /// [`ReceiverError::State`].
    pub async fn unregister(&mut self) -> Result<(), ReceiverError> {
        self.change(|registrar, file| registrar.unregister(|state| file.write(state))).await
    }

    /// Tells contacts as soon as possible, if there is something to tell.
    pub fn advertise(&mut self) {
        self.advertising.now();
    }

    /// Gives the network back. What is kept stays.
    pub fn into_network(self) -> N {
        self.network
    }

    /// Does what is due, and waits until something has happened. When it is dropped meanwhile, a sending may be lost; it
    /// counts as one, and is repeated in its time. Nothing else is lost.
    ///
    /// # Errors
    /// [`ReceiverError::State`] when the state cannot be kept. Troubles of the network are events.
    pub async fn step(&mut self) -> Result<ReceiverEvent, ReceiverError> {
        loop {
            self.tell_answers();
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.send_what_is_due().await?;
            self.advertise_when_due().await?;
            self.look_for_missed().await?;
            self.tell_answers();
            if !self.events.is_empty() {
                continue;
            }
            let wake = self.wake_at();
            let sleeping = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => future::pending().await,
                }
            };
            let may_connect = self.missed.rests_until().is_none();
            tokio::select! {
                // A network that has just failed is left alone for a while.
                mail = self.network.next(), if may_connect => match mail {
                    Ok(mail) => self.take(mail).await?,
                    Err(error) => self.disconnected(error.to_string()),
                },
                () = self.answers.came.notified() => {}
                () = sleeping => {}
            }
        }
    }

    /// Makes events of what servers have answered.
    fn tell_answers(&mut self) {
        let taken = std::mem::take(&mut *self.answers.taken.lock());
        if taken.iter().any(|answer| matches!(answer, RegistrationAnswer::Registered { .. })) {
            let wait = if self.registrar.lock().is_level() { Duration::ZERO } else { LEVELLING };
            let at = self.began.elapsed() + wait;
            self.advertising.again(self.advertising.next_due().map_or(at, |next| next.min(at)));
        }
        self.events.extend(taken.into_iter().map(ReceiverEvent::Answered));
    }

    async fn send_what_is_due(&mut self) -> Result<(), ReceiverError> {
        let now = self.began.elapsed();
        let due = self.with(move |registrar, file| registrar.due(now, fill, |state| file.write(state)));
        for Sending { server, version, attempt, topic, frames } in due.await?? {
            let event = match self.publish(topic, frames).await {
                Ok(()) => ReceiverEvent::Sent { server, version, attempt },
                Err(reason) => ReceiverEvent::NotSent { server, reason },
            };
            self.events.push_back(event);
        }
        Ok(())
    }

    async fn advertise_when_due(&mut self) -> Result<(), ReceiverError> {
        if self.advertising.next_due().is_none_or(|at| at > self.began.elapsed()) {
            return Ok(());
        }
        let key = self.contact_code_key.take();
        let (key, advertisement) = self
            .with(move |registrar, _| {
                let key = key.unwrap_or_else(|| registrar.contact_code().derive_key());
                let advertisement = registrar.advertisement(&key, fill);
                (key, advertisement)
            })
            .await?;
        self.contact_code_key = Some(key);
        let Some(advertisement) = advertisement else {
            self.advertising.done(self.began.elapsed());
            return Ok(());
        };
        let servers = advertisement.servers;
        match self.publish(advertisement.topic, advertisement.frames).await {
            Ok(()) => {
                self.advertising.done(self.began.elapsed());
                self.events.push_back(ReceiverEvent::Advertised { servers });
            }
            Err(reason) => {
                self.advertising.again(self.began.elapsed() + RETRY);
                self.events.push_back(ReceiverEvent::NotAdvertised { reason });
            }
        }
        Ok(())
    }

    /// After a connection was lost: answers that came meanwhile.
    async fn look_for_missed(&mut self) -> Result<(), ReceiverError> {
        let topics = [self.mailbox.topic()];
        let Some((missed, all)) = self.missed.look(&mut self.network, &topics).await else { return Ok(()) };
        for mail in missed.into_mails() {
            self.take(mail).await?;
        }
        self.missed.looked(all);
        Ok(())
    }

    async fn take(&mut self, mail: Mail) -> Result<(), ReceiverError> {
        let elapsed = self.began.elapsed().as_secs();
        let Some(message) = self.mailbox.open(mail.topic, &mail.data, elapsed) else { return Ok(()) };
        let now = unix_now().into();
        let answers = Arc::clone(&self.answers);
        let taking = self.with(move |registrar, file| {
            // While the registrar is locked: whoever sees its new state finds the answer.
            if let Some(answer) = registrar.take(&message, now, |state| file.write(state))? {
                answers.taken.lock().push_back(answer);
                answers.came.notify_one();
            }
            Ok::<_, StateError>(())
        });
        Ok(taking.await??)
    }

    fn disconnected(&mut self, reason: String) {
        self.missed.note();
        self.events.push_back(ReceiverEvent::Disconnected { reason });
    }

    async fn publish(&mut self, topic: Topic, frames: Vec<Vec<u8>>) -> Result<(), String> {
        for frame in frames {
            if let Err(error) = self.network.publish(topic, frame).await {
                // The network may have connected anew since without a word.
                self.missed.note();
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    fn wake_at(&self) -> Option<Instant> {
        let due = self.registrar.lock().next_due().into_iter().chain(self.advertising.next_due());
        let due = due.map(|at| self.began + at).min();
        due.into_iter().chain(self.missed.rests_until()).min()
    }

    async fn change(
        &mut self,
        change: impl FnOnce(&mut Registrar, &StateFile) -> Result<(), StateError> + Send + 'static,
    ) -> Result<(), ReceiverError> {
        self.with(change).await??;
        Ok(())
    }

    /// Where the disk, and thousands of contacts, hold up nobody.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registrar, &StateFile) -> T + Send + 'static,
    ) -> Result<T, ReceiverError> {
        let (registrar, file) = (Arc::clone(&self.registrar), self.file.clone());
        blocking(move || work(&mut registrar.lock(), &file)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ReceiverError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ReceiverError::Stopping)
}

fn fill(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}
