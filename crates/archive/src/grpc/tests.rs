//! The service over loopback, asked as its neighbours ask it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::AppendOutcome;
use poste_rpc::archive::v1::archive_service_client::ArchiveServiceClient;
use poste_rpc::client::Target;
use poste_service::{Context, RunningService};
use poste_wire::{Bloom, Envelope, Topic};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::config::{ArchiveConfig, StoreUrl};
use crate::store::conformance::envelope;
use crate::store::{ArchiveStore, DroppingStore, MemoryStore, StoreId};
use crate::{start, start_with_store};

const STORE_ID: StoreId = StoreId([9; 16]);

struct Archive {
    running: RunningService,
    client: ArchiveServiceClient<Channel>,
    context: Context,
}

impl Archive {
    async fn on(store: Arc<dyn ArchiveStore>) -> Self {
        let context = Context::new(Duration::from_secs(10));
        Self::of(start_with_store(store, config(), context.clone()).await.unwrap(), context)
    }

    async fn in_memory() -> (Self, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new(STORE_ID));
        (Self::on(Arc::clone(&store) as Arc<dyn ArchiveStore>).await, store)
    }

    fn of(running: RunningService, context: Context) -> Self {
        let address = running.addresses().grpc.unwrap();
        let target = Target::lazy(&format!("http://{address}")).unwrap();
        Self { client: poste_rpc::archive::client(target.channel()), running, context }
    }

    async fn query(&mut self, request: v1::QueryRequest) -> v1::QueryResponse {
        self.client.query(request).await.unwrap().into_inner()
    }

    async fn append(&self, envelopes: &[Envelope]) -> Vec<AppendOutcome> {
        let mut writer = Writer::open(self.client.clone()).await;
        writer.send(1, envelopes);
        outcomes(&writer.ack().await)
    }
}

fn config() -> ArchiveConfig {
    ArchiveConfig { grpc_listen: "127.0.0.1:0".parse().unwrap(), ..ArchiveConfig::default() }
}

struct Writer {
    requests: mpsc::UnboundedSender<v1::AppendRequest>,
    responses: Streaming<v1::AppendResponse>,
    store_id: Bytes,
}

impl Writer {
    async fn open(client: ArchiveServiceClient<Channel>) -> Self {
        let open = v1::AppendOpen { writer_id: "test".to_owned() };
        let (requests, mut responses) =
            append_stream(client, v1::append_request::Kind::Open(open)).await.unwrap();
        match responses.message().await.unwrap().unwrap().kind {
            Some(v1::append_response::Kind::Opened(opened)) => {
                Self { requests, responses, store_id: opened.store_id }
            }
            other => panic!("{other:?} instead of opened"),
        }
    }

    fn send(&self, batch_id: u64, envelopes: &[Envelope]) {
        self.send_records(
            batch_id,
            envelopes.iter().map(|envelope| record("waku1", envelope.rlp())).collect(),
        );
    }

    fn send_records(&self, batch_id: u64, records: Vec<v1::NewRecord>) {
        let kind = Some(v1::append_request::Kind::Batch(v1::AppendBatch { batch_id, records }));
        self.requests.unbounded_send(v1::AppendRequest { kind }).unwrap();
    }

    async fn ack(&mut self) -> v1::AppendAck {
        match self.responses.message().await.unwrap().unwrap().kind {
            Some(v1::append_response::Kind::Ack(ack)) => ack,
            other => panic!("{other:?} instead of an ack"),
        }
    }

    /// The status that the stream ends with.
    async fn end(mut self) -> Result<(), tonic::Status> {
        match self.responses.message().await? {
            None => Ok(()),
            Some(other) => panic!("{other:?} instead of the end"),
        }
    }
}

type AppendStream = (mpsc::UnboundedSender<v1::AppendRequest>, Streaming<v1::AppendResponse>);

async fn append_stream(
    mut client: ArchiveServiceClient<Channel>,
    first: v1::append_request::Kind,
) -> Result<AppendStream, tonic::Status> {
    let (requests, stream) = mpsc::unbounded();
    requests.unbounded_send(v1::AppendRequest { kind: Some(first) }).unwrap();
    Ok((requests, client.append(stream).await?.into_inner()))
}

fn record(space: &str, body: &Bytes) -> v1::NewRecord {
    v1::NewRecord { space: space.to_owned(), body: body.clone() }
}

fn outcomes(ack: &v1::AppendAck) -> Vec<AppendOutcome> {
    ack.results.iter().map(v1::AppendResult::outcome).collect()
}

