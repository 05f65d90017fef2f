//! What is known of contacts: through which servers their devices can be notified, and when we last asked. Bounded,
//! and kept in a file that only its owner may read.

mod form;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poste_codec::PublicKey;
use poste_wire::status::InstallationId;
use thiserror::Error;

use super::contact::{PushInfo, Shown};
use super::file::{read_private, write_private};

/// After how long servers are asked again about a contact who has not advertised since: as the deployed clients have it.
pub const QUERY_AGE: Duration = Duration::from_secs(86_400);
/// The most contacts; of those beyond, the ones that were heard of longest ago are forgotten.
pub const MAX_CONTACTS: usize = 1_000;
/// The most devices of one contact.
pub const MAX_DEVICES: usize = 32;
/// The most servers of one device.
pub const MAX_SERVERS: usize = 8;

/// More than the longest file has: a line of a device at a server has some 300 bytes.
const MAX_FILE_BYTES: u64 = (MAX_CONTACTS * MAX_DEVICES * MAX_SERVERS) as u64 * 512;

/// What is known of contacts. Times are unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    contacts: BTreeMap<PublicKey, Contact>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Contact {
    /// When servers were last asked, or the contact advertised.
    asked_at: Option<u64>,
    rows: Vec<KnownInfo>,
}

/// A device at a server, and since when it is known with this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownInfo {
    /// The device at the server.
    pub info: PushInfo,
    /// When this version was first heard of, unix seconds: the device was active not long before.
    pub since: u64,
}

impl Known {
    /// How a contact's devices can be notified; the most recently active device first.
    pub fn infos(&self, contact: &PublicKey) -> Vec<KnownInfo> {
        let mut rows = self.contacts.get(contact).map(|contact| contact.rows.clone()).unwrap_or_default();
        let mut activity: BTreeMap<InstallationId, (u64, u64)> = BTreeMap::new();
        for row in &rows {
            let latest = activity.entry(row.info.installation.clone()).or_default();
            *latest = (*latest).max((row.since, row.info.version));
        }
        rows.sort_by_cached_key(|row| {
            let device = row.info.installation.clone();
            (Reverse(activity[&device]), device, row.info.server)
        });
        rows
    }

    /// Whether it is time to ask servers about the contact: a day after the last query or advertisement.
    pub fn is_query_due(&self, contact: &PublicKey, now: u64) -> bool {
        let asked_at = self.contacts.get(contact).and_then(|contact| contact.asked_at);
        // A time to come was noted by a clock that was put back since.
        asked_at.is_none_or(|at| at > now || now - at > QUERY_AGE.as_secs())
    }

    /// Remembers when servers were asked. Going back in time changes nothing.
    pub fn note_asked(&mut self, contact: &PublicKey, at: u64) {
        let known = self.contacts.entry(*contact).or_default();
        known.asked_at = known.asked_at.max(Some(at));
        self.make_room();
    }

    /// Takes what a message showed at this time.
    ///
    /// A device's highest version decides which token it has: what has another token and a lower version is dropped,
    /// or not taken. A lower version with the same token stays, because a client that repeats its registration to one
    /// server raises the version there alone.
    pub fn learn(&mut self, contact: &PublicKey, shown: &Shown, now: u64) {
        if !shown.infos.is_empty() {
            let known = self.contacts.entry(*contact).or_default();
            shown.infos.iter().for_each(|info| known.learn(info, shown.by_owner, now));
        }
        if shown.by_owner && shown.stopped.is_none() {
            self.note_asked(contact, now);
        }
        self.make_room();
    }

    /// Forgets a device at a server that says it does not know it.
    pub fn forget(&mut self, contact: &PublicKey, installation: &InstallationId, server: &PublicKey) {
        if let Some(known) = self.contacts.get_mut(contact) {
            known.rows.retain(|row| row.info.installation != *installation || row.info.server != *server);
        }
    }

