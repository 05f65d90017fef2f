//! The mailserver whose mail lies in the archive service: writes through the outbox, reads page by page.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use poste_rpc::archive::v1::{Direction, Position, QueryRequest, QueryResponse, TopicSet, query_request};
use poste_rpc::client::Target;
use poste_wire::mail::{Filter, ValidRequest};
use poste_wire::packet::list_length;
use poste_wire::{Cursor, Envelope, Hash};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, error};

use super::outbox::{Outbox, OutboxSize};
use super::{Delivered, DeliveryError, Learn, MailServer, Mailbox, QueueFull, Receipt};
use crate::metrics::Metrics;
use crate::node::MAX_MESSAGE_SIZE;
use crate::spool::SPACE;

/// How long the archive may take for one page; a client gives up on a silent mailserver after 10 s.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
const NANOS: i64 = 1_000_000_000;

/// Mail in the archive.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveMailServer {
    outbox: Arc<Outbox>,
    archive: Target,
    metrics: Metrics,
}

impl ArchiveMailServer {
    /// A mailserver on `archive`, whose outbox sends nothing before [`Self::run`].
    pub(crate) fn new(archive: Target, outbox: Arc<Outbox>, metrics: Metrics) -> Self {
        Self { outbox, archive, metrics }
    }

    /// Moves envelopes into the archive until `stop`, then until none is left, or all are in the spool.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let parted = self.outbox.run(&self.archive, &stop).await;
        debug!(parted, "envelopes are no longer sent to the archive");
    }

    /// One page of the archive, which may be less than the page that the peer asked for.
    async fn query(&self, request: QueryRequest) -> Result<QueryResponse, DeliveryError> {
        let mut client = poste_rpc::archive::client(self.archive.channel());
        let answer = tokio::time::timeout(QUERY_TIMEOUT, client.query(request)).await;
        let status = match answer {
            Ok(Ok(page)) if self.outbox.is_known(&page.get_ref().store_id) => return Ok(page.into_inner()),
            Ok(Ok(_)) => tonic::Status::failed_precondition("the archive has another store than before"),
            Ok(Err(status)) => status,
            Err(_) => tonic::Status::deadline_exceeded("the archive did not answer in time"),
        };
        if status.code() == Code::InvalidArgument {
            return Err(DeliveryError::Refused(status.message().to_owned()));
        }
        // The outbox says once that the archive is away; peers ask as often as they like.
        debug!(cause = %self.archive.error(&status), "a request for mail cannot be answered");
        Err(DeliveryError::Unavailable)
    }

    async fn deliver(&self, peer: &dyn Mailbox, request: &ValidRequest) -> Result<Delivered, DeliveryError> {
        let mut delivered = Delivered::default();
        let mut cursor = request.cursor;
        let mut complete = true;
        let (mut below_floor, mut damaged) = (false, false);
        loop {
            let wanted = request.limit as usize - delivered.count;
            // Before the question: what is handed over while it is answered may be missing from the answer.
            let held_back = self.outbox.held_back_ns();
            let page = self.query(question(request, wanted, cursor)).await?;
            below_floor |= reaches_below_floor(&page, request, cursor);
            damaged |= page.quarantined > 0;
            let until = held_back.into_iter().chain(page.complete_until_ns).min();
            complete &= until.is_none_or(|until| !reaches(&page, request, until));
            let records = page.records;
            // Every envelope is hashed.
            let decoding = tokio::task::spawn_blocking(|| {
                records.into_iter().map(|record| decode(record.body)).collect::<Result<Vec<_>, _>>()
            });
            let envelopes = decoding.await.map_err(|_| DeliveryError::Unavailable)??;
            peer.send(&envelopes).await?;
            delivered.count += envelopes.len();
            if let Some(last) = envelopes.last() {
                delivered.last = Some(last.hash());
            }
            let next = page.next.as_ref().map(cursor_of).transpose()?;
            if next.is_some() && next <= cursor {
                return Err(corrupt("the archive gave a cursor that leads back"));
            }
            cursor = next;
            if cursor.is_none() || delivered.count >= request.limit as usize {
                delivered.cursor = cursor;
                self.metrics.page_answered(below_floor, damaged);
                return if complete { Ok(delivered) } else { Err(DeliveryError::Incomplete) };
            }
        }
    }
}

