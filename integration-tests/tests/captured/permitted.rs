//! In what our answers may differ from the recorded ones: a difference that is not named here for its session fails the
//! test, and so does one that is named and does not occur, or not as often.

use std::collections::BTreeMap;

/// Why an answer of ours may, or must, differ from that of the deployed servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permitted {
    /// Partition of a page into packets: deployed servers send the limit-th envelope alone.
    Partition,
    /// Exact limit: deployed servers give a cursor although nothing follows.
    CursorAtEnd,
    /// A cursor that names nothing: deployed servers then skip the next envelope; none may be skipped.
    NoneSkipped,
    /// A cursor that is none: deployed servers start over; we refuse the request.
    CursorRefused,
    /// Older forms of the request: deployed servers refuse them; we answer.
    OlderFormAnswered,
    /// Topics beside a bloom filter or without one: newer servers answer by topics, and so do we.
    ByTopics,
    /// Expired by at most 20 s: deployed servers drop such an envelope without a word; we give an error entry.
    ExpiredIsReported,
    /// Error codes: deployed servers say "time" for every fault; we say it for faults of time alone.
    FaultCode,
    /// A ttl of 0, or above our cap: deployed servers take the envelope; we refuse it.
    TtlRefused,
    /// An echo to the sender: the race of deployed servers; never ours.
    NoEcho,
    /// A packet that cannot be read: ends a shh/6 connection of deployed servers, none of ours.
    StaysUp,
    /// Time of relaying: deployed servers wait for a tick of 300 ms, and this client left before it.
    RelayedSooner,
}

use Permitted::{
    ByTopics, CursorAtEnd, CursorRefused, ExpiredIsReported, FaultCode, NoEcho, NoneSkipped,
    OlderFormAnswered, Partition, RelayedSooner, StaysUp, TtlRefused,
};

/// Which differences occur in which session, and how often.
const TABLE: &[(&str, &[(Permitted, usize)])] = &[
    ("history-waku1", &[(Partition, 1)]),
    ("history-shh6", &[(Partition, 1)]),
    ("refuse-six-items", &[(OlderFormAnswered, 1)]),
    ("refuse-spec-items", &[(OlderFormAnswered, 1)]),
    ("refuse-empty-bloom", &[(ByTopics, 1)]),
    ("cursor-10-bytes", &[(CursorRefused, 1)]),
    ("cursor-foreign", &[(NoneSkipped, 1)]),
    ("cursor-between", &[(NoneSkipped, 1)]),
    ("inject-waku1", &[(ExpiredIsReported, 2), (FaultCode, 3), (TtlRefused, 1)]),
    ("inject-shh6", &[(FaultCode, 2)]),
    ("inject-ttl", &[(TtlRefused, 2)]),
    ("exact-limit", &[(Partition, 1), (CursorAtEnd, 1)]),
    ("limit-1", &[(CursorAtEnd, 1)]),
    // The recorded server, older than topics in requests, sends the false positive as well.
    ("bloom-false-positive", &[(ByTopics, 1), (RelayedSooner, 2)]),
    // As many envelopes as the limit here, too.
    ("several-bundles-limit", &[(Partition, 1), (CursorAtEnd, 1)]),
    ("refuse-shh6-request", &[(StaysUp, 1)]),
    ("refuse-shh6-messages", &[(StaysUp, 1)]),
    ("echo-history-waku1", &[(Partition, 1), (NoEcho, 1)]),
];

/// The differences that have to occur in a session.
pub(crate) fn permitted(session: &str) -> BTreeMap<Permitted, usize> {
    let row = TABLE.iter().find(|(id, _)| *id == session);
    row.map(|(_, permitted)| permitted.iter().copied().collect()).unwrap_or_default()
}

/// The sessions that the table names.
pub(crate) fn sessions() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(id, _)| *id)
}
