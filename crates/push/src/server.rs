//! What the server does with each message: opens it, joins its segments, finds out who signed it, and hands it to the
//! step of the protocol that its kind names. Answers go out through a [`Publisher`].
//!
//! ```text
//! topic, data ── open ──► [segments] ──► [secure transport] ──► message ──► registration │ query │ request ──► answer
//! ```
//!
//! Messages come from strangers: whatever cannot be read is dropped and counted, never answered.

mod frames;
mod limits;
mod open;
mod segments;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use poste_codec::{PublicKey, SecretKey};
use poste_provider::{NotificationKey, PushProvider};
use poste_wire::Topic;
use poste_wire::status::segment::ReassemblyBounds;
use poste_wire::status::{HashedPublicKey, TopicName};

use crate::answer::{AnswerKind, PublishError, Publisher};
use crate::metrics::Metrics;
use crate::query::LookUps;
use crate::request::Pace;
use crate::store::{RegistrationStore, StoreError};
use crate::topics::{Derivations, QueryTopics, TopicFeed};
use crate::turns::Turns;
pub use limits::{LimitSettings, Rate};
pub(crate) use limits::{Limited, Limits, Toll, When};
pub use open::Opened;
pub(crate) use open::compute;
use open::{Channel, Progress};
use segments::Segments;

/// How a push server decides where the specification leaves it free, and its bounds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Devices may be named by any text of 1 to 128 bytes, as the specification has it. False: by UUIDs only, as all
    /// known clients do.
    pub any_installation_id: bool,
    /// A registration with `enabled` unset is notified of nothing. False: the field is ignored, as deployed servers do;
    /// some clients leave it unset.
    pub honour_enabled: bool,
    /// Requests that were made longer ago are answered, but notify nobody. 5 min.
    pub max_request_age: Duration,
    /// How often each may be served.
    pub limits: LimitSettings,
    /// How much is kept of messages of which segments are missing.
    pub reassembly: ReassemblyBounds,
    /// Derivations of topic keys at once, each tens of milliseconds of one core. 2.
    pub derivations: usize,
    /// First registrations of an owner that may wait for that; more get INTERNAL_ERROR. 256.
    pub waiting_derivations: usize,
    /// Bytes of the longest answer to a query; devices that do not fit are left out. 1 MiB.
    pub max_query_answer_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            any_installation_id: false,
            honour_enabled: false,
            max_request_age: Duration::from_secs(300),
            limits: LimitSettings::default(),
            reassembly: ReassemblyBounds::default(),
            derivations: 2,
            waiting_derivations: 256,
            max_query_answer_bytes: 1024 * 1024,
        }
    }
}

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    /// The key that clients know it by.
    pub identity: SecretKey,
    /// Keeps its state.
    pub store: Arc<dyn RegistrationStore>,
    /// Makes devices ring.
    pub provider: Arc<dyn PushProvider>,
    /// The key under which the provider marks notifications.
    pub notification_key: NotificationKey,
    /// Brings its answers to the network.
    pub publisher: Arc<dyn Publisher>,
    /// Is told which topics it listens to.
    pub feed: Arc<dyn TopicFeed>,
    /// Counts.
    pub metrics: Metrics,
}

/// One message as it came.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The envelope's topic.
    pub topic: Topic,
    /// The envelope's data.
    pub data: Bytes,
    /// When the envelope was made, since 1970.
    pub made_at: Duration,
    /// Its place in the stream: see [`PushServer::checkpoint`].
    pub position: u64,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handled {
    /// An answer was published.
    Answered(AnswerKind),
    /// Nobody gets an answer, and why.
    Unanswered(Unanswered),
}

impl Handled {
    /// False if another attempt at the same message may end otherwise.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Unanswered(why) if !why.is_final())
    }
}

/// Why a message was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unanswered {
    /// None of our keys opens it, or none of our topics is its topic.
    NotForUs,
    /// A segment of a message of which others are missing.
    Segment,
    /// A segment that cannot be, or is not wanted.
    BadSegment,
    /// What was opened is no application message, or names no signer.
    NoMessage,
    /// A kind of message that is nothing to a server, or has no place on this topic.
    OtherKind,
    /// A registration that its signer did not seal for us.
    Unsealed,
    /// A query or a request that cannot be read, or is beyond what anybody needs.
    Unreadable,
    /// A query about nobody whom we know; silence does not tell that we listen.
    NothingKnown,
    /// A query whose answer would be long, about those who were asked about too often; or by one who asks too often.
    TooFast,
    /// A request without a message id.
    NoMessageId,
    /// A request all of whose notifications are being sent for another copy of it, which gets the answer.
    InProgress,
    /// The store serves nobody at present: the only outcome that is not final.
    StoreFailed,
    /// What is stored of the owner is damaged.
    Damaged,
}

