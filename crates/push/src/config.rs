//! The section `[push]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use poste_codec::SecretKey;
use poste_provider::{GorushProvider, GorushSettings};
use poste_rpc::client;
use poste_service::config::{ByteSize, HumanDuration, Key, Secret, Section};
use poste_service::listener;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::server::{LimitSettings, Rate, Settings};
use crate::store::{Caps, Options, Retention};

/// Room for what the deepest look at a tree of pages needs.
const MIN_CACHE: ByteSize = ByteSize::mebibytes(1);
/// The server's own two topics, and those of some owners.
const MIN_TAIL_TOPICS: usize = 4;
/// What one stream of the archive takes.
const MAX_TAIL_TOPICS: usize = 10_000;
/// A device that was away for less must still be registered when it comes back.
const MIN_REGISTRATION_RETENTION: HumanDuration = HumanDuration::from_secs(30 * DAY);
/// Archives and mailservers keep envelopes for a month, as a rule.
const MIN_TOMBSTONE_RETENTION: HumanDuration = HumanDuration::from_secs(60 * DAY);
/// What is asked for again when its claim is forgotten must be too old to ring: half of the least time of claims.
const MAX_REQUEST_AGE: HumanDuration = HumanDuration::from_secs(DAY / 2);
/// A message that is repeated later than this after its claim was forgotten notifies again.
const MIN_CLAIM_RETENTION: HumanDuration = HumanDuration::from_secs(DAY);
/// A request is on its way for seconds, and was made by a clock of its own.
const MIN_REQUEST_AGE: HumanDuration = HumanDuration::from_secs(10);
/// As long as the longest way of an answer.
const MIN_ANSWER_RETENTION: HumanDuration = HumanDuration::from_secs(3600);
const ANSWER_TTLS: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);
const DAY: u64 = 24 * 60 * 60;
const STORE_ID_BYTES: usize = 16;

/// The settings of a push server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushConfig {
    /// The archive's gRPC.
    pub archive: String,
    /// The id of the archive's store, hexadecimal; none: the one that was read until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_store: Option<String>,
    /// The gateways' gRPC, in the order in which they are asked.
    pub gateways: Vec<String>,
    /// The directory of what must survive: the identity, and the store of registrations.
    pub data: PathBuf,
    /// The secret key that clients know the server by, 64 hexadecimal digits; none: the file in `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Secret>,
    /// Who makes devices ring: `http://HOST:PORT` of a gorush, or `directory:///PATH`.
    pub provider: ProviderUrl,
    /// Where other services call.
    pub grpc_listen: SocketAddr,
    /// Where operators call.
    pub admin_listen: SocketAddr,
    /// Where gorush reports failed pushes.
    pub feedback_listen: SocketAddr,
    /// Allows the first two on addresses other than loopback, in plaintext.
    pub insecure: bool,
    /// Up to so many topics are asked of the archive by name; beyond it everything is read, and what is not wanted left out.
    pub tail_topics: usize,
    /// Messages that are dealt with side by side.
    pub max_in_progress: usize,
    /// The ttl of the envelopes that answers travel in.
    pub answer_ttl: HumanDuration,
    /// Requests that were made longer ago are answered, but notify nobody.
    pub max_request_age: HumanDuration,
    /// How long it is remembered that a device was notified of a message.
    pub claim_retention: HumanDuration,
    /// How long answers are remembered, to be repeated.
    pub answer_retention: HumanDuration,
    /// Registrations that were neither renewed nor reached for so long are forgotten; zero: none is.
    pub registration_retention: HumanDuration,
    /// The versions of forgotten registrations are kept for so long.
    pub tombstone_retention: HumanDuration,
    /// Registrations of one key that are taken in a minute, on average; 0: no limit.
    pub registrations_per_minute: u32,
    /// First registrations of all keys together that are taken in a minute, on average; 0: no limit.
    pub new_owners_per_minute: u32,
    /// Long answers to queries about one owner in a minute, on average; 0: no limit.
    pub queries_per_minute: u32,
    /// Notifications to one owner's devices in a minute, on average; 0: no limit.
    pub notifications_per_minute: u32,
    /// Devices may be named by any text; false: by UUIDs, as all known clients do.
    pub any_installation_id: bool,
    /// A registration with `enabled` unset is notified of nothing; false: the field is ignored, as deployed servers do.
    pub honour_enabled: bool,
    /// What each of the store's two databases may keep in memory.
    pub cache_size: ByteSize,
    /// Registrations of all owners that are kept.
    pub max_registrations: u64,
}

