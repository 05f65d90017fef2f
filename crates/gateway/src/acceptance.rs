//! Which envelopes a node takes (6/WAKU1, "Messages"; EIP-627), as deployed nodes really decide.

use poste_wire::packet::EnvelopeFault;
use poste_wire::{Dialect, Envelope};

/// What an envelope must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The least proof of work.
    pub min_pow: f64,
    /// Bytes that an envelope may have, both as deployed nodes count them (20 and the data) and as a packet of its
    /// own, list header included.
    pub max_message_size: usize,
    /// Seconds that an envelope may ask to be relayed for.
    pub max_ttl: u32,
}

/// How far a sender's clock may be ahead of ours, seconds.
const FUTURE_TOLERANCE: u32 = 10;
/// After expiry an envelope is "expired" for this long, and "very old" from then on, seconds.
const LATE_TOLERANCE: u32 = 20;
/// The longest header of a list that holds one envelope.
const LIST_HEADER: usize = 4;

/// Why an envelope was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// Made more than 10 s after our present; also what a ttl above the expiry wraps to.
    Future,
    /// Expired more than 20 s ago.
    VeryOld,
    /// Expired.
    Expired,
    /// Larger than a packet may be.
    Oversized,
    /// Relayed for no time at all: its proof of work would be infinite.
    TtlZero,
    /// Relayed for longer than this node keeps anything.
    TtlTooLong,
    /// Not enough proof of work.
    LowPow,
    /// The archive is away, and what waits for it has reached its bound, or the spool takes nothing.
    ArchiveFull,
    /// The archive says that it can never store this.
    ArchiveRefused,
    /// The archive says that this gateway has used up what it may add of envelopes of this size in a day.
    ArchiveOverQuota,
    /// The peer has too many envelopes that wait for the archive.
    TooManyUnconfirmed,
    /// The peer has used up what it may add of envelopes of this size in a day.
    OverQuota,
}

impl Refusal {
    /// Every refusal: the closed set of labels of the metric.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::Future,
        Self::VeryOld,
        Self::Expired,
        Self::Oversized,
        Self::TtlZero,
        Self::TtlTooLong,
        Self::LowPow,
        Self::ArchiveFull,
        Self::ArchiveRefused,
        Self::ArchiveOverQuota,
        Self::TooManyUnconfirmed,
        Self::OverQuota,
    ];

    /// The value of the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Future => "future",
            Self::VeryOld => "very_old",
            Self::Expired => "expired",
            Self::Oversized => "oversized",
            Self::TtlZero => "ttl_zero",
            Self::TtlTooLong => "ttl_too_long",
            Self::LowPow => "low_pow",
            Self::ArchiveFull => "archive_full",
            Self::ArchiveRefused => "archive_refused",
            Self::ArchiveOverQuota => "archive_over_quota",
            Self::TooManyUnconfirmed => "too_many_unconfirmed",
            Self::OverQuota => "over_quota",
        }
    }

    /// What the sender is told in packet 12, and the caller of `Publish`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Future => "envelope from the future: check your clock",
            Self::VeryOld => "envelope expired long ago: check your clock",
            Self::Expired => "envelope has expired",
            Self::Oversized => "envelope is too large",
            Self::TtlZero => "ttl must not be 0",
            Self::TtlTooLong => "ttl is longer than this node keeps envelopes",
            Self::LowPow => "proof of work is below this node's minimum",
            Self::ArchiveFull => "archive is away and the queue for it is full: send again later",
            Self::ArchiveRefused => "archive cannot store this envelope",
            Self::ArchiveOverQuota => {
                "archive takes no more envelopes of this size from this node today: send again later"
            }
            Self::TooManyUnconfirmed => "too many envelopes of yours wait for the archive: send again later",
            Self::OverQuota => "your quota of a day for envelopes of this size is used up: send again later",
        }
    }

    /// The code in packet 12.
    pub(crate) fn code(self, dialect: Dialect) -> u64 {
        match self {
            Self::Future | Self::VeryOld | Self::Expired => EnvelopeFault::time_code(dialect),
            _ => EnvelopeFault::other_code(dialect),
        }
    }
}

