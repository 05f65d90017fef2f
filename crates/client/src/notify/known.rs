//! What is known of contacts: through which servers their devices can be notified, when we last asked, and of what they
//! were notified. Bounded, and kept in a file that only its owner may read.

mod attempts;
mod form;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poste_codec::PublicKey;
use poste_wire::status::{InstallationId, MessageId};
use thiserror::Error;

use super::contact::{PushInfo, Shown};
use super::file::{lock, read_private, write_private};
use attempts::Attempts;
pub use attempts::{ATTEMPTS_KEPT, Attempt, MAX_ATTEMPTS};

/// After how long servers are asked again about a contact who has not advertised since: as the deployed clients have it.
pub const QUERY_AGE: Duration = Duration::from_secs(86_400);
/// The most contacts; of those beyond, the ones that were heard of longest ago are forgotten.
pub const MAX_CONTACTS: usize = 1_000;
/// The most devices of one contact.
pub const MAX_DEVICES: usize = 32;
/// The most servers of one device.
pub const MAX_SERVERS: usize = 8;

/// The most versions that are kept of devices at no server.
const MAX_FLOORS: usize = 2 * MAX_DEVICES;

/// More than the longest file has: a device at a server has some 350 bytes, an attempt up to 1,200.
const MAX_FILE_BYTES: u64 =
    (MAX_CONTACTS * MAX_DEVICES * MAX_SERVERS) as u64 * 512 + MAX_ATTEMPTS as u64 * 2048;

/// What is known of contacts. Times are unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    contacts: BTreeMap<PublicKey, Contact>,
    attempts: Attempts,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Contact {
    /// When servers were last asked, or the contact advertised.
    asked_at: Option<u64>,
    /// The highest version of each device that the contact itself has shown.
    floors: BTreeMap<InstallationId, u64>,
    rows: Vec<KnownInfo>,
}

