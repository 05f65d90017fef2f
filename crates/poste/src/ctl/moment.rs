//! A moment as operators write it.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use poste_service::config::HumanDuration;

/// How moments are written, for help.
pub(super) const FORMS: &str = "SPAN|UNIX|RFC3339";

/// A time, or so long before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// So long ago.
    Ago(Duration),
    /// Since 1970.
    At(Duration),
}

impl Moment {
    /// Nanoseconds since 1970, by the clock of this machine.
    pub(super) fn nanos(self) -> i64 {
        let since_1970 = match self {
            Self::Ago(ago) => {
                SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago)
            }
            Self::At(at) => at,
        };
        i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)
    }

    /// How long ago a time is, of nanoseconds since 1970; nothing for one that is to come.
    pub(super) fn age(nanos: i64) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        now.checked_sub(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(seconds) = text.parse() {
            return Ok(Self::At(Duration::from_secs(seconds)));
        }
        if let Ok(time) = humantime::parse_rfc3339_weak(text) {
            return Ok(Self::At(time.duration_since(UNIX_EPOCH).unwrap_or_default()));
        }
        let span: Result<HumanDuration, _> = text.parse();
        span.map(|span| Self::Ago(span.0)).map_err(|_| {
            "write how long ago (30d, 12h), a unix second, or a time such as 2026-01-31T12:00:00Z".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spans_seconds_or_times() {
        assert_eq!("30d".parse(), Ok(Moment::Ago(Duration::from_secs(30 * 86_400))));
        assert_eq!("1600000000".parse::<Moment>().unwrap().nanos(), 1_600_000_000_000_000_000);
        for text in ["2020-09-13T12:26:40Z", "2020-09-13 12:26:40"] {
            assert_eq!(text.parse::<Moment>().unwrap().nanos(), 1_600_000_000_000_000_000, "{text}");
        }
        assert_eq!(format!("{}", u64::MAX).parse::<Moment>().unwrap().nanos(), i64::MAX);
        for text in ["", "-1d", "yesterday"] {
            assert!(text.parse::<Moment>().unwrap_err().contains("30d"), "{text}");
        }
    }
}
