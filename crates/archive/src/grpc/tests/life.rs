//! Readiness, a stop and a restart, and a store that is not honest.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::grpc::within_open;

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

#[tokio::test]
async fn a_stop_does_not_wait_for_streams_that_were_not_opened() {
    let (archive, _) = Archive::in_memory().await;
    let (_silent_writer, nothing) = mpsc::unbounded::<v1::AppendRequest>();
    let (_silent_reader, nothing_either) = mpsc::unbounded::<v1::TailRequest>();
    let (mut writer, mut reader) = (archive.client.clone(), archive.client.clone());
    let calls = tokio::spawn(async move {
        let (append, tail) = tokio::join!(writer.append(nothing), reader.tail(nothing_either));
        [append.unwrap_err().code(), tail.unwrap_err().code()]
    });
    // A later call on the same connection: the ones before it are there when it is answered.
    tokio::task::yield_now().await;
    archive.client.clone().stats(v1::StatsRequest {}).await.unwrap();
    let begun = std::time::Instant::now();
    archive.running.stop(Duration::from_secs(10)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "it waited {:?}", begun.elapsed());
    assert_eq!(calls.await.unwrap(), [Code::Unavailable; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_first_message_is_waited_for_ten_seconds() {
    let begun = tokio::time::Instant::now();
    let silence = std::future::pending::<Result<(), tonic::Status>>();
    let status = within_open(silence, &CancellationToken::new()).await.unwrap_err();
    assert_eq!((status.code(), begun.elapsed().as_secs()), (Code::DeadlineExceeded, 10));
}
