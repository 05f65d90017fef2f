//! Where messages travel: the text of a Status topic, the envelope topic that it hashes to, and the key that it makes
//! where everybody who knows the text may read.

use std::fmt;

use poste_codec::PublicKey;

use super::ids::{HashedPublicKey, chat_key};
use crate::{SymKey, Topic, password_key};

/// How many partitioned topics there are.
pub const PARTITIONS: u16 = 5000;

/// The text of a topic. It names whom a message is for: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(String);

impl TopicName {
    /// Where everything is sent that is sealed to a key, registrations excepted; shared with one in 5000 keys.
    pub fn partitioned(receiver: &PublicKey) -> Self {
        Self(format!("contact-discovery-{}", partition(receiver)))
    }

    /// Where registrations are sent, sealed to the server's key.
    pub fn personal(receiver: &PublicKey) -> Self {
        Self(format!("contact-discovery-{}", hex::encode(receiver.to_sec1())))
    }

    /// Where a client advertises itself; encrypted with [`Self::derive_key`].
    pub fn contact_code(owner: &PublicKey) -> Self {
        Self(format!("{}-contact-code", chat_key(owner)))
    }

    /// Where servers are asked about a client, as deployed clients and servers have it; encrypted with
    /// [`Self::derive_key`].
    pub fn query(target: &HashedPublicKey) -> Self {
        Self(hexadecimal("", target))
    }

    /// The same as the specification has it, with `0x` in front: a server listens to both, a client sends to the
    /// other.
    pub fn query_as_specified(target: &HashedPublicKey) -> Self {
        Self(hexadecimal("0x", target))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic of the envelopes.
    pub fn topic(&self) -> Topic {
        Topic::of_name(&self.0)
    }

    /// The content topic on Waku v2.
    pub fn content_topic(&self) -> String {
        format!("/waku/1/0x{}/rfc26", self.topic())
    }

    /// The symmetric key of a contact code or query topic. **Expensive**: PBKDF2 with 65,356 rounds, 20 to 50 ms of
    /// CPU. Derive it once, on a thread where that does no harm, and keep it.
    pub fn derive_key(&self) -> SymKey {
        password_key(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicName(redacted)")
    }
}

/// A server does this for all whom it knows when it starts, so it is done without a formatter.
fn hexadecimal(prefix: &str, hash: &HashedPublicKey) -> String {
    let mut text = [prefix.as_bytes(), &[0; 2 * HashedPublicKey::LENGTH]].concat();
    hex::encode_to_slice(hash.0, &mut text[prefix.len()..]).expect("two digits for each byte");
    String::from_utf8(text).expect("digits, and a prefix that is text")
}

/// The partition of a key: its X coordinate, as one number of 256 bits, modulo [`PARTITIONS`].
pub fn partition(key: &PublicKey) -> u16 {
    let modulus = u32::from(PARTITIONS);
    let x = &key.as_bytes()[..32];
    x.iter().fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % modulus) as u16
}
