//! The section `[archive]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use poste_service::config::{ByteSize, HumanDuration, Key, Section};
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
}

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
    fn stores_are_named_by_url() {
        let read = |url: &str| StoreUrl::try_from(url.to_owned());
        assert_eq!(read("local:///var/lib/x"), Ok(StoreUrl::Local("/var/lib/x".into())));
        assert_eq!(read("local://./x"), Ok(StoreUrl::Local("./x".into())));
        for wrong in ["", "local://", "/var/lib/x", "postgres://db"] {
            assert!(read(wrong).unwrap_err().contains("local://DIRECTORY"), "{wrong}");
        }
    }
}
