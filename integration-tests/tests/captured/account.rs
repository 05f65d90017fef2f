//! What a client sent and what came of it, by meaning: kept alike for the recording and for what our gateway answers, so
//! that the two can be compared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use poste_wire::packet::{Completion, Options, RateLimits, code};
use poste_wire::{Cursor, Dialect, Hash, Packet};

use crate::recording::{self, Read, Side, StatusRead};

/// One client's side of a session.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) status: Option<Spoken>,
    pub(crate) sent: Vec<Sent>,
    /// Envelopes of Messages packets, each as often as it came.
    pub(crate) relayed: Vec<Hash>,
    /// What answers nothing that was sent.
    pub(crate) strays: Vec<String>,
    /// Mail whose completion is yet to come.
    mail: Vec<MailPacket>,
}

/// A packet of the client, and what came of it.
pub(crate) struct Sent {
    pub(crate) code: u8,
    /// Keccak-256 of the payload: the batch hash of a Messages packet, the request id of a sealed request.
    pub(crate) id: Hash,
    /// By envelope.
    pub(crate) faults: Option<BTreeMap<Hash, Fault>>,
    pub(crate) acknowledged: bool,
    pub(crate) answer: Option<Answer>,
    /// The packet that completed it, as its place in the recording.
    pub(crate) done_at: Option<usize>,
}

/// An entry of packet 12.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: u64,
    pub(crate) text: String,
}

/// The answer to a request for mail.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) packets: Vec<MailPacket>,
    pub(crate) end: Completion,
}

/// A packet 127.
#[derive(Debug)]
pub(crate) struct MailPacket {
    pub(crate) envelopes: Vec<Hash>,
    /// Bytes of the packet, decompressed.
    pub(crate) size: usize,
    /// An envelope by itself instead of a list.
    pub(crate) bare: bool,
}

/// What a Status says.
#[derive(Debug, PartialEq)]
pub(crate) struct Spoken {
    pow: f64,
    bloom: Vec<u8>,
    light: bool,
    confirmations: bool,
    packet_limits: [u64; 3],
    byte_limits: Option<[u64; 3]>,
}

/// A packet of the server.
#[derive(Debug)]
pub(crate) enum Heard {
    Status(Spoken),
    Relayed(Vec<Hash>),
    Response(Hash, BTreeMap<Hash, Fault>),
    Acknowledged(Hash),
    Mail(MailPacket),
    Complete(Completion),
}

impl Account {
    /// The account of a recorded client.
    pub(crate) fn recorded(session: &recording::Session, client: recording::Client) -> anyhow::Result<Self> {
        let mut account = Self::default();
        for (index, packet, read) in session.read_packets().filter(|(_, packet, _)| packet.client == client) {
            match packet.from {
                Side::Client => account.send(packet.code, packet.payload.as_deref().unwrap_or_default()),
                Side::Server => account.hear(Heard::recorded(packet, read)?, index),
            }
        }
        Ok(account)
    }

    /// The client sends a packet.
    pub(crate) fn send(&mut self, code: u8, payload: &[u8]) {
        self.sent.push(Sent {
            code,
            id: Hash::of(payload),
            faults: None,
            acknowledged: false,
            answer: None,
            done_at: None,
        });
    }

    /// The server sends a packet.
    pub(crate) fn hear(&mut self, heard: Heard, at: usize) {
        match heard {
            Heard::Status(spoken) if self.status.is_none() => self.status = Some(spoken),
            Heard::Status(_) => self.strays.push("a second Status".to_owned()),
            Heard::Relayed(envelopes) => self.relayed.extend(envelopes),
            Heard::Response(batch, faults) => {
                match self.open(code::MESSAGES, batch, |sent| sent.faults.is_none()) {
                    Some(sent) => sent.faults = Some(faults),
                    None => self.strays.push(format!("12 for batch {batch}")),
                }
            }
            Heard::Acknowledged(batch) => {
                match self.open(code::MESSAGES, batch, |sent| sent.faults.is_some() && !sent.acknowledged) {
                    Some(sent) => (sent.acknowledged, sent.done_at) = (true, Some(at)),
                    None => self.strays.push(format!("11 for batch {batch}, or before its 12")),
                }
            }
            Heard::Mail(packet) => self.mail.push(packet),
            Heard::Complete(end) => {
                let packets = std::mem::take(&mut self.mail);
                let id = end.request_id();
                match self.open(code::MAIL_REQUEST, id, |sent| sent.answer.is_none()) {
                    Some(sent) => (sent.answer, sent.done_at) = (Some(Answer { packets, end }), Some(at)),
                    None => self.strays.push(format!("125 for request {id}")),
                }
            }
        }
    }

    /// Leaves aside what the replay itself had sent and relayed: the last `probes` packets, and witnesses.
    pub(crate) fn forget(&mut self, probes: usize, witnesses: &BTreeSet<Hash>) {
        self.sent.truncate(self.sent.len().saturating_sub(probes));
        let mut seen = BTreeSet::new();
        // Each once: a second one stays and counts as a difference.
        self.relayed.retain(|hash| !(witnesses.contains(hash) && seen.insert(*hash)));
    }

