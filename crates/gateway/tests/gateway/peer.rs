//! A peer that keeps to the protocol, or says what a test wants under a packet's code. It is built on the transport
//! alone, so that nothing of our session hides what is on the wire.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use poste_codec::SecretKey;
use poste_rlpx::{
    Capability, Closed, Connection, DisconnectReason, Enode, Limits, LocalNode, Receiver, Sender,
};
use poste_wire::mail::{MailRequest, MailRequestPacket};
use poste_wire::packet::{Completion, EnvelopeFault, Messages, Options, Status};
use poste_wire::{Bloom, Dialect, Envelope, Hash, Packet};
use tokio::net::TcpSocket;

use crate::envelopes::{fresh_key, sealed};
use crate::stack::{Stack, soon};

/// How a peer appears.
#[derive(Clone)]
pub(crate) struct Appearance {
    pub(crate) key: SecretKey,
    pub(crate) dialects: Vec<Dialect>,
    pub(crate) options: Options,
    /// The room in its socket, so that little is on the way when it does not read.
    pub(crate) receive_buffer: Option<u32>,
}

impl Appearance {
    /// A peer that is relayed nothing.
    pub(crate) fn quiet(dialect: Dialect) -> Self {
        Self::wanting(dialect, Options { bloom: Some(Bloom::EMPTY), ..Options::default() })
    }

    /// A peer that says what it wants.
    pub(crate) fn wanting(dialect: Dialect, wants: Options) -> Self {
        let options = Options { pow_requirement: Some(wants.pow_requirement.unwrap_or(0.0)), ..wants };
        Self { key: fresh_key(), dialects: vec![dialect], options, receive_buffer: None }
    }

    /// Connects, up to both Hellos.
    pub(crate) async fn connect(&self, enode: &Enode) -> Result<Connection, poste_rlpx::ConnectError> {
        let node = LocalNode {
            key: self.key.clone(),
            client_name: "a peer of the tests".to_owned(),
            capabilities: self.dialects.iter().copied().map(poste_waku::offered).collect(),
            listen_port: 0,
        };
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let (host, port) = enode.endpoint.as_ref().unwrap().address();
        let stream = socket.connect(format!("{host}:{port}").parse().unwrap()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        soon("both handshakes", poste_rlpx::dial_over(stream, &enode.key, &node, &Limits::default())).await
    }
}

/// A packet as it came.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) dialect: Dialect,
    pub(crate) code: u8,
    pub(crate) payload: Bytes,
    pub(crate) packet: Packet,
}

/// A connected peer.
pub(crate) struct Peer {
    pub(crate) key: SecretKey,
    pub(crate) dialect: Dialect,
    receiver: Receiver,
    sender: Sender,
    /// What came while something else was waited for.
    inbox: VecDeque<Heard>,
}

/// What 12 says about a batch.
pub(crate) type Faults = Vec<EnvelopeFault>;

impl Peer {
    /// A peer of this dialect that is relayed nothing.
    pub(crate) async fn quiet(stack: &Stack, dialect: Dialect) -> Self {
        Self::appear(stack, &Appearance::quiet(dialect)).await
    }

    /// A peer of this dialect that says what it wants.
    pub(crate) async fn wanting(stack: &Stack, dialect: Dialect, wants: Options) -> Self {
        Self::appear(stack, &Appearance::wanting(dialect, wants)).await
    }

    /// Connects, and exchanges Status on every lane.
    pub(crate) async fn appear(stack: &Stack, appearance: &Appearance) -> Self {
        let mut peer = Self::before_status(stack, appearance).await;
        for dialect in &appearance.dialects {
            let status = Packet::Status(Status::new(appearance.options.clone()));
            peer.say_on(*dialect, &status).await;
        }
        for _ in &appearance.dialects {
            let heard = peer.next("the gateway's status").await;
            assert!(matches!(heard.packet, Packet::Status(_)), "{heard:?}");
        }
        peer
    }

    /// Connects and says nothing yet.
    pub(crate) async fn before_status(stack: &Stack, appearance: &Appearance) -> Self {
        let connection = appearance.connect(&stack.enode()).await.unwrap();
        let (receiver, sender) = connection.split();
        let (key, dialect) = (appearance.key.clone(), appearance.dialects[0]);
        Self { key, dialect, receiver, sender, inbox: VecDeque::new() }
    }

    pub(crate) async fn say(&mut self, packet: &Packet) {
        self.say_on(self.dialect, packet).await;
    }

