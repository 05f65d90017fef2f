//! How a receiver's state stands in its file: JSON of one format.

use std::collections::{BTreeMap, BTreeSet};

use poste_codec::PublicKey;
use poste_wire::status::{AccessToken, InstallationId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{ReceiverState, Registration, Standing};
use crate::notify::file;
use crate::notify::profile::{Device, Profile};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    owner: String,
    installation: String,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registration: Option<RegistrationForm>,
    servers: BTreeMap<String, StandingForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistrationForm {
    access_token: String,
    device: DeviceForm,
    contacts_only: bool,
    contacts: Vec<String>,
    blocked: Vec<String>,
    muted: BTreeSet<String>,
    joined: BTreeSet<String>,
    block_mentions: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum DeviceForm {
    Apn { token: String, topic: String },
    Firebase { token: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StandingForm {
    Registering,
    /// The version.
    Registered(u64),
    Leaving,
}

pub(super) fn encode(owner: &PublicKey, state: &ReceiverState) -> Zeroizing<Vec<u8>> {
    let servers = state.servers.iter().map(|(server, standing)| {
        let standing = match *standing {
            Standing::Registering => StandingForm::Registering,
            Standing::Registered { version } => StandingForm::Registered(version),
            Standing::Leaving => StandingForm::Leaving,
        };
        (write_key(server), standing)
    });
    let file = File {
        format: FORMAT,
        owner: write_key(owner),
        installation: state.installation.to_string(),
        version: state.version,
        registration: state.registration.as_ref().map(write_registration),
        servers: servers.collect(),
    };
    file::encode(&file)
}

/// Whose it is and what is in it, or what is wrong with it. Nothing of its content is in the error.
pub(super) fn decode(bytes: &[u8]) -> Result<(PublicKey, ReceiverState), String> {
    let file: File = file::decode(bytes, FORMAT)?;
    let servers = file.servers.iter().map(|(server, standing)| {
        let standing = match *standing {
            StandingForm::Registering => Standing::Registering,
            StandingForm::Registered(version) => Standing::Registered { version },
            StandingForm::Leaving => Standing::Leaving,
        };
        Ok((read_key(server)?, standing))
    });
    let state = ReceiverState {
        installation: InstallationId::uuid(&file.installation).map_err(|_| "the installation id")?,
        version: file.version,
        servers: servers.collect::<Result<_, String>>()?,
        registration: file.registration.map(read_registration).transpose()?,
    };
    let stays = |standing: &Standing| *standing != Standing::Leaving;
    if state.registration.is_none() && state.servers.values().any(stays) {
        return Err("a server without a registration".to_owned());
    }
    Ok((read_key(&file.owner)?, state))
}

fn write_registration(Registration { profile, token }: &Registration) -> RegistrationForm {
    RegistrationForm {
        access_token: token.as_str().to_owned(),
        device: match profile.device.clone() {
            Device::Apn { token, topic } => DeviceForm::Apn { token, topic },
            Device::Firebase { token } => DeviceForm::Firebase { token },
        },
        contacts_only: profile.contacts_only,
        contacts: profile.contacts.iter().map(write_key).collect(),
        blocked: profile.blocked.iter().map(write_key).collect(),
        muted: profile.muted.clone(),
        joined: profile.joined.clone(),
        block_mentions: profile.block_mentions,
    }
}

fn read_registration(form: RegistrationForm) -> Result<Registration, String> {
    let keys = |texts: &[String]| texts.iter().map(|text| read_key(text)).collect::<Result<_, _>>();
    let profile = Profile {
        device: match form.device {
            DeviceForm::Apn { token, topic } => Device::Apn { token, topic },
            DeviceForm::Firebase { token } => Device::Firebase { token },
        },
        contacts_only: form.contacts_only,
        contacts: keys(&form.contacts)?,
        blocked: keys(&form.blocked)?,
        muted: form.muted,
        joined: form.joined,
        block_mentions: form.block_mentions,
    };
    let token = AccessToken::uuid(&form.access_token).map_err(|_| "the access token")?;
    profile.check().map_err(|error| error.to_string())?;
    Ok(Registration { profile, token })
}

fn write_key(key: &PublicKey) -> String {
    hex::encode(key.to_compressed())
}

fn read_key(text: &str) -> Result<PublicKey, String> {
    let mut bytes = [0; 33];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "a key")?;
    Ok(PublicKey::from_compressed(&bytes).map_err(|_| "a key")?)
}
