//! `Import`: the bytes of an export file in, records to the store, in order, with some batches in flight. While the
//! store takes nothing the import waits for it, and reads no further.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::import_response::Kind;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tonic::{Status, Streaming};

use super::deadline::{MAX_IDLE, idle};
use crate::export::{Damage, Decoder, Piece};
use crate::grpc::convert;
use crate::record::Space;
use crate::store::{ArchiveStore, Lane, NewRecord, Outcome};

const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
const MAX_IN_FLIGHT: usize = 4;
const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Between two attempts while the store takes nothing.
const PAUSE: Duration = Duration::from_millis(500);
/// A store that has taken nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Different reasons that are told; what is refused for others is summed up.
const MAX_REASONS: usize = 32;

/// One import.
pub(super) struct Import {
    store: Arc<dyn ArchiveStore>,
    requests: Streaming<v1::ImportRequest>,
    input: Input,
    /// Since when the caller is waited for.
    waits_since: Instant,
    decoder: Decoder,
    /// What the file's records are, once its header was read.
    space: Option<Space>,
    batch: Batch,
    in_flight: FuturesUnordered<BoxFuture<'static, (Batch, Vec<Outcome>)>>,
    /// What the store could not take yet, and since when it takes nothing.
    again: Batch,
    waiting: Option<Waiting>,
    tell: Interval,
    told: v1::ImportProgress,
    settled: u64,
    tally: Tally,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Batch {
    records: Vec<NewRecord>,
    bytes: usize,
}

/// What may still come from the caller.
#[derive(Clone)]
enum Input {
    More,
    /// The whole file was read, or all that there is of it.
    Ended,
    Damaged(Damage),
}

struct Waiting {
    reason: String,
    next_attempt: Instant,
    gives_up: Instant,
}

#[derive(Default)]
struct Tally {
    stored: u64,
    duplicates: u64,
    not_kept: u64,
    refused: BTreeMap<String, u64>,
}

impl Import {
    pub(super) fn begin(
        store: Arc<dyn ArchiveStore>,
        requests: Streaming<v1::ImportRequest>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let mut tell = interval(TELL_EVERY);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            store,
            requests,
            input: Input::More,
            waits_since: Instant::now(),
            decoder: Decoder::new(),
            space: None,
            batch: Batch::default(),
            in_flight: FuturesUnordered::new(),
            again: Batch::default(),
            waiting: None,
            tell,
            told: v1::ImportProgress::default(),
            settled: 0,
            tally: Tally::default(),
            ended: false,
            _permit: permit,
        }
    }

    pub(super) fn responses(self) -> impl Stream<Item = Result<v1::ImportResponse, Status>> + Send {
        futures::stream::unfold(self, |mut import| async move {
            if import.ended {
                return None;
            }
            let kind = import.next().await;
            import.ended = !matches!(kind, Ok(Kind::Progress(_)));
            Some((kind.map(|kind| v1::ImportResponse { kind: Some(kind) }), import))
        })
    }

    /// Works until there is something to tell.
    async fn next(&mut self) -> Result<Kind, Status> {
        loop {
            let takes_more = self.waiting.is_none() && self.in_flight.len() < MAX_IN_FLIGHT;
            if takes_more {
                self.fill()?;
                let is_last = !matches!(self.input, Input::More);
                if self.batch.is_full() || is_last && !self.batch.records.is_empty() {
                    let batch = std::mem::take(&mut self.batch);
                    self.submit(batch).await?;
                    continue;
                }
                if is_last && self.in_flight.is_empty() {
                    return Ok(Kind::Report(self.report()));
                }
            }
            let reads = takes_more && matches!(self.input, Input::More);
            if !reads {
                self.waits_since = Instant::now();
            }
            let retries = self.in_flight.is_empty().then_some(self.waiting.as_ref()).flatten();
            let next_attempt = retries.map(|waiting| waiting.next_attempt);
            tokio::select! {
                Some((batch, outcomes)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.settle(batch, outcomes)?;
                }
                request = self.requests.message(), if reads => {
                    self.waits_since = Instant::now();
                    self.take(request?)?;
                }
                () = sleep_until(self.waits_since + MAX_IDLE), if reads => return Err(idle("sent nothing")),
                () = sleep_until(next_attempt.unwrap_or_else(Instant::now)), if next_attempt.is_some() => {
                    let batch = std::mem::take(&mut self.again);
                    self.submit(batch).await?;
                }
                _ = self.tell.tick() => {
                    let progress = self.progress();
                    if progress != self.told {
                        self.told = progress.clone();
                        return Ok(Kind::Progress(progress));
                    }
                }
            }
        }
    }

    fn take(&mut self, request: Option<v1::ImportRequest>) -> Result<(), Status> {
        match request {
            None => self.input = Input::Ended,
            Some(v1::ImportRequest { chunk }) if chunk.len() > MAX_CHUNK_BYTES => {
                return Err(Status::invalid_argument(format!(
                    "a chunk has {} bytes, of at most {MAX_CHUNK_BYTES}",
                    chunk.len()
                )));
            }
            Some(v1::ImportRequest { chunk }) => self.decoder.push(&chunk),
        }
        Ok(())
    }