impl Unanswered {
    /// False if another attempt at the same message may end otherwise.
    #[must_use]
    pub fn is_final(self) -> bool {
        self != Self::StoreFailed
    }

    fn label(self) -> &'static str {
        match self {
            Self::NotForUs => "not_for_us",
            Self::Segment => "segment",
            Self::BadSegment => "bad_segment",
            Self::NoMessage => "no_message",
            Self::OtherKind => "other_kind",
            Self::Unsealed => "unsealed",
            Self::Unreadable => "unreadable",
            Self::NothingKnown => "nothing_known",
            Self::TooFast => "too_fast",
            Self::NoMessageId => "no_message_id",
            Self::InProgress => "in_progress",
            Self::StoreFailed => "store_failed",
            Self::Damaged => "damaged",
        }
    }
}

/// The store serves nobody at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreAway;

impl From<StoreAway> for Unanswered {
    fn from(_: StoreAway) -> Self {
        Self::StoreFailed
    }
}

/// What a message has taken of what the limits allow: once, however often it is tried.
#[derive(Debug, Default)]
pub(crate) struct Taken(Vec<(Limited, HashedPublicKey)>);

/// What a step of the protocol decides: the payload of the answer, or that there is none.
pub(crate) type Decision = Result<Vec<u8>, Unanswered>;

/// The server without its surroundings. Messages may be handled side by side.
#[derive(Debug)]
pub struct PushServer {
    pub(crate) identity: SecretKey,
    pub(crate) public: PublicKey,
    own_topics: [Topic; 2],
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn RegistrationStore>,
    pub(crate) provider: Arc<dyn PushProvider>,
    pub(crate) notification_key: NotificationKey,
    publisher: Arc<dyn Publisher>,
    pub(crate) topics: QueryTopics,
    pub(crate) derivations: Derivations,
    pub(crate) turns: Turns,
    pub(crate) pace: Pace,
    limits: Limits,
    segments: Segments,
    pub(crate) look_ups: LookUps,
    pub(crate) metrics: Metrics,
}