impl Default for PushConfig {
    fn default() -> Self {
        let Settings { any_installation_id, honour_enabled, max_request_age, limits, .. } =
            Settings::default();
        Self {
            archive: "http://127.0.0.1:7200".to_owned(),
            archive_store: None,
            gateways: vec!["http://127.0.0.1:7100".to_owned()],
            data: PathBuf::from("./poste-data/push"),
            identity: None,
            provider: ProviderUrl::Gorush(GorushSettings::default().url),
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 7300)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7301)),
            feedback_listen: SocketAddr::from(([127, 0, 0, 1], 7302)),
            insecure: false,
            tail_topics: 8000,
            max_in_progress: 256,
            answer_ttl: HumanDuration::from_secs(15),
            max_request_age: HumanDuration(max_request_age),
            claim_retention: HumanDuration::from_secs(40 * DAY),
            answer_retention: HumanDuration::from_secs(7 * DAY),
            registration_retention: HumanDuration::from_secs(0),
            tombstone_retention: HumanDuration::from_secs(365 * DAY),
            registrations_per_minute: per_minute(limits.registrations),
            new_owners_per_minute: per_minute(limits.new_owners),
            queries_per_minute: per_minute(limits.queries),
            notifications_per_minute: per_minute(limits.notifications),
            any_installation_id,
            honour_enabled,
            cache_size: ByteSize(Options::default().cache_bytes as u64),
            max_registrations: Caps::default().all_registrations,
        }
    }
}

impl Section for PushConfig {
    const NAME: &'static str = "push";
    const KEYS: &'static [Key] = &[
        Key::new("archive", "the archive's gRPC, http://HOST:PORT"),
        Key::new(
            "archive_store",
            "id of the store to go on with when the archive has another one than before; default: the one that was read until now",
        ),
        Key::new(
            "gateways",
            "the gateways' gRPC, http://HOST:PORT; answers go out by the first that takes them",
        ),
        Key::new(
            "data",
            "directory of the identity (identity.key) and the registrations; made if it is missing",
        ),
        Key::secret(
            "identity",
            "secret key that clients know the server by, 64 hexadecimal digits; default: the file identity.key in data, made once",
        ),
        Key::new(
            "provider",
            "who makes devices ring: http://HOST:PORT of a gorush, or directory:///PATH for files (development)",
        ),
        Key::listener("grpc_listen", "where other services call (ServerInfo)"),
        Key::listener("admin_listen", "where operators call, for `poste ctl push`"),
        Key::listener("feedback_listen", "where gorush reports failed pushes (core.feedback_hook_url)"),
        Key::new("insecure", "allow plaintext gRPC on addresses other than loopback"),
        Key::new(
            "tail_topics",
            "up to so many topics are asked of the archive by name; beyond it everything is read and filtered here",
        ),
        Key::new("max_in_progress", "messages that are dealt with side by side"),
        Key::new("answer_ttl", "ttl of the envelopes that answers travel in"),
        Key::new("max_request_age", "requests that were made longer ago are answered, but notify nobody"),
        Key::new(
            "claim_retention",
            "how long it is remembered that a device was notified of a message; longer than archives and mailservers keep requests",
        ),
        Key::new("answer_retention", "how long answers are remembered, to be repeated"),
        Key::new(
            "registration_retention",
            "registrations that were neither renewed nor reached for so long are forgotten (0s: none is)",
        ),
        Key::new(
            "tombstone_retention",
            "how long the versions of forgotten registrations are kept; far longer than archives keep their envelopes",
        ),
        Key::new(
            "registrations_per_minute",
            "registrations of one key that are taken, on average (0: no limit)",
        ),
        Key::new(
            "new_owners_per_minute",
            "first registrations of all keys together that are taken, on average (0: no limit)",
        ),
        Key::new(
            "queries_per_minute",
            "answers of more than 64 KiB to queries about one owner, on average (0: no limit)",
        ),
        Key::new(
            "notifications_per_minute",
            "notifications to one owner's devices, on average (0: no limit)",
        ),
        Key::new("any_installation_id", "take devices named by any text, not by UUIDs only"),
        Key::new(
            "honour_enabled",
            "notify no device that registered with `enabled` unset; some clients never set it",
        ),
        Key::new("cache_size", "memory for each of the store's two databases"),
        Key::new("max_registrations", "registrations that are kept; new owners are refused beyond that"),
    ];

    fn validate(&self) -> Result<(), String> {
        for (setting, address) in
            [("push.grpc_listen", self.grpc_listen), ("push.admin_listen", self.admin_listen)]
        {
            listener::check_internal(setting, address, self.insecure).map_err(|error| error.to_string())?;
        }
        client::check_address(&self.archive).map_err(|error| format!("archive: {error}"))?;
        if self.gateways.is_empty() {
            return Err("gateways is empty: name one, or nobody gets an answer".to_owned());
        }
        for gateway in &self.gateways {
            client::check_address(gateway).map_err(|error| format!("gateways: {error}"))?;
        }
        self.archive_store()?;
        self.secret_key()?;
        for (setting, value, least, most) in [
            ("tail_topics", self.tail_topics, MIN_TAIL_TOPICS, MAX_TAIL_TOPICS),
            ("max_in_progress", self.max_in_progress, 1, 1024),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("{setting} is {value}: write {least} to {most}"));
            }
        }
        if self.max_request_age > MAX_REQUEST_AGE {
            return Err(format!(
                "max_request_age is {}: write {MAX_REQUEST_AGE} or less",
                self.max_request_age
            ));
        }
        if !ANSWER_TTLS.contains(&self.answer_ttl.0) {
            return Err(format!("answer_ttl is {}: write 5s to 1h", self.answer_ttl));
        }
        for (setting, value, least) in [
            ("max_request_age", self.max_request_age, MIN_REQUEST_AGE),
            ("claim_retention", self.claim_retention, MIN_CLAIM_RETENTION),
            ("answer_retention", self.answer_retention, MIN_ANSWER_RETENTION),
            ("tombstone_retention", self.tombstone_retention, MIN_TOMBSTONE_RETENTION),
        ] {
            if value < least {
                return Err(format!("{setting} is {value}: write {least} or more"));
            }
        }
        let registrations = self.registration_retention;
        if !registrations.0.is_zero() && registrations < MIN_REGISTRATION_RETENTION {
            return Err(format!(
                "registration_retention is {registrations}: write {MIN_REGISTRATION_RETENTION} or more, or 0s to keep \
                 all"
            ));
        }
        if self.max_registrations == 0 {
            return Err("max_registrations is 0: write 1 or more".to_owned());
        }
        if self.cache_size < MIN_CACHE {
            return Err(format!("cache_size is {}: write {MIN_CACHE} or more", self.cache_size));
        }
        Ok(())
    }
}