    /// What did not find its place at the end.
    pub(crate) fn strays(&self) -> impl Iterator<Item = String> {
        let mail = self.mail.iter().map(|packet| format!("mail without a completion: {packet:?}"));
        self.strays.iter().cloned().chain(mail)
    }

    fn open(&mut self, code: u8, id: Hash, waits: impl Fn(&Sent) -> bool) -> Option<&mut Sent> {
        self.sent.iter_mut().find(|sent| sent.code == code && sent.id == id && waits(sent))
    }
}

impl Answer {
    /// All envelopes, in order.
    pub(crate) fn envelopes(&self) -> Vec<Hash> {
        self.packets.iter().flat_map(|packet| packet.envelopes.iter().copied()).collect()
    }

    /// Bytes of each packet.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.packets.iter().map(|packet| packet.size).collect()
    }

    /// Envelopes of each packet.
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.packets.iter().map(|packet| packet.envelopes.len()).collect()
    }
}

impl Heard {
    /// From what the genuine server's types read in a recorded packet.
    pub(crate) fn recorded(packet: &recording::Packet, read: &Read) -> anyhow::Result<Self> {
        let hashes =
            |envelopes: &[recording::EnvelopeRead]| envelopes.iter().map(|envelope| envelope.hash).collect();
        let mail =
            |envelopes: &[_], bare| MailPacket { envelopes: hashes(envelopes), size: packet.size(), bare };
        Ok(match read {
            Read::Status(status) => {
                Self::Status(Spoken::recorded(status).context("a Status says too little")?)
            }
            Read::Messages { envelopes } => Self::Relayed(hashes(envelopes)),
            Read::Response { batch_hash, errors } => {
                let fault = |fault: &recording::Fault| {
                    (fault.hash, Fault { code: fault.code, text: fault.description.clone() })
                };
                Self::Response(*batch_hash, errors.iter().map(fault).collect())
            }
            Read::Acknowledged { batch_hash } => Self::Acknowledged(*batch_hash),
            Read::Mail { envelopes } => Self::Mail(mail(envelopes, false)),
            Read::BareMail { envelopes } => Self::Mail(mail(envelopes, true)),
            Read::Complete { request_id, error: Some(error), .. } => {
                Self::Complete(Completion::Failed { request_id: *request_id, error: error.clone() })
            }
            Read::Complete { request_id, last_hash, cursor, error: None } => {
                Self::Complete(Completion::Done {
                    request_id: *request_id,
                    last_hash: *last_hash,
                    cursor: match cursor.is_empty() {
                        true => None,
                        false => Some(Cursor::try_from(&cursor[..])?),
                    },
                })
            }
            _ => bail!("packet {} of a server is not expected in these sessions", packet.code),
        })
    }

    /// From a packet of our gateway.
    pub(crate) fn decode(dialect: Dialect, code: u8, payload: &Bytes) -> anyhow::Result<Self> {
        let packet = Packet::decode(dialect, code, payload.clone())
            .with_context(|| format!("the gateway's packet {code} cannot be read"))?
            .with_context(|| format!("the gateway sent packet {code}, which {dialect} does not have"))?;
        Ok(match packet {
            Packet::Status(status) => Self::Status(
                Spoken::said(&status.options, dialect).context("the gateway's Status says too little")?,
            ),
            Packet::Messages(messages) => {
                Self::Relayed(messages.envelopes.iter().map(|envelope| envelope.hash()).collect())
            }
            Packet::MessageResponse(response) => {
                let faults = response.faults.into_iter();
                let faults =
                    faults.map(|fault| (fault.hash, Fault { code: fault.code, text: fault.description }));
                Self::Response(response.batch_hash, faults.collect())
            }
            Packet::BatchAcknowledged(batch) => Self::Acknowledged(batch),
            Packet::MailMessages(envelopes) => Self::Mail(MailPacket {
                size: payload.len(),
                bare: matches!(&envelopes[..], [only] if only.rlp() == payload),
                envelopes: envelopes.iter().map(|envelope| envelope.hash()).collect(),
            }),
            Packet::MailComplete(end) => Self::Complete(end),
            other => bail!("the gateway sent packet {} to a client", other.code()),
        })
    }
}

impl Spoken {
    fn recorded(status: &StatusRead) -> Option<Self> {
        Some(Self {
            pow: status.pow?,
            bloom: status.bloom.as_deref()?.to_vec(),
            light: status.light?,
            confirmations: status.confirmations?,
            packet_limits: status.packet_limits?,
            byte_limits: status.byte_limits,
        })
    }

    fn said(options: &Options, dialect: Dialect) -> Option<Self> {
        let limits = |limits: RateLimits| [limits.ip, limits.peer, limits.topic];
        Some(Self {
            pow: options.pow_requirement?,
            bloom: options.bloom?.as_bytes().to_vec(),
            light: options.light?,
            confirmations: options.confirmations?,
            packet_limits: limits(options.packet_limits?),
            byte_limits: options.byte_limits.map(limits).filter(|_| dialect.is_waku()),
        })
    }
}
