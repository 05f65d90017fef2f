//! Fetching mail: page after page to the end of the range, and whether that was everything.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Duration;

use poste_waku::Session;
use poste_waku::mail::{self, Page, PageEnd, Sealer};
use poste_wire::mail::{BINARY_MAX_RANGE_SECONDS, MAX_LIMIT, MailRequest};
use poste_wire::{Cursor, Envelope, Hash, Topic};
use rand::Rng;

use crate::{ClientError, unix_now};

/// How long a nonce for a request is searched for.
const MINING: Duration = Duration::from_secs(5);
/// How many envelopes a page may bring, compared with what was asked for: late answers to earlier requests count too.
const PAGE_TOLERANCE: usize = 4;
/// How many envelopes a day of a go-ethereum may bring, which takes no limit.
const DAY_TOLERANCE: usize = 1_000_000;

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// What requests are sealed with.
    pub sealer: Sealer,
    /// The topics; none stands for everything.
    pub topics: Vec<Topic>,
    /// Not created before this, unix seconds.
    pub since: u32,
    /// Not created after this, unix seconds.
    pub until: u32,
    /// Envelopes a page, 1 to 1000.
    pub page_size: u32,
    /// The silence that ends an answer for which no completion comes.
    pub silence: Duration,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// How many different envelopes.
    pub count: usize,
    /// In how many pages.
    pub pages: usize,
    /// Whether the mailserver says that this was everything (a go-ethereum cannot: then its silence does).
    pub complete: bool,
    /// Why it is not complete, or how it ended.
    pub reason: String,
}

/// Fetches everything, and hands each envelope to `take` once, as it comes.
pub async fn fetch(
    session: &mut Session,
    fetch: &Fetch,
    take: impl FnMut(Envelope),
) -> Result<Fetched, ClientError> {
    if fetch.since > fetch.until {
        return Err(ClientError::Invalid("the range ends before it begins"));
    }
    if !(1..=MAX_LIMIT).contains(&fetch.page_size) {
        return Err(ClientError::Invalid("a page has 1 to 1000 envelopes"));
    }
    let by_silence = mail::ends_by_silence(session);
    let mut walk = Walk { session, fetch, take, by_silence, seen: Seen::default(), count: 0, pages: 0 };
    let (complete, reason) = match walk.run().await? {
        Ok(reason) => (true, reason.to_owned()),
        Err(reason) => (false, reason),
    };
    Ok(Fetched { count: walk.count, pages: walk.pages, complete, reason })
}

/// How a walk ended: complete, or the reason why not.
type Outcome = Result<&'static str, String>;

struct Walk<'a, T> {
    session: &'a mut Session,
    fetch: &'a Fetch,
    take: T,
    /// Whether the mailserver ends its answers by silence, and takes no limit.
    by_silence: bool,
    seen: Seen,
    count: usize,
    pages: usize,
}