impl PushConfig {
    /// The archive's store that the setting names.
    pub(crate) fn archive_store(&self) -> Result<Option<[u8; STORE_ID_BYTES]>, String> {
        let Some(text) = &self.archive_store else { return Ok(None) };
        let mut store = [0; STORE_ID_BYTES];
        hex::decode_to_slice(text, &mut store).map_err(|_| {
            "archive_store: it is the store's id of 32 hexadecimal digits, as `poste ctl archive stats` shows it"
        })?;
        Ok(Some(store))
    }

    /// The key that the setting holds.
    pub fn secret_key(&self) -> Result<Option<SecretKey>, String> {
        let Some(text) = &self.identity else { return Ok(None) };
        let mut bytes = Zeroizing::new([0; 32]);
        let decoded = hex::decode_to_slice(text.expose().trim(), bytes.as_mut()).ok();
        let key = decoded.and_then(|()| SecretKey::from_bytes(&bytes).ok());
        Ok(Some(key.ok_or("identity: it is the 64 hexadecimal digits of a secp256k1 key")?))
    }

    pub(crate) fn settings(&self) -> Settings {
        let defaults = Settings::default();
        Settings {
            any_installation_id: self.any_installation_id,
            honour_enabled: self.honour_enabled,
            max_request_age: self.max_request_age.into(),
            limits: LimitSettings {
                registrations: rate(self.registrations_per_minute, defaults.limits.registrations),
                new_owners: rate(self.new_owners_per_minute, defaults.limits.new_owners),
                queries: rate(self.queries_per_minute, defaults.limits.queries),
                notifications: rate(self.notifications_per_minute, defaults.limits.notifications),
            },
            ..defaults
        }
    }

    pub(crate) fn options(&self) -> Options {
        let caps = Caps { all_registrations: self.max_registrations, ..Caps::default() };
        Options { caps, cache_bytes: self.cache_size.as_usize() }
    }

    /// What is old enough at a time, since 1970, to be forgotten.
    pub(crate) fn retention(&self, now: Duration) -> Retention {
        let before = |retention: HumanDuration| {
            if retention.0.is_zero() { 0 } else { now.saturating_sub(retention.0).as_secs() }
        };
        Retention {
            claims_before_unix_s: before(self.claim_retention),
            answers_before_unix_s: before(self.answer_retention),
            registrations_before_unix_s: before(self.registration_retention),
            tombstones_before_unix_s: before(self.tombstone_retention),
        }
    }
}