fn everything() -> v1::QueryRequest {
    v1::QueryRequest {
        space: "waku1".to_owned(),
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        ..v1::QueryRequest::default()
    }
}

/// Topics whose projections share no bit.
fn topic(number: u32) -> Topic {
    let [.., low] = number.to_be_bytes();
    Topic([low.wrapping_mul(50), low.wrapping_mul(50) + 1, low.wrapping_mul(50) + 2, 0])
}

fn envelopes(numbers: std::ops::Range<u32>) -> Vec<Envelope> {
    numbers.map(|n| envelope(1000 + n, topic(n % 3), &n.to_be_bytes())).collect()
}

fn bodies(records: &[v1::Record]) -> Vec<Bytes> {
    records.iter().map(|record| record.body.clone()).collect()
}

fn rlps(envelopes: &[Envelope]) -> Vec<Bytes> {
    envelopes.iter().map(|envelope| envelope.rlp().clone()).collect()
}

#[tokio::test]
async fn every_record_of_a_batch_gets_its_own_outcome() {
    let (archive, _) = Archive::in_memory().await;
    let mut writer = Writer::open(archive.client.clone()).await;
    assert_eq!(writer.store_id, STORE_ID.0.as_slice());
    let good = envelope(1000, Topic([1; 4]), b"good");
    let wraps = Envelope::new(10, 11, Topic([1; 4]), b"", 0);
    let records = vec![
        record("waku9", good.rlp()),
        record("waku1", good.rlp()),
        record("waku1", &Bytes::from_static(b"no envelope")),
        record("waku1", good.rlp()),
        record("waku1", wraps.rlp()),
    ];
    writer.send_records(77, records);
    let ack = writer.ack().await;
    assert_eq!(ack.batch_id, 77);
    use AppendOutcome::{Duplicate, Refused, Stored};
    assert_eq!(outcomes(&ack), [Refused, Stored, Refused, Duplicate, Refused]);
    for result in &ack.results {
        assert_eq!(result.reason.is_empty(), result.outcome() != Refused, "{result:?}");
    }
}

#[tokio::test]
async fn many_batches_are_in_flight_and_each_is_acknowledged_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = ArchiveConfig { store: StoreUrl::Local(dir.path().to_owned()), ..config() };
    let context = Context::new(Duration::from_secs(10));
    let archive = Archive::of(start(config, context.clone()).await.unwrap(), context);
    let mut writer = Writer::open(archive.client.clone()).await;
    for batch in 0..300 {
        writer.send(u64::from(batch), &envelopes(batch * 10..batch * 10 + 10));
    }
    let mut seen = Vec::new();
    for _ in 0..300 {
        let ack = writer.ack().await;
        assert_eq!(outcomes(&ack), [AppendOutcome::Stored; 10]);
        seen.push(ack.batch_id);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..300).collect::<Vec<u64>>());
    let Writer { requests, mut responses, .. } = writer;
    drop(requests);
    assert!(responses.message().await.unwrap().is_none(), "the stream ends when the writer is done");
}