    pub(crate) async fn say_on(&mut self, dialect: Dialect, packet: &Packet) {
        let (code, payload) = packet.encode(dialect).unwrap();
        self.say_raw_on(dialect, code, payload).await;
    }

    /// Says anything under a code.
    pub(crate) async fn say_raw(&mut self, code: u8, payload: impl Into<Bytes>) {
        self.say_raw_on(self.dialect, code, payload.into()).await;
    }

    async fn say_raw_on(&mut self, dialect: Dialect, code: u8, payload: Bytes) {
        let capability = poste_waku::offered(dialect).capability;
        let lane = self.sender.shared().iter().position(|shared| shared.capability == capability).unwrap();
        soon("room to send", self.sender.send(lane, code, payload)).await.unwrap();
    }

    /// The next packet, whatever it is.
    pub(crate) async fn next(&mut self, what: &str) -> Heard {
        match self.inbox.pop_front() {
            Some(heard) => heard,
            None => soon(what, self.receive()).await.unwrap_or_else(|closed| panic!("{what}: {closed}")),
        }
    }

    /// The next packet that `pick` takes; others wait.
    pub(crate) async fn hear<T>(&mut self, what: &str, mut pick: impl FnMut(&Heard) -> Option<T>) -> T {
        for (index, heard) in self.inbox.iter().enumerate() {
            if let Some(picked) = pick(heard) {
                self.inbox.remove(index);
                return picked;
            }
        }
        loop {
            let heard = soon(what, self.receive()).await.unwrap_or_else(|closed| panic!("{what}: {closed}"));
            match pick(&heard) {
                Some(picked) => return picked,
                None => self.inbox.push_back(heard),
            }
        }
    }

    /// Nothing has come that was not waited for.
    pub(crate) fn assert_nothing_else(&self) {
        assert!(self.inbox.is_empty(), "{:?}", self.inbox);
    }

    /// Reads to the end of the connection, which must come by itself.
    pub(crate) async fn hear_the_end(self) -> Closed {
        self.hear_everything().await.1
    }

    /// The same, and what came until then.
    pub(crate) async fn hear_everything(mut self) -> (Vec<Heard>, Closed) {
        let mut heard: Vec<_> = self.inbox.drain(..).collect();
        loop {
            match soon("the end of the connection", self.receive()).await {
                Ok(next) => heard.push(next),
                Err(closed) => return (heard, closed),
            }
        }
    }

    /// The gateway ends the connection with this reason.
    pub(crate) async fn expect_disconnect(self, reason: DisconnectReason) {
        assert_eq!(self.hear_the_end().await, Closed::Disconnected(reason));
    }

    /// Says goodbye, as a peer that leaves.
    pub(crate) async fn leave(self) {
        self.sender.disconnect(DisconnectReason::Quitting);
        soon("the goodbye", self.sender.closed()).await;
    }

    async fn receive(&mut self) -> Result<Heard, Closed> {
        let message = self.receiver.next().await?;
        let Capability { name, version } = &self.receiver.shared()[message.capability].capability;
        let dialect = Dialect::ALL.into_iter().find(|d| d.name() == name && d.version() == *version).unwrap();
        let (code, payload) = (message.code, message.payload);
        let packet = Packet::decode(dialect, code, payload.clone()).unwrap().unwrap();
        Ok(Heard { dialect, code, payload, packet })
    }

    /// Posts a packet of envelopes; says which batch that is.
    pub(crate) async fn post(&mut self, envelopes: &[Envelope]) -> Hash {
        let messages = Messages::new(envelopes.to_vec());
        let batch = messages.batch_hash;
        self.say(&Packet::Messages(messages)).await;
        batch
    }

    /// The same, however long the gateway takes to read it, or until it ends the connection.
    pub(crate) async fn press_on(&mut self, envelopes: &[Envelope]) -> Result<(), Closed> {
        let messages = Packet::Messages(Messages::new(envelopes.to_vec()));
        let (code, payload) = messages.encode(self.dialect).unwrap();
        self.sender.send(0, code, payload).await?;
        self.sender.flush().await
    }

    /// What the gateway says about a batch: 12, and then 11.
    pub(crate) async fn confirmation(&mut self, batch: Hash) -> Faults {
        let response = self
            .hear("packet 12", |heard| match &heard.packet {
                Packet::MessageResponse(response) if response.batch_hash == batch => Some(response.clone()),
                Packet::BatchAcknowledged(hash) if *hash == batch => panic!("11 came before 12"),
                _ => None,
            })
            .await;
        let acknowledged = |heard: &Heard| (heard.packet == Packet::BatchAcknowledged(batch)).then_some(());
        self.hear("packet 11", acknowledged).await;
        response.faults
    }

