//! An archive that answers as ours never would, or only on a bad day: a scripted one, because the real one cannot be made
//! to. Nothing is confirmed that it did not store, and no page with a hole passes for a whole one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use poste_gateway::GatewayConfig;
use poste_rpc::archive::v1::archive_service_server::ArchiveService;
use poste_rpc::archive::v1::{
    AppendAck, AppendOpened, AppendOutcome, AppendRequest, AppendResponse, AppendResult, LookupRequest,
    LookupResponse, Position, QueryRequest, QueryResponse, Record, StatsRequest, StatsResponse, TailRequest,
    TailResponse, append_request, append_response,
};
use poste_rpc::server::{Running, Server};
use poste_service::config::ByteSize;
use poste_wire::mail::{MailRequest, MailRequestPacket};
use poste_wire::packet::Completion;
use poste_wire::{Dialect, Envelope};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::envelopes::{TOPIC, envelope, envelope_at, everything, sealed};
use crate::peer::Peer;
use crate::stack::{NOW, Stack, eventually};

const UNAVAILABLE: &str = "archive is not available now, ask again later";

/// What the archive does with a batch, other than to answer it.
#[derive(Debug, Clone)]
enum Reaction {
    /// The stream ends without an answer.
    End,
    /// The stream ends with an error.
    Fail,
    /// An answer for a batch that was never sent.
    AnotherBatch,
    /// An answer with an outcome too few.
    TooShort,
    /// Opened again, in place of an answer.
    OpenedAgain,
}

/// An archive that follows a script; when it is at its end, all is well.
#[derive(Debug, Clone, Default)]
struct Strange(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    reactions: VecDeque<Reaction>,
    /// For the next records, in whatever batches they come.
    outcomes: VecDeque<AppendOutcome>,
    pages: VecDeque<Result<QueryResponse, Status>>,
    /// How many records have come, those sent again included.
    received: usize,
    /// Of those, how many were said to be confirmed already.
    confirmed: usize,
    /// What is refused is so for its age.
    below_floor: bool,
    /// What the gateway has said that it holds back, and `goodbye`.
    said: Vec<Said>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    HeldBack(Option<i64>),
    Goodbye,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn opened() -> AppendResponse {
    let kind = append_response::Kind::Opened(AppendOpened { store_id: Bytes::from_static(b"a store") });
    AppendResponse { kind: Some(kind) }
}

fn ack(batch_id: u64, outcomes: impl IntoIterator<Item = AppendOutcome>) -> AppendResponse {
    ack_with(batch_id, outcomes, false)
}

/// `below_floor`: what is refused is so for its age.
fn ack_with(
    batch_id: u64,
    outcomes: impl IntoIterator<Item = AppendOutcome>,
    below_floor: bool,
) -> AppendResponse {
    let result = |outcome: AppendOutcome| AppendResult {
        outcome: outcome.into(),
        reason: "script".into(),
        below_floor: below_floor && outcome == AppendOutcome::Refused,
    };
    let results = outcomes.into_iter().map(result).collect();
    AppendResponse { kind: Some(append_response::Kind::Ack(AppendAck { batch_id, results })) }
}

impl Strange {
    /// What follows a request on the stream, if anything; none ends it.
    fn react(&self, request: AppendRequest) -> Option<Option<Result<AppendResponse, Status>>> {
        let batch = match request.kind? {
            append_request::Kind::Open(_) => return Some(Some(Ok(opened()))),
            append_request::Kind::Batch(batch) => batch,
            append_request::Kind::HeldBack(held_back) => {
                self.0.lock().unwrap().said.push(Said::HeldBack(held_back.oldest_ns));
                return Some(None);
            }
            append_request::Kind::Goodbye(_) => {
                self.0.lock().unwrap().said.push(Said::Goodbye);
                return Some(None);
            }
        };
        let mut script = self.0.lock().unwrap();
        let count = batch.records.len();
        script.received += count;
        script.confirmed += if batch.confirmed { count } else { 0 };
        let Some(reaction) = script.reactions.pop_front() else {
            let stored = |outcomes: &mut VecDeque<_>| outcomes.pop_front().unwrap_or(AppendOutcome::Stored);
            let outcomes: Vec<_> = (0..count).map(|_| stored(&mut script.outcomes)).collect();
            return Some(Some(Ok(ack_with(batch.batch_id, outcomes, script.below_floor))));
        };
        Some(Some(Ok(match reaction {
            Reaction::End => return None,
            Reaction::Fail => return Some(Some(Err(Status::internal("script")))),
            Reaction::AnotherBatch => ack(batch.batch_id + 100, vec![AppendOutcome::Stored; count]),
            Reaction::TooShort => ack(batch.batch_id, vec![AppendOutcome::Stored; count - 1]),
            Reaction::OpenedAgain => opened(),
        })))
    }
}

#[tonic::async_trait]
impl ArchiveService for Strange {
    type AppendStream = Responses<AppendResponse>;
    type TailStream = Responses<TailResponse>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let archive = self.clone();
        let answers = request.into_inner().map(move |request| archive.react(request.ok()?));
        let until_the_end = answers.take_while(|answer| std::future::ready(answer.is_some()));
        Ok(Response::new(Box::pin(until_the_end.filter_map(|answer| std::future::ready(answer.flatten())))))
    }

    async fn query(&self, _: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        let page = self.0.lock().unwrap().pages.pop_front();
        page.unwrap_or(Ok(QueryResponse { store_id: Bytes::from_static(b"a store"), ..Default::default() }))
            .map(Response::new)
    }

    async fn tail(&self, _: Request<Streaming<TailRequest>>) -> Result<Response<Self::TailStream>, Status> {
        Err(Status::unimplemented("script"))
    }

    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        Err(Status::unimplemented("script"))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        Err(Status::unimplemented("script"))
    }
}

