//! Where our server is meant to answer otherwise than the deployed one, and why.

use poste_wire::status::proto::push_notification_registration_response::ErrorType as Registration;

/// What ours does instead.
#[derive(Debug)]
pub(crate) enum Ours {
    /// Nobody gets an answer.
    Silent,
    /// An answer goes to the signer of the message inside.
    Answered,
    /// Of the entries of an answer those of the key whose topic it is.
    OwnerOfTheTopic,
    Registered,
    Refused(Registration),
    /// Success and error of each report, and how many notifications are pushed.
    Reports(&'static [(bool, i32)], usize),
    /// A registration of an unknown device is taken back: answered alike, but remembered.
    Tombstone,
}

const VERSION_ZERO: &str = "version 0 is a malformed message, not a mismatch (C9)";
const UNSEALED: &str = "what does not open is discarded; an answer would go to an unproven key (C8)";
const UNSUPPORTED: &str = "a type of token that no provider serves is unsupported (C11)";
const SILENCE: &str = "no answer where nothing is known (C17)";
const ANSWER: &str = "a response must be returned (C19)";

/// Section, entry, what ours does, reason.
pub(crate) const DIFFERENCES: &[(&str, &str, Ours, &str)] = &[
    ("registrations", "huge-version", Ours::Registered, "every version that fits its field can be stored"),
    ("registration_cases", "version-zero", Ours::Refused(Registration::MalformedMessage), VERSION_ZERO),
    (
        "registration_cases",
        "order-version-before-installation",
        Ours::Refused(Registration::MalformedMessage),
        VERSION_ZERO,
    ),
    (
        "registration_cases",
        "unregister-version-zero",
        Ours::Refused(Registration::MalformedMessage),
        VERSION_ZERO,
    ),
    ("registration_cases", "empty-plaintext", Ours::Refused(Registration::MalformedMessage), VERSION_ZERO),
    (
        "registration_cases",
        "token-type-unknown",
        Ours::Refused(Registration::UnsupportedTokenType),
        UNSUPPORTED,
    ),
    (
        "registration_cases",
        "token-type-3-accepted-by-impl",
        Ours::Refused(Registration::UnsupportedTokenType),
        UNSUPPORTED,
    ),
    (
        "registration_cases",
        "apn-topic-missing-accepted-by-impl",
        Ours::Refused(Registration::MalformedMessage),
        "Apple's tokens are of no use without the app's id (C12)",
    ),
    ("registration_cases", "sealed-by-another-key", Ours::Silent, UNSEALED),
    ("registration_cases", "sealed-to-another-server", Ours::Silent, UNSEALED),
    ("registration_cases", "blob-11-bytes", Ours::Silent, UNSEALED),
    ("registration_cases", "blob-empty", Ours::Silent, UNSEALED),
    ("registration_cases", "tag-tampered", Ours::Silent, UNSEALED),
    (
        "registration_cases",
        "unregister-unknown-without-grant",
        Ours::Tombstone,
        "the version is remembered, so that older registrations stay rejected (C13)",
    ),
    (
        "envelope_cases",
        "unsigned envelope",
        Ours::Answered,
        "who signed an envelope is never asked, so it may be nobody",
    ),
    (
        "envelope_cases",
        "inner signature absent, envelope signed by the client",
        Ours::Silent,
        "the sender is who signed the message inside; the envelope's signer is no substitute",
    ),
    ("queries", "unknown-key", Ours::Silent, SILENCE),
    (
        "queries",
        "several-keys-on-one-topic",
        Ours::OwnerOfTheTopic,
        "answers are about the topic's own key: or one query could use up what many may be asked about",
    ),
    ("queries", "no-keys", Ours::Silent, SILENCE),
    ("queries", "unregistered-key", Ours::Silent, SILENCE),
    ("notifications", "type-4", Ours::Reports(&[], 0), "a type without a meaning is passed over like type 0"),
    (
        "notifications",
        "token-type-3-platform-0",
        Ours::Reports(&[(false, 3)], 0),
        "a token that no provider serves was never registered (C11)",
    ),
    (
        "notifications",
        "dedupe-2-identical-bytes",
        Ours::Reports(&[(true, 0)], 0),
        "the remembered answer is given again; nothing is pushed again",
    ),
    (
        "notifications",
        "dedupe-3-same-content-other-ephemeral-key",
        Ours::Reports(&[(true, 0)], 0),
        "one notification for each message, receiver and installation",
    ),
    (
        "notifications",
        "gorush-answers-500",
        Ours::Reports(&[(false, 0)], 1),
        "after any end but a good 200 nobody knows whether it was sent: failure, without a reason (decision 29)",
    ),
    (
        "notifications",
        "gorush-reports-failure",
        Ours::Reports(&[(false, 0)], 1),
        "gorush's word that it failed is a hint: nobody knows, so failure, without a reason (decision 29)",
    ),
    ("notifications", "gorush-down-1", Ours::Reports(&[(false, 2)], 0), ANSWER),
    (
        "notifications",
        "gorush-down-2-retry-is-dropped",
        Ours::Reports(&[(true, 0)], 1),
        "what was surely not sent is sent when it is asked for again, once gorush is back",
    ),
];