impl PushServer {
    /// Reads from the store whose query topics to listen to. The feed is told of changes only: open it with
    /// [`Self::topics`] before the first message is handled.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(parts: Parts, settings: Settings) -> Result<Self, StoreError> {
        let public = parts.identity.public();
        let own_topics = [TopicName::personal(&public).topic(), TopicName::partitioned(&public).topic()];
        let topics = QueryTopics::new(parts.feed, own_topics);
        let owners = topics.load(parts.store.as_ref()).await?;
        parts.metrics.owners.set(i64::try_from(owners).unwrap_or(i64::MAX));
        Ok(Self {
            own_topics,
            public,
            identity: parts.identity,
            store: parts.store,
            provider: parts.provider,
            notification_key: parts.notification_key,
            publisher: parts.publisher,
            topics,
            derivations: Derivations::new(settings.derivations, settings.waiting_derivations),
            turns: Turns::default(),
            pace: Pace::default(),
            limits: Limits::new(&settings.limits),
            segments: Segments::new(settings.reassembly),
            look_ups: LookUps::default(),
            metrics: parts.metrics,
            settings,
        })
    }

    /// All topics that are listened to now: the server's own two, then those of the queries.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        [self.own_topics.to_vec(), self.topics.all()].concat()
    }

    /// Whether messages of this topic are wanted.
    #[must_use]
    pub fn wants(&self, topic: Topic) -> bool {
        self.own_topics.contains(&topic) || self.topics.has(topic)
    }

    /// How far the stream is dealt with once all messages up to `position` were handled: not beyond what is kept in
    /// memory only. Whoever reads on from there after a restart misses nothing. `now` is a time since 1970: segments
    /// that have waited too long for the others, while the stream went on, are given up. Call it every few seconds.
    #[must_use]
    pub fn checkpoint(&self, position: u64, now: Duration) -> u64 {
        self.limits.forget(now);
        position.min(self.segments.lowest_position(position, now).saturating_sub(1))
    }

    /// Deals with one message at this time, since 1970, the answer included: [`Self::open`] and one [`Self::answer`].
    ///
    /// A message that was not handled to the end (an error, a dropped future, a crash) has to be handled again: read on
    /// from the [`checkpoint`](Self::checkpoint). Nobody is notified twice by that, and the answer tells what is known.
    /// A dropped future leaves its claims open, which are *unknown* after the next start.
    ///
    /// # Errors
    /// When the answer could not be published.
    pub async fn handle(&self, incoming: Incoming, now: Duration) -> Result<Handled, PublishError> {
        match self.open(incoming, now).await {
            Ok(mut opened) => self.answer(&mut opened, now).await,
            Err(why) => Ok(Handled::Unanswered(why)),
        }
    }

    /// Does what a message asks for, unless that was done by an earlier call, and publishes the answer. Call it again,
    /// with the same message, until the outcome [is final](Handled::is_final): who comes again takes nothing from what
    /// the limits allow, and is told what was decided before.
    ///
    /// # Errors
    /// When the answer could not be published.
    pub async fn answer(&self, opened: &mut Opened, now: Duration) -> Result<Handled, PublishError> {
        let handled = match self.decide(opened, now).await {
            Ok((kind, to, payload)) => {
                self.publish(kind, &to, payload, &mut opened.out).await.map(|()| Handled::Answered(kind))
            }
            Err(why) => Ok(Handled::Unanswered(why)),
        };
        let outcome = match handled {
            Ok(Handled::Answered(kind)) => kind.label(),
            Ok(Handled::Unanswered(why)) => why.label(),
            Err(_) => "unpublished",
        };
        self.metrics.message(outcome);
        if handled.as_ref().is_ok_and(Handled::is_final)
            && let Some(hold) = opened.hold.take()
        {
            hold.release();
        }
        handled
    }

    /// Decides whether there is no time for a request: then the next [`Self::answer`] does without the provider.
    pub(crate) fn turn_away(&self, opened: &mut Opened, is_turned_away: bool) {
        opened.is_turned_away = is_turned_away;
    }

    /// Ends a message whose answer nobody takes: after a restart it is not needed any more.
    pub(crate) fn give_up(&self, opened: Opened) {
        self.metrics.message("given_up");
        if let Some(hold) = opened.hold {
            hold.release();
        }
    }

    /// The step of the protocol that the message's kind names, and what it decides: to whom, and what.
    async fn decide(
        &self,
        opened: &mut Opened,
        now: Duration,
    ) -> Result<(AnswerKind, PublicKey, Bytes), Unanswered> {
        let message = match &opened.progress {
            Progress::Message(message) => message.clone(),
            Progress::Decided { kind, to, payload } => return Ok((*kind, *to, payload.clone())),
        };
        let to = message.signer;
        let when = When { made_at: opened.made_at, now };
        let (kind, payload) = match (opened.kind(), opened.channel) {
            (Some(AnswerKind::Query), channel) => {
                let topic = (channel == Channel::Query).then_some(opened.topic);
                // Not kept: it is looked up again, so that nobody hears of who was forgotten meanwhile.
                let payload = self.query(&message, topic, when, &mut opened.taken).await?;
                return Ok((AnswerKind::Query, to, payload.into()));
            }
            (Some(kind @ AnswerKind::Registration), Channel::Own) => {
                (kind, self.registration(message, when, &mut opened.taken).await?)
            }
            (Some(kind @ AnswerKind::Request), Channel::Own) => {
                (kind, self.request(&message, when, opened.is_turned_away).await?)
            }
            _ => return Err(Unanswered::OtherKind),
        };
        let payload = Bytes::from(payload);
        opened.progress = Progress::Decided { kind, to, payload: payload.clone() };
        Ok((kind, to, payload))
    }

    /// Whether `owner` may be served once more; counted if not.
    pub(crate) fn allows(&self, what: Limited, owner: &HashedPublicKey, when: When) -> bool {
        let allows = self.limits.take(what, owner, when);
        if !allows {
            self.metrics.refusal(what.label());
        }
        allows
    }

    /// Like [`Self::allows`], for a message that may have taken the same before.
    pub(crate) fn allows_once(
        &self,
        what: Limited,
        owner: &HashedPublicKey,
        when: When,
        taken: &mut Taken,
    ) -> bool {
        let has_it = taken.0.contains(&(what, *owner));
        let allows = has_it || self.allows(what, owner, when);
        if allows && !has_it {
            taken.0.push((what, *owner));
        }
        allows
    }

    /// Whether a notification may be sent, or be held back, as far as the limits go; counted if not.
    pub(crate) fn takes_toll(&self, toll: &Toll, when: When) -> bool {
        let takes = self.limits.take_toll(toll, when.now);
        if !takes {
            self.metrics.refusal("notifications_too_fast");
        }
        takes
    }

    /// The notification was not sent, or another one has its claim.
    pub(crate) fn give_toll_back(&self, toll: &Toll) {
        self.limits.give_toll_back(toll);
    }

    /// Counts a failure of the store and logs it.
    pub(crate) fn store_failed(&self, error: &StoreError) {
        self.metrics.store_failures.inc();
        tracing::error!(%error, "the store of registrations failed");
    }

    /// Counts a failure, and is fine if only what was asked for is damaged. Otherwise the message is tried again later.
    pub(crate) fn only_damaged(&self, error: &StoreError) -> Result<(), StoreAway> {
        self.store_failed(error);
        if error.is_of_one_owner() { Ok(()) } else { Err(StoreAway) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
