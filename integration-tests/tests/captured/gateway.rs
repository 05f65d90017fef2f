//! The recorded clients against our gateway: their packets, in their order, at their times, with their keys.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bytes::Bytes;
use poste_waku::mail::{self, Sealer};
use poste_wire::mail::MailRequest;
use poste_wire::packet::{Messages, code};
use poste_wire::{Envelope, Hash, Packet as Wire, SymKey, Topic, pow};
use rand::Rng;

use crate::account::Account;
use crate::compare::{self, Difference};
use crate::peer::{Gone, Peer};
use crate::recording::{Client, Packet, Session, Side};
use crate::stack::Stack;

/// Replays a session and compares.
pub(crate) async fn replay(session: &Session) -> anyhow::Result<Vec<Difference>> {
    let recorded = session.clients().into_iter();
    let recorded = recorded.map(|client| Ok((client, Account::recorded(session, client)?)));
    let recorded = recorded.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let begin = session.packets.first().map_or(0.0, |packet| packet.ms);
    let mut replay = Replay {
        stack: Stack::start(session, session.at(begin)).await?,
        session,
        recorded,
        connected: BTreeMap::new(),
        gone: BTreeMap::new(),
        witnesses: BTreeSet::new(),
    };
    for (index, packet) in session.packets.iter().enumerate() {
        replay.leave(packet.ms).await?;
        replay.step(index, packet).await.with_context(|| format!("packet {index} ({})", packet.code))?;
    }
    replay.leave(f64::INFINITY).await?;
    for gone in replay.gone.values_mut() {
        gone.account.forget(PROBES, &replay.witnesses);
    }
    let differences = compare::session(session, &replay.recorded, &replay.gone)?;
    replay.stack.stop().await?;
    Ok(differences)
}

/// How many packets of its own the replay sends before a client leaves.
const PROBES: usize = 2;
/// Ttl of an envelope that proves that nothing else is relayed.
const WITNESS_TTL: u32 = 50;
/// It is made so many seconds ahead, as far as nodes tolerate: no recorded request asks for it.
const WITNESS_AHEAD: u32 = 10;

/// Waits for the answers of ours to what was answered before a place in the recording.
async fn hear_answers(peer: &mut Peer, recorded: &Account, index: usize) -> anyhow::Result<()> {
    for (place, sent) in recorded.sent.iter().enumerate() {
        if sent.done_at.is_some_and(|at| at < index) {
            let what = format!("the answer to packet {place} ({})", sent.code);
            peer.until(&what, |account| account.sent[place].done_at.is_some()).await?;
        }
    }
    Ok(())
}

struct Replay<'a> {
    session: &'a Session,
    stack: Stack,
    recorded: BTreeMap<Client, Account>,
    connected: BTreeMap<Client, Peer>,
    gone: BTreeMap<Client, Gone>,
    witnesses: BTreeSet<Hash>,
}

impl Replay<'_> {
    async fn step(&mut self, index: usize, packet: &Packet) -> anyhow::Result<()> {
        let client = packet.client;
        if !self.connected.contains_key(&client) {
            self.stack.set_time(self.session.at(packet.ms));
            let key = self.session.key_of(client)?;
            let peer = Peer::dial(&self.stack.enode, key, self.session.capability).await?;
            self.connected.insert(client, peer);
        }
        match packet.from {
            Side::Server if packet.code == code::STATUS => {
                let peer = self.connected.get_mut(&client).context("the client is not connected")?;
                peer.until("a Status", |account| account.status.is_some()).await
            }
            // Awaited before the next packet of a client, and compared at the end.
            Side::Server => Ok(()),
            Side::Client => {
                self.hear_answers_before(index).await?;
                self.stack.set_time(self.session.at(packet.ms));
                let peer = self.connected.get_mut(&client).context("the client is not connected")?;
                peer.send(
                    packet.code,
                    packet.payload.clone().context("a client's packet is recorded whole")?,
                )
                .await?;
                Ok(())
            }
        }
    }

    /// Waits until everything is answered that was answered before this place in the recording.
    async fn hear_answers_before(&mut self, index: usize) -> anyhow::Result<()> {
        for (client, peer) in &mut self.connected {
            let recorded = self.recorded.get(client).context("an unknown client")?;
            hear_answers(peer, recorded, index).await.with_context(|| format!("client {client:?}"))?;
        }
        Ok(())
    }

    /// Lets the clients go that had gone at `ms`.
    async fn leave(&mut self, ms: f64) -> anyhow::Result<()> {
        let session = self.session;
        for end in session.ends.iter().filter(|end| end.ms < ms) {
            if let Some(mut peer) = self.connected.remove(&end.client) {
                let recorded = self.recorded.get(&end.client).context("an unknown client")?;
                hear_answers(&mut peer, recorded, usize::MAX).await?;
                self.stack.set_time(session.at(end.ms));
                self.hear_all(end.client, &mut peer).await?;
                self.gone.insert(end.client, peer.leave().await);
            }
        }
        Ok(())
    }

    /// Hears everything that the gateway has for a client, and proves that there is no more: the archive takes batches in
    /// their order, the gateway answers requests in theirs and relays in the order of arrival. So once a batch, a
    /// request and an envelope of ours have had their due, nothing that came before them is on its way.
    async fn hear_all(&mut self, client: Client, peer: &mut Peer) -> anyhow::Result<()> {
        let proof = self.prove(client, peer).await;
        // That the gateway ended the connection is for the comparison to judge.
        if peer.ended.is_some() { Ok(()) } else { proof }
    }

    async fn prove(&mut self, client: Client, peer: &mut Peer) -> anyhow::Result<()> {
        let posted = Messages::new(vec![self.witness()?]);
        let (code, posted) = Wire::Messages(posted).encode(self.session.capability)?;
        let batch = peer.send(code, posted).await?;
        let request = peer.send(code::MAIL_REQUEST, self.request_for_nothing(client)?).await?;
        let witness = self.witness()?;
        self.stack.publish(&witness).await?;
        let what = "the answers to a batch and to a request for nothing, and the last envelope";
        peer.until(what, |account| {
            let answered = |place: usize| account.sent[place].done_at.is_some();
            answered(batch) && answered(request) && account.relayed.contains(&witness.hash())
        })
        .await
    }

    fn request_for_nothing(&self, client: Client) -> anyhow::Result<Bytes> {
        let key = SymKey::from_bytes(self.session.mail_key[..].try_into()?)?;
        let sealer = Sealer { key, signer: self.session.key_of(client)?.clone() };
        let random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
        let request = MailRequest::between(1, 1);
        let (pow, now) = (self.session.server.min_pow, self.stack.unix_now()?);
        Ok(mail::seal(&sealer, &request, pow, false, now, random, || false)?.rlp().clone())
    }

    /// An envelope of the replay's own.
    fn witness(&mut self) -> anyhow::Result<Envelope> {
        let mut data = [0; 32];
        rand::rng().fill_bytes(&mut data);
        let expiry = self.stack.unix_now()? + WITNESS_AHEAD + WITNESS_TTL;
        // Work on an envelope from the future counts over the time until then, too.
        let pow = self.session.server.min_pow * 2.0;
        let envelope = pow::mine(expiry, WITNESS_TTL, Topic::of_name("witness"), &data, pow, || false)?;
        self.witnesses.insert(envelope.hash());
        Ok(envelope)
    }
}
