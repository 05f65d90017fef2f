//! The sender at work: finding out how contacts can be notified, and having them notified, over a network.

mod follow;

use std::collections::BTreeSet;
use std::time::Duration;

use poste_codec::{PublicKey, SecretKey};
use poste_wire::Topic;
use poste_wire::payload::PayloadError;
use poste_wire::status::MessageId;
use rand::Rng;
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::contact::{ContactCode, Shown};
use super::known::{Known, KnownError, KnownFile, MAX_CONTACTS};
use super::missed::Missed;
use super::query::{ANSWER_WAIT, Query};
use super::send::{
    DeviceReport, Failure, Notification, Outgoing, OwnDevicesError, SendEvent, SendSettings, Sending, Step,
};
use super::{Mail, Network};
use crate::unix_now;
pub use follow::SenderEvent;

/// After how long a network that has failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The most answers to one query that are looked at: anybody can answer, though not with a contact's grant.
const MAX_ANSWERS: usize = 64;

/// Finds out how contacts can be notified, and has them notified. What it learns is kept in a file.
#[derive(Debug)]
pub struct Sender<N> {
    network: N,
    own: SecretKey,
    known: Known,
    /// What the file had when it was last read or written.
    kept: Known,
    file: KnownFile,
    /// Contacts whose advertisements are taken, and those of them of whom nobody was told yet.
    followed: Vec<ContactCode>,
    heard_of: BTreeSet<PublicKey>,
    /// Advertisements that a lost connection may have taken with it.
    missed: Missed,
    /// Topics on which answers are waited for: one for each key, so that one can be among them twice.
    awaited: Vec<Topic>,
    /// Topics on which something may still come. Not all of them are of use, if the network has failed meanwhile, or
    /// somebody has dropped what we were at.
    heard: BTreeSet<Topic>,
    began: Instant,
    /// What the network said when it last failed.
    trouble: Option<String>,
}

/// Why something could not be found out or sent.
#[derive(Debug, Error)]
pub enum SenderError<E: std::error::Error + 'static> {
    /// The network.
    #[error(transparent)]
    Network(E),
    /// The file of what is known.
    #[error(transparent)]
    Known(#[from] KnownError),
    /// The contact is oneself.
    #[error(transparent)]
    OwnDevices(#[from] OwnDevicesError),
    /// A message could not be sealed.
    #[error(transparent)]
    Seal(#[from] PayloadError),
    /// More contacts than a file has room for.
    #[error("at most {MAX_CONTACTS} contacts are followed at a time, not {0}")]
    TooManyContacts(usize),
    /// The runtime is shutting down.
    #[error("the process is stopping")]
    Stopping,
}

/// What stored history brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// Advertisements of the contact.
    pub advertisements: usize,
    /// Why that may not be everything.
    pub incomplete: Option<String>,
}

/// What a query brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queried {
    /// Who answered, and what each showed: only what has a device in it is certainly by a server of the contact's.
    pub answers: Vec<(PublicKey, Shown)>,
}

impl Queried {
    /// Whether some answer showed a device that we may notify.
    pub fn has_infos(&self) -> bool {
        self.answers.iter().any(|(_, shown)| !shown.infos.is_empty())
    }

    /// Takes the first answer of each.
    fn take(&mut self, server: PublicKey, shown: Shown) {
        if self.answers.len() < MAX_ANSWERS && self.answers.iter().all(|(known, _)| *known != server) {
            self.answers.push((server, shown));
        }
    }
}

/// What became of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReport {
    /// Each device.
    pub devices: Vec<DeviceReport>,
    /// What the network said when it last failed meanwhile. Requests and answers may have been lost by that.
    pub trouble: Option<String>,
    /// Why what was learned meanwhile could not be kept.
    pub not_kept: Option<String>,
}

impl SendReport {
    /// Whether a server reported success for some device.
    pub fn is_notified(&self) -> bool {
        self.devices.iter().any(|device| device.outcome.is_ok())
    }
}