/// Checks an envelope at unix second `now`, in the order of the deployed nodes; gives its proof of work (hashes
/// the data).
pub(crate) fn check(envelope: &Envelope, now: u32, rules: &Rules) -> Result<f64, Refusal> {
    if envelope.sent() > now.saturating_add(FUTURE_TOLERANCE) {
        return Err(Refusal::Future);
    }
    if envelope.expiry().saturating_add(LATE_TOLERANCE) < now {
        return Err(Refusal::VeryOld);
    }
    if envelope.expiry() < now {
        return Err(Refusal::Expired);
    }
    if envelope.size() > rules.max_message_size || envelope.rlp().len() + LIST_HEADER > rules.max_message_size
    {
        return Err(Refusal::Oversized);
    }
    if envelope.ttl() == 0 {
        return Err(Refusal::TtlZero);
    }
    if envelope.ttl() > rules.max_ttl {
        return Err(Refusal::TtlTooLong);
    }
    let pow = envelope.pow_at(now);
    // Written so that a NaN is refused.
    if pow >= rules.min_pow { Ok(pow) } else { Err(Refusal::LowPow) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poste_wire::Topic;

    const NOW: u32 = 1_600_000_000;
    const RULES: Rules = Rules { min_pow: 0.0, max_message_size: 1024 * 1024, max_ttl: 86_400 };

    fn envelope(sent: i64, ttl: u32, size: usize) -> Envelope {
        let expiry = (i64::from(NOW) + sent + i64::from(ttl)) as u32;
        Envelope::new(expiry, ttl, Topic([1; 4]), &vec![0; size], 0)
    }

    #[test]
    fn time_decides_first() {
        let outcome = |sent, ttl| check(&envelope(sent, ttl, 10), NOW, &RULES).map(|_| ());
        assert_eq!(outcome(0, 50), Ok(()));
        assert_eq!(outcome(10, 50), Ok(()));
        assert_eq!(outcome(11, 50), Err(Refusal::Future));
        assert_eq!(outcome(-50, 50), Ok(()));
        assert_eq!(outcome(-51, 50), Err(Refusal::Expired));
        assert_eq!(outcome(-70, 50), Err(Refusal::Expired));
        assert_eq!(outcome(-71, 50), Err(Refusal::VeryOld));
        assert_eq!(outcome(0, 0), Err(Refusal::TtlZero));
        assert_eq!(outcome(0, 86_401), Err(Refusal::TtlTooLong));
    }

    #[test]
    fn a_ttl_above_the_expiry_wraps_into_the_future() {
        let wrapped = Envelope::new(NOW, NOW + 1, Topic([1; 4]), b"x", 0);
        assert_eq!(check(&wrapped, NOW, &RULES), Err(Refusal::Future));
    }

    #[test]
    fn what_fits_no_packet_is_refused() {
        let largest = (0..40)
            .map(|less| envelope(0, 50, 1024 * 1024 - less))
            .find(|envelope| check(envelope, NOW, &RULES).is_ok())
            .unwrap();
        assert!(largest.rlp().len() + LIST_HEADER <= 1024 * 1024);
        let next = envelope(0, 50, largest.data().len() + 1);
        assert_eq!(check(&next, NOW, &RULES), Err(Refusal::Oversized));
    }

    #[test]
    fn proof_of_work_counts_the_time_until_it_is_made() {
        let present = envelope(0, 50, 100);
        let pow = present.pow();
        let rules = Rules { min_pow: pow, ..RULES };
        assert_eq!(check(&present, NOW, &rules), Ok(pow));
        assert_eq!(check(&present, NOW - 5, &rules), Err(Refusal::LowPow));
    }

    #[test]
    fn labels_and_codes() {
        let labels: std::collections::HashSet<_> =
            Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        assert_eq!(Refusal::Expired.code(Dialect::Waku1), 21);
        assert_eq!(Refusal::LowPow.code(Dialect::Waku1), 22);
        assert_eq!(Refusal::VeryOld.code(Dialect::Shh6), 37);
        assert_eq!(Refusal::ArchiveFull.code(Dialect::Shh6), 38);
    }
}