    fn make_room(&mut self) {
        while self.contacts.len() > MAX_CONTACTS {
            let oldest = self.contacts.iter().min_by_key(|(_, contact)| contact.heard_of());
            let Some(oldest) = oldest.map(|(key, _)| *key) else { return };
            self.contacts.remove(&oldest);
        }
    }
}

impl Contact {
    fn heard_of(&self) -> Option<u64> {
        self.rows.iter().map(|row| row.since).max().max(self.asked_at)
    }

    fn learn(&mut self, info: &PushInfo, by_owner: bool, now: u64) {
        let of_device = |row: &&KnownInfo| row.info.installation == info.installation;
        let newest = self.rows.iter().filter(of_device).max_by_key(|row| row.info.version);
        let outdated =
            |newest: &KnownInfo| newest.info.version > info.version && newest.info.token != info.token;
        if newest.is_some_and(outdated) {
            return;
        }
        let here = self.rows.iter().filter(of_device).find(|row| row.info.server == info.server);
        if here.is_some_and(|row| row.info.version > info.version || row.info == *info) {
            return;
        }
        let heard = self.rows.iter().filter(of_device).find(|row| row.info.version == info.version);
        let since = heard.map_or(now, |row| row.since);
        self.rows.retain(|row| {
            let same_device = of_device(&row);
            let outdated = row.info.version < info.version && row.info.token != info.token;
            !(same_device && (outdated || row.info.server == info.server))
        });
        if self.has_room(info, by_owner) {
            self.rows.push(KnownInfo { info: info.clone(), since });
        }
    }

    /// A server that has a grant can make devices up, but not push those away that are known.
    fn has_room(&mut self, info: &PushInfo, by_owner: bool) -> bool {
        let servers = self.rows.iter().filter(|row| row.info.installation == info.installation).count();
        let devices: BTreeSet<_> = self.rows.iter().map(|row| &row.info.installation).collect();
        if servers > 0 || devices.len() < MAX_DEVICES {
            return servers < MAX_SERVERS;
        }
        if by_owner {
            let oldest =
                self.rows.iter().min_by_key(|row| row.since).map(|row| row.info.installation.clone());
            self.rows.retain(|row| Some(&row.info.installation) != oldest.as_ref());
        }
        by_owner
    }
}

/// Why a file of what is known is of no use.
#[derive(Debug, Error)]
pub enum KnownError {
    /// The file holds something else, or is of a later version of this program.
    #[error("{}: not what this version writes of contacts ({what}); move it away to start anew", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Tokens are for one key only, and must not be used by another.
    #[error("{}: belongs to another key; use a state directory for each key", .0.display())]
    OtherKey(PathBuf),
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The file of what one key knows of its contacts.
#[derive(Debug, Clone)]
pub struct KnownFile {
    path: PathBuf,
    owner: PublicKey,
}

impl KnownFile {
    /// The name of the file in a state directory.
    pub const NAME: &str = "contacts.json";

    /// The file of this key in a state directory.
    pub fn new(directory: &Path, owner: PublicKey) -> Self {
        Self { path: directory.join(Self::NAME), owner }
    }

    /// Reads it; nothing is known where there is no file.
    ///
    /// # Errors
    /// [`KnownError::Form`], [`KnownError::OtherKey`], or [`KnownError::Io`].
    pub fn read(&self) -> Result<Known, KnownError> {
        match read_private(&self.path, MAX_FILE_BYTES).map_err(|source| self.io(source))? {
            None => Ok(Known::default()),
            Some(bytes) => match form::decode(&bytes) {
                Ok((owner, _)) if owner != self.owner => Err(KnownError::OtherKey(self.path.clone())),
                Ok((_, known)) => Ok(known),
                Err(what) => Err(KnownError::Form { path: self.path.clone(), what }),
            },
        }
    }

    /// Replaces it; what was written is durable.
    ///
    /// # Errors
    /// [`KnownError::Io`].
    pub fn write(&self, known: &Known) -> Result<(), KnownError> {
        write_private(&self.path, &form::encode(&self.owner, known)).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> KnownError {
        KnownError::Io { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests;
