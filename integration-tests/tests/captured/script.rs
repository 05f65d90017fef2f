//! A recorded server as a script: what it waits for, and what it then says. Where its words name what the recorded client
//! had made (a batch, an envelope, a request), they are put on what our client made in its place.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use poste_rlpx::{Limits, LocalNode};
use poste_wire::mail::{MailRequest, RequestForm, RequestKeys, open_request};
use poste_wire::packet::{Messages, code};
use poste_wire::{Bloom, Envelope, Hash, Packet, SymKey};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::PATIENCE;
use crate::account::{Account, Answer, Fault, Sent};
use crate::recording::{Client, EnvelopeRead, Read, RequestRead, Session, Side};

/// One client's share of a session, for our client to repeat.
pub(crate) struct Script<'a> {
    status: Bytes,
    pub(crate) steps: Vec<Step<'a>>,
}

/// Something that the client did, and the packets that then came.
pub(crate) struct Step<'a> {
    pub(crate) act: Act<'a>,
    /// The packet that completed the answer, as its place in the recording.
    done_at: Option<usize>,
    answers: Vec<(u8, Bytes)>,
}

pub(crate) enum Act<'a> {
    Post {
        id: Hash,
        envelopes: &'a [EnvelopeRead],
        faults: &'a BTreeMap<Hash, Fault>,
    },
    /// `request`: as far as it has the seven items of the deployed form.
    Ask {
        id: Hash,
        request: Option<&'a RequestRead>,
        answer: &'a Answer,
    },
}

impl<'a> Script<'a> {
    /// The script of a client; an error says why our client cannot take its place.
    pub(crate) fn new(session: &'a Session, client: Client, account: &'a Account) -> anyhow::Result<Self> {
        let mut script = Self { status: Bytes::new(), steps: Vec::new() };
        let mut sent = account.sent.iter();
        // What the server has said since it last completed an answer.
        let mut said = Vec::new();
        for (index, packet, read) in session.read_packets().filter(|(_, packet, _)| packet.client == client) {
            let payload = packet.payload.clone().context("the bytes of an answer are not recorded")?;
            match packet.from {
                Side::Client => {
                    let sent = sent.next().context("a packet of the client is missing")?;
                    let step = |act| Step { act, done_at: sent.done_at, answers: Vec::new() };
                    script.steps.extend(act(read, sent)?.map(step));
                }
                Side::Server if packet.code == code::STATUS => script.status = payload,
                Side::Server => {
                    said.push((packet.code, payload));
                    let step = script.steps.iter_mut().find(|step| step.done_at == Some(index));
                    if let Some(step) = step {
                        step.answers = std::mem::take(&mut said);
                    }
                }
            }
        }
        Ok(script)
    }

    /// The acts of some steps.
    pub(crate) fn acts<'b>(&self, steps: &'b [Step<'a>]) -> Vec<&'b Act<'a>> {
        steps.iter().map(|step| &step.act).collect()
    }

    /// Plays the server for one connection, to its end.
    pub(crate) async fn serve(
        &self,
        session: &Session,
        client: Client,
        listener: TcpListener,
    ) -> anyhow::Result<()> {
        let node = LocalNode {
            key: session.server_node_private.clone(),
            client_name: "recording".to_owned(),
            capabilities: vec![poste_waku::offered(session.capability)],
            listen_port: 0,
        };
        let limits = Limits::default();
        let accepting = async {
            let (stream, _) = listener.accept().await?;
            anyhow::Ok(poste_rlpx::accept(stream, &node, &limits).await?.finish().await?)
        };
        let connection = timeout(PATIENCE, accepting).await.context("no client connects")??;
        let signer = session.key_of(client)?.public();
        ensure!(*connection.remote() == signer, "the client has another node key");
        let (mut receiver, sender) = connection.split();
        sender.send(0, code::STATUS, self.status.clone()).await?;
        let first = timeout(PATIENCE, receiver.next()).await.context("the client sends no Status")??;
        ensure!(first.code == code::STATUS, "the client begins with packet {}", first.code);
        for (place, step) in self.steps.iter().enumerate() {
            let message = timeout(PATIENCE, receiver.next())
                .await
                .with_context(|| format!("the client does not do what was recorded as step {place}"))??;
            let ours = step.act.check(session, message.code, &message.payload)?;
            for (code, payload) in &step.answers {
                sender.send(0, *code, ours.put_in(session, *code, payload)?).await?;
            }
        }
        // What the client does beyond that was not recorded.
        match timeout(PATIENCE, receiver.next()).await.context("the client does not leave")? {
            Ok(message) => bail!("the client sends packet {} where the recorded one left", message.code),
            Err(_) => Ok(()),
        }
    }
}