/// A gateway on a scripted archive.
async fn start(script: Script) -> (Stack, Strange, Running) {
    start_with(script, |_| {}).await
}

async fn start_with(script: Script, change: impl FnOnce(&mut GatewayConfig)) -> (Stack, Strange, Running) {
    let archive = Strange(Arc::new(Mutex::new(script)));
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let server = Server::new(std::time::Duration::from_millis(100), CancellationToken::new())
        .with(poste_rpc::archive::server(archive.clone()))
        .start(listener, CancellationToken::new())
        .await
        .unwrap();
    let address = server.local_address();
    let stack = Stack::with(|config| {
        config.archive = format!("http://{address}");
        change(config);
    })
    .await;
    stack.reaches_archive(true).await;
    (stack, archive, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_archive_refuses_is_named_in_12() {
    use AppendOutcome::{Duplicate, Refused, Stored};
    let outcomes = [Stored, Refused, Duplicate, Refused, Stored].into();
    let (stack, _archive, _server) = start(Script { outcomes, ..Script::default() }).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let batch: Vec<_> = (0..5).map(|_| envelope(TOPIC, 10)).collect();
    let hash = peer.post(&batch).await;
    let faults = peer.confirmation(hash).await;
    let named: Vec<_> = faults.iter().map(|fault| (fault.hash, fault.code, &fault.description[..])).collect();
    let text = "archive cannot store this envelope";
    assert_eq!(named, [(batch[1].hash(), 22, text), (batch[3].hash(), 22, text)]);
    assert_eq!(stack.metric("archived_envelopes", "outcome=\"refused\""), 2);
    assert_eq!(stack.metric("archived_envelopes", "outcome=\"stored\""), 3);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_properly_is_sent_again_until_it_is() {
    use AppendOutcome::{Stored, Unavailable, Unspecified};
    let reactions =
        [Reaction::End, Reaction::Fail, Reaction::AnotherBatch, Reaction::TooShort, Reaction::OpenedAgain]
            .map(|reaction| Script { reactions: [reaction].into(), ..Script::default() });
    let outcomes = [vec![Unavailable], vec![Stored, Unspecified]]
        .map(|outcomes| Script { outcomes: outcomes.into(), ..Script::default() });
    for script in reactions.into_iter().chain(outcomes) {
        let scripted = format!("{script:?}");
        let (stack, archive, _server) = start(script).await;
        let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
        let batch: Vec<_> = (0..3).map(|_| envelope(TOPIC, 10)).collect();
        peer.post_confirmed(&batch).await;
        stack.drained().await;
        let received = archive.0.lock().unwrap().received;
        assert!(received > batch.len(), "{scripted}: {received}");
        let info = stack.node_info().await;
        assert_eq!((info.pending_envelopes, info.pending_bytes), (0, 0), "{scripted}");
        assert_eq!(stack.metric("spool_lost_envelopes", ""), 0, "{scripted}");
        stack.end().await;
    }
}

fn record(body: &[u8]) -> Record {
    Record { body: Bytes::copy_from_slice(body), ..Record::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_a_hole_is_no_page() {
    let good = envelope(TOPIC, 100);
    let of = |bodies: &[&[u8]]| QueryResponse {
        records: bodies.iter().map(|body| record(body)).collect(),
        store_id: Bytes::from_static(b"a store"),
        ..QueryResponse::default()
    };
    let leading = |time_ns: i64, id: &[u8]| QueryResponse {
        next: Some(Position { time_ns, id: Bytes::copy_from_slice(id) }),
        ..of(&[])
    };
    let large = Envelope::new(1, 1, TOPIC, &vec![7; 1 << 20], 0);
    let refused = Status::invalid_argument("from a script");
    let pages = [
        (Ok(of(&[good.rlp(), b"\xc0"])), UNAVAILABLE),
        (Ok(of(&[good.rlp(), b""])), UNAVAILABLE),
        (Ok(of(&[large.rlp()])), UNAVAILABLE),
        (Ok(leading(-1, &[1; 32])), UNAVAILABLE),
        (Ok(leading(i64::MAX, &[1; 32])), UNAVAILABLE),
        (Ok(leading(1_000_000_000, &[1; 31])), UNAVAILABLE),
        (Ok(leading(1_000_000_001, &[1; 32])), UNAVAILABLE),
        (Ok(QueryResponse { store_id: Bytes::from_static(b"another"), ..of(&[good.rlp()]) }), UNAVAILABLE),
        (Err(Status::unavailable("from a script")), UNAVAILABLE),
        (Err(Status::internal("from a script")), UNAVAILABLE),
        (Err(refused), "request is invalid: from a script"),
    ];
    // Two that lead in a circle come last.
    let circle = [leading(2_000_000_000, &[1; 32]), leading(2_000_000_000, &[1; 32])].map(Ok);
    let pages_and_circle = pages.iter().map(|(page, _)| page.clone()).chain(circle).collect();
    let script = Script { pages: pages_and_circle, ..Script::default() };
    let (stack, _archive, _server) = start(script).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    peer.post_confirmed(std::slice::from_ref(&good)).await;
    for (page, text) in &pages {
        let said = peer.refusal(MailRequestPacket::Sealed(sealed(&everything()))).await;
        assert_eq!(said, *text, "{page:?}");
    }
    assert_eq!(peer.refusal(MailRequestPacket::Sealed(sealed(&everything()))).await, UNAVAILABLE);
    assert_eq!(stack.metric("mail_requests", "outcome=\"archive_unavailable\""), 11);
    assert_eq!(stack.metric("mail_requests", "outcome=\"archive_refused\""), 1);
    assert_eq!(peer.page(&everything()).await.0, []);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_what_is_held_back_and_a_goodbye() {
    // It cannot take the second envelope at first, nor when it comes from the spool; then it has no quota for a while.
    use AppendOutcome::{Stored, Unavailable};
    let outcomes = [Stored, Unavailable, Unavailable, Stored].into();
    let (stack, archive, _server) = start(Script { outcomes, ..Script::default() }).await;
    let said = || archive.0.lock().unwrap().said.clone();
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
    eventually("the first report", || !said().is_empty()).await;
    assert_eq!(said(), [Said::HeldBack(None)]);
    peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
    stack.drained().await;
    let held_back = Said::HeldBack(Some(i64::from(NOW) * 1_000_000_000));
    eventually("the last report", || said().last() == Some(&Said::HeldBack(None))).await;
    assert!(said().contains(&held_back), "{:?}", said());
    assert_eq!(stack.metric("drained_envelopes", ""), 1);
    stack.end().await;
    assert_eq!(said().last(), Some(&Said::Goodbye));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_refuses_of_the_spool_is_said_to_be_lost_and_kept() {
    use AppendOutcome::{Refused, Stored, Unavailable};
    let outcomes = [Unavailable, Unavailable, Unavailable, Stored, Refused, Stored].into();
    let (stack, archive, _server) = start(Script { outcomes, ..Script::default() }).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let batch: Vec<_> = (0..3).map(|_| envelope(TOPIC, 10)).collect();
    peer.post_confirmed(&batch).await;
    stack.counted("spool_lost_envelopes", "", 1).await;
    stack.counted_down("spool_envelopes", 0).await;
    assert_eq!(stack.metric("drained_envelopes", ""), 2);
    let kept = stack.spool_files();
    assert!(kept.len() == 1 && kept[0].extension().is_some_and(|kind| kind == "damaged"), "{kept:?}");
    stack.end().await;
    assert!(archive.0.lock().unwrap().said.contains(&Said::Goodbye), "nothing is held back");
    // More where it came from the spool already when the archive could not take it: on a slow machine.
    let told = archive.0.lock().unwrap().confirmed;
    assert!(told >= 3, "the archive is told what must not wait for a quota, not only {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_by_now_is_done_with_and_nothing_of_it_is_kept() {
    use AppendOutcome::{Refused, Stored, Unavailable};
    let outcomes = [Unavailable, Unavailable, Unavailable, Stored, Refused, Refused].into();
    let script = Script { outcomes, below_floor: true, ..Script::default() };
    let (stack, archive, _server) = start(script).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let batch: Vec<_> = (0..3).map(|_| envelope(TOPIC, 10)).collect();
    peer.post_confirmed(&batch).await;
    stack.counted("spool_retired_envelopes", "", 2).await;
    stack.counted_down("spool_envelopes", 0).await;
    assert_eq!(
        ["drained_envelopes", "spool_lost_envelopes", "spool_damaged_files"]
            .map(|name| stack.metric(name, "")),
        [1, 0, 0]
    );
    eventually("the file to go", || stack.spool_files().is_empty()).await;
    stack.end().await;
    assert!(archive.0.lock().unwrap().said.contains(&Said::Goodbye), "nothing is held back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_quota_stays_in_the_spool_and_lets_the_rest_pass() {
    use AppendOutcome::{OverQuota, Refused, Stored, Unavailable};
    let outcomes = [Unavailable, Unavailable, Unavailable, OverQuota, Refused, Stored].into();
    let (stack, archive, _server) = start(Script { outcomes, ..Script::default() }).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let batch: Vec<_> = (0..3).map(|_| envelope(TOPIC, 10)).collect();
    peer.post_confirmed(&batch).await;
    stack.counted("drained_envelopes", "", 1).await;
    stack.counted_down("spool_envelopes", 1).await;
    assert_eq!((stack.metric("spool_damaged_files", ""), stack.metric("spool_lost_envelopes", "")), (1, 0));
    // What is spooled now goes out although that one waits.
    archive.0.lock().unwrap().outcomes = [Unavailable].into();
    peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
    stack.counted("drained_envelopes", "", 2).await;
    stack.counted_down("spool_envelopes", 1).await;
    // New ones go to the archive meanwhile.
    peer.post_confirmed(&[envelope(TOPIC, 10)]).await;
    assert_eq!(stack.metric("spooled_envelopes", ""), 4);
    stack.end().await;
    assert!(!archive.0.lock().unwrap().said.contains(&Said::Goodbye), "one is still held back");
}

/// The envelope as a record of its time.
fn placed(envelope: &Envelope) -> Record {
    let time_ns = i64::from(envelope.sent()) * 1_000_000_000;
    let id = Bytes::copy_from_slice(envelope.hash().as_bytes());
    Record { position: Some(Position { time_ns, id }), ..record(envelope.rlp()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_past_what_is_complete_is_delivered_and_fails() {
    let envelopes: Vec<_> = (0..4).map(|second| envelope_at(NOW - 10 + second, 50, TOPIC, 100)).collect();
    let until = |second: u32| Some(i64::from(NOW - 10 + second) * 1_000_000_000);
    let page = |range: std::ops::Range<usize>, complete_until_ns: Option<i64>| {
        let records: Vec<_> = envelopes[range.clone()].iter().map(placed).collect();
        let next = if range.end < 4 { records.last().unwrap().position.clone() } else { None };
        let store_id = Bytes::from_static(b"a store");
        Ok(QueryResponse { records, next, store_id, complete_until_ns, ..QueryResponse::default() })
    };
    let request = MailRequest { limit: 2, ..everything() };
    let cases = [
        // The pages of the archive, whether the client's page is complete.
        (vec![page(0..2, None)], true, "nothing is held back"),
        (vec![page(0..2, until(2))], true, "it ends below"),
        (vec![page(0..2, until(1))], false, "a record of its last second may be missing"),
        (vec![page(0..1, until(3)), page(1..2, until(3))], true, "two pages of the archive, both below"),
        (vec![page(0..1, until(0)), page(1..2, until(3))], false, "the first was incomplete"),
        (vec![page(2..4, until(100))], false, "the last page reaches to the end of what was asked"),
        (vec![page(2..4, None)], true, "the last page"),
    ];
    let pages = cases.iter().flat_map(|(pages, _, _)| pages.clone()).collect();
    let (stack, _archive, _server) = start(Script { pages, ..Script::default() }).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    for (_, complete, case) in &cases {
        let (delivered, completion) = peer.page(&request).await;
        assert_eq!(delivered.len(), 2, "{case}");
        match completion {
            Completion::Done { .. } => assert!(complete, "{case}"),
            Completion::Failed { error, .. } => {
                assert_eq!(
                    (*complete, &error[..]),
                    (false, "history is not complete yet, ask again later"),
                    "{case}"
                );
            }
        }
    }
    assert_eq!(stack.metric("mail_requests", "outcome=\"incomplete\""), 3);
    stack.end().await;
}

/// Peers have no word for it, so the operator has to see it.
#[tokio::test(flavor = "multi_thread")]
async fn pages_below_the_floor_and_over_damage_are_counted() {
    let floor = |second: i64| Some((i64::from(NOW) + second) * 1_000_000_000);
    let page = |floor_ns: Option<i64>, quarantined: u64| {
        let store_id = Bytes::from_static(b"a store");
        Ok(QueryResponse { store_id, floor_ns, quarantined, ..QueryResponse::default() })
    };
    let going_on = |page: Result<QueryResponse, Status>, sent: u32| {
        let id = Bytes::from_static(&[1; 32]);
        page.map(|page| QueryResponse {
            next: Some(Position { time_ns: i64::from(sent) * 1_000_000_000, id }),
            ..page
        })
    };
    let request = MailRequest::between(NOW - 100, NOW);
    let cases = [
        (vec![page(None, 0)], (0, 0)),
        (vec![page(floor(-100), 0)], (0, 0)),
        (vec![page(floor(-99), 0)], (1, 0)),
        (vec![page(floor(-200), 2)], (0, 1)),
        // One page of the peer, however many the archive makes of it.
        (vec![going_on(page(floor(-50), 1), NOW - 40), page(floor(-50), 1)], (1, 1)),
        // From where it goes on nothing is below.
        (vec![going_on(page(floor(-200), 0), NOW - 40), page(floor(-50), 0)], (0, 0)),
    ];
    let pages = cases.iter().flat_map(|(pages, _)| pages.clone()).collect();
    let (stack, _archive, _server) = start(Script { pages, ..Script::default() }).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    let counted = || (stack.metric("mail_below_floor", ""), stack.metric("mail_damaged", ""));
    for (pages, (below_floor, damaged)) in &cases {
        let before = counted();
        assert!(matches!(peer.page(&request).await, (_, Completion::Done { .. })), "{pages:?}");
        assert_eq!(counted(), (before.0 + below_floor, before.1 + damaged), "{pages:?}");
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_has_no_quota_for_may_be_sent_again_and_costs_the_peer_nothing() {
    use AppendOutcome::{OverQuota, Refused, Stored};
    let outcomes = [OverQuota, OverQuota, Stored, Refused].into();
    let script = Script { outcomes, ..Script::default() };
    let quota = ByteSize(100_000);
    let (stack, archive, _server) = start_with(script, |config| config.peer_quota_large = quota).await;
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    // Its quota is enough for one of these.
    let large = envelope_at(NOW, 1000, TOPIC, 70_000);
    // Repeated at once it does not go to the archive again.
    for (after_secs, refused) in [(0, true), (1, true), (29, true), (30, false), (0, false)] {
        stack.clock.advance(Duration::from_secs(after_secs));
        let batch = peer.post(std::slice::from_ref(&large)).await;
        let faults = peer.confirmation(batch).await;
        assert_eq!(faults.len(), usize::from(refused), "{faults:?}");
        for fault in faults {
            assert!(
                fault.description.starts_with("archive takes no more envelopes of this size"),
                "{fault:?}"
            );
        }
    }
    let never = envelope_at(NOW, 1000, TOPIC, 10);
    for _ in 0..2 {
        let batch = peer.post(std::slice::from_ref(&never)).await;
        assert_eq!(peer.confirmation(batch).await[0].description, "archive cannot store this envelope");
    }
    assert_eq!(archive.0.lock().unwrap().received, 4, "what is stored or refused for good is not sent again");
    let counts = ["over_quota", "stored", "refused"]
        .map(|outcome| stack.metric("archived_envelopes", &format!("outcome=\"{outcome}\"")));
    assert_eq!(counts, [2, 1, 1]);
    stack.end().await;
}