impl MailServer for ArchiveMailServer {
    fn archive(&self, envelope: &Envelope, learn: Option<Learn>) -> Result<Receipt, QueueFull> {
        self.outbox.push(envelope.rlp().clone(), envelope.sent(), learn)
    }

    fn deliver_mail<'a>(
        &'a self,
        peer: &'a dyn Mailbox,
        request: &'a ValidRequest,
    ) -> BoxFuture<'a, Result<Delivered, DeliveryError>> {
        self.deliver(peer, request).boxed()
    }

    fn waiting(&self) -> OutboxSize {
        self.outbox.size()
    }
}

/// Whether a page goes so far that a record which is still held back may be missing from it: one made at `until_ns` or
/// later. A record of that very second may belong before the page's last one.
fn reaches(page: &QueryResponse, request: &ValidRequest, until_ns: i64) -> bool {
    let end = match &page.next {
        Some(next) => page.records.last().and_then(|record| record.position.as_ref()).unwrap_or(next).time_ns,
        None => i64::from(request.upper) * NANOS + (NANOS - 1),
    };
    end >= until_ns
}

/// Whether some of what a page was asked for has been retired.
fn reaches_below_floor(page: &QueryResponse, request: &ValidRequest, cursor: Option<Cursor>) -> bool {
    let from = cursor.map_or(request.lower, |cursor| cursor.sent.max(request.lower));
    page.floor_ns.is_some_and(|floor_ns| i64::from(from) * NANOS < floor_ns)
}

fn question(request: &ValidRequest, wanted: usize, cursor: Option<Cursor>) -> QueryRequest {
    let filter = match &request.filter {
        Filter::All => None,
        Filter::Bloom(bloom) => Some(query_request::Filter::Bloom(bloom.as_bytes().to_vec().into())),
        Filter::Topics(topics) => {
            let topics = topics.iter().map(|topic| topic.as_bytes().to_vec().into()).collect();
            Some(query_request::Filter::Topics(TopicSet { topics }))
        }
    };
    QueryRequest {
        space: SPACE.to_owned(),
        from_ns: i64::from(request.lower) * NANOS,
        to_ns: i64::from(request.upper) * NANOS + (NANOS - 1),
        filter,
        direction: Direction::Ascending.into(),
        max_records: u32::try_from(wanted).unwrap_or(u32::MAX),
        max_bytes: 0,
        cursor: cursor.map(|cursor| Position {
            time_ns: i64::from(cursor.sent) * NANOS,
            id: cursor.hash.as_bytes().to_vec().into(),
        }),
    }
}

fn cursor_of(position: &Position) -> Result<Cursor, DeliveryError> {
    let whole_second = position.time_ns % NANOS == 0;
    let sent = u32::try_from(position.time_ns / NANOS).ok().filter(|_| whole_second);
    let hash = <[u8; 32]>::try_from(&position.id[..]).ok();
    match (sent, hash) {
        (Some(sent), Some(hash)) => Ok(Cursor { sent, hash: Hash(hash) }),
        _ => Err(corrupt("the archive gave a cursor that is no place among envelopes")),
    }
}

fn decode(body: bytes::Bytes) -> Result<Envelope, DeliveryError> {
    if list_length(body.len()) > MAX_MESSAGE_SIZE {
        return Err(corrupt("the archive gave an envelope that fits into no packet"));
    }
    Envelope::decode(body).map_err(|_| corrupt("the archive gave a record that is no envelope"))
}

/// A page that leaves out what cannot be read would pass for complete.
fn corrupt(what: &'static str) -> DeliveryError {
    error!("{what}: run a verification of the archive");
    DeliveryError::Unavailable
}