/// A device at a server, and since when it is known with this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownInfo {
    /// The device at the server.
    pub info: PushInfo,
    /// When this version was first heard of, unix seconds: the device was active not long before.
    pub since: u64,
    /// Up to which version of the device this is right: the highest in the same advertisement, or what the server says.
    pub as_of: u64,
    /// Whether the contact itself has named this server, and not only the server itself.
    pub is_advertised: bool,
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
    /// Versions are not covered by grants, so that only the contact's own decide about more than one server. Its
    /// advertisement names all servers of a device: with a higher version than any before it drops those that it leaves
    /// out, with a lower one it is old. What a server says counts for that server alone, and not below the contact's own.
    pub fn learn(&mut self, contact: &PublicKey, shown: &Shown, now: u64) {
        if !shown.infos.is_empty() {
            let known = self.contacts.entry(*contact).or_default();
            if shown.by_owner {
                known.learn_advertised(&shown.infos, shown.stopped.is_none(), now);
            } else {
                shown.infos.iter().for_each(|info| known.learn_answered(info, now));
            }
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

    /// What servers were asked for this message to a contact, and what came of it: one for each device.
    pub fn attempts(&self, contact: &PublicKey, message: &MessageId) -> Vec<(InstallationId, Attempt)> {
        self.attempts.of(contact, message)
    }

    /// Remembers what is known of a message at a device, in place of what was. [`MAX_ATTEMPTS`] are kept, for
    /// [`ATTEMPTS_KEPT`].
    pub fn note_attempt(
        &mut self,
        contact: &PublicKey,
        message: &MessageId,
        installation: InstallationId,
        attempt: Attempt,
        now: u64,
    ) {
        self.attempts.note((*contact, *message, installation), attempt, now);
    }

    /// What was changed here since `base`, and for contacts of whom nothing was, what others know by now.
    fn merged(self, base: &Self, mut others: Self) -> Self {
        for contact in base.contacts.keys().filter(|contact| !self.contacts.contains_key(contact)) {
            others.contacts.remove(contact);
        }
        for (key, contact) in self.contacts {
            if base.contacts.get(&key) != Some(&contact) {
                others.contacts.insert(key, contact);
            }
        }
        others.attempts = self.attempts.merged(&base.attempts, others.attempts);
        others.make_room();
        others
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

    fn learn_advertised(&mut self, infos: &[PushInfo], is_whole: bool, now: u64) {
        let mut devices: BTreeMap<&InstallationId, Vec<&PushInfo>> = BTreeMap::new();
        for info in infos {
            devices.entry(&info.installation).or_default().push(info);
        }
        for (device, infos) in devices {
            let Some(highest) = infos.iter().map(|info| info.version).max() else { continue };
            let floor = self.floors.get(device).copied();
            if floor.is_some_and(|floor| floor > highest) {
                continue;
            }
            let is_news = floor.is_none_or(|floor| floor < highest);
            self.floors.insert(device.clone(), highest);
            if is_news && is_whole {
                let is_named = |server: &PublicKey| infos.iter().any(|info| info.server == *server);
                self.rows.retain(|row| {
                    let is_left_out = row.info.installation == *device && !is_named(&row.info.server);
                    !(is_left_out && row.as_of < highest)
                });
            }
            for info in infos {
                let here = self.row(info);
                // What was heard before stays when the same is advertised again.
                if is_news || here.is_none_or(|row| row.info.version < info.version || !row.is_advertised) {
                    self.put(info, highest, true, now);
                }
            }
        }
        if self.floors.len() > MAX_FLOORS {
            let rows = &self.rows;
            self.floors.retain(|device, _| rows.iter().any(|row| row.info.installation == *device));
        }
    }

    fn learn_answered(&mut self, info: &PushInfo, now: u64) {
        if self.floors.get(&info.installation).is_some_and(|floor| *floor > info.version) {
            return;
        }
        let here = self.row(info);
        let is_said_already = |row: &KnownInfo| {
            let is_as_high = row.info.version == info.version;
            row.info.version > info.version || row.info == *info || is_as_high && row.is_advertised
        };
        if here.is_none_or(|row| !is_said_already(row)) {
            let is_advertised = here.is_some_and(|row| row.is_advertised);
            self.put(info, info.version, is_advertised, now);
        }
    }

    /// The same device at the same server.
    fn row(&self, info: &PushInfo) -> Option<&KnownInfo> {
        self.rows.iter().find(|row| is_at(row, info))
    }

    fn put(&mut self, info: &PushInfo, as_of: u64, is_advertised: bool, now: u64) {
        let same =
            |row: &&KnownInfo| row.info.installation == info.installation && row.info.version == info.version;
        let since = self.rows.iter().find(same).map_or(now, |row| row.since);
        self.rows.retain(|row| !is_at(row, info));
        if self.has_room(info, is_advertised) {
            self.rows.push(KnownInfo { info: info.clone(), since, as_of, is_advertised });
        }
    }

    /// A server that has a grant can make devices up, but pushes nothing away that the contact has shown, and of what
    /// servers say only what is by one that says more.
    fn has_room(&mut self, info: &PushInfo, is_advertised: bool) -> bool {
        let of_device = |row: &&KnownInfo| row.info.installation == info.installation;
        let servers = self.rows.iter().filter(of_device).count();
        if servers > 0 {
            if servers >= MAX_SERVERS && is_advertised {
                let ours = self.rows.iter().filter(of_device);
                let least = ours.min_by_key(|row| (row.is_advertised, row.as_of)).map(|row| row.info.server);
                self.rows.retain(|row| !of_device(&row) || Some(row.info.server) != least);
            }
            return servers < MAX_SERVERS || is_advertised;
        }
        // Whether the contact has shown it, since when it is known, and at how many servers.
        let mut devices: BTreeMap<&InstallationId, (bool, u64, usize)> = BTreeMap::new();
        let mut said: BTreeMap<PublicKey, Vec<&InstallationId>> = BTreeMap::new();
        for row in &self.rows {
            let device = devices.entry(&row.info.installation).or_insert((false, row.since, 0));
            *device = (device.0 || row.is_advertised, device.1.min(row.since), device.2 + 1);
        }
        if devices.len() < MAX_DEVICES {
            return true;
        }
        for row in self.rows.iter().filter(|row| !devices[&row.info.installation].0) {
            said.entry(row.info.server).or_default().push(&row.info.installation);
        }
        let leaving = if is_advertised {
            devices.iter().min_by_key(|(_, rank)| **rank).map(|(device, _)| (*device).clone())
        } else {
            let ours = said.get(&info.server).map_or(0, Vec::len);
            let most = said.values().max_by_key(|those| those.len()).filter(|those| those.len() > ours + 1);
            let alone = most.and_then(|those| those.iter().min_by_key(|device| devices[*device].2));
            alone.map(|device| (*device).clone())
        };
        self.rows.retain(|row| Some(&row.info.installation) != leaving.as_ref());
        leaving.is_some()
    }
}

fn is_at(row: &KnownInfo, info: &PushInfo) -> bool {
    row.info.installation == info.installation && row.info.server == info.server
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

    /// Writes what has changed since `base`, which was read or written before. Gives what is in the file then: with what
    /// other processes have learned of other contacts.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn update(&self, base: &Known, known: Known) -> Result<Known, KnownError> {
        let _lock = lock(&self.path).map_err(|source| self.io(source))?;
        let here = self.read()?;
        let merged = known.merged(base, here.clone());
        if merged != here {
            self.write(&merged)?;
        }
        Ok(merged)
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
