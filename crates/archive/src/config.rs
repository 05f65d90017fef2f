//! The section `[archive]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use poste_service::config::{ByteSize, HumanDuration, Key, Section};
use poste_service::listener;
use serde::{Deserialize, Serialize};

/// Settings of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// Where records are kept: `local://DIRECTORY`.
    pub store: StoreUrl,
    /// Where the gRPC listens.
    pub grpc_listen: SocketAddr,
    /// Consent to plaintext gRPC beyond loopback.
    pub insecure: bool,
    /// A journal file is sealed before it would grow beyond this.
    pub segment_size: ByteSize,
    /// A journal file is sealed when it is this old.
    pub segment_age: HumanDuration,
    /// The most records that wait for the disk.
    pub queue_records: usize,
    /// The most bytes of bodies that wait for the disk.
    pub queue_size: ByteSize,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            store: StoreUrl::Local(PathBuf::from("./poste-data/archive")),
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7200)),
            insecure: false,
            segment_size: ByteSize::mebibytes(256),
            segment_age: HumanDuration::from_secs(3600),
            queue_records: 32_768,
            queue_size: ByteSize::mebibytes(64),
        }
    }
}

impl Section for ArchiveConfig {
    const NAME: &'static str = "archive";
    const KEYS: &'static [Key] = &[
        Key::new("store", "where records are kept: local://DIRECTORY"),
        Key::listener("grpc_listen", "address of the archive's gRPC"),
        Key::new("insecure", "allow plaintext gRPC on an address other than loopback"),
        Key::new("segment_size", "size at which a journal file is sealed and the next one begun"),
        Key::new("segment_age", "age at which a journal file is sealed and the next one begun"),
        Key::new("queue_records", "records that may wait for the disk; writers wait beyond that"),
        Key::new("queue_size", "bytes of records that may wait for the disk; writers wait beyond that"),
    ];

    fn validate(&self) -> Result<(), String> {
        listener::check_internal("archive.grpc_listen", self.grpc_listen, self.insecure)
            .map_err(|error| error.to_string())?;
        let Self { segment_size, segment_age, queue_records, queue_size, .. } = self;
        if !(MIN_SEGMENT_SIZE..=MAX_SEGMENT_SIZE).contains(segment_size) {
            return Err(format!(
                "segment_size is {segment_size}: write {MIN_SEGMENT_SIZE} to {MAX_SEGMENT_SIZE}"
            ));
        }
        if *segment_age < MIN_SEGMENT_AGE {
            return Err(format!("segment_age is {segment_age}: write {MIN_SEGMENT_AGE} or more"));
        }
        if !(MIN_QUEUE_RECORDS..=MAX_QUEUE_RECORDS).contains(queue_records) {
            return Err(format!(
                "queue_records is {queue_records}: write {MIN_QUEUE_RECORDS} to {MAX_QUEUE_RECORDS}"
            ));
        }
        if *queue_size < MIN_QUEUE_SIZE {
            return Err(format!("queue_size is {queue_size}: write {MIN_QUEUE_SIZE} or more"));
        }
        Ok(())
    }
}

const MIN_SEGMENT_SIZE: ByteSize = ByteSize::mebibytes(1);
/// Places in a segment are 32 bits, and a group may stand behind a full one.
const MAX_SEGMENT_SIZE: ByteSize = ByteSize::mebibytes(2048);
const MIN_SEGMENT_AGE: HumanDuration = HumanDuration::from_secs(1);
/// The largest batch of a writer.
const MIN_QUEUE_RECORDS: usize = 4096;
const MAX_QUEUE_RECORDS: usize = 1_000_000;
/// Two of the largest batches of a writer.
const MIN_QUEUE_SIZE: ByteSize = ByteSize::mebibytes(8);

/// Which store keeps the records, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StoreUrl {
    /// `local://DIRECTORY`: journal files in a directory of this machine.
    Local(PathBuf),
}

impl StoreUrl {
    const LOCAL: &str = "local://";
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        match url.strip_prefix(Self::LOCAL) {
            Some(dir) if !dir.is_empty() => Ok(Self::Local(PathBuf::from(dir))),
            _ => Err(format!(
                "{url:?} is not a store: write local://DIRECTORY, as in local:///var/lib/poste/archive"
            )),
        }
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> Self {
        match url {
            StoreUrl::Local(dir) => format!("{}{}", StoreUrl::LOCAL, dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use poste_service::config::Schema;

    use super::*;

    #[test]
    fn the_section_is_well_formed() {
        Schema::new().with::<ArchiveConfig>().verify().unwrap();
    }

    #[test]
    fn settings_that_an_archive_cannot_run_with_are_named() {
        let sources = |key: &'static str, text: &str| poste_service::config::Sources {
            flags: vec![(poste_service::config::Name { section: "archive", key }, text.to_owned())],
            ..Default::default()
        };
        let check = |key, text: &str| {
            let config = Schema::new().with::<ArchiveConfig>().load(&sources(key, text)).unwrap();
            config.check().map_err(|error| error.to_string())
        };
        for (key, fits) in [
            ("queue_records", ["4096", "1000000"]),
            ("queue_size", ["8MiB", "1GiB"]),
            ("segment_size", ["1MiB", "2GiB"]),
            ("segment_age", ["1s", "30d"]),
            ("grpc_listen", ["127.0.0.1:0", "[::1]:7200"]),
        ] {
            for text in fits {
                assert_eq!(check(key, text), Ok(()), "{key} {text}");
            }
        }
        for (key, text) in [
            ("queue_records", "4095"),
            ("queue_records", "1000001"),
            ("queue_size", "8388607B"),
            ("segment_size", "1048575B"),
            ("segment_size", "2049MiB"),
            ("segment_age", "999ms"),
            ("grpc_listen", "0.0.0.0:7200"),
        ] {
            let error = check(key, text).unwrap_err();
            assert!(
                error.starts_with("[archive]: ") && error.contains(key) && error.contains(text),
                "{error}"
            );
        }
    }

    #[test]
    fn stores_are_named_by_url() {
        let read = |url: &str| StoreUrl::try_from(url.to_owned());
        assert_eq!(read("local:///var/lib/x"), Ok(StoreUrl::Local("/var/lib/x".into())));
        assert_eq!(read("local://./x"), Ok(StoreUrl::Local("./x".into())));
        for wrong in ["", "local://", "/var/lib/x", "postgres://db"] {
            assert!(read(wrong).unwrap_err().contains("local://DIRECTORY"), "{wrong}");
        }
    }
}