impl<T: FnMut(Envelope)> Walk<'_, T> {
    /// The whole range: at once, or from a go-ethereum a day at a time, which is as much as it gives.
    async fn run(&mut self) -> Result<Outcome, ClientError> {
        let Fetch { since, until, .. } = *self.fetch;
        if !self.by_silence {
            return self.range(since, until).await;
        }
        let mut lower = since;
        loop {
            let upper = lower.saturating_add(BINARY_MAX_RANGE_SECONDS).min(until);
            let outcome = self.range(lower, upper).await?;
            if outcome.is_err() || upper >= until {
                return Ok(outcome);
            }
            lower = upper + 1;
        }
    }

    /// A range, following the cursors of a mailserver that gives them.
    async fn range(&mut self, lower: u32, upper: u32) -> Result<Outcome, ClientError> {
        let mut walk = Cursors::default();
        loop {
            let mut request = MailRequest::between(lower, upper)
                .with_topics(self.fetch.topics.clone())
                .with_cursor(walk.last);
            if !self.by_silence {
                request = request.with_limit(self.fetch.page_size);
            }
            let Page { received, end } = self.page(&request).await?;
            let next = match end {
                PageEnd::Done { cursor: None, .. } => return Ok(Ok("the mailserver has no more")),
                PageEnd::Done { cursor: Some(next), .. } => next,
                PageEnd::Silence if self.by_silence => {
                    return Ok(Ok("the mailserver fell silent, which is all that a go-ethereum says"));
                }
                PageEnd::Silence => return Ok(Err(self.silent())),
                PageEnd::Failed(error) => return Ok(Err(format!("the mailserver says: {error}"))),
                PageEnd::TooMuch => {
                    return Ok(Err("the mailserver sends more than it was asked for".to_owned()));
                }
                PageEnd::Unreadable => {
                    return Ok(Err("the mailserver sent mail that cannot be read".to_owned()));
                }
            };
            if received == 0 || !walk.advance(next) {
                return Ok(Err("the mailserver's cursor leads nowhere".to_owned()));
            }
        }
    }

    async fn page(&mut self, request: &MailRequest) -> Result<Page, ClientError> {
        let most =
            if self.by_silence { DAY_TOLERANCE } else { PAGE_TOLERANCE * self.fetch.page_size as usize };
        let (_, peer) = self.session.best().ok_or(ClientError::Invalid("the session is not ready"))?;
        let (pow, plain) = (peer.settings.pow_requirement, peer.plain_go_ethereum);
        let envelope = seal(pow, plain, &self.fetch.sealer, request).await?;
        self.pages += 1;
        self.seen.turn();
        let (fetch, seen, count, take) = (self.fetch, &mut self.seen, &mut self.count, &mut self.take);
        let page = mail::page(self.session, &envelope, fetch.silence, most, |envelope| {
            let wanted = fetch.topics.is_empty() || fetch.topics.contains(&envelope.topic());
            let within = (fetch.since..=fetch.until).contains(&envelope.sent());
            if wanted && within && seen.add(envelope.hash()) {
                *count += 1;
                take(envelope);
            }
        });
        Ok(page.await?)
    }

    fn silent(&self) -> String {
        format!("the mailserver has not answered for {} s", self.fetch.silence.as_secs_f64())
    }
}

/// In the form, and with the proof of work, that the mailserver asks for.
async fn seal(
    pow: f64,
    plain: bool,
    sealer: &Sealer,
    request: &MailRequest,
) -> Result<Envelope, ClientError> {
    let (sealer, request, now) = (sealer.clone(), request.clone(), unix_now());
    let sealing = tokio::task::spawn_blocking(move || {
        let began = std::time::Instant::now();
        let random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
        mail::seal(&sealer, &request, pow, plain, now, random, || began.elapsed() > MINING)
    });
    Ok(sealing.await.map_err(|_| ClientError::Stopping)??)
}

/// The cursors of a walk. They lead in one direction, whichever the mailserver's is, so that a walk comes to an end.
#[derive(Debug, Default)]
struct Cursors {
    last: Option<Cursor>,
    direction: Option<Ordering>,
}

impl Cursors {
    /// Takes the next cursor; false when it does not lead on.
    fn advance(&mut self, next: Cursor) -> bool {
        let step = self.last.replace(next).map(|last| next.cmp(&last));
        match (step, self.direction) {
            (None, _) => true,
            (Some(Ordering::Equal), _) => false,
            (step, None) => {
                self.direction = step;
                true
            }
            (step, direction) => step == direction,
        }
    }
}

/// The envelopes of this page and the one before: pages do not overlap by more, and a long history fills no memory.
#[derive(Debug, Default)]
struct Seen {
    this_page: HashSet<Hash>,
    last_page: HashSet<Hash>,
}

impl Seen {
    fn turn(&mut self) {
        self.last_page = std::mem::take(&mut self.this_page);
    }

    /// Whether it is new.
    fn add(&mut self, hash: Hash) -> bool {
        self.this_page.insert(hash) && !self.last_page.contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(sent: u32) -> Cursor {
        Cursor { sent, hash: Hash([0; 32]) }
    }

    #[test]
    fn cursors_lead_in_one_direction() {
        for (walk, leads_on) in
            [([1, 2, 3], true), ([3, 2, 1], true), ([1, 1, 2], false), ([1, 2, 1], false), ([2, 1, 2], false)]
        {
            let mut cursors = Cursors::default();
            assert_eq!(walk.into_iter().all(|sent| cursors.advance(cursor(sent))), leads_on, "{walk:?}");
        }
    }
}
