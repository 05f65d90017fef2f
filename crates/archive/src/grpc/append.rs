//! `Append`: batches come in, acknowledgements go out as groups become durable. Many batches may be in
//! flight on one stream. The writer behind it is known from `open` until its goodbye.

mod batch;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, Stream, future::BoxFuture};
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::append_request::Kind as Request;
use poste_rpc::archive::v1::append_response::Kind as Response;
use poste_service::Clock;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{ArchiveGrpc, convert, first_message, stopping};
use crate::metrics::{Guard, hold};
use crate::record::Refusal;
use crate::store::{ArchiveStore, Connection, Outcome, StoreError, WriterId, Writers};

pub(crate) use batch::Intake;

const MAX_BATCH_RECORDS: usize = 4096;
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Batches of one stream that wait for the disk; the next ones stay in the connection's window.
const MAX_BATCHES_IN_FLIGHT: usize = 64;

/// One writer's stream.
pub(super) struct Append {
    store: Arc<dyn ArchiveStore>,
    intake: Intake,
    writer: ConnectedWriter,
    requests: Streaming<v1::AppendRequest>,
    stop: CancellationToken,
    /// The answer to `open`, until it is sent.
    opened: Option<v1::AppendOpened>,
    in_flight: FuturesUnordered<BoxFuture<'static, v1::AppendAck>>,
    /// Set when no more batches are taken: how the stream ends once all acknowledgements are out.
    end: Option<Result<(), Status>>,
    _connected: Guard,
}

impl Append {
    /// Reads the `open` of a stream.
    pub(super) async fn open(
        service: &ArchiveGrpc,
        mut requests: Streaming<v1::AppendRequest>,
    ) -> Result<Self, Status> {
        let first = first_message(&mut requests, &service.stop).await?.and_then(|request| request.kind);
        let Some(Request::Open(v1::AppendOpen { writer_id, max_intake_age_ns })) = first else {
            return Err(Status::invalid_argument("the first message of an append stream is `open`"));
        };
        let id: WriterId = writer_id.parse().map_err(|error| convert::status(&error))?;
        let max_intake_age = max_intake_age_ns.map_or(Writers::DEFAULT_INTAKE_AGE, Duration::from_nanos);
        let (store, at_ns) = (Arc::clone(&service.store), unix_nanos(&service.clock));
        let writer = ConnectedWriter::new(store, id, at_ns, max_intake_age).await?;
        let store_id = convert::store_id_bytes(service.store.store_id());
        Ok(Self {
            store: Arc::clone(&service.store),
            intake: service.intake.clone(),
            writer,
            requests,
            stop: service.stop.clone(),
            opened: Some(v1::AppendOpened { store_id }),
            in_flight: FuturesUnordered::new(),
            end: None,
            _connected: hold(&service.metrics.append_streams),
        })
    }

    pub(super) fn responses(self) -> impl Stream<Item = Result<v1::AppendResponse, Status>> + Send {
        futures::stream::unfold(self, |mut append| async move {
            let response = append.next().await?;
            Some((response, append))
        })
    }

