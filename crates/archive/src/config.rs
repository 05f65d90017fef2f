//! The section `[archive]`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use poste_service::config::{ByteSize, HumanDuration, Key, Section};
use poste_service::listener;
use poste_wire::Topic;
use serde::{Deserialize, Serialize};

use crate::quota::{DayBytes, QuotaLimits};
use crate::record::MAX_BODY_BYTES;
use crate::store::Retention;

/// Settings of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// Where records are kept: `local://DIRECTORY`.
    pub store: StoreUrl,
    /// Where the gRPC listens.
    pub grpc_listen: SocketAddr,
    /// Where operators call.
    pub admin_listen: SocketAddr,
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
    /// Records with an older creation time are retired; zero: none is for its age.
    pub max_age: HumanDuration,
    /// The oldest records are retired while the store's files are larger; zero: none is for its size.
    pub max_size: ByteSize,
    /// For the sake of `max_size` no younger record is retired: new ones are refused instead.
    pub min_age: HumanDuration,
    /// The topics that are kept, 8 hex digits each; none: all are.
    pub topics: Vec<String>,
    /// What one writer may store of records below 4 KiB in a rolling day; zero: as much as it likes.
    pub writer_quota_small: ByteSize,
    /// What one writer may store of records from 4 KiB to below 64 KiB in a rolling day; zero: as much as it likes.
    pub writer_quota_medium: ByteSize,
    /// What one writer may store of records from 64 KiB on in a rolling day; zero: as much as it likes.
    pub writer_quota_large: ByteSize,
    /// What all writers together may store of records below 4 KiB in a rolling day; zero: as much as they like.
    pub total_quota_small: ByteSize,
    /// What all writers together may store of records from 4 KiB to below 64 KiB in a rolling day; zero: an eighth of
    /// the largest size in force, and as much as they like where there is none.
    pub total_quota_medium: ByteSize,
    /// The same of records from 64 KiB on.
    pub total_quota_large: ByteSize,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            store: StoreUrl::Local(PathBuf::from("./poste-data/archive")),
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7200)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7201)),
            insecure: false,
            segment_size: ByteSize::mebibytes(256),
            segment_age: HumanDuration::from_secs(3600),
            queue_records: 32_768,
            queue_size: ByteSize::mebibytes(64),
            max_age: HumanDuration::from_secs(0),
            max_size: ByteSize(0),
            min_age: HumanDuration::from_secs(24 * 60 * 60),
            topics: Vec::new(),
            writer_quota_small: ByteSize(0),
            writer_quota_medium: ByteSize(0),
            writer_quota_large: ByteSize(0),
            total_quota_small: ByteSize(0),
            total_quota_medium: ByteSize(0),
            total_quota_large: ByteSize(0),
        }
    }
}

