//! The recorded mailservers against our client: a server of the replay's own answers with their packets, and what our
//! client asks for and reports is compared with what was recorded.

use anyhow::{Context as _, ensure};
use poste_client::{ConnectOptions, Fetch, Post};
use poste_rlpx::Enode;
use poste_waku::Session as Connected;
use poste_waku::mail::{self, PageEnd, Sealer};
use poste_wire::mail::{MAX_LIMIT, MailRequest};
use poste_wire::packet::Completion;
use poste_wire::{Bloom, Cursor, Envelope, Hash, SymKey};
use rand::Rng;
use tokio::net::TcpListener;

use crate::PATIENCE;
use crate::account::Answer;
use crate::recording::{Client, RequestRead, Session};
use crate::script::{Act, Script};

/// The range of a request whose own could not be read, in seconds around the beginning of the session.
const DAY: u32 = 24 * 60 * 60;
const MINUTE: u32 = 60;

/// What was compared.
#[derive(Default)]
pub(crate) struct Compared {
    pub(crate) posts: usize,
    pub(crate) requests: usize,
    pub(crate) envelopes: usize,
}

/// Plays a recorded server for our client in the place of `client`.
pub(crate) async fn replay(
    session: &Session,
    client: Client,
    script: &Script<'_>,
) -> anyhow::Result<Compared> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let enode = Enode::new(session.server_node_private.public(), "127.0.0.1", port);
    let ours = async {
        let options = ConnectOptions { key: session.key_of(client)?.clone(), ..ConnectOptions::quiet() };
        let connected = poste_client::connect(&enode, &options).await?;
        let sealer =
            Sealer { key: SymKey::from_bytes(session.mail_key[..].try_into()?)?, signer: options.key };
        Asking { session, connected, sealer, compared: Compared::default() }.follow(script).await
    };
    let ((), compared) = tokio::try_join!(script.serve(session, client, listener), ours)?;
    Ok(compared)
}

/// Our client, doing what the recorded one did.
struct Asking<'a> {
    session: &'a Session,
    connected: Connected,
    sealer: Sealer,
    compared: Compared,
}

