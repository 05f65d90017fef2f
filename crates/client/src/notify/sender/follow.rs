//! Contacts whose advertisements are taken: from stored history, and as they come.

use std::collections::BTreeSet;

use poste_codec::PublicKey;
use tokio::time::sleep_until;

use super::{Discovered, Sender, SenderError, blocking};
use crate::notify::contact::{ContactCode, Shown};
use crate::notify::known::MAX_CONTACTS;
use crate::notify::newest::Newest;
use crate::notify::{Mail, Network};
use crate::unix_now;

/// What has happened while nothing was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderEvent {
    /// A contact has advertised; [`super::known::Known::infos`] has what is known by now, and so has the file.
    Advertised {
        /// The contact.
        contact: PublicKey,
    },
    /// The connection to the network has ended; what comes meanwhile is asked for afterwards.
    Disconnected {
        /// What the network said.
        reason: String,
    },
}

impl<N: Network> Sender<N> {
    /// From now on takes what these contacts advertise, and no others: in [`Self::step`], and while this sender waits for
    /// anything else. What they have advertised before is in history: see [`Self::discover`]. A contact that is new here
    /// costs some 30 ms of a processor.
    ///
    /// # Errors
    /// [`SenderError::TooManyContacts`], or when the network fails. Then those that were followed before still are.
    pub async fn follow(&mut self, contacts: &[PublicKey]) -> Result<(), SenderError<N::Error>> {
        let wanted: BTreeSet<PublicKey> = contacts.iter().copied().collect();
        if wanted.len() > MAX_CONTACTS {
            return Err(SenderError::TooManyContacts(wanted.len()));
        }
        let mut codes = Vec::new();
        for contact in wanted.iter().filter(|contact| self.place(contact).is_none()) {
            codes.push(derive(contact).await?);
        }
        self.begin_following(codes).await?;
        self.followed.retain(|code| wanted.contains(code.contact()));
        self.leave_the_rest().await;
        Ok(())
    }

    /// Waits until something has happened. Nothing is lost when it is dropped meanwhile.
    ///
    /// # Errors
    /// When what was learned cannot be kept. Troubles of the network are events.
    pub async fn step(&mut self) -> Result<SenderEvent, SenderError<N::Error>> {
        loop {
            if let Some(contact) = self.heard_of.first().copied() {
                self.save().await?;
                self.heard_of.remove(&contact);
                return Ok(SenderEvent::Advertised { contact });
            }
            self.look_for_missed().await?;
            if !self.heard_of.is_empty() {
                continue;
            }
            if let Some(until) = self.missed.rests_until() {
                sleep_until(until).await;
                continue;
            }
            match self.network.next().await {
                Ok(mail) => self.take(&mail),
                Err(error) => {
                    self.missed.note();
                    return Ok(SenderEvent::Disconnected { reason: error.to_string() });
                }
            }
        }
    }

    /// Looks for a contact's advertisements in stored history since then (unix seconds), and follows the contact from
    /// now on.
    ///
    /// # Errors
    /// When the network or the file fails.
    pub async fn discover(
        &mut self,
        contact: &PublicKey,
        since: u32,
    ) -> Result<Discovered, SenderError<N::Error>> {
        if self.place(contact).is_none() {
            let code = derive(contact).await?;
            self.begin_following(vec![code]).await?;
        }
        let codes = self.place(contact).map(|at| self.followed[at].anew());
        let codes: Vec<ContactCode> = codes.into_iter().collect();
        let topics: Vec<_> = codes.iter().map(ContactCode::topic).collect();
        let mut newest = Newest::default();
        let history = self.network.history(&topics, since, |mail| newest.put(mail)).await;
        let incomplete = history.map_err(SenderError::Network)?;
        let advertisements = self.read(codes, newest).await?;
        self.save().await?;
        Ok(Discovered { advertisements, incomplete })
    }

    /// Learns what followed contacts advertise in this mail.
    pub(super) fn take(&mut self, mail: &Mail) {
        let now = self.began.elapsed().as_secs();
        for code in &mut self.followed {
            if let Some(shown) = code.open(&self.own, mail, now) {
                self.known.learn(code.contact(), &shown, unix_now().into());
                self.heard_of.insert(*code.contact());
            }
        }
    }

    /// After a connection was lost: advertisements that came meanwhile.
    async fn look_for_missed(&mut self) -> Result<(), SenderError<N::Error>> {
        if self.missed.due().is_none() {
            return Ok(());
        }
        let codes: Vec<_> = self.followed.iter().map(ContactCode::anew).collect();
        let topics: Vec<_> = codes.iter().map(ContactCode::topic).collect();
        if topics.is_empty() {
            self.missed.looked(true);
            return Ok(());
        }
        let Some((newest, all)) = self.missed.look(&mut self.network, &topics).await else { return Ok(()) };
        self.read(codes, newest).await?;
        self.missed.looked(all);
        Ok(())
    }

    /// Learns what stored history has, and counts the advertisements.
    async fn read(
        &mut self,
        mut codes: Vec<ContactCode>,
        mails: Newest,
    ) -> Result<usize, SenderError<N::Error>> {
        let (own, now) = (self.own.clone(), self.began.elapsed().as_secs());
        let opening = blocking(move || {
            let mut all: Vec<(PublicKey, Shown, u32)> = Vec::new();
            for mail in mails.into_mails() {
                for code in &mut codes {
                    let shown = code.open(&own, &mail, now);
                    all.extend(shown.map(|shown| (*code.contact(), shown, mail.made_at)));
                }
            }
            all
        });
        let all = opening.await?;
        for (contact, shown, made_at) in &all {
            // By a clock that is not ours.
            self.known.learn(contact, shown, (*made_at).min(unix_now()).into());
            self.heard_of.insert(*contact);
        }
        Ok(all.len())
    }

    /// The place of a contact among those that are followed.
    fn place(&self, contact: &PublicKey) -> Option<usize> {
        self.followed.iter().position(|code| code.contact() == contact)
    }

    async fn begin_following(&mut self, codes: Vec<ContactCode>) -> Result<(), SenderError<N::Error>> {
        let topics: Vec<_> = codes.iter().map(ContactCode::topic).collect();
        if !topics.is_empty() {
            self.heard.extend(&topics);
            self.network.subscribe(&topics).await.map_err(SenderError::Network)?;
            self.followed.extend(codes);
        }
        Ok(())
    }
}

async fn derive<E: std::error::Error + 'static>(contact: &PublicKey) -> Result<ContactCode, SenderError<E>> {
    let contact = *contact;
    blocking(move || ContactCode::derive(&contact)).await
}