#[tokio::test]
async fn an_append_stream_that_breaks_the_rules_is_told_so() {
    let (archive, _) = Archive::in_memory().await;
    let batch = v1::append_request::Kind::Batch(v1::AppendBatch::default());
    let nameless = v1::append_request::Kind::Open(v1::AppendOpen::default());
    let long = v1::append_request::Kind::Open(v1::AppendOpen { writer_id: "x".repeat(129) });
    for first in [batch, nameless, long] {
        let status = append_stream(archive.client.clone(), first).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let one = envelopes(0..1).remove(0);
    let large = Bytes::from(vec![0; 1024 * 1024]);
    let mut heavy = vec![record("waku1", &large); 4];
    heavy.push(record("waku1", one.rlp()));
    let wrong = [
        (vec![], Code::InvalidArgument),
        (vec![record("waku1", one.rlp()); 4097], Code::InvalidArgument),
        (heavy, Code::InvalidArgument),
        // So large that it is not even read.
        (vec![record("waku1", &large); 5], Code::OutOfRange),
    ];
    for (records, code) in wrong {
        let mut writer = Writer::open(archive.client.clone()).await;
        writer.send(1, std::slice::from_ref(&one));
        writer.send_records(2, records);
        assert_eq!(writer.ack().await.batch_id, 1, "what came before is acknowledged");
        assert_eq!(writer.end().await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn history_comes_page_by_page_in_both_directions() {
    let (mut archive, _) = Archive::in_memory().await;
    let sent = envelopes(0..95);
    assert_eq!(archive.append(&sent).await, [AppendOutcome::Stored; 95]);
    for direction in [v1::Direction::Unspecified, v1::Direction::Descending] {
        let mut request = v1::QueryRequest { max_records: 10, direction: direction.into(), ..everything() };
        let mut found = Vec::new();
        let mut pages = 0;
        loop {
            let page = archive.query(request.clone()).await;
            assert_eq!(page.store_id, STORE_ID.0.as_slice());
            found.extend(bodies(&page.records));
            pages += 1;
            request.cursor = page.next;
            if request.cursor.is_none() {
                break;
            }
        }
        if direction == v1::Direction::Descending {
            found.reverse();
        }
        assert_eq!((pages, found), (10, rlps(&sent)));
    }
}

#[tokio::test]
async fn bounds_are_inclusive_and_filters_filter() {
    let (mut archive, _) = Archive::in_memory().await;
    let sent = envelopes(0..30);
    archive.append(&sent).await;
    let seconds = |n: i64| (1000 + n) * 1_000_000_000;
    let range = v1::QueryRequest { from_ns: seconds(10), to_ns: seconds(12), ..everything() };
    let page = archive.query(range).await;
    assert_eq!(bodies(&page.records), rlps(&sent[10..=12]));
    let record = &page.records[0];
    assert_eq!(record.topic, sent[10].topic().0.as_slice());
    let position = record.position.as_ref().unwrap();
    assert_eq!((position.time_ns, &position.id[..]), (seconds(10), &sent[10].hash().0[..]));
    assert_eq!(record.seq, 11);

    let of_topic: Vec<Bytes> = sent.iter().skip(1).step_by(3).map(|one| one.rlp().clone()).collect();
    let topics = vec![Bytes::copy_from_slice(&topic(1).0)];
    let filter = Some(v1::query_request::Filter::Topics(v1::TopicSet { topics }));
    assert_eq!(bodies(&archive.query(v1::QueryRequest { filter, ..everything() }).await.records), of_topic);
    let bloom = Bloom::of_topics([topic(1)]);
    let filter = Some(v1::query_request::Filter::Bloom(Bytes::copy_from_slice(bloom.as_bytes())));
    assert_eq!(bodies(&archive.query(v1::QueryRequest { filter, ..everything() }).await.records), of_topic);
    let filter = Some(v1::query_request::Filter::Topics(v1::TopicSet::default()));
    assert!(archive.query(v1::QueryRequest { filter, ..everything() }).await.records.is_empty());
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    use v1::query_request::Filter;
    let (mut archive, _) = Archive::in_memory().await;
    let topics = |count: usize, length: usize| {
        let topics = vec![Bytes::from(vec![0; length]); count];
        Some(Filter::Topics(v1::TopicSet { topics }))
    };
    let cursor = |length: usize| Some(v1::Position { time_ns: 0, id: Bytes::from(vec![0; length]) });
    let mut wrong = vec![
        v1::QueryRequest { space: "waku9".to_owned(), ..everything() },
        v1::QueryRequest { max_records: 1001, ..everything() },
        v1::QueryRequest { direction: 3, ..everything() },
        v1::QueryRequest { filter: topics(1, 3), ..everything() },
        v1::QueryRequest { filter: topics(10_001, 4), ..everything() },
        v1::QueryRequest { cursor: cursor(31), ..everything() },
        v1::QueryRequest { cursor: cursor(0), ..everything() },
    ];
    for length in [0, 1, 63, 65, 128] {
        let filter = Some(Filter::Bloom(Bytes::from(vec![0; length])));
        wrong.push(v1::QueryRequest { filter, ..everything() });
    }
    for request in wrong {
        let status = archive.client.query(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}");
    }
    let backwards = v1::QueryRequest { from_ns: 1, to_ns: 0, ..everything() };
    assert_eq!(archive.query(backwards).await.records.len(), 0);
}

struct Reader {
    requests: mpsc::UnboundedSender<v1::TailRequest>,
    responses: Streaming<v1::TailResponse>,
    head: v1::TailToken,
}

impl Reader {
    async fn open(
        mut client: ArchiveServiceClient<Channel>,
        open: v1::TailOpen,
    ) -> Result<Self, tonic::Status> {
        let (requests, stream) = mpsc::unbounded();
        let kind = Some(v1::tail_request::Kind::Open(open));
        requests.unbounded_send(v1::TailRequest { kind }).unwrap();
        let mut responses = client.tail(stream).await?.into_inner();
        match responses.message().await?.unwrap().kind {
            Some(v1::tail_response::Kind::Opened(opened)) => {
                Ok(Self { requests, responses, head: opened.head.unwrap() })
            }
            other => panic!("{other:?} instead of opened"),
        }
    }

    fn send(&self, kind: v1::tail_request::Kind) {
        self.requests.unbounded_send(v1::TailRequest { kind: Some(kind) }).unwrap();
    }

    fn add(&self, number: u32, after: Option<v1::TailToken>) {
        self.add_topic(topic(number), after);
    }

    fn add_topic(&self, topic: Topic, after: Option<v1::TailToken>) {
        let topics = vec![Bytes::copy_from_slice(&topic.0)];
        self.send(v1::tail_request::Kind::Add(v1::TailAddTopics { topics, after }));
    }

    async fn next(&mut self) -> Result<v1::tail_response::Kind, tonic::Status> {
        Ok(self.responses.message().await?.expect("a tail has no end").kind.unwrap())
    }

    /// Records until `count` have come; what else comes meanwhile is left out.
    async fn records(&mut self, count: usize) -> Vec<v1::Record> {
        let mut records = Vec::new();
        while records.len() < count {
            if let v1::tail_response::Kind::Record(record) = self.next().await.unwrap() {
                records.push(record);
            }
        }
        records
    }

    /// The next checkpoint; what else comes meanwhile is left out.
    async fn progress(&mut self) -> v1::TailToken {
        loop {
            if let v1::tail_response::Kind::Progress(token) = self.next().await.unwrap() {
                return token;
            }
        }
    }

    /// Records until topics are live, and these topics.
    async fn live(&mut self) -> (Vec<v1::Record>, Vec<Bytes>) {
        let mut records = Vec::new();
        loop {
            match self.next().await.unwrap() {
                v1::tail_response::Kind::Record(record) => records.push(record),
                v1::tail_response::Kind::Live(live) => return (records, live.topics),
                _ => {}
            }
        }
    }
}

fn whole_space(after: Option<v1::TailToken>) -> v1::TailOpen {
    v1::TailOpen { space: "waku1".to_owned(), everything: true, after }
}

fn by_topic() -> v1::TailOpen {
    v1::TailOpen { space: "waku1".to_owned(), ..v1::TailOpen::default() }
}

#[tokio::test]
async fn a_tail_of_everything_catches_up_goes_on_and_resumes() {
    let (archive, _) = Archive::in_memory().await;
    let sent = envelopes(0..3000);
    archive.append(&sent[..2000]).await;
    let mut reader = Reader::open(archive.client.clone(), whole_space(None)).await.unwrap();
    assert_eq!(reader.head.seq, 2000);
    assert_eq!(bodies(&reader.records(2000).await), rlps(&sent[..2000]));
    let token = reader.progress().await;
    assert_eq!((token.seq, &token.store_id[..]), (2000, &STORE_ID.0[..]));
    archive.append(&sent[2000..2500]).await;
    assert_eq!(bodies(&reader.records(500).await), rlps(&sent[2000..2500]));
    assert_eq!(reader.progress().await.seq, 2500, "sent when a second has passed");
    drop(reader);
    archive.append(&sent[2500..]).await;
    let mut reader = Reader::open(archive.client.clone(), whole_space(Some(token))).await.unwrap();
    assert_eq!(bodies(&reader.records(1000).await), rlps(&sent[2000..]));
}

#[tokio::test]
async fn a_tail_by_topics_sends_what_was_added_and_says_when_it_is_live() {
    let (archive, _) = Archive::in_memory().await;
    let sent = envelopes(0..3000);
    let of_topic = |range: std::ops::Range<usize>, number: usize| -> Vec<Bytes> {
        range.filter(|n| n % 3 == number).map(|n| sent[n].rlp().clone()).collect()
    };
    archive.append(&sent[..1500]).await;
    let mut reader = Reader::open(archive.client.clone(), by_topic()).await.unwrap();
    reader.add(1, None);
    let (records, live) = reader.live().await;
    assert_eq!(bodies(&records), of_topic(0..1500, 1));
    assert_eq!(live, [Bytes::copy_from_slice(&topic(1).0)]);
    assert_eq!(reader.progress().await.seq, 1500);

    // A second one from a token on; a live one that is added again stays as it is.
    archive.append(&sent[1500..2000]).await;
    assert_eq!(bodies(&reader.records(167).await), of_topic(1500..2000, 1));
    reader.add(1, None);
    reader.add(2, Some(v1::TailToken { seq: 1000, ..reader.head.clone() }));
    let (records, _) = reader.live().await;
    assert_eq!(bodies(&records), of_topic(1000..2000, 2));

    let topics = vec![Bytes::copy_from_slice(&topic(1).0)];
    reader.send(v1::tail_request::Kind::Drop(v1::TailDropTopics { topics }));
    // An answer that comes behind the drop: an unknown topic becomes live.
    reader.add(4, None);
    assert!(reader.live().await.0.is_empty());
    archive.append(&sent[2000..]).await;
    let expected = of_topic(2000..3000, 2);
    assert_eq!(bodies(&reader.records(expected.len()).await), expected);
}

#[tokio::test]
async fn topics_and_what_catches_up_are_bounded_on_a_stream() {
    let (archive, _) = Archive::in_memory().await;
    archive.append(&envelopes(0..30)).await;

    // Many requests from one token catch up together.
    let mut reader = Reader::open(archive.client.clone(), by_topic()).await.unwrap();
    (0..1000).for_each(|number| reader.add_topic(Topic(u32::to_be_bytes(number)), None));
    let mut live = 0;
    while live < 1000 {
        live += reader.live().await.1.len();
    }

    // From different tokens they do so one after the other, and come faster than that.
    let mut reader = Reader::open(archive.client.clone(), by_topic()).await.unwrap();
    for number in 0..1000_u32 {
        let token = v1::TailToken { seq: u64::from(number), ..reader.head.clone() };
        reader.add_topic(Topic(number.to_be_bytes()), Some(token));
    }
    let status = loop {
        if let Err(status) = reader.next().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");

    let mut reader = Reader::open(archive.client.clone(), by_topic()).await.unwrap();
    let topics = (0..10_001_u32).map(|number| Bytes::copy_from_slice(&number.to_be_bytes())).collect();
    reader.send(v1::tail_request::Kind::Add(v1::TailAddTopics { topics, after: None }));
    let status = reader.next().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[tokio::test]
async fn a_topic_from_a_token_in_the_future_begins_there() {
    let (archive, _) = Archive::in_memory().await;
    let sent = envelopes(0..60);
    archive.append(&sent[..30]).await;
    let mut reader = Reader::open(archive.client.clone(), by_topic()).await.unwrap();
    reader.add(0, Some(v1::TailToken { seq: 45, ..reader.head.clone() }));
    assert!(reader.live().await.0.is_empty());
    archive.append(&sent[30..]).await;
    let expected: Vec<Bytes> = (45..60).step_by(3).map(|n| sent[n].rlp().clone()).collect();
    assert_eq!(bodies(&reader.records(expected.len()).await), expected);
}

#[tokio::test]
async fn a_token_of_another_store_is_refused() {
    let (archive, _) = Archive::in_memory().await;
    let other = || Some(v1::TailToken { store_id: Bytes::from_static(&[1; 16]), seq: 1 });
    let refused = Reader::open(archive.client.clone(), whole_space(other())).await;
    assert_eq!(refused.err().unwrap().code(), Code::FailedPrecondition);
    let mut reader = Reader::open(archive.client.clone(), by_topic()).await.unwrap();
    reader.add(1, other());
    assert_eq!(reader.next().await.unwrap_err().code(), Code::FailedPrecondition);
    let mut reader = Reader::open(archive.client.clone(), whole_space(None)).await.unwrap();
    reader.add(1, None);
    let error = loop {
        if let Err(error) = reader.next().await {
            break error;
        }
    };
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    let (archive, _) = Archive::in_memory().await;
    let large: Vec<Envelope> =
        (0..400).map(|n: u32| envelope(1000 + n, Topic([1; 4]), &vec![n as u8; 100_000])).collect();
    let mut idle = Reader::open(archive.client.clone(), whole_space(None)).await.unwrap();
    for some in large.chunks(40) {
        assert_eq!(archive.append(some).await, [AppendOutcome::Stored; 40]);
    }
    let mut other = Reader::open(archive.client.clone(), whole_space(None)).await.unwrap();
    assert_eq!(bodies(&other.records(400).await), rlps(&large));
    assert_eq!(bodies(&idle.records(400).await), rlps(&large));
}

#[tokio::test]
async fn look_ups_tell_what_is_there_and_end_early_where_bodies_do_not_fit() {
    let (mut archive, _) = Archive::in_memory().await;
    let large: Vec<Envelope> =
        (0..5).map(|n: u32| envelope(1000 + n, Topic([1; 4]), &vec![n as u8; 900_000])).collect();
    for some in large.chunks(4) {
        archive.append(some).await;
    }
    let mut ids = vec![Bytes::from(vec![7; 32])];
    ids.extend(large.iter().map(|one| Bytes::copy_from_slice(&one.hash().0)));
    let request = v1::LookupRequest { space: "waku1".to_owned(), ids, with_bodies: false };
    let found = archive.client.lookup(request.clone()).await.unwrap().into_inner();
    assert_eq!((found.answered, found.records.len()), (6, 5));
    assert!(found.records.iter().all(|record| record.body.is_empty()));

    let mut rest = v1::LookupRequest { with_bodies: true, ..request };
    let mut records = Vec::new();
    let mut answers = 0;
    while !rest.ids.is_empty() {
        let found = archive.client.lookup(rest.clone()).await.unwrap().into_inner();
        records.extend(found.records);
        rest.ids.drain(..found.answered as usize);
        answers += 1;
    }
    assert_eq!((answers, bodies(&records)), (3, rlps(&large)));
    let many =
        v1::LookupRequest { space: "waku1".to_owned(), ids: vec![Bytes::new(); 1001], with_bodies: false };
    assert_eq!(archive.client.lookup(many).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_store_that_takes_nothing_is_not_ready_and_says_so() {
    let (mut archive, store) = Archive::in_memory().await;
    archive.context.readiness.serving();
    assert!(archive.context.readiness.report().ready);
    store.set_writable(false);
    assert_eq!(archive.append(&envelopes(0..1)).await, [AppendOutcome::Unavailable]);
    assert!(!archive.client.stats(v1::StatsRequest {}).await.unwrap().into_inner().writable);
    let report = archive.context.readiness.report();
    assert!(!report.ready && report.checks[0].name == "archive.store", "{report:?}");
    store.set_writable(true);
    assert_eq!(archive.append(&envelopes(0..1)).await, [AppendOutcome::Stored]);
    assert!(archive.context.readiness.report().ready);
}

#[tokio::test]
async fn a_stop_finishes_what_was_sent_and_a_restart_serves_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = ArchiveConfig { store: StoreUrl::Local(dir.path().join("store")), ..config() };
    let context = Context::new(Duration::from_secs(10));
    let archive = Archive::of(start(config.clone(), context.clone()).await.unwrap(), context);
    let mut writer = Writer::open(archive.client.clone()).await;
    let mut reader = Reader::open(archive.client.clone(), whole_space(None)).await.unwrap();
    writer.send(1, &envelopes(0..100));
    assert_eq!(outcomes(&writer.ack().await), [AppendOutcome::Stored; 100]);
    reader.records(100).await;
    archive.running.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(writer.end().await.unwrap_err().code(), Code::Unavailable);
    let error = loop {
        if let Err(error) = reader.next().await {
            break error;
        }
    };
    assert_eq!(error.code(), Code::Unavailable);

    let context = Context::new(Duration::from_secs(10));
    let mut archive = Archive::of(start(config, context.clone()).await.unwrap(), context.clone());
    let page = archive.query(everything()).await;
    assert_eq!(bodies(&page.records), rlps(&envelopes(0..100)));
    let stats = archive.client.stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.seq, stats.spaces[0].records, stats.quarantined), (100, 100, 0));
    assert!(stats.writable && stats.file_bytes > 0);
    archive.append(&envelopes(0..101)).await;
    let metrics = context.metrics.encode().unwrap();
    for line in [
        "poste_archive_append_records_total{outcome=\"stored\"} 1",
        "poste_archive_append_records_total{outcome=\"duplicate\"} 100",
        "poste_archive_query_records_total 100",
        "poste_archive_head_seq 101",
        "poste_archive_writable_state 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn a_dropping_store_acknowledges_what_it_loses() {
    let inner = Arc::new(MemoryStore::new(STORE_ID));
    let mut archive = Archive::on(Arc::new(DroppingStore::new(inner, 3))).await;
    let sent = envelopes(0..5);
    assert_eq!(archive.append(&sent).await, [AppendOutcome::Stored; 5]);
    let mut expected = rlps(&sent);
    expected.remove(2);
    assert_eq!(bodies(&archive.query(everything()).await.records), expected);
}