impl Section for ArchiveConfig {
    const NAME: &'static str = "archive";
    const KEYS: &'static [Key] = &[
        Key::new("store", "where records are kept: local://DIRECTORY"),
        Key::listener("grpc_listen", "address of the archive's gRPC"),
        Key::listener("admin_listen", "address of the archive's administration, for `poste ctl archive`"),
        Key::new("insecure", "allow plaintext gRPC on addresses other than loopback"),
        Key::new("segment_size", "size at which a journal file is sealed and the next one begun"),
        Key::new("segment_age", "age at which a journal file is sealed and the next one begun"),
        Key::new("queue_records", "records that may wait for the disk; writers wait beyond that"),
        Key::new("queue_size", "bytes of records that may wait for the disk; writers wait beyond that"),
        Key::new("max_age", "records that were made longer ago are retired (0s: none is for its age)"),
        Key::new(
            "max_size",
            "the oldest records are retired while the store's files are larger (0B: none is for its size)",
        ),
        Key::new(
            "min_age",
            "for max_size no younger record is retired, new ones are refused; at least the longest ttl that a gateway takes",
        ),
        Key::new("topics", "keep only records of these topics, 8 hex digits each (empty: of all)"),
        Key::new(
            "writer_quota_small",
            "bytes that one writer may store in a day in records below 4 KiB (0B: no limit)",
        ),
        Key::new(
            "writer_quota_medium",
            "bytes that one writer may store in a day in records of 4 KiB to below 64 KiB (0B: no limit)",
        ),
        Key::new(
            "writer_quota_large",
            "bytes that one writer may store in a day in records of 64 KiB and more (0B: no limit)",
        ),
        Key::new(
            "total_quota_small",
            "bytes that all writers may store in a day in records below 4 KiB (0B: no limit)",
        ),
        Key::new(
            "total_quota_medium",
            "bytes that all writers may store in a day in records of 4 KiB to below 64 KiB (0B: an eighth of max_size, if that is set)",
        ),
        Key::new(
            "total_quota_large",
            "bytes that all writers may store in a day in records of 64 KiB and more (0B: an eighth of max_size, if that is set)",
        ),
    ];

    fn validate(&self) -> Result<(), String> {
        for (setting, address) in
            [("archive.grpc_listen", self.grpc_listen), ("archive.admin_listen", self.admin_listen)]
        {
            listener::check_internal(setting, address, self.insecure).map_err(|error| error.to_string())?;
        }
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
        self.retention_rules().check(self.retention())?;
        for topic in &self.topics {
            parse_topic(topic)?;
        }
        for (setting, quota, least) in [
            ("writer_quota_small", self.writer_quota_small, MIN_QUOTA_SMALL),
            ("writer_quota_medium", self.writer_quota_medium, MIN_QUOTA_MEDIUM),
            ("writer_quota_large", self.writer_quota_large, MIN_QUOTA_LARGE),
            ("total_quota_small", self.total_quota_small, MIN_QUOTA_SMALL),
            ("total_quota_medium", self.total_quota_medium, MIN_QUOTA_MEDIUM),
            ("total_quota_large", self.total_quota_large, MIN_QUOTA_LARGE),
        ] {
            if quota.0 > 0 && quota < least {
                return Err(format!("{setting} is {quota}: write {least} or more, or 0B for the default"));
            }
        }
        Ok(())
    }
}

impl ArchiveConfig {
    /// How long records are kept, as far as these settings say.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            max_age: (!self.max_age.0.is_zero()).then_some(self.max_age.0),
            max_bytes: (self.max_size.0 > 0).then_some(self.max_size.0),
            min_age: self.min_age.0,
        }
    }

    /// The topics that are kept, or none for all of them. A text that is no topic, which validation refuses, is left
    /// out.
    #[must_use]
    pub fn keep_topics(&self) -> Option<HashSet<Topic>> {
        let topics = || self.topics.iter().filter_map(|topic| parse_topic(topic).ok()).collect();
        (!self.topics.is_empty()).then(topics)
    }

    pub(crate) fn retention_rules(&self) -> RetentionRules {
        RetentionRules { min_max_bytes: MIN_SEGMENTS.saturating_mul(self.segment_size.0) }
    }

    pub(crate) fn quota_limits(&self) -> QuotaLimits {
        let writer = DayBytes {
            small: self.writer_quota_small.0,
            medium: self.writer_quota_medium.0,
            large: self.writer_quota_large.0,
        };
        let total = DayBytes {
            small: self.total_quota_small.0,
            medium: self.total_quota_medium.0,
            large: self.total_quota_large.0,
        };
        QuotaLimits { writer, total }
    }
}

/// What a retention must be like, wherever it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetentionRules {
    /// Whole segments are retired: fewer of them than some would make the limit a coarse one.
    min_max_bytes: u64,
}

impl RetentionRules {
    /// Says in words what is wrong, by the names of the settings.
    pub(crate) fn check(self, retention: Retention) -> Result<(), String> {
        let Retention { max_age, max_bytes, min_age } = retention;
        if let Some(max_bytes) = max_bytes
            && max_bytes < self.min_max_bytes
        {
            let (size, least) = (ByteSize(max_bytes), ByteSize(self.min_max_bytes));
            return Err(format!(
                "max_size is {size}: write {least} or more (four times segment_size), a smaller segment_size, or 0B for \
                 no limit"
            ));
        }
        // The minimum age only limits what is retired for the sake of the size.
        if let (Some(max_age), Some(_)) = (max_age, max_bytes)
            && min_age > max_age
        {
            let (min_age, max_age) = (HumanDuration(min_age), HumanDuration(max_age));
            return Err(format!(
                "min_age is {min_age}: write {max_age} or less, which is max_age, or a longer max_age"
            ));
        }
        Ok(())
    }
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    text.parse()
        .map_err(|_| format!("topics names {text:?}: write 8 hex digits for each topic, as in 0a1b2c3d"))
}

