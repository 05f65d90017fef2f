//! The recorded sessions: their file, its members as types, and which of them are replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use poste_codec::SecretKey;
use poste_wire::{Cursor, Dialect, Envelope, Hash, Topic};
use serde::{Deserialize, Deserializer, de};

const FILE: &str = "waku-v1-captured.json";

/// The sessions to replay, and whether the file holds all that were recorded.
pub(crate) struct Recording {
    pub(crate) sessions: Vec<Session>,
    pub(crate) complete: bool,
}

/// Between genuine clients and a genuine mailserver.
#[derive(Deserialize)]
pub(crate) struct Session {
    pub(crate) id: String,
    #[serde(deserialize_with = "dialect")]
    pub(crate) capability: Dialect,
    pub(crate) start_unix: u64,
    #[serde(deserialize_with = "key")]
    client_node_private: SecretKey,
    #[serde(default, deserialize_with = "some_key")]
    client_b_node_private: Option<SecretKey>,
    #[serde(default, deserialize_with = "some_key")]
    client_c_node_private: Option<SecretKey>,
    #[serde(default, deserialize_with = "some_key")]
    client_d_node_private: Option<SecretKey>,
    #[serde(deserialize_with = "key")]
    pub(crate) server_node_private: SecretKey,
    pub(crate) mail_password: String,
    #[serde(deserialize_with = "octets")]
    pub(crate) mail_key: Bytes,
    pub(crate) server: ServerSettings,
    pub(crate) archive: Vec<Stored>,
    pub(crate) packets: Vec<Packet>,
    #[serde(default)]
    pub(crate) echo: bool,
    pub(crate) ends: Vec<End>,
    pub(crate) reads: Vec<IndexedRead>,
}

/// How the genuine server was set up.
#[derive(Deserialize)]
pub(crate) struct ServerSettings {
    pub(crate) min_pow: f64,
    pub(crate) rate_limit_seconds: u64,
}

/// What it had stored before.
#[derive(Deserialize)]
pub(crate) struct Stored {
    #[serde(deserialize_with = "text")]
    pub(crate) hash: Hash,
    pub(crate) sent: u32,
    #[serde(deserialize_with = "text")]
    pub(crate) topic: Topic,
    /// Left out where it is large; then only its length is known.
    #[serde(default, deserialize_with = "some_octets")]
    pub(crate) rlp: Option<Bytes>,
    pub(crate) rlp_len: Option<usize>,
}

/// One packet, in the order of sending.
#[derive(Deserialize)]
pub(crate) struct Packet {
    pub(crate) from: Side,
    #[serde(default)]
    pub(crate) client: Client,
    pub(crate) ms: f64,
    pub(crate) code: u8,
    /// Left out where it is large; then only its length is known.
    #[serde(default, deserialize_with = "some_octets")]
    pub(crate) payload: Option<Bytes>,
    pub(crate) payload_len: Option<usize>,
}

impl Packet {
    /// How many bytes it had, decompressed.
    pub(crate) fn size(&self) -> usize {
        self.payload.as_ref().map_or_else(|| self.payload_len.unwrap_or_default(), Bytes::len)
    }
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Client,
    Server,
}

/// Which of the clients.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Client {
    #[default]
    A,
    B,
    C,
    D,
}

/// How a connection ended.
#[derive(Deserialize)]
pub(crate) struct End {
    pub(crate) client: Client,
    pub(crate) ms: f64,
    pub(crate) server_saw: String,
}

impl End {
    /// The client left; otherwise the server ended it.
    pub(crate) fn client_left(&self) -> bool {
        self.server_saw == "EOF"
    }
}