    /// Posts a packet of envelopes, all of which must be confirmed.
    pub(crate) async fn post_confirmed(&mut self, envelopes: &[Envelope]) {
        let batch = self.post(envelopes).await;
        assert_eq!(self.confirmation(batch).await, []);
    }

    /// Everything that is relayed until this envelope comes, which must be the last. The gateway relays in the order of
    /// arrival, so what would have come before it has come.
    pub(crate) async fn relayed_until(&mut self, marker: &Envelope) -> Vec<Envelope> {
        let mut relayed = Vec::new();
        loop {
            let messages = self.hear("relayed envelopes", |heard| match &heard.packet {
                Packet::Messages(messages) => Some(messages.envelopes.clone()),
                _ => None,
            });
            relayed.extend(messages.await);
            if let Some(at) = relayed.iter().position(|envelope| envelope == marker) {
                assert_eq!(at, relayed.len() - 1, "something came behind the marker");
                relayed.pop();
                return relayed;
            }
        }
    }

    /// Sends a request for mail; says which id its answer has.
    pub(crate) async fn ask(&mut self, request: MailRequestPacket) -> Hash {
        let id = request.request_id();
        self.say(&Packet::MailRequest(request)).await;
        id
    }

    /// The answer to a request: the packets of mail, and the end.
    pub(crate) async fn answer(&mut self, id: Hash) -> (Vec<Heard>, Completion) {
        let mut packets = Vec::new();
        loop {
            let heard = self.hear("mail, or its end", |heard| match &heard.packet {
                Packet::MailMessages(_) | Packet::MailComplete(_) => Some(heard.clone()),
                _ => None,
            });
            let heard = heard.await;
            match &heard.packet {
                Packet::MailComplete(completion) => {
                    assert_eq!(completion.request_id(), id);
                    return (packets, completion.clone());
                }
                _ => packets.push(heard),
            }
        }
    }

    /// Asks for one page in the sealed form and gets it.
    pub(crate) async fn page(&mut self, request: &MailRequest) -> (Vec<Envelope>, Completion) {
        self.page_of(MailRequestPacket::Sealed(sealed(request))).await
    }

    /// Asks for one page and gets it.
    pub(crate) async fn page_of(&mut self, request: MailRequestPacket) -> (Vec<Envelope>, Completion) {
        let id = self.ask(request).await;
        let (packets, completion) = self.answer(id).await;
        let envelopes = packets.into_iter().flat_map(|heard| match heard.packet {
            Packet::MailMessages(envelopes) => envelopes,
            _ => Vec::new(),
        });
        (envelopes.collect(), completion)
    }

    /// Asks for everything, page after page.
    pub(crate) async fn fetch(&mut self, request: &MailRequest) -> Vec<Envelope> {
        match self.try_fetch(request).await {
            Ok(all) => all,
            Err(error) => panic!("the mailserver says: {error}"),
        }
    }

    /// The same, from the beginning, as often as the mailserver says that something is still to come.
    pub(crate) async fn fetch_in_time(&mut self, request: &MailRequest) -> Vec<Envelope> {
        let asking = async {
            loop {
                match self.try_fetch(request).await {
                    Ok(all) => return all,
                    Err(error) => assert!(error.ends_with("ask again later"), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("history to be complete", asking).await
    }

    async fn try_fetch(&mut self, request: &MailRequest) -> Result<Vec<Envelope>, String> {
        let mut all = Vec::new();
        let mut request = request.clone();
        loop {
            let (envelopes, completion) = self.page(&request).await;
            let last = envelopes.last().map(Envelope::hash).unwrap_or_default();
            all.extend(envelopes);
            match completion {
                Completion::Done { last_hash, cursor, .. } => {
                    assert_eq!(last_hash, last);
                    if cursor.is_none() {
                        return Ok(all);
                    }
                    request = request.with_cursor(cursor);
                }
                Completion::Failed { error, .. } => return Err(error),
            }
        }
    }

    /// Asks for what is refused; says with which words.
    pub(crate) async fn refusal(&mut self, request: MailRequestPacket) -> String {
        match self.page_of(request).await {
            (envelopes, Completion::Failed { error, .. }) if envelopes.is_empty() => error,
            answer => panic!("not refused: {answer:?}"),
        }
    }
}

/// Envelopes in the order of mail.
pub(crate) fn in_order(envelopes: &[Envelope]) -> Vec<Envelope> {
    let mut sorted = envelopes.to_vec();
    sorted.sort_by_key(Envelope::cursor);
    sorted
}