/// How many a rate is in a minute.
fn per_minute(rate: Rate) -> u32 {
    let each_ms = rate.every.as_millis().max(1);
    u32::try_from(60_000 / each_ms).unwrap_or(u32::MAX)
}

/// A rate of so many in a minute, whose burst takes as long to fill as the default one's.
fn rate(in_a_minute: u32, default: Rate) -> Rate {
    if in_a_minute == 0 {
        return Rate::UNLIMITED;
    }
    let burst = u64::from(default.burst) * u64::from(in_a_minute) / u64::from(per_minute(default).max(1));
    Rate {
        burst: u32::try_from(burst).unwrap_or(u32::MAX).max(1),
        every: Duration::from_secs(60) / in_a_minute,
    }
}

/// Who makes devices ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProviderUrl {
    /// A gorush at this URL.
    Gorush(String),
    /// Files in this directory, for development.
    Directory(PathBuf),
}

const DIRECTORY: &str = "directory://";

impl FromStr for ProviderUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(DIRECTORY) {
            Some("") => Err(format!("{text:?} names no directory: write directory:///PATH")),
            Some(path) => Ok(Self::Directory(path.into())),
            None => {
                GorushProvider::check_url(text).map_err(|error| error.to_string())?;
                Ok(Self::Gorush(text.to_owned()))
            }
        }
    }
}

impl TryFrom<String> for ProviderUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ProviderUrl> for String {
    fn from(url: ProviderUrl) -> Self {
        match url {
            ProviderUrl::Gorush(url) => url,
            ProviderUrl::Directory(path) => format!("{DIRECTORY}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use poste_service::config::Schema;

    use super::*;

    #[test]
    fn fields_and_keys_agree() {
        Schema::new().with::<PushConfig>().verify().unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = |change: fn(&mut PushConfig), named: &str| {
            let mut config = PushConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(named), "{error}");
        };
        refused(|config| config.gateways.clear(), "gateways");
        refused(|config| config.gateways.push("gateway".into()), "gateways");
        refused(|config| config.archive = "archive".into(), "archive");
        refused(|config| config.archive_store = Some("7".into()), "archive_store");
        refused(|config| config.identity = Some(Secret::new("00".repeat(32))), "identity");
        refused(|config| config.grpc_listen = ([0, 0, 0, 0], 7300).into(), "push.insecure = true");
        refused(|config| config.tail_topics = 10_001, "tail_topics");
        refused(|config| config.max_in_progress = 0, "max_in_progress");
        refused(|config| config.answer_ttl = HumanDuration::from_secs(1), "answer_ttl");
        refused(|config| config.claim_retention = HumanDuration::from_secs(0), "claim_retention");
        refused(|config| config.answer_retention = HumanDuration::from_secs(0), "answer_retention");
        refused(|config| config.tombstone_retention = HumanDuration::from_secs(DAY), "tombstone_retention");
        refused(|config| config.max_request_age = HumanDuration::from_secs(0), "max_request_age");
        refused(|config| config.max_request_age = HumanDuration::from_secs(DAY), "max_request_age");
        refused(|config| config.max_registrations = 0, "max_registrations");
        refused(|config| config.registration_retention = HumanDuration::from_secs(DAY), "0s to keep all");
        refused(|config| config.cache_size = ByteSize(1), "cache_size");
    }

    #[test]
    fn a_provider_is_an_address_or_a_directory() {
        for text in ["http://gorush:8088", "directory:///var/lib/poste/rings"] {
            assert_eq!(String::from(text.parse::<ProviderUrl>().unwrap()), text);
        }
        for text in ["directory://", "https://gorush:8088", "gorush", ""] {
            assert!(text.parse::<ProviderUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_those_of_the_server_unless_they_are_set() {
        let mut config = PushConfig::default();
        assert_eq!(config.settings().limits, LimitSettings::default());
        config.notifications_per_minute = 0;
        config.queries_per_minute = 1;
        let limits = config.settings().limits;
        assert_eq!(limits.notifications, Rate::UNLIMITED);
        assert_eq!(limits.queries, Rate { burst: 1, every: Duration::from_secs(60) });
    }

    #[test]
    fn nothing_is_forgotten_where_nothing_is_said() {
        let retention = PushConfig::default().retention(Duration::from_secs(100 * DAY));
        assert_eq!(retention.claims_before_unix_s, 60 * DAY);
        assert_eq!(retention.registrations_before_unix_s, 0);
    }
}