/// What the genuine server's own types read in a packet.
#[derive(Deserialize)]
pub(crate) struct IndexedRead {
    packet: usize,
    #[serde(flatten)]
    pub(crate) read: Read,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Read {
    #[serde(rename = "status")]
    Status(StatusRead),
    #[serde(rename = "messages")]
    Messages { envelopes: Vec<EnvelopeRead> },
    #[serde(rename = "message response")]
    Response {
        #[serde(deserialize_with = "text")]
        batch_hash: Hash,
        errors: Vec<Fault>,
    },
    #[serde(rename = "batch acknowledged")]
    Acknowledged {
        #[serde(deserialize_with = "text")]
        batch_hash: Hash,
    },
    #[serde(rename = "request in an envelope")]
    Request(SealedRead),
    #[serde(rename = "p2p messages")]
    Mail { envelopes: Vec<EnvelopeRead> },
    #[serde(rename = "p2p message, bare")]
    BareMail { envelopes: Vec<EnvelopeRead> },
    #[serde(rename = "complete")]
    Complete {
        #[serde(deserialize_with = "text")]
        request_id: Hash,
        #[serde(deserialize_with = "text")]
        last_hash: Hash,
        #[serde(deserialize_with = "octets")]
        cursor: Bytes,
        error: Option<String>,
    },
    #[serde(rename = "direct request")]
    DirectRequest,
    #[serde(other)]
    Other,
}

/// A second Status may say nothing, the first one says all of it (byte limits in waku only).
#[derive(Deserialize)]
pub(crate) struct StatusRead {
    pub(crate) pow: Option<f64>,
    #[serde(default, deserialize_with = "some_octets")]
    pub(crate) bloom: Option<Bytes>,
    pub(crate) light: Option<bool>,
    pub(crate) confirmations: Option<bool>,
    pub(crate) packet_limits: Option<[u64; 3]>,
    pub(crate) byte_limits: Option<[u64; 3]>,
}

#[derive(Deserialize)]
pub(crate) struct EnvelopeRead {
    #[serde(deserialize_with = "text")]
    pub(crate) hash: Hash,
    pub(crate) sent: u32,
    pub(crate) ttl: u32,
    #[serde(deserialize_with = "text")]
    pub(crate) topic: Topic,
    /// 20 and the data.
    pub(crate) size: usize,
}

#[derive(Deserialize)]
pub(crate) struct Fault {
    #[serde(deserialize_with = "text")]
    pub(crate) hash: Hash,
    pub(crate) code: u64,
    pub(crate) description: String,
}

/// A request in an envelope.
#[derive(Deserialize)]
pub(crate) struct SealedRead {
    /// What the envelope holds, if the mail password opens it.
    #[serde(default, deserialize_with = "some_octets")]
    pub(crate) payload: Option<Bytes>,
    /// What that says, if it has the seven items of the deployed form.
    pub(crate) request: Option<RequestRead>,
}

#[derive(Deserialize, Clone, PartialEq, Eq)]
pub(crate) struct RequestRead {
    pub(crate) lower: u32,
    pub(crate) upper: u32,
    #[serde(deserialize_with = "octets")]
    pub(crate) bloom: Bytes,
    #[serde(deserialize_with = "texts")]
    pub(crate) topics: Vec<Topic>,
    pub(crate) limit: u32,
    #[serde(deserialize_with = "octets")]
    pub(crate) cursor: Bytes,
    pub(crate) batch: bool,
}

impl Session {
    /// The moment `ms` of the recording, since 1970.
    pub(crate) fn at(&self, ms: f64) -> Duration {
        Duration::from_secs(self.start_unix) + Duration::from_secs_f64(ms / 1000.0)
    }

    /// A client's node key.
    pub(crate) fn key_of(&self, client: Client) -> anyhow::Result<&SecretKey> {
        match client {
            Client::A => Some(&self.client_node_private),
            Client::B => self.client_b_node_private.as_ref(),
            Client::C => self.client_c_node_private.as_ref(),
            Client::D => self.client_d_node_private.as_ref(),
        }
        .with_context(|| format!("no node key of client {client:?} is recorded"))
    }

    /// Those who take part.
    pub(crate) fn clients(&self) -> BTreeSet<Client> {
        self.packets.iter().map(|packet| packet.client).collect()
    }

    /// Packets with what was read in them, by index.
    pub(crate) fn read_packets(&self) -> impl Iterator<Item = (usize, &Packet, &Read)> {
        let reads = self.packets.iter().zip(&self.reads).enumerate();
        reads.map(|(index, (packet, read))| (index, packet, &read.read))
    }

    /// The envelopes whose bytes are recorded: stored before, and posted.
    pub(crate) fn envelopes(&self) -> anyhow::Result<BTreeMap<Hash, Bytes>> {
        let mut envelopes = BTreeMap::new();
        envelopes.extend(self.archive.iter().filter_map(|stored| Some((stored.hash, stored.rlp.clone()?))));
        for (_, packet, read) in self.read_packets().filter(|(_, packet, _)| packet.from == Side::Client) {
            let (Read::Messages { .. }, Some(payload)) = (read, &packet.payload) else { continue };
            let Some(poste_wire::Packet::Messages(messages)) =
                poste_wire::Packet::decode(self.capability, packet.code, payload.clone())?
            else {
                continue;
            };
            envelopes
                .extend(messages.envelopes.iter().map(|envelope| (envelope.hash(), envelope.rlp().clone())));
        }
        Ok(envelopes)
    }

