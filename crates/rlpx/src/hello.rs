//! Hello (devp2p base protocol, id 0): who a node is and what it serves. The first message of both sides,
//! never compressed, at most 2048 bytes.

use std::borrow::Cow;

use poste_codec::PublicKey;
use poste_codec::rlp::{Encoder, Item, RlpError};

use crate::capability::Capability;
use crate::error::Breach;

/// The version of the base protocol that this node speaks.
pub const BASE_PROTOCOL_VERSION: u64 = 5;

/// From this version on both directions are compressed after Hello.
pub const SNAPPY_VERSION: u64 = 5;

/// The longest Hello, in bytes.
pub const MAX_HELLO_SIZE: usize = 2048;

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Version of the base protocol.
    pub version: u64,
    /// Free text, such as `Geth/v1.9.20`. Bytes that are not UTF-8 are replaced when read.
    pub client_name: String,
    /// What it serves, as sent. A capability whose version exceeds 32 bits or whose name is not UTF-8 is left
    /// out.
    pub capabilities: Vec<Capability>,
    /// The TCP port that it listens on; 0 when it says none. Go writes 0 in most versions.
    pub listen_port: u16,
    /// The node id: its public key, 64 bytes X‖Y. [`Hello::check_identity`] compares it.
    pub node_id: Vec<u8>,
}

impl Hello {
    /// The payload of the packet: `[version, client name, [[name, version]…], listen port, node id]`.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.list(5).uint(self.version).bytes(self.client_name.as_bytes()).list(self.capabilities.len());
        for Capability { name, version } in &self.capabilities {
            encoder.list(2).bytes(name.as_bytes()).uint(u64::from(*version));
        }
        encoder.uint(u64::from(self.listen_port)).bytes(&self.node_id);
        encoder.finish()
    }

    /// Reads a payload. Items behind the fifth are ignored.
    pub fn decode(payload: &[u8]) -> Result<Self, Breach> {
        if payload.len() > MAX_HELLO_SIZE {
            return Err(Breach::HelloTooLarge { size: payload.len() });
        }
        Self::read(payload).map_err(Breach::Hello)
    }

    fn read(payload: &[u8]) -> Result<Self, RlpError> {
        let mut items = Item::parse(payload)?.list()?;
        let mut next = || items.next().ok_or(RlpError::Length);
        let version = next()?.u64()?;
        let client_name = String::from_utf8_lossy(next()?.bytes()?).into_owned();
        let mut capabilities = Vec::new();
        for capability in next()?.list()? {
            let mut parts = capability.list()?;
            let (Some(name), Some(version)) = (parts.next(), parts.next()) else {
                return Err(RlpError::Length);
            };
            if let (Ok(name), Ok(version)) = (std::str::from_utf8(name.bytes()?), version.u32()) {
                capabilities.push(Capability { name: Cow::Owned(name.to_owned()), version });
            }
        }
        let listen_port = u16::try_from(next()?.u64()?).unwrap_or(0);
        let node_id = next()?.bytes()?.to_vec();
        Ok(Self { version, client_name, capabilities, listen_port, node_id })
    }

    /// Compares the node id with the key that the handshake proved, as Go does: reason 7 for an id that is
    /// none, 9 for another one.
    pub fn check_identity(&self, proven: &PublicKey) -> Result<(), Breach> {
        if self.node_id.len() != 64 || self.node_id.iter().all(|byte| *byte == 0) {
            return Err(Breach::InvalidIdentity);
        }
        if self.node_id != proven.as_bytes() {
            return Err(Breach::UnexpectedIdentity);
        }
        Ok(())
    }

    /// Whether a node that sent this Hello is spoken to with compression.
    pub fn speaks_snappy(&self) -> bool {
        self.version >= SNAPPY_VERSION
    }
}

#[cfg(test)]
mod tests {
    use poste_codec::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            version: 5,
            client_name: "poste".into(),
            capabilities: vec![Capability::new("waku", 1), Capability::new("shh", 6)],
            listen_port: 30303,
            node_id: SecretKey::from_bytes(&[1; 32]).unwrap().public().as_bytes().to_vec(),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    #[test]
    fn ignores_what_later_versions_add() {
        let mut encoder = Encoder::new();
        encoder.list(7).uint(99).bytes(b"new \xff").list(3);
        encoder.list(3).bytes(b"waku").uint(1).uint(7);
        encoder.list(2).bytes(b"far").uint(1 << 40);
        encoder.list(2).bytes(b"\xff").uint(1);
        encoder.uint(1 << 20).bytes(&[0; 64]).list(0).uint(1);
        let hello = Hello::decode(&encoder.finish()).unwrap();
        assert_eq!((hello.version, hello.client_name.as_str(), hello.listen_port), (99, "new \u{fffd}", 0));
        assert_eq!(hello.capabilities, [Capability::new("waku", 1)]);
    }

    #[test]
    fn refuses_a_bad_node_id_as_go_does() {
        let key = SecretKey::from_bytes(&[1; 32]).unwrap().public();
        let with = |node_id: Vec<u8>| Hello { node_id, ..hello() }.check_identity(&key);
        assert_eq!(with(key.as_bytes().to_vec()), Ok(()));
        assert_eq!(with(vec![0; 64]), Err(Breach::InvalidIdentity));
        assert_eq!(with(vec![1; 63]), Err(Breach::InvalidIdentity));
        assert_eq!(with(vec![]), Err(Breach::InvalidIdentity));
        assert_eq!(with(vec![1; 64]), Err(Breach::UnexpectedIdentity));
    }

    #[test]
    fn refuses_a_long_one() {
        let long = Hello { client_name: "x".repeat(2048), ..hello() }.encode();
        assert_eq!(Hello::decode(&long), Err(Breach::HelloTooLarge { size: long.len() }));
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Hello::decode(&payload);
        }

        #[test]
        fn no_damage_panics(position in 0usize..100, value: u8) {
            let mut payload = hello().encode();
            let at = position % payload.len();
            payload[at] = value;
            let _ = Hello::decode(&payload);
        }
    }
}