impl Asking<'_> {
    async fn follow(mut self, script: &Script<'_>) -> anyhow::Result<Compared> {
        let mut steps = &script.steps[..];
        while let Some(step) = steps.first() {
            let done = match &step.act {
                Act::Post { .. } => {
                    self.post(&step.act).await?;
                    1
                }
                Act::Ask { request, answer, .. } => match walk(&script.acts(steps)) {
                    0 => {
                        self.ask_for_page(*request, answer).await?;
                        1
                    }
                    pages => {
                        self.fetch(&script.acts(&steps[..pages])).await?;
                        pages
                    }
                },
            };
            steps = &steps[done..];
        }
        Ok(self.compared)
    }

    /// Posts as many envelopes: each is confirmed, or has the fault of the recorded one in its place.
    async fn post(&mut self, act: &Act<'_>) -> anyhow::Result<()> {
        let Act::Post { envelopes, faults, .. } = act else { return Ok(()) };
        let first = envelopes.first().context("an empty post")?;
        let post = Post {
            topic: first.topic,
            count: envelopes.len(),
            size: first.size - Envelope::HEADER_SIZE,
            ttl: 50,
            patience: PATIENCE,
        };
        let mut posted = Vec::new();
        let summary =
            poste_client::post(&mut self.connected, &post, |one| posted.push((one.confirmed, one.fault)))
                .await?;
        let recorded = envelopes.iter().map(|envelope| {
            let fault = faults.get(&envelope.hash).map(|fault| fault.text.clone());
            (fault.is_none(), fault)
        });
        ensure!(posted.iter().cloned().eq(recorded), "the client reports {posted:?}");
        let confirmed = posted.iter().filter(|(confirmed, _)| *confirmed).count();
        ensure!((summary.posted, summary.confirmed) == (envelopes.len(), confirmed), "it counts {summary:?}");
        self.compared.posts += 1;
        Ok(())
    }

    /// Fetches what the recorded client walked through, page after page.
    async fn fetch(&mut self, pages: &[&Act<'_>]) -> anyhow::Result<()> {
        let (asked, answers) = asks(pages);
        let begin = u32::try_from(self.session.start_unix)?;
        let fetch = match asked.first().copied().flatten() {
            Some(request) => Fetch {
                sealer: self.sealer.clone(),
                topics: request.topics.clone(),
                since: request.lower,
                until: request.upper,
                page_size: request.limit,
                silence: PATIENCE,
            },
            None => Fetch {
                sealer: self.sealer.clone(),
                topics: Vec::new(),
                since: begin - DAY,
                until: begin + MINUTE,
                page_size: MAX_LIMIT,
                silence: PATIENCE,
            },
        };
        let mut taken = Vec::new();
        let fetched =
            poste_client::fetch(&mut self.connected, &fetch, |envelope| taken.push(envelope)).await?;
        let mut recorded = self.recorded(answers.iter().flat_map(|answer| answer.envelopes()))?;
        // Servers that go by the bloom filter send false positives, which a client drops.
        recorded.retain(|envelope| fetch.topics.is_empty() || fetch.topics.contains(&envelope.topic()));
        ensure!(taken == recorded, "the client reports {taken:?}, recorded are {recorded:?}");
        let (complete, reason) = match &answers.last().context("no page")?.end {
            Completion::Done { .. } => (true, "the mailserver has no more".to_owned()),
            Completion::Failed { error, .. } => (false, format!("the mailserver says: {error}")),
        };
        ensure!(
            (fetched.count, fetched.pages) == (recorded.len(), pages.len()),
            "the client counts {fetched:?}"
        );
        ensure!((fetched.complete, &fetched.reason) == (complete, &reason), "the client says {fetched:?}");
        self.compared.requests += pages.len();
        self.compared.envelopes += recorded.len();
        Ok(())
    }

    /// Asks for a page as the recorded client did, in what `fetch` would not ask for.
    async fn ask_for_page(&mut self, request: Option<&RequestRead>, answer: &Answer) -> anyhow::Result<()> {
        let begin = u32::try_from(self.session.start_unix)?;
        let request = match request.cloned() {
            Some(RequestRead { lower, upper, bloom, topics, limit, cursor, batch }) => {
                MailRequest { lower, upper, bloom, topics, limit, cursor, batch }
            }
            None => MailRequest::between(begin - DAY, begin + MINUTE),
        };
        let (_, peer) = self.connected.best().context("the session is not ready")?;
        let (pow, plain) = (peer.settings.pow_requirement, peer.plain_go_ethereum);
        let random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
        let sealed = mail::seal(&self.sealer, &request, pow, plain, begin, random, || false)?;
        let mut taken = Vec::new();
        let page =
            mail::page(&mut self.connected, &sealed, PATIENCE, usize::MAX, |one| taken.push(one)).await?;
        let recorded = self.recorded(answer.envelopes())?;
        ensure!(taken == recorded, "the client reports {taken:?}, recorded are {recorded:?}");
        let end = match answer.end.clone() {
            Completion::Done { last_hash, cursor, .. } => PageEnd::Done { last_hash, cursor },
            Completion::Failed { error, .. } => PageEnd::Failed(error),
        };
        ensure!(page.received == recorded.len() && page.end == end, "the client says {page:?}");
        self.compared.requests += 1;
        self.compared.envelopes += recorded.len();
        Ok(())
    }

    /// The recorded envelopes with these hashes.
    fn recorded(&self, hashes: impl IntoIterator<Item = Hash>) -> anyhow::Result<Vec<Envelope>> {
        let known = self.session.envelopes()?;
        let envelope = |hash| {
            let rlp = known.get(&hash).with_context(|| format!("the bytes of {hash} are not recorded"))?;
            Ok(Envelope::decode(rlp.clone())?)
        };
        hashes.into_iter().map(envelope).collect()
    }
}

fn asks<'a>(acts: &[&Act<'a>]) -> (Vec<Option<&'a RequestRead>>, Vec<&'a Answer>) {
    acts.iter()
        .filter_map(|act| match act {
            Act::Ask { request, answer, .. } => Some((*request, *answer)),
            Act::Post { .. } => None,
        })
        .unzip()
}

/// How many of these acts are the pages of one walk that `fetch` would make; 0 if it would ask otherwise.
fn walk(acts: &[&Act<'_>]) -> usize {
    let asking = acts.iter().take_while(|act| matches!(act, Act::Ask { .. })).count();
    let (requests, answers) = asks(&acts[..asking]);
    let Some(first) = requests.first().copied().flatten() else {
        let refused = answers.first().is_some_and(|answer| matches!(answer.end, Completion::Failed { .. }));
        return usize::from(refused);
    };
    let plain = first.batch
        && (1..=MAX_LIMIT).contains(&first.limit)
        && first.lower <= first.upper
        && first.bloom.len() == Bloom::LENGTH
        && (!first.topics.is_empty() || first.bloom[..] == *Bloom::FULL.as_bytes());
    let mut next: Option<Cursor> = None;
    for (place, (request, answer)) in requests.iter().zip(&answers).enumerate() {
        let cursor = next.map_or_else(Vec::new, |cursor| cursor.to_bytes().to_vec());
        let expected = RequestRead { cursor: cursor.into(), ..first.clone() };
        if !plain || *request != Some(&expected) {
            return 0;
        }
        match &answer.end {
            Completion::Done { cursor: Some(cursor), .. } => next = Some(*cursor),
            _ => return place + 1,
        }
    }
    0
}