impl<N: Network> Sender<N> {
    /// With what the file has.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn open(network: N, own: SecretKey, file: KnownFile) -> Result<Self, SenderError<N::Error>> {
        let reader = file.clone();
        let known = blocking(move || reader.read()).await??;
        Ok(Self {
            network,
            own,
            kept: known.clone(),
            known,
            file,
            followed: Vec::new(),
            heard_of: BTreeSet::new(),
            missed: Missed::nothing(),
            awaited: Vec::new(),
            heard: BTreeSet::new(),
            began: Instant::now(),
            trouble: None,
        })
    }

    /// What is known.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Asks servers about a contact, whatever is known, and waits for all of their answers.
    ///
    /// # Errors
    /// When the network or the file fails.
    pub async fn query(&mut self, contact: &PublicKey) -> Result<Queried, SenderError<N::Error>> {
        self.awaited.clear();
        let queried = self.ask(contact, None).await?;
        self.save().await?;
        Ok(queried)
    }

    /// Has a contact notified, and waits for the reports, at most for this long. Asks servers about the contact first,
    /// if nothing is known or that was long ago.
    ///
    /// # Errors
    /// Before anything was sent: when the network or the file fails, or the contact is oneself.
    pub async fn notify(
        &mut self,
        contact: &PublicKey,
        notification: Notification,
        settings: SendSettings,
        patience: Duration,
    ) -> Result<SendReport, SenderError<N::Error>> {
        self.notify_and_tell(contact, notification, settings, patience, drop).await
    }

    /// Like [`Self::notify`], and tells what happens meanwhile.
    ///
    /// # Errors
    /// As [`Self::notify`].
    pub async fn notify_and_tell(
        &mut self,
        contact: &PublicKey,
        notification: Notification,
        settings: SendSettings,
        patience: Duration,
        mut tell: impl FnMut(SendEvent) + Send,
    ) -> Result<SendReport, SenderError<N::Error>> {
        let own = self.own.public();
        if own == *contact {
            return Err(OwnDevicesError.into());
        }
        self.awaited.clear();
        if self.known.is_query_due(contact, unix_now().into()) || self.known.infos(contact).is_empty() {
            tell(SendEvent::Queried);
            self.ask(contact, None).await?;
            self.save().await?;
        }
        // What another process has sent meanwhile. Where the file cannot be used, the end tells it: a message that rings
        // twice is better than none.
        drop(self.save().await);
        let message = notification.message;
        let (known, earlier) = (self.known.infos(contact), self.known.attempts(contact, &message));
        let mut sending = Sending::new(own, *contact, notification, &known, &earlier, settings, random)?;
        self.trouble = None;
        let outcome = timeout(patience, self.run(contact, &message, &mut sending, &mut tell)).await;
        sending.give_up();
        if let Ok(Err(error)) = outcome {
            self.trouble = Some(error.to_string());
        }
        self.awaited.clear();
        self.leave_the_rest().await;
        let devices = sending.reports();
        for device in &devices {
            for (server, _) in device.failed.iter().filter(|(_, why)| *why == Failure::NotRegistered) {
                self.known.forget(contact, &device.installation, server);
            }
        }
        let kept = self.remember(contact, &message, &sending).await;
        let not_kept = kept.err().map(|error| error.to_string());
        Ok(SendReport { devices, trouble: self.trouble.take(), not_kept })
    }

    /// Does what the sending asks for until it is done. What the network does not take counts as lost, and so as a server
    /// that is silent.
    async fn run(
        &mut self,
        contact: &PublicKey,
        message: &MessageId,
        sending: &mut Sending,
        tell: &mut (impl FnMut(SendEvent) + Send),
    ) -> Result<(), SenderError<N::Error>> {
        loop {
            let step = sending.step(self.began.elapsed(), random)?;
            sending.take_events().into_iter().for_each(&mut *tell);
            match step {
                Step::Publish(requests) => {
                    // Before a server can hear of it: whoever sends the message again must ask the same one first.
                    drop(self.remember(contact, message, sending).await);
                    if let Err(error) = self.publish(requests).await {
                        self.trouble = Some(error.to_string());
                    }
                    sending.published(self.began.elapsed());
                }
                Step::Query => match self.ask(contact, Some(sending)).await {
                    Ok(queried) => {
                        sending.learned(&self.known.infos(contact), &queried.answers, random);
                    }
                    Err(SenderError::Network(error)) => {
                        self.trouble = Some(error.to_string());
                        sending.not_asked(self.began.elapsed());
                    }
                    Err(error) => return Err(error),
                },
                Step::Wait(until) => {
                    if let Some(mail) = self.mail(self.began + until).await {
                        sending.accept(&mail, self.began.elapsed());
                    }
                }
                Step::Done => return Ok(()),
            }
        }
    }

    /// Keeps what servers were asked, and what came of it.
    async fn remember(
        &mut self,
        contact: &PublicKey,
        message: &MessageId,
        sending: &Sending,
    ) -> Result<(), SenderError<N::Error>> {
        for (installation, attempt) in sending.attempts() {
            self.known.note_attempt(contact, message, installation, attempt, unix_now().into());
        }
        self.save().await
    }

    /// Publishes requests, none of them before their answers would come: a request that was published and not heard of
    /// has a device ring twice.
    async fn publish(&mut self, requests: Vec<Outgoing>) -> Result<(), N::Error> {
        let topics: Vec<_> = requests.iter().map(|request| request.answer_topic).collect();
        if self.listen(&topics).await.is_err() {
            // The connection may have ended long ago, unnoticed. Then the second time makes another one.
            self.network.subscribe(&topics).await?;
        }
        let mut outcome = Ok(());
        for request in requests {
            outcome = self.put(request.topic, request.frame).await.and(outcome);
        }
        outcome
    }

    async fn put(&mut self, topic: Topic, frame: Vec<u8>) -> Result<(), N::Error> {
        // After an error the network may have connected anew without a word.
        self.network.publish(topic, frame).await.inspect_err(|_| self.missed.note())
    }

    /// Asks where deployed servers listen, and if that shows no device where the specification says. What comes meanwhile for
    /// a sending is handed to it.
    async fn ask(
        &mut self,
        contact: &PublicKey,
        sending: Option<&mut Sending>,
    ) -> Result<Queried, SenderError<N::Error>> {
        let query = Query::new(contact, random);
        let (answer_topic, is_for_sending) = (query.answer_topic(), sending.is_some());
        let asked = self.ask_with(query, contact, sending).await;
        if let Some(at) = self.awaited.iter().position(|topic| *topic == answer_topic) {
            self.awaited.remove(at);
        }
        // That may take its time, in which a sending would not hear its answers.
        if !is_for_sending {
            self.leave_the_rest().await;
        }
        asked
    }

    async fn ask_with(
        &mut self,
        mut query: Query,
        contact: &PublicKey,
        mut sending: Option<&mut Sending>,
    ) -> Result<Queried, SenderError<N::Error>> {
        self.listen(&[query.answer_topic()]).await.map_err(SenderError::Network)?;
        let mut queried = Queried::default();
        for name in Query::topics(contact) {
            let topic = name.topic();
            let key = blocking(move || name.derive_key()).await?;
            let frame = query.seal(&key, random)?;
            self.put(topic, frame).await.map_err(SenderError::Network)?;
            self.known.note_asked(contact, unix_now().into());
            let until = Instant::now() + ANSWER_WAIT;
            while let Some(mail) = self.mail(until).await {
                if let Some(sending) = &mut sending {
                    sending.accept(&mail, self.began.elapsed());
                }
                let Some(message) = query.open(&mail, self.began.elapsed().as_secs()) else { continue };
                let (own, server) = (self.own.clone(), message.signer);
                let reading = blocking(move || (query.read(&own, &message), query));
                let (shown, again) = reading.await?;
                query = again;
                if let Some(shown) = shown {
                    self.known.learn(contact, &shown, unix_now().into());
                    queried.take(server, shown);
                }
            }
            if queried.has_infos() {
                break;
            }
        }
        Ok(queried)
    }

    /// Hears answers on these topics, too.
    async fn listen(&mut self, topics: &[Topic]) -> Result<(), N::Error> {
        self.awaited.extend(topics);
        self.heard.extend(topics);
        self.network.subscribe(topics).await
    }

    /// Leaves the topics on which no answer is awaited and no contact followed. Nothing is lost when that fails: then they are left later.
    async fn leave_the_rest(&mut self) {
        let is_of_use = |topic: &Topic| {
            self.awaited.contains(topic) || self.followed.iter().any(|code| code.topic() == *topic)
        };
        let rest: Vec<_> = self.heard.iter().filter(|topic| !is_of_use(topic)).copied().collect();
        if !rest.is_empty() && self.network.unsubscribe(&rest).await.is_ok() {
            self.heard.retain(|topic| !rest.contains(topic));
        }
    }

    /// The next mail until then. Advertisements of followed contacts are learned on the way. A network that fails is
    /// tried again: answers that were missed meanwhile count as lost.
    async fn mail(&mut self, until: Instant) -> Option<Mail> {
        // Mail that is there already would be taken however late it is, and so a flood would never end.
        while Instant::now() < until {
            match timeout_at(until, self.network.next()).await.ok()? {
                Ok(mail) => {
                    self.take(&mail);
                    return Some(mail);
                }
                Err(error) => {
                    self.missed.note();
                    self.trouble = Some(error.to_string());
                    sleep_until(until.min(Instant::now() + RETRY)).await;
                }
            }
        }
        None
    }

    /// Writes what was learned, and takes what others have.
    async fn save(&mut self) -> Result<(), SenderError<N::Error>> {
        let (file, kept, known) = (self.file.clone(), self.kept.clone(), self.known.clone());
        self.kept = blocking(move || file.update(&kept, known)).await??;
        self.known = self.kept.clone();
        Ok(())
    }
}

fn random(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}

/// What takes its time on a processor or a disk.
async fn blocking<T, E>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SenderError<E>>
where
    T: Send + 'static,
    E: std::error::Error + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|_| SenderError::Stopping)
}
