//! The `Append` stream of an outbox: batches of what waits, and beside them, fewer at a time, of what the spool holds.
//! Every batch is kept until it is acknowledged. The archive is told what is held back, and at the end that nothing is.

use std::collections::BTreeMap;
use std::time::Duration;

use poste_rpc::archive::v1::{
    AppendBatch, AppendGoodbye, AppendHeldBack, AppendOpen, AppendOutcome, AppendRequest, AppendResponse,
    AppendResult, NewRecord, append_request, append_response,
};
use poste_rpc::client::Target;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{debug, error, info, warn};

use super::known_store::OtherStore;
use super::{Outbox, Stored};
use crate::spool::{Drained, Fate, SPACE};

/// Records and bytes that go out as one batch.
const BATCH_RECORDS: usize = 1024;
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches that may be on their way at a time: of what waits, and of what the spool holds.
const WINDOW: usize = 8;
const DRAIN_WINDOW: usize = 4;
/// Reports on their way beside them; one more is left out.
const REPORTS: usize = 20;
/// Between two attempts to reach the archive: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A stream that lasted this long was a good one, even if nothing went over it.
const LASTED: Duration = Duration::from_secs(10);
/// When opening a stream takes this long, the archive counts as away; longer, and another attempt is made.
const OPEN_PATIENCE: Duration = Duration::from_secs(1);
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// When a batch is unacknowledged for this long, its envelopes go into the spool; the longer, and the stream is opened anew.
const ACK_PATIENCE: Duration = Duration::from_secs(2);
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the archive hears what is held back, whether it has changed or not, and how often that is looked at.
const REPORT_INTERVAL: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long the archive may take to make a note of a goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("{0}")]
    Call(#[from] poste_rpc::client::CallError),
    #[error("the archive ended the stream")]
    Ended,
    #[error("the archive did not answer in time")]
    Silent,
    #[error("the archive reads nothing")]
    Deaf,
    #[error("the archive acknowledged what was not sent")]
    Confused,
    #[error("the archive cannot take records now: {0}")]
    Unavailable(String),
    #[error(transparent)]
    OtherStore(#[from] OtherStore),
}

/// A batch that is not acknowledged.
enum Sent {
    /// Of what waited in memory, which is in flight now.
    Live { at: Instant },
    /// Of what waited in memory, and has been left to the spool since.
    HandedOver,
    /// Of what the spool holds.
    Drained(Drained),
}

impl Outbox {
    /// Sends until `stop`, then until nothing is left (the caller sets the deadline) or, when the archive is away, until
    /// everything is in the spool. Returns whether the archive knows that nothing is held back.
    pub(crate) async fn run(&self, archive: &Target, stop: &CancellationToken) -> bool {
        let mut pause = FIRST_PAUSE;
        let mut said = false;
        loop {
            let stopping = stop.is_cancelled();
            let (began, answered) = (Instant::now(), self.state.lock().answered);
            let mut sent = BTreeMap::new();
            let end = Stream::run(self, archive, stop, &mut sent).await;
            // What was drained goes back by itself.
            drop(sent);
            self.take_back();
            let end = match end {
                Ok(parted) => return parted,
                Err(end) => end,
            };
            // An archive that opens streams and takes nothing (its disk is full) must not be asked ever faster.
            if self.state.lock().answered > answered || began.elapsed() > LASTED {
                (pause, said) = (FIRST_PAUSE, false);
            }
            let waiting = self.size().count;
            if said {
                debug!(cause = %end, waiting, "no stream to the archive, trying again");
            } else {
                warn!(cause = %end, waiting, "no stream to the archive, trying again until there is one; envelopes are spooled");
            }
            said = true;
            if stopping {
                // One attempt was made since the stop.
                let _ = timeout(pause, self.nothing_in_memory()).await;
                if self.state.lock().count == 0 {
                    return false;
                }
            } else {
                let _ = timeout(pause, stop.cancelled()).await;
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn nothing_in_memory(&self) {
        while self.state.lock().count > 0 {
            self.settled.notified().await;
        }
    }

    /// Puts back, in order and in front, what was sent and not acknowledged: the spool takes it. Sending it twice is
    /// harmless.
    fn take_back(&self) {
        let mut state = self.state.lock();
        state.connected = false;
        state.recall();
        // What the stream was reading may have been the last of a segment.
        state.untidy = true;
        self.go_away(&mut state);
    }
}

/// One open stream.
struct Stream<'a> {
    outbox: &'a Outbox,
    archive: &'a Target,
    requests: mpsc::Sender<AppendRequest>,
    answers: Streaming<AppendResponse>,
    /// What is on its way; it outlives the stream.
    sent: &'a mut BTreeMap<u64, Sent>,
    next_id: u64,
    /// When something was acknowledged, or sent while nothing was on its way.
    heard: Instant,
    /// Envelopes of the spool that are being read.
    reading: Option<JoinHandle<Drained>>,
    /// What the archive was told is held back, and when.
    reported: Option<(Option<i64>, Instant)>,
    /// It has not acknowledged something for so long that everything goes into the spool.
    slow: bool,
}

impl<'a> Stream<'a> {
    /// One stream, until it fails, or until nothing is left after the stop; then whether a goodbye was heard.
    async fn run(
        outbox: &'a Outbox,
        archive: &'a Target,
        stop: &CancellationToken,
        sent: &'a mut BTreeMap<u64, Sent>,
    ) -> Result<bool, StreamEnd> {
        let (requests, answers) = open(outbox, archive, stop).await?;
        debug!("the stream to the archive is open");
        let mut stream = Self {
            outbox,
            archive,
            requests,
            answers,
            sent,
            next_id: 0,
            heard: Instant::now(),
            reading: None,
            reported: None,
            slow: false,
        };
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            stream.report()?;
            if stream.send_waiting()? {
                continue;
            }
            stream.read_ahead();
            if stream.sent.is_empty() && stream.reading.is_none() && stream.prove() {
                continue;
            }
            if stop.is_cancelled() && stream.close_when_done() {
                return Ok(stream.part().await);
            }
            let (live, window) = (stream.oldest_live(), stream.live() < WINDOW);
            tokio::select! {
                answer = stream.answers.message() => {
                    let answer = answer.map_err(|status| archive.error(&status))?;
                    stream.settle(answer)?;
                }
                drained = read(&mut stream.reading), if stream.reading.is_some() => {
                    stream.reading = None;
                    stream.send_drained(drained)?;
                }
                () = outbox.arrived.notified(), if window => {}
                () = sleep_until(live.unwrap_or(stream.heard) + ACK_PATIENCE), if live.is_some() => stream.hand_over(),
                () = sleep_until(stream.heard + ACK_TIMEOUT), if !stream.sent.is_empty() => {
                    return Err(StreamEnd::Silent);
                }
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                _ = look.tick() => {}
            }
        }
    }

    /// Tells the archive what is held back, when that has changed, and now and then.
    fn report(&mut self) -> Result<(), StreamEnd> {
        let held_back = self.outbox.held_back_ns();
        let is_new =
            |(said, at): (Option<i64>, Instant)| said != held_back || at.elapsed() >= REPORT_INTERVAL;
        // Batches find room, whatever is left out here.
        if !self.reported.is_none_or(is_new) || self.requests.capacity() <= WINDOW + DRAIN_WINDOW {
            return Ok(());
        }
        match self.send(append_request::Kind::HeldBack(AppendHeldBack { oldest_ns: held_back })) {
            Ok(()) => self.reported = Some((held_back, Instant::now())),
            // The archive reads nothing: it hears it later, or the stream ends.
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => return Err(StreamEnd::Ended),
        }
        Ok(())
    }

    /// Sends a batch of what waits, if there is one and it may go.
    fn send_waiting(&mut self) -> Result<bool, StreamEnd> {
        if self.slow || self.live() >= WINDOW {
            return Ok(false);
        }
        let records: Vec<_> = {
            let mut state = self.outbox.state.lock();
            let batch = if state.direct { state.take(BATCH_RECORDS, BATCH_BYTES) } else { Vec::new() };
            let records = batch.iter().map(|pending| pending.body.clone()).map(record).collect();
            state.send(self.next_id + 1, batch);
            records
        };
        if records.is_empty() {
            return Ok(false);
        }
        self.send_batch(records, Sent::Live { at: Instant::now() })?;
        Ok(true)
    }

    /// Reads from the spool what goes out next.
    fn read_ahead(&mut self) {
        let drained = self.sent.values().filter(|sent| matches!(sent, Sent::Drained(_))).count();
        if self.slow || self.reading.is_some() || drained >= DRAIN_WINDOW {
            return;
        }
        if let Some(lease) = self.outbox.spool.lease(BATCH_RECORDS, BATCH_BYTES) {
            self.reading = Some(tokio::task::spawn_blocking(move || lease.read()));
        }
    }

    fn send_drained(&mut self, drained: Option<Drained>) -> Result<(), StreamEnd> {
        let Some(drained) = drained else { return Ok(()) };
        if drained.bodies.is_empty() {
            self.finish(drained, |_| Fate::Settled);
            return Ok(());
        }
        let records = drained.bodies.iter().cloned().map(record).collect();
        self.send_batch(records, Sent::Drained(drained))
    }

    fn send_batch(&mut self, records: Vec<NewRecord>, sent: Sent) -> Result<(), StreamEnd> {
        self.next_id += 1;
        if self.sent.is_empty() {
            self.heard = Instant::now();
        }
        // What the spool holds was confirmed to those who sent it.
        let confirmed = matches!(sent, Sent::Drained(_));
        self.sent.insert(self.next_id, sent);
        let batch = AppendBatch { batch_id: self.next_id, records, confirmed };
        // There is room for as many as may be unacknowledged.
        self.send(append_request::Kind::Batch(batch)).map_err(|error| match error {
            TrySendError::Full(_) => StreamEnd::Deaf,
            TrySendError::Closed(_) => StreamEnd::Ended,
        })
    }

    fn send(&self, kind: append_request::Kind) -> Result<(), TrySendError<AppendRequest>> {
        self.requests.try_send(AppendRequest { kind: Some(kind) })
    }

    /// Nothing of the spool can go before: what waits goes to the archive. False when it did already.
    fn prove(&mut self) -> bool {
        let mut state = self.outbox.state.lock();
        state.stuck = None;
        !std::mem::replace(&mut state.direct, true)
    }

    /// What is unacknowledged for too long goes into the spool; the archive may still take it, and then again.
    fn hand_over(&mut self) {
        self.slow = true;
        warn!("the archive does not acknowledge; envelopes are spooled until it does");
        for sent in self.sent.values_mut().filter(|sent| matches!(sent, Sent::Live { .. })) {
            *sent = Sent::HandedOver;
        }
        let mut state = self.outbox.state.lock();
        state.recall();
        self.outbox.go_away(&mut state);
    }

    /// An answer has come: resolves the receipts of its batch. What the archive could not take now goes into the spool.
    fn settle(&mut self, answer: Option<AppendResponse>) -> Result<(), StreamEnd> {
        let Some(append_response::Kind::Ack(ack)) = answer.ok_or(StreamEnd::Ended)?.kind else {
            return Err(StreamEnd::Confused);
        };
        self.heard = Instant::now();
        let sent = self.sent.remove(&ack.batch_id).ok_or(StreamEnd::Confused)?;
        let count = match &sent {
            Sent::Live { .. } => {
                self.outbox.state.lock().in_flight.get(&ack.batch_id).map_or(0, |sent| sent.batch.len())
            }
            Sent::Drained(drained) => drained.bodies.len(),
            Sent::HandedOver => ack.results.len(),
        };
        if count != ack.results.len() {
            return Err(StreamEnd::Confused);
        }
        let unavailable =
            ack.results.iter().find(|result| is_unavailable(result)).map(|result| result.reason.clone());
        match sent {
            Sent::Live { .. } => self.settle_live(ack.batch_id, &ack.results),
            Sent::Drained(drained) => self.settle_drained(drained, &ack.results),
            Sent::HandedOver => {}
        }
        if let Some(reason) = unavailable {
            return Err(StreamEnd::Unavailable(reason));
        }
        if std::mem::take(&mut self.slow) {
            info!("the archive acknowledges again");
        }
        self.prove();
        Ok(())
    }

    /// Those that have to be sent again stay in flight: they are put back with the stream's end.
    fn settle_live(&self, number: u64, results: &[AppendResult]) {
        let mut again = Vec::new();
        let mut state = self.outbox.state.lock();
        let Some(sent) = state.in_flight.remove(&number) else { return };
        for (pending, result) in sent.batch.into_iter().zip(results) {
            let stored = match result.outcome() {
                AppendOutcome::Stored | AppendOutcome::Duplicate => Stored::Yes,
                // An archive of some topics only: the envelope is taken and relayed like any other.
                AppendOutcome::NotKept => Stored::Yes,
                AppendOutcome::Refused => Stored::Refused,
                AppendOutcome::OverQuota => Stored::OverQuota,
                AppendOutcome::Unavailable | AppendOutcome::Unspecified => {
                    again.push(pending);
                    continue;
                }
            };
            state.answered += 1;
            self.outbox.metrics.archived(stored);
            state.resolve(pending, stored);
        }
        state.send(number, again);
        self.outbox.after_settling(&mut state);
    }

    /// They were confirmed: what the archive does not take now waits in the spool.
    fn settle_drained(&self, drained: Drained, results: &[AppendResult]) {
        let fates: Vec<Fate> = results.iter().map(fate).collect();
        let count = |fate| fates.iter().filter(|other| **other == fate).count() as u64;
        let [settled, retired, refused, over_quota] =
            [Fate::Settled, Fate::Retired, Fate::Refused, Fate::OverQuota].map(count);
        if retired > 0 {
            info!(count = retired, "envelopes of the spool are older by now than what the archive keeps");
        }
        if refused > 0 {
            let is_refused = |result: &&AppendResult| fate(result) == Fate::Refused;
            let reason = results.iter().find(is_refused).map(|result| result.reason.as_str());
            error!(count = refused, reason, "the archive refuses confirmed envelopes of the spool for good");
        }
        if over_quota > 0 {
            warn!(
                count = over_quota,
                "the archive has no quota left for envelopes of the spool; they wait there"
            );
        }
        self.outbox.metrics.spool.drained.inc_by(settled);
        self.outbox.metrics.spool.retired.inc_by(retired);
        self.outbox.state.lock().answered += settled + retired + refused;
        self.finish(drained, |number| fates[number]);
    }

    fn finish(&self, drained: Drained, fate: impl Fn(usize) -> Fate) {
        if drained.settle(fate) {
            self.outbox.state.lock().untidy = true;
            self.outbox.spooling.notify_one();
        }
    }

    fn live(&self) -> usize {
        self.sent.values().filter(|sent| !matches!(sent, Sent::Drained(_))).count()
    }

    /// When the oldest batch was sent that nobody has been told about.
    fn oldest_live(&self) -> Option<Instant> {
        self.sent.values().find_map(|sent| match sent {
            Sent::Live { at } => Some(*at),
            _ => None,
        })
    }

    /// Whether nothing is left, or nothing that can be drained now. Then nothing is taken any more either: what came after
    /// a goodbye nobody would wait for.
    fn close_when_done(&self) -> bool {
        if !self.sent.is_empty() || self.reading.is_some() || self.outbox.spool.has_due() {
            return false;
        }
        let mut state = self.outbox.state.lock();
        state.closed = state.count == 0;
        state.closed
    }

    /// Ends the stream; with a goodbye when nothing is held back. Returns whether the archive has heard it.
    async fn part(mut self) -> bool {
        if !self.outbox.spool.is_empty() {
            return false;
        }
        let goodbye = AppendRequest { kind: Some(append_request::Kind::Goodbye(AppendGoodbye {})) };
        let Self { requests, answers, archive, .. } = &mut self;
        let parting = async {
            requests.send(goodbye).await.map_err(|_| StreamEnd::Ended)?;
            // The sending half ends with the last sender.
            *requests = mpsc::channel(1).0;
            while answers.message().await.map_err(|status| archive.error(&status))?.is_some() {}
            Ok::<_, StreamEnd>(())
        };
        match timeout(GOODBYE_TIMEOUT, parting).await.unwrap_or(Err(StreamEnd::Silent)) {
            Ok(()) => true,
            Err(end) => {
                warn!(cause = %end, "the archive may wait for this gateway although nothing is held back");
                false
            }
        }
    }
}

async fn open(
    outbox: &Outbox,
    archive: &Target,
    stop: &CancellationToken,
) -> Result<(mpsc::Sender<AppendRequest>, Streaming<AppendResponse>), StreamEnd> {
    let (requests, stream) = mpsc::channel(WINDOW + DRAIN_WINDOW + REPORTS);
    let spool = &outbox.spool;
    let max_intake_age_ns = u64::try_from(spool.max_intake_age().as_nanos()).unwrap_or(u64::MAX);
    let open = AppendOpen {
        writer_id: spool.writer_id().to_owned(),
        // What is taken while there is no stream may be so old, and the archive must wait for it.
        max_intake_age_ns: Some(max_intake_age_ns),
    };
    requests
        .send(AppendRequest { kind: Some(append_request::Kind::Open(open)) })
        .await
        .map_err(|_| StreamEnd::Ended)?;
    let opening = async {
        let mut client = poste_rpc::archive::client(archive.channel());
        let mut answers = client.append(ReceiverStream::new(stream)).await?.into_inner();
        answers.message().await.map(|first| (first, answers))
    };
    tokio::pin!(opening);
    let opened = match timeout(OPEN_PATIENCE, &mut opening).await {
        Ok(opened) => opened,
        Err(_) => {
            outbox.go_away(&mut outbox.state.lock());
            // An archive that is away must not hold up the end.
            let patience = if stop.is_cancelled() { Duration::ZERO } else { OPEN_TIMEOUT - OPEN_PATIENCE };
            timeout(patience, opening).await.map_err(|_| StreamEnd::Silent)?
        }
    };
    match opened.map_err(|status| archive.error(&status))? {
        (Some(AppendResponse { kind: Some(append_response::Kind::Opened(opened)) }), answers) => {
            outbox.store.meet(&opened.store_id)?;
            let mut state = outbox.state.lock();
            state.connected = true;
            // The spool's thread notes the store.
            state.untidy |= !outbox.store.is_noted();
            outbox.spooling.notify_one();
            Ok((requests, answers))
        }
        (Some(_), _) => Err(StreamEnd::Confused),
        (None, _) => Err(StreamEnd::Ended),
    }
}

/// What was read of the spool; none when reading has failed altogether.
async fn read(reading: &mut Option<JoinHandle<Drained>>) -> Option<Drained> {
    match reading.as_mut()?.await {
        Ok(drained) => Some(drained),
        Err(failed) => {
            error!(cause = %failed, "reading the spool has failed");
            None
        }
    }
}

fn record(body: bytes::Bytes) -> NewRecord {
    NewRecord { space: SPACE.to_owned(), body }
}

/// What an answer means to an envelope that was confirmed.
fn fate(result: &AppendResult) -> Fate {
    match result.outcome() {
        AppendOutcome::Stored | AppendOutcome::Duplicate | AppendOutcome::NotKept => Fate::Settled,
        AppendOutcome::Refused if result.below_floor => Fate::Retired,
        AppendOutcome::Refused => Fate::Refused,
        // Of an archive that does not know what `confirmed` means.
        AppendOutcome::OverQuota => Fate::OverQuota,
        AppendOutcome::Unavailable | AppendOutcome::Unspecified => Fate::Again,
    }
}

fn is_unavailable(result: &AppendResult) -> bool {
    matches!(result.outcome(), AppendOutcome::Unavailable | AppendOutcome::Unspecified)
}
