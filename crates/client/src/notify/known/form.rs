//! How what is known stands in its file: JSON of one format, read back within the bounds.

use std::collections::BTreeMap;

use poste_codec::PublicKey;
use poste_wire::status::{AccessToken, InstallationId, MessageId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::attempts::{Key, Row as AttemptRow};
use super::{
    Attempt, Contact, Known, KnownInfo, MAX_ATTEMPTS, MAX_CONTACTS, MAX_DEVICES, MAX_FLOORS, MAX_SERVERS,
};
use crate::notify::contact::PushInfo;
use crate::notify::file;

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    owner: String,
    contacts: Vec<ContactForm>,
    /// What servers were asked, by message and device. Earlier versions of this program have not written it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptForm {
    contact: String,
    message: String,
    installation: String,
    at: u64,
    /// The server that has reported success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notified_by: Option<String>,
    /// Without one: those that may have notified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContactForm {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked_at: Option<u64>,
    /// The highest version that the contact itself has shown, by installation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<String, u64>,
    devices: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    installation: String,
    server: String,
    token: String,
    version: u64,
    since: u64,
    as_of: u64,
    advertised: bool,
}

pub(super) fn encode(owner: &PublicKey, known: &Known) -> Zeroizing<Vec<u8>> {
    let row = |row: &KnownInfo| Row {
        installation: row.info.installation.to_string(),
        server: write_key(&row.info.server),
        token: row.info.token.as_str().to_owned(),
        version: row.info.version,
        since: row.since,
        as_of: row.as_of,
        advertised: row.is_advertised,
    };
    let contact = |(key, contact): (&PublicKey, &Contact)| ContactForm {
        key: write_key(key),
        asked_at: contact.asked_at,
        versions: contact.floors.iter().map(|(device, floor)| (device.to_string(), *floor)).collect(),
        devices: contact.rows.iter().map(row).collect(),
    };
    let contacts = known.contacts.iter().map(contact).collect();
    let attempts = known.attempts.rows().map(write_attempt).collect();
    let file = File { format: FORMAT, owner: write_key(owner), contacts, attempts };
    file::encode(&file)
}

/// Whose it is and what is in it, or what is wrong with it. Nothing of its content is in the error.
pub(super) fn decode(bytes: &[u8]) -> Result<(PublicKey, Known), String> {
    let file: File = file::decode(bytes, FORMAT)?;
    if file.contacts.len() > MAX_CONTACTS {
        return Err(format!("more than {MAX_CONTACTS} contacts"));
    }
    if file.attempts.len() > MAX_ATTEMPTS {
        return Err(format!("more than {MAX_ATTEMPTS} attempts"));
    }
    let attempts = file.attempts.iter().map(read_attempt).collect::<Result<_, _>>()?;
    let mut known = Known { attempts, ..Known::default() };
    for form in file.contacts {
        if form.devices.len() > MAX_DEVICES * MAX_SERVERS || form.versions.len() > MAX_FLOORS {
            return Err("a contact with too many devices".to_owned());
        }
        let rows = form.devices.iter().map(read_row).collect::<Result<_, _>>()?;
        let floors = form.versions.iter().map(|(device, version)| Ok((read_installation(device)?, *version)));
        let floors = floors.collect::<Result<_, String>>()?;
        known.contacts.insert(read_key(&form.key)?, Contact { asked_at: form.asked_at, floors, rows });
    }
    Ok((read_key(&file.owner)?, known))
}

fn write_attempt(((contact, message, installation), row): (&Key, &AttemptRow)) -> AttemptForm {
    let (notified_by, open) = match &row.attempt {
        Attempt::Notified(server) => (Some(write_key(server)), Vec::new()),
        Attempt::Open(servers) => (None, servers.iter().map(write_key).collect()),
    };
    AttemptForm {
        contact: write_key(contact),
        message: message.to_string(),
        installation: installation.to_string(),
        at: row.at,
        notified_by,
        open,
    }
}

fn read_attempt(form: &AttemptForm) -> Result<(Key, AttemptRow), String> {
    let attempt = match &form.notified_by {
        Some(server) => Attempt::Notified(read_key(server)?),
        None if form.open.len() > MAX_SERVERS => return Err("an attempt with too many servers".to_owned()),
        None => Attempt::Open(form.open.iter().map(|server| read_key(server)).collect::<Result<_, _>>()?),
    };
    let message: MessageId = form.message.parse().map_err(|_| "a message id")?;
    let key = (read_key(&form.contact)?, message, read_installation(&form.installation)?);
    Ok((key, AttemptRow { at: form.at, attempt }))
}

fn read_row(row: &Row) -> Result<KnownInfo, String> {
    let info = PushInfo {
        installation: read_installation(&row.installation)?,
        server: read_key(&row.server)?,
        token: AccessToken::uuid(&row.token).map_err(|_| "an access token")?,
        version: row.version,
    };
    Ok(KnownInfo { info, since: row.since, as_of: row.as_of, is_advertised: row.advertised })
}

fn read_installation(text: &str) -> Result<InstallationId, String> {
    InstallationId::any(text).map_err(|_| "a device's installation id".to_owned())
}

fn write_key(key: &PublicKey) -> String {
    hex::encode(key.to_compressed())
}

fn read_key(text: &str) -> Result<PublicKey, String> {
    let mut bytes = [0; 33];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "a public key")?;
    PublicKey::from_compressed(&bytes).map_err(|_| "a public key".to_owned())
}
