//! The service over loopback, asked as its neighbours ask it.

mod admin;
mod append;
mod life;
mod query;
mod tail;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::AppendOutcome;
use poste_rpc::archive::v1::archive_admin_service_client::ArchiveAdminServiceClient;
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
    admin: ArchiveAdminServiceClient<Channel>,
    context: Context,
}

impl Archive {
    async fn on(store: Arc<dyn ArchiveStore>) -> Self {
        Self::with(store, config()).await
    }

    async fn with(store: Arc<dyn ArchiveStore>, config: ArchiveConfig) -> Self {
        let context = Context::new(Duration::from_secs(10));
        Self::of(start_with_store(store, config, context.clone()).await.unwrap(), context)
    }

    /// On a store of its own in this directory.
    async fn in_directory(dir: &std::path::Path) -> Self {
        let config = ArchiveConfig { store: StoreUrl::Local(dir.to_owned()), ..config() };
        let context = Context::new(Duration::from_secs(10));
        Self::of(start(config, context.clone()).await.unwrap(), context)
    }

    async fn in_memory() -> (Self, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new(STORE_ID));
        (Self::on(Arc::clone(&store) as Arc<dyn ArchiveStore>).await, store)
    }

    fn of(running: RunningService, context: Context) -> Self {
        let channel = |address: Option<std::net::SocketAddr>| {
            Target::lazy(&format!("http://{}", address.unwrap())).unwrap().channel()
        };
        let addresses = running.addresses();
        let client = poste_rpc::archive::client(channel(addresses.grpc));
        let admin = poste_rpc::archive::admin_client(channel(addresses.admin));
        Self { client, admin, running, context }
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
    let ephemeral = "127.0.0.1:0".parse().unwrap();
    ArchiveConfig { grpc_listen: ephemeral, admin_listen: ephemeral, ..ArchiveConfig::default() }
}

struct Writer {
    requests: mpsc::UnboundedSender<v1::AppendRequest>,
    responses: Streaming<v1::AppendResponse>,
    store_id: Bytes,
}

impl Writer {
    async fn open(client: ArchiveServiceClient<Channel>) -> Self {
        let open = v1::AppendOpen { writer_id: "test".to_owned(), ..v1::AppendOpen::default() };
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
        self.send_batch(v1::AppendBatch { batch_id, records, confirmed: false });
    }

    fn send_batch(&self, batch: v1::AppendBatch) {
        let kind = Some(v1::append_request::Kind::Batch(batch));
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
