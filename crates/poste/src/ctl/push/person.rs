//! `poste ctl push registration|forget`: what is kept of one person, and its end.

use std::process::ExitCode;
use std::str::FromStr;

use bytes::Bytes;
use clap::{Arg, ArgMatches, Command, value_parser};
use poste_codec::PublicKey;
use poste_rpc::push::v1;
use poste_wire::status::{HashedPublicKey, InstallationId};
use serde_json::json;

use super::super::confirm::{is_meant, yes_arg};
use super::super::output::{count, size, table, time, time_or_dash};
use super::super::{SHORT, common_args, output};
use super::admin;
use crate::USAGE;

/// `registration`.
pub(super) fn registration_command() -> Command {
    Command::new("registration")
        .about("Shows which devices of a person are registered, without tokens or lists")
        .arg(person_arg())
        .args(common_args(SHORT))
}

/// `forget`.
pub(super) fn forget_command() -> Command {
    let installation = Arg::new("installation")
        .long("installation")
        .value_name("ID")
        .value_parser(|text: &str| InstallationId::any(text))
        .help("only this device [default: all of the person's]");
    Command::new("forget")
        .about("Forgets a person's devices, so that nothing on disk can tell their tokens any more")
        .after_help(
            "The person's app registers again when it starts, or when one of its settings changes. Exit code 3 when \
             there is nothing to forget.",
        )
        .arg(person_arg())
        .arg(installation)
        .arg(yes_arg())
        .args(common_args(SHORT))
}

fn person_arg() -> Arg {
    Arg::new("person")
        .value_name("KEY")
        .required(true)
        .value_parser(value_parser!(Person))
        .help("the person's public key (66 or 130 hex digits), or its hash as servers keep it (128 digits)")
}

/// Who is meant, as the server knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Person(HashedPublicKey);

impl Person {
    fn of(matches: &ArgMatches) -> Bytes {
        let person: &Self = matches.get_one("person").expect("clap requires it");
        Bytes::copy_from_slice(person.0.as_bytes())
    }
}

impl FromStr for Person {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it is 66 or 130 hex digits of a public key, or the 128 of its hash".to_owned();
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).map_err(|_| wrong())?;
        let of_key = |key: Result<PublicKey, _>| {
            key.map(|key| HashedPublicKey::of(&key)).map_err(|_: poste_codec::KeyError| wrong())
        };
        let hash = match (bytes.len(), bytes.first()) {
            (33, _) => of_key(PublicKey::from_compressed(bytes[..].try_into().map_err(|_| wrong())?))?,
            (65, Some(4)) => of_key(PublicKey::from_bytes(&bytes[1..]))?,
            (64, _) => HashedPublicKey::try_from(&bytes[..]).map_err(|error| error.to_string())?,
            _ => return Err(wrong()),
        };
        Ok(Self(hash))
    }
}

/// Runs `registration`.
pub(super) async fn registration(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = admin(matches)?;
    let request = v1::RegistrationRequest { hashed_key: Person::of(matches) };
    let devices = service.answer(client.registration(request)).await?.devices;
    if matches.get_flag("json") {
        let device = |device: &v1::Device| {
            json!({
                "installation_id": device.installation_id,
                "version": device.version,
                "token_type": token_type(device),
                "registered_ns": device.registered_ns,
                "reached_ns": device.reached_ns,
                "data_bytes": device.data_bytes,
            })
        };
        output::json(&json!({ "devices": devices.iter().map(device).collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |device: &v1::Device| {
        [
            device.installation_id.clone(),
            device.version.to_string(),
            token_type(device).to_owned(),
            time(device.registered_ns),
            time_or_dash(device.reached_ns),
            size(device.data_bytes),
        ]
    };
    let rows: Vec<_> = devices.iter().map(row).collect();
    let heads = ["installation", "version", "token", "registered", "last reached", "size"];
    output::lines(table(heads, &["installation", "token", "registered", "last reached"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn token_type(device: &v1::Device) -> &'static str {
    match device.token_type() {
        v1::TokenType::Apn => "apn",
        v1::TokenType::Firebase => "firebase",
        v1::TokenType::Unspecified => "unknown",
    }
}

/// Runs `forget`.
pub(super) async fn forget(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (mut service, mut client) = admin(matches)?;
    let hashed_key = Person::of(matches);
    let installation: Option<String> =
        matches.get_one::<InstallationId>("installation").map(ToString::to_string);
    let request = v1::RegistrationRequest { hashed_key: hashed_key.clone() };
    let devices = service.answer(client.registration(request)).await?.devices;
    let is_named =
        |device: &&v1::Device| installation.as_ref().is_none_or(|id| *id == device.installation_id);
    let named: Vec<_> = devices.iter().filter(is_named).collect();
    let about_to = named.iter().map(|device| {
        let (token, since) = (token_type(device), time(device.registered_ns));
        format!("this forgets {} ({token}), registered {since}", device.installation_id)
    });
    // What is not there is told by the server.
    if !named.is_empty() && !is_meant(matches, &mut service, &about_to.collect::<Vec<_>>()).await? {
        return Ok(ExitCode::from(USAGE));
    }
    let request = v1::ForgetRequest { hashed_key, installation_id: installation };
    let forgotten = service.answer(client.forget(request)).await?.forgotten;
    if matches.get_flag("json") {
        output::json(&json!({ "forgotten": forgotten }))?;
    } else {
        output::lines([format!("{} forgotten", count(forgotten, "registration"))])?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use poste_codec::SecretKey;

    use super::*;

    #[test]
    fn a_person_is_named_by_key_or_hash() {
        let key = SecretKey::from_bytes(&[7; 32]).unwrap().public();
        let hash = HashedPublicKey::of(&key);
        let names = [hex::encode(key.to_compressed()), hex::encode(key.to_sec1()), hash.to_string()];
        for name in names.iter().flat_map(|name| [name.clone(), format!("0x{name}")]) {
            assert_eq!(name.parse::<Person>(), Ok(Person(hash)), "{name}");
        }
        let no_key = "04".repeat(65);
        for wrong in ["", "xyz", "02", &no_key, &names[0][2..], &names[1].replacen("04", "05", 1)] {
            assert!(wrong.parse::<Person>().is_err(), "{wrong}");
        }
    }
}