fn act<'a>(read: &'a Read, sent: &'a Sent) -> anyhow::Result<Option<Act<'a>>> {
    let id = sent.id;
    match read {
        Read::Status(_) => Ok(None),
        Read::Messages { envelopes } if !envelopes.is_empty() => {
            let faults = sent.faults.as_ref().context("a post without its confirmation")?;
            Ok(Some(Act::Post { id, envelopes, faults }))
        }
        Read::Request(sealed) => {
            let answer = sent.answer.as_ref().context("a request without its answer")?;
            Ok(Some(Act::Ask { id, request: sealed.request.as_ref(), answer }))
        }
        _ => bail!("no client of ours sends such a packet {}", sent.code),
    }
}

/// What our client made, by what the recorded one had made in its place.
#[derive(Default)]
struct Ours {
    ids: BTreeMap<Hash, Hash>,
    envelopes: BTreeMap<Hash, Envelope>,
}

impl Act<'_> {
    /// Compares a packet of our client with the recorded one.
    fn check(&self, session: &Session, code: u8, payload: &Bytes) -> anyhow::Result<Ours> {
        let mut ours = Ours::default();
        match (self, Packet::decode(session.capability, code, payload.clone())?) {
            (Self::Post { id, envelopes, .. }, Some(Packet::Messages(messages))) => {
                ensure!(messages.envelopes.len() == envelopes.len(), "the client posts another number");
                ours.ids.insert(*id, messages.batch_hash);
                for (recorded, envelope) in envelopes.iter().zip(messages.envelopes) {
                    ours.ids.insert(recorded.hash, envelope.hash());
                    ours.envelopes.insert(recorded.hash, envelope);
                }
            }
            (Self::Ask { id, request, .. }, Some(Packet::MailRequest(packet))) => {
                ours.ids.insert(*id, packet.request_id());
                let envelope = Envelope::decode(payload.clone()).context("the request is not sealed")?;
                check_request(session, *request, &envelope)?;
            }
            _ => bail!("the client sends packet {code} where the recorded one did something else"),
        }
        Ok(ours)
    }
}

fn check_request(session: &Session, recorded: Option<&RequestRead>, ours: &Envelope) -> anyhow::Result<()> {
    let key = SymKey::from_bytes(session.mail_key[..].try_into()?)?;
    let opened =
        open_request(ours, RequestKeys { password: Some(&key), node: None }, session.server.min_pow)?;
    let (request, form) = MailRequest::decode(&opened.payload)?;
    ensure!(form == RequestForm::Deployed, "the client asks in the form {form:?}");
    let Some(recorded) = recorded else { return Ok(()) };
    let MailRequest { lower, upper, bloom, topics, limit, cursor, batch } = request;
    ensure!(
        cursor == recorded.cursor,
        "the client goes on from {cursor:?}, recorded is {:?}",
        recorded.cursor
    );
    // Deployed clients build filters by the assigning projection: ours has their bits, and more.
    let bloom = match (Bloom::try_from(&bloom[..]), Bloom::try_from(&recorded.bloom[..])) {
        (Ok(ours), Ok(theirs)) if !topics.is_empty() && ours.covers(&theirs) => recorded.bloom.clone(),
        _ => bloom,
    };
    let asked = RequestRead { lower, upper, bloom, topics, limit, cursor, batch };
    ensure!(asked == *recorded, "the client asks for something else than was recorded");
    Ok(())
}

impl Ours {
    /// A recorded packet of the server, about what our client made.
    fn put_in(&self, session: &Session, code: u8, payload: &Bytes) -> anyhow::Result<Bytes> {
        match code {
            code::MESSAGE_RESPONSE | code::BATCH_ACKNOWLEDGED | code::MAIL_COMPLETE => {
                let mut payload = payload.to_vec();
                for (recorded, ours) in &self.ids {
                    replace(&mut payload, recorded, ours);
                }
                Ok(payload.into())
            }
            code::MESSAGES => {
                let Some(Packet::Messages(echo)) = Packet::decode(session.capability, code, payload.clone())?
                else {
                    bail!("the recorded echo cannot be read");
                };
                let ours = |envelope: &Envelope| self.envelopes.get(&envelope.hash()).cloned();
                let envelopes = echo.envelopes.iter().map(ours).collect::<Option<_>>();
                let echo = Messages::new(envelopes.context("an echo of what was not posted")?);
                Ok(Packet::Messages(echo).encode(session.capability)?.1)
            }
            _ => Ok(payload.clone()),
        }
    }
}

/// Puts a hash in the place of another, which leaves every length as it is.
fn replace(payload: &mut [u8], from: &Hash, to: &Hash) {
    let mut start = 0;
    while let Some(found) =
        payload[start..].windows(Hash::LENGTH).position(|window| window == from.as_bytes())
    {
        let place = start + found;
        payload[place..place + Hash::LENGTH].copy_from_slice(to.as_bytes());
        start = place + Hash::LENGTH;
    }
}