    async fn next(&mut self) -> Option<Result<v1::AppendResponse, Status>> {
        if let Some(opened) = self.opened.take() {
            return Some(Ok(v1::AppendResponse { kind: Some(Response::Opened(opened)) }));
        }
        loop {
            if self.in_flight.is_empty()
                && let Some(end) = self.end.take()
            {
                self.end = Some(Ok(()));
                // An error is told once, then the stream is over.
                return match end {
                    Ok(()) => self.writer.leave().await.err().map(Err),
                    Err(status) => Some(Err(status)),
                };
            }
            let takes_more = self.end.is_none() && self.in_flight.len() < MAX_BATCHES_IN_FLIGHT;
            tokio::select! {
                Some(ack) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    return Some(Ok(v1::AppendResponse { kind: Some(Response::Ack(ack)) }));
                }
                request = self.requests.message(), if takes_more => {
                    if let Err(end) = self.take(request).await {
                        self.end = Some(end);
                    }
                }
                () = self.stop.cancelled(), if self.end.is_none() => {
                    self.end = Some(Err(stopping()));
                }
            }
        }
    }

    /// Hands a batch to the store. An error tells how the stream is to end.
    async fn take(
        &mut self,
        request: Result<Option<v1::AppendRequest>, Status>,
    ) -> Result<(), Result<(), Status>> {
        let batch = match request {
            Ok(None) => return Err(Ok(())),
            Ok(Some(request)) => match request.kind {
                Some(Request::Batch(_)) if self.writer.goodbye => {
                    return Err(Err(Status::invalid_argument("a batch after the goodbye")));
                }
                Some(Request::Batch(batch)) => batch,
                Some(Request::HeldBack(held_back)) => {
                    return self.writer.report(held_back.oldest_ns).await.map_err(Err);
                }
                Some(Request::Goodbye(_)) => {
                    self.writer.goodbye = true;
                    return Ok(());
                }
                Some(Request::Open(_)) => return Err(Err(Status::invalid_argument("`open` came twice"))),
                None => return Err(Err(Status::invalid_argument("a message without a kind"))),
            },
            Err(status) => return Err(Err(status)),
        };
        let bytes: usize = batch.records.iter().map(|record| record.body.len()).sum();
        if batch.records.is_empty() || batch.records.len() > MAX_BATCH_RECORDS || bytes > MAX_BATCH_BYTES {
            return Err(Err(Status::invalid_argument(format!(
                "a batch has 1 to {MAX_BATCH_RECORDS} records and at most {MAX_BATCH_BYTES} bytes of bodies"
            ))));
        }
        let results =
            self.intake.hand_over(&self.store, &self.writer.id, batch.records, batch.confirmed).await;
        let results = results.map_err(|error| Err(convert::status(&error)))?;
        let batch_id = batch.batch_id;
        let ack = async move {
            let results = results.await.into_iter().map(result_message).collect();
            v1::AppendAck { batch_id, results }
        };
        self.in_flight.push(ack.boxed());
        Ok(())
    }
}

/// The writer behind a stream. However the stream ends, the store learns that it did.
struct ConnectedWriter {
    store: Arc<dyn ArchiveStore>,
    id: WriterId,
    connection: Connection,
    /// It has said that it holds nothing back and goes away.
    goodbye: bool,
    left: bool,
}

impl ConnectedWriter {
    async fn new(
        store: Arc<dyn ArchiveStore>,
        id: WriterId,
        at_ns: i64,
        max_intake_age: Duration,
    ) -> Result<Self, Status> {
        // In a task of its own: should the caller vanish meanwhile, the writer is still known to have left.
        let connect = tokio::spawn(async move {
            let connection = store.writer_connected(&id, at_ns, max_intake_age).await?;
            Ok(Self { store, id, connection, goodbye: false, left: false })
        });
        let connected = connect.await.map_err(|_| stopping())?;
        connected.map_err(|error: StoreError| convert::status(&error))
    }

    async fn report(&self, held_back_ns: Option<i64>) -> Result<(), Status> {
        let reported = self.store.writer_reports(&self.id, self.connection, held_back_ns).await;
        reported.map_err(|error| convert::status(&error))
    }

    /// The end of the stream, once everything is acknowledged. With a goodbye it is durable when this returns.
    async fn leave(&mut self) -> Result<(), Status> {
        if !self.left {
            let left = self.store.writer_left(&self.id, self.connection, self.goodbye).await;
            left.map_err(|error| convert::status(&error))?;
            self.left = true;
        }
        Ok(())
    }
}

impl Drop for ConnectedWriter {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // The connection broke, or the process stops: whatever the writer still has is held back.
        let (store, id, connection) = (Arc::clone(&self.store), self.id.clone(), self.connection);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Without a goodbye nothing has to be durable, so nothing can fail.
                let _ = store.writer_left(&id, connection, false).await;
            });
        }
    }
}

fn unix_nanos(clock: &Clock) -> i64 {
    i64::try_from(clock.now().as_nanos()).unwrap_or(i64::MAX)
}

fn result_message(outcome: Outcome) -> v1::AppendResult {
    let below_floor = outcome == Outcome::Refused(Refusal::BelowFloor);
    let (outcome, reason) = match outcome {
        Outcome::Stored => (v1::AppendOutcome::Stored, String::new()),
        Outcome::Duplicate => (v1::AppendOutcome::Duplicate, String::new()),
        Outcome::Refused(refusal) => (v1::AppendOutcome::Refused, refusal.to_string()),
        Outcome::Unavailable(reason) => (v1::AppendOutcome::Unavailable, reason),
        Outcome::NotKept => (v1::AppendOutcome::NotKept, String::new()),
        Outcome::OverQuota(reason) => (v1::AppendOutcome::OverQuota, reason),
    };
    v1::AppendResult { outcome: outcome.into(), reason, below_floor }
}
