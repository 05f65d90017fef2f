//! `ArchiveAdminService`: retention, pruning, verification and writers.

use poste_service::Clock;
use poste_service::config::ByteSize;
use tempfile::TempDir;

use super::*;
use crate::{LocalOptions, LocalStore};

const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;

fn default_retention() -> v1::Retention {
    v1::Retention { max_age_ns: 0, max_bytes: 0, min_age_ns: DAY_NS }
}

/// An archive on each kind of store, with the store.
async fn on_each_store() -> Vec<(Archive, Arc<dyn ArchiveStore>, TempDir)> {
    let mut archives = Vec::new();
    for is_local in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn ArchiveStore> = if is_local {
            let options = LocalOptions::new(dir.path(), Clock::system());
            let open = tokio::task::spawn_blocking(|| LocalStore::open(options));
            Arc::new(open.await.unwrap().unwrap())
        } else {
            Arc::new(MemoryStore::new(STORE_ID))
        };
        archives.push((Archive::on(Arc::clone(&store)).await, store, dir));
    }
    archives
}

async fn retention(archive: &mut Archive) -> v1::GetRetentionResponse {
    archive.admin.get_retention(v1::GetRetentionRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn an_override_of_retention_stays_until_it_is_taken_back() {
    for (mut archive, _store, _dir) in on_each_store().await {
        let before = retention(&mut archive).await;
        assert_eq!((before.configured, before.r#override), (Some(default_retention()), None));

        let age =
            v1::SetRetentionRequest { max_age_ns: Some(30 * DAY_NS), ..v1::SetRetentionRequest::default() };
        archive.admin.set_retention(age).await.unwrap();
        let size = v1::SetRetentionRequest { max_bytes: Some(1 << 30), ..v1::SetRetentionRequest::default() };
        let set = archive.admin.set_retention(size).await.unwrap().into_inner();
        let expected = v1::Retention { max_age_ns: 30 * DAY_NS, max_bytes: 1 << 30, min_age_ns: DAY_NS };
        assert_eq!(set.retention, Some(expected), "what is not named stays");
        let now = retention(&mut archive).await;
        assert_eq!((now.configured, now.r#override), (Some(default_retention()), Some(expected)));

        let reset = v1::SetRetentionRequest { reset: true, ..v1::SetRetentionRequest::default() };
        let set = archive.admin.set_retention(reset).await.unwrap().into_inner();
        assert_eq!(set.retention, Some(default_retention()));
        assert_eq!(retention(&mut archive).await.r#override, None);
    }
}

#[tokio::test]
async fn retentions_that_make_no_sense_are_refused() {
    for (mut archive, _store, _dir) in on_each_store().await {
        let nothing = v1::SetRetentionRequest::default();
        let wrong = [
            (nothing, "not both"),
            (v1::SetRetentionRequest { reset: true, max_bytes: Some(0), ..nothing }, "not both"),
            (v1::SetRetentionRequest { max_bytes: Some(1 << 20), ..nothing }, "write 1GiB or more"),
            (
                v1::SetRetentionRequest { max_bytes: Some(1 << 30), max_age_ns: Some(DAY_NS / 2), ..nothing },
                "min_age is 1day",
            ),
        ];
        for (request, words) in wrong {
            let status = archive.admin.set_retention(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(words), "{status}");
        }
        assert_eq!(retention(&mut archive).await.r#override, None);
    }
}

#[tokio::test]
async fn what_is_due_is_told() {
    // A store in memory only says so; another retires it by itself.
    let (mut archive, _) = Archive::in_memory().await;
    archive.append(&envelopes(0..30)).await;
    let age = v1::SetRetentionRequest { max_age_ns: Some(DAY_NS), ..v1::SetRetentionRequest::default() };
    archive.admin.set_retention(age).await.unwrap();
    let space = retention(&mut archive).await.spaces.remove(0);
    assert_eq!((space.space.as_str(), space.floor_ns, space.due_records), ("waku1", None, 30));
    assert!(space.due_bytes > 0 && space.due_floor_ns > Some(1_000_000_000_000_000_000));
}

#[tokio::test]
async fn a_retention_can_be_tried_and_changes_nothing_then() {
    for (mut archive, _store, _dir) in on_each_store().await {
        archive.append(&envelopes(0..30)).await;
        let before = retention(&mut archive).await;
        let age = v1::SetRetentionRequest {
            max_age_ns: Some(DAY_NS),
            dry_run: true,
            ..v1::SetRetentionRequest::default()
        };
        let would = archive.admin.set_retention(age).await.unwrap().into_inner();
        assert_eq!(would.retention, Some(v1::Retention { max_age_ns: DAY_NS, ..default_retention() }));
        assert_eq!((would.spaces[0].due_hidden, would.file_bytes), (30, before.file_bytes));
        let reset = v1::SetRetentionRequest { max_age_ns: None, reset: true, ..age };
        let would = archive.admin.set_retention(reset).await.unwrap().into_inner();
        assert_eq!((would.retention, would.spaces[0].due_hidden), (Some(default_retention()), 0));
        let nonsense = v1::SetRetentionRequest { max_bytes: Some(1 << 20), ..age };
        let status = archive.admin.set_retention(nonsense).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(retention(&mut archive).await, before);
    }
}

#[tokio::test]
async fn pruning_can_be_tried_and_then_takes_away() {
    for (mut archive, _store, _dir) in on_each_store().await {
        let sent = envelopes(0..30);
        archive.append(&sent).await;
        let before_ns = 1010 * 1_000_000_000;
        let request = v1::PruneRequest { space: "waku1".to_owned(), before_ns, dry_run: true };
        let would = archive.admin.prune(request.clone()).await.unwrap().into_inner();
        assert_eq!((would.floor_ns, would.hidden), (Some(before_ns), 10));
        assert_eq!(archive.query(everything()).await.records.len(), 30);
        let request = v1::PruneRequest { dry_run: false, ..request };
        assert_eq!(archive.admin.prune(request.clone()).await.unwrap().into_inner(), would);
        let page = archive.query(everything()).await;
        assert_eq!((page.floor_ns, bodies(&page.records)), (Some(before_ns), rlps(&sent[10..])));

        let now_ns = archive.context.clock.unix_nanos();
        let future = v1::PruneRequest { before_ns: now_ns + 60_000_000_000, ..request.clone() };
        let unknown = v1::PruneRequest { space: "waku9".to_owned(), ..request };
        for request in [future, unknown] {
            let status = archive.admin.prune(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
        assert_eq!(archive.query(everything()).await.records.len(), 20);
    }
}

#[tokio::test]
async fn a_verification_ends_in_a_report() {
    for (mut archive, _store, _dir) in on_each_store().await {
        archive.append(&envelopes(0..30)).await;
        // One after the other: the first has given its place back.
        for _ in 0..2 {
            let mut answers = archive.admin.verify(v1::VerifyRequest {}).await.unwrap().into_inner();
            let report = loop {
                match answers.message().await.unwrap().unwrap().kind.unwrap() {
                    v1::verify_response::Kind::Progress(_) => {}
                    v1::verify_response::Kind::Report(report) => break report,
                }
            };
            assert_eq!((report.records, report.quarantined, report.complete), (30, 0, true));
            assert!(answers.message().await.unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn only_a_writer_that_is_away_can_be_forgotten() {
    for (mut archive, store, _dir) in on_each_store().await {
        let away = "away".parse().unwrap();
        let connection = store.writer_connected(&away, 5000, Duration::ZERO).await.unwrap();
        store.writer_left(&away, connection, false).await.unwrap();
        let _here = Writer::open(archive.client.clone()).await;
        let writers =
            archive.admin.list_writers(v1::ListWritersRequest {}).await.unwrap().into_inner().writers;
        let status = |id: &str, connected, held_back_ns| v1::Writer {
            writer_id: id.to_owned(),
            connected,
            held_back_ns,
        };
        assert_eq!(writers, [status("away", false, Some(5000)), status("test", true, None)]);

        for (id, code) in
            [("test", Code::FailedPrecondition), ("nobody", Code::NotFound), ("", Code::InvalidArgument)]
        {
            let request = v1::ForgetWriterRequest { writer_id: id.to_owned() };
            let status = archive.admin.forget_writer(request).await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
        }
        assert_eq!(archive.query(everything()).await.complete_until_ns, Some(5000));
        let request = v1::ForgetWriterRequest { writer_id: "away".to_owned() };
        archive.admin.forget_writer(request).await.unwrap();
        assert_eq!(archive.query(everything()).await.complete_until_ns, None);
    }
}

#[tokio::test]
async fn the_configuration_sets_retention_at_every_start() {
    let store = Arc::new(MemoryStore::new(STORE_ID));
    let config = ArchiveConfig { max_size: ByteSize::mebibytes(2048), ..config() };
    let mut archive = Archive::with(store, config).await;
    let expected = v1::Retention { max_bytes: 2 << 30, ..default_retention() };
    assert_eq!(retention(&mut archive).await.configured, Some(expected));
}
