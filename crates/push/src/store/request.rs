//! What a store keeps of requests: claims on notifications, answers to repeat, and how far the archive was read.

use std::fmt;

use super::DeviceId;

/// The most bytes of a remembered answer.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// What a claim is on: one message to one device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey {
    /// The message id of the request, which names the chat message: bytes of the sender's choice.
    pub message_id: Vec<u8>,
    /// To which device.
    pub device: DeviceId,
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimKey(redacted)")
    }
}

/// What a claim met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's, who must end it.
    Won,
    /// Somebody else has it and has not ended it.
    Open,
    /// It was sent.
    Sent,
    /// It may have been sent: nobody knows, and nobody may try again.
    Unknown,
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimEnd {
    /// The provider took it.
    Sent,
    /// It was surely not sent: the claim is free again.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What an answer is remembered under: 32 bytes that only who saw the request can know, such as the message id of
/// the request's wrapper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnswerId(pub [u8; 32]);

impl fmt::Debug for AnswerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerId(redacted)")
    }
}

/// How far an archive was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which archive.
    pub archive_store_id: [u8; 16],
    /// Everything up to here has been dealt with.
    pub seq: u64,
}