    /// Reads records until the batch is full, or more bytes are needed.
    fn fill(&mut self) -> Result<(), Status> {
        while !self.batch.is_full() && !matches!(self.input, Input::Damaged(_)) {
            match self.decoder.next_piece() {
                Ok(Some(Piece::Header(header))) => self.space = Some(convert::space(&header.space)?),
                Ok(Some(Piece::Record { body, .. })) => {
                    let space = self.space.expect("a decoder gives the header before any record");
                    self.batch.push(NewRecord { space, body });
                }
                Ok(Some(Piece::Checkpoint(_) | Piece::End(_))) => {}
                Ok(None) => break,
                Err(damage) => self.input = Input::Damaged(damage),
            }
        }
        Ok(())
    }

    async fn submit(&mut self, batch: Batch) -> Result<(), Status> {
        let pending = self.store.append(batch.records.clone(), Lane::Imported).await;
        let pending = pending.map_err(|error| convert::status(&error))?;
        self.in_flight.push(async move { (batch, pending.await) }.boxed());
        Ok(())
    }

    /// Counts what became of a batch. What the store could not take is kept for another attempt.
    fn settle(&mut self, batch: Batch, outcomes: Vec<Outcome>) -> Result<(), Status> {
        let mut outcomes = outcomes.into_iter();
        let mut reason = None;
        let mut has_taken = false;
        for record in batch.records {
            let outcome = outcomes.next().unwrap_or_else(|| Outcome::Unavailable(String::new()));
            if let Outcome::Unavailable(why) = outcome {
                reason.get_or_insert(why);
                self.again.push(record);
                continue;
            }
            has_taken = true;
            self.settled += 1;
            self.tally.count(outcome);
        }
        let now = Instant::now();
        let gives_up = match &self.waiting {
            Some(waiting) if !has_taken => waiting.gives_up,
            _ => now + PATIENCE,
        };
        match reason {
            Some(reason) if now >= gives_up => Err(Status::unavailable(format!(
                "the store has taken nothing for {} minutes: {reason}; import the file again when it does, what is \
                 stored by then is known and passed over",
                PATIENCE.as_secs() / 60
            ))),
            Some(reason) => {
                self.waiting = Some(Waiting { reason, next_attempt: now + PAUSE, gives_up });
                Ok(())
            }
            None => {
                if self.again.records.is_empty() {
                    self.waiting = None;
                }
                Ok(())
            }
        }
    }

    fn progress(&self) -> v1::ImportProgress {
        v1::ImportProgress {
            read_bytes: self.decoder.sound_bytes(),
            records: self.settled,
            waiting: self.waiting.as_ref().map(|waiting| waiting.reason.clone()).unwrap_or_default(),
        }
    }

    fn report(&mut self) -> v1::ImportReport {
        let Tally { stored, duplicates, not_kept, refused } = std::mem::take(&mut self.tally);
        let problem = match &self.input {
            Input::Damaged(damage) => Some(damage.clone()),
            Input::More | Input::Ended => self.decoder.finish().err(),
        };
        v1::ImportReport {
            stored,
            duplicates,
            not_kept,
            refused: refused.into_iter().map(|(reason, records)| v1::Refused { reason, records }).collect(),
            complete: problem.is_none(),
            problem: problem.map(|damage| damage.to_string()).unwrap_or_default(),
            sound_bytes: self.decoder.sound_bytes(),
        }
    }
}

impl Batch {
    fn push(&mut self, record: NewRecord) {
        self.bytes += record.body.len();
        self.records.push(record);
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        let reason = match outcome {
            Outcome::Stored => return self.stored += 1,
            Outcome::Duplicate => return self.duplicates += 1,
            Outcome::NotKept => return self.not_kept += 1,
            Outcome::Refused(refusal) => refusal.to_string(),
            Outcome::OverQuota(reason) | Outcome::Unavailable(reason) => reason,
        };
        let is_told = self.refused.contains_key(&reason) || self.refused.len() < MAX_REASONS;
        *self.refused.entry(if is_told { reason } else { "other reasons".to_owned() }).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::sync::Semaphore;
    use tonic::Code;
    use tonic::codec::{DecodeBuf, Decoder as Decode, EncodeBody, EncodeBuf, Encoder as Encode};

    use super::*;
    use crate::store::{MemoryStore, StoreId};

    /// Nothing comes, so nothing is read or written.
    struct Nothing;

    impl Encode for Nothing {
        type Item = ();
        type Error = Status;

        fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
            Ok(())
        }
    }

    impl Decode for Nothing {
        type Item = v1::ImportRequest;
        type Error = Status;

        fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<v1::ImportRequest>, Status> {
            Ok(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_import_whose_caller_sends_nothing_ends() {
        let silence = EncodeBody::new_client(Nothing, futures::stream::pending(), None, None);
        let requests = Streaming::new_request(Nothing, silence, None, None);
        let store = Arc::new(MemoryStore::new(StoreId([1; 16])));
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let begun = Instant::now();
        let mut answers = pin!(Import::begin(store, requests, permit).responses());
        let status = answers.next().await.unwrap().unwrap_err();
        assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, MAX_IDLE.as_secs()));
        assert!(answers.next().await.is_none());
    }
}
