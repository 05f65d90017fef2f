//! Values as people write them: sizes (`64MiB`), durations (`30s`), secrets, and text that becomes TOML.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use toml::Value;
use zeroize::Zeroize;

/// A number of bytes: `4096`, `512KiB`, `64MiB`, `1GiB`, also `10MB` (decimal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

/// From the largest unit down, so that the exact one is found first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many binary megabytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes, as memory counts it.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::Size(text.to_owned());
        let text_without_unit = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[text_without_unit.len()..];
        let number: u64 = text_without_unit.trim().parse().map_err(|_| error())?;
        let factor = match unit {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1,
        };
        number.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(name, factor): &(&str, u64)| name.contains('i') && self.0.is_multiple_of(*factor);
        match UNITS.iter().find(|unit| self.0 > 0 && exact(unit)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 64MiB")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number).map(ByteSize).map_err(|_| E::custom("a size is not negative"))
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

/// A span of time: `30s`, `1h 30m`, `250ms`, `40days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        humantime::parse_duration(text).map(Self).map_err(|_| ValueError::Duration(text.to_owned()))
    }
}

/// Exactly, and never in months and years, which are no whole numbers of days: `40days`, `1day 12h`, `1m 30s`.
impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        let days = seconds / 86_400;
        let parts = [
            (days, if days == 1 { "day" } else { "days" }),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(nanos / 1_000_000), "ms"),
            (u64::from(nanos / 1_000 % 1_000), "us"),
            (u64::from(nanos % 1_000), "ns"),
        ];
        let mut parts = parts.iter().filter(|(number, _)| *number > 0);
        let Some((number, unit)) = parts.next() else { return f.write_str("0s") };
        write!(f, "{number}{unit}")?;
        parts.try_for_each(|(number, unit)| write!(f, " {number}{unit}"))
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A text that no log and no `Debug` shows, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A text that is not the value it should be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// Not a size.
    #[error("{0:?} is not a size: write a number with B, KiB, MiB, GiB or TiB, for example 64MiB")]
    Size(String),
    /// Not a duration.
    #[error("{0:?} is not a duration: write numbers with ms, s, m, h or d, for example 30s")]
    Duration(String),
}

/// Text from the environment or a flag as the kind of TOML value that its setting's default has.
pub(super) fn typed(text: &str, default: Option<&Value>) -> Result<Value, &'static str> {
    match default {
        Some(Value::Integer(_)) => text.parse().map(Value::Integer).map_err(|_| "expected a whole number"),
        Some(Value::Float(_)) => text.parse().map(Value::Float).map_err(|_| "expected a number"),
        Some(Value::Boolean(_)) => text.parse().map(Value::Boolean).map_err(|_| "expected true or false"),
        Some(Value::Array(_)) => Ok(Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        )),
        _ => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, written) in [
            ("0", 0, "0B"),
            ("512", 512, "512B"),
            ("64MiB", 64 << 20, "64MiB"),
            ("1536KiB", 1536 << 10, "1536KiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("10 MB", 10_000_000, "10000000B"),
            ("2kB", 2000, "2000B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, written), "{text}");
            assert_eq!(written.parse(), Ok(size), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "64Mib", "99999999TiB", "1 2", "64MiB "] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        const DAY: u128 = 86_400_000;
        for (text, millis, written) in [
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "1m 30s"),
            ("250ms", 250, "250ms"),
            ("0s", 0, "0s"),
            ("24h", DAY, "1day"),
            ("40d", 40 * DAY, "40days"),
            ("365d", 365 * DAY, "365days"),
            ("1year", 365 * DAY + DAY / 4, "365days 6h"),
            ("36h 1s 5ms", DAY * 3 / 2 + 1_005, "1day 12h 1s 5ms"),
        ] {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!((duration.0.as_millis(), duration.to_string().as_str()), (millis, written), "{text}");
            assert_eq!(written.parse(), Ok(duration), "{text}");
        }
        for text in ["", "30", "s", "-1s"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_duration_is_read_back_as_it_was() {
        let powers = (0..64).map(|power| 1_u64 << power);
        for seconds in powers.flat_map(|power| [power - 1, power, power + 86_399]).chain([u64::MAX]) {
            for nanos in [0, 1, 1_000, 999_999, 1_000_000, 7_008_009, 999_999_999] {
                let duration = HumanDuration(Duration::new(seconds, nanos));
                let written = duration.to_string();
                assert_eq!(written.parse(), Ok(duration), "{written}");
            }
        }
    }

    #[test]
    fn a_secret_does_not_show() {
        assert_eq!(format!("{:?}", Secret::new("status-offline-inbox")), "Secret(…)");
    }
}