    /// The sessions of waku/1 and shh/6 without direct requests and without the sync of mailservers. Those about
    /// changes of settings and about what relays are asked to forward belong to the node's own tests.
    fn is_selected(&self) -> bool {
        let apart = ["server-raises-pow", "relay-interest", "relay-light"].contains(&self.id.as_str())
            || ["status-", "settings-"].iter().any(|prefix| self.id.starts_with(prefix));
        let direct = self.reads.iter().any(|read| matches!(read.read, Read::DirectRequest));
        let sync = self.packets.iter().any(|packet| matches!(packet.code, 123 | 124));
        self.capability != Dialect::Waku0 && !apart && !direct && !sync
    }

    /// Puts envelopes of our own, of the same sizes, in the place of stored ones whose bytes were not recorded.
    fn fill_in(&mut self) {
        let mut ours = BTreeMap::new();
        for stored in &mut self.archive {
            let (None, Some(length)) = (&stored.rlp, stored.rlp_len) else { continue };
            let make = |size| Envelope::new(stored.sent + 50, 50, stored.topic, &vec![0; size], 0);
            let overhead = make(length).rlp().len() - length;
            let envelope = make(length - overhead);
            ours.insert(stored.hash, envelope.hash());
            (stored.hash, stored.rlp) = (envelope.hash(), Some(envelope.rlp().clone()));
        }
        let replace = |hash: &mut Hash| *hash = ours.get(hash).copied().unwrap_or(*hash);
        for read in &mut self.reads {
            match &mut read.read {
                Read::Mail { envelopes } => {
                    envelopes.iter_mut().for_each(|envelope| replace(&mut envelope.hash));
                }
                Read::Complete { last_hash, cursor, .. } => {
                    replace(last_hash);
                    if let Ok(mut place) = Cursor::try_from(&cursor[..]) {
                        replace(&mut place.hash);
                        *cursor = Bytes::copy_from_slice(&place.to_bytes());
                    }
                }
                _ => {}
            }
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let in_order = self.reads.iter().enumerate().all(|(index, read)| read.packet == index);
        ensure!(
            in_order && self.reads.len() == self.packets.len(),
            "{}: a packet without its reading",
            self.id
        );
        Ok(())
    }
}

/// Reads the sessions: all of them if `POSTE_VECTORS` names the directory of the file, else those of our copy.
pub(crate) fn load() -> anyhow::Result<Recording> {
    #[derive(Deserialize)]
    struct File {
        sessions: Vec<Session>,
    }
    let directory = std::env::var_os("POSTE_VECTORS").map(PathBuf::from);
    let complete = directory.is_some();
    let path = directory
        .unwrap_or_else(|| {
            eprintln!("POSTE_VECTORS is not set: only the sessions of the copy in testdata are replayed");
            Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
        })
        .join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let File { mut sessions } = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    sessions.retain(Session::is_selected);
    sessions.iter().try_for_each(Session::check)?;
    sessions.iter_mut().for_each(Session::fill_in);
    ensure!(!sessions.is_empty(), "{} holds no session to replay", path.display());
    Ok(Recording { sessions, complete })
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

fn texts<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(from: D) -> Result<Vec<T>, D::Error> {
    Vec::<String>::deserialize(from)?.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

fn octets<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    hex::decode(String::deserialize(from)?).map(Bytes::from).map_err(de::Error::custom)
}

fn some_octets<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    octets(from).map(Some)
}

fn key<'de, D: Deserializer<'de>>(from: D) -> Result<SecretKey, D::Error> {
    let bytes = octets(from)?;
    let bytes = bytes[..].try_into().map_err(de::Error::custom)?;
    SecretKey::from_bytes(bytes).map_err(de::Error::custom)
}

fn some_key<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretKey>, D::Error> {
    key(from).map(Some)
}

fn dialect<'de, D: Deserializer<'de>>(from: D) -> Result<Dialect, D::Error> {
    let name = String::deserialize(from)?;
    let known = Dialect::ALL.into_iter().find(|dialect| dialect.to_string() == name);
    known.ok_or_else(|| de::Error::custom(format!("no dialect is called {name}")))
}