/// The least of `max_size`, in segments.
const MIN_SEGMENTS: u64 = 4;
/// A quota lets in one record of the largest size of its class.
const MIN_QUOTA_SMALL: ByteSize = ByteSize(4 * 1024);
const MIN_QUOTA_MEDIUM: ByteSize = ByteSize(64 * 1024);
const MIN_QUOTA_LARGE: ByteSize = ByteSize(MAX_BODY_BYTES as u64);

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
            ("admin_listen", ["127.0.0.1:0", "[::1]:7201"]),
            ("max_age", ["0s", "30d"]),
            ("max_size", ["0B", "1GiB"]),
            ("min_age", ["0s", "60d"]),
            ("topics", ["", "0a1b2c3d, 0xffffffff"]),
            ("writer_quota_small", ["0B", "4KiB"]),
            ("writer_quota_medium", ["0B", "64KiB"]),
            ("writer_quota_large", ["0B", "2MiB"]),
            ("total_quota_small", ["0B", "4KiB"]),
            ("total_quota_medium", ["0B", "64KiB"]),
            ("total_quota_large", ["0B", "2MiB"]),
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
            ("admin_listen", "0.0.0.0:7201"),
            ("max_size", "1023MiB"),
            ("topics", "0a1b2c3"),
            ("writer_quota_small", "4095B"),
            ("writer_quota_medium", "63KiB"),
            ("writer_quota_large", "1MiB"),
            ("total_quota_small", "4095B"),
            ("total_quota_medium", "63KiB"),
            ("total_quota_large", "1MiB"),
        ] {
            let error = check(key, text).unwrap_err();
            assert!(
                error.starts_with("[archive]: ") && error.contains(key) && error.contains(text),
                "{error}"
            );
        }
    }

    #[test]
    fn a_minimum_age_above_the_maximum_is_refused_where_both_count() {
        let day = HumanDuration::from_secs(24 * 60 * 60);
        let config = ArchiveConfig { max_age: day, min_age: HumanDuration(2 * day.0), ..Default::default() };
        assert_eq!(config.validate(), Ok(()), "without a size nothing is retired for its sake");
        let config = ArchiveConfig { max_size: ByteSize::mebibytes(1024), ..config };
        let error = config.validate().unwrap_err();
        assert!(error.starts_with("min_age is 2days: write 1day or less"), "{error}");
        assert_eq!(ArchiveConfig { min_age: day, ..config }.validate(), Ok(()));
    }

    #[test]
    fn zero_stands_for_no_limit() {
        let config = ArchiveConfig::default();
        let day = config.min_age.0;
        assert_eq!(config.retention(), Retention { max_age: None, max_bytes: None, min_age: day });
        assert_eq!((config.quota_limits(), config.keep_topics()), (QuotaLimits::default(), None));
        let config = ArchiveConfig {
            max_age: HumanDuration(30 * day),
            max_size: ByteSize::mebibytes(4096),
            topics: vec!["0a1b2c3d".into(), "0x0A1B2C3D".into(), "ffffffff".into()],
            ..config
        };
        let kept = [Topic([0x0a, 0x1b, 0x2c, 0x3d]), Topic([0xff; 4])];
        assert_eq!(config.keep_topics(), Some(HashSet::from(kept)));
        let retention = Retention { max_age: Some(30 * day), max_bytes: Some(4 << 30), min_age: day };
        assert_eq!(config.retention(), retention);
        let config = ArchiveConfig {
            writer_quota_medium: ByteSize::mebibytes(2),
            total_quota_large: ByteSize::mebibytes(4),
            ..config
        };
        let writer = DayBytes { medium: 2 << 20, ..DayBytes::default() };
        let total = DayBytes { large: 4 << 20, ..DayBytes::default() };
        assert_eq!(config.quota_limits(), QuotaLimits { writer, total });
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
