//! `Export` and `Import`: history out of one archive and into another.

use std::collections::BTreeMap;

use poste_wire::Hash;

use super::*;
use crate::export::{Decoder, Encoder, Header, Place};
use crate::record::{Derived, Position, Space};

fn whole() -> v1::ExportRequest {
    let space = "waku1".to_owned();
    v1::ExportRequest { space, from_ns: i64::MIN, to_ns: i64::MAX, resume: None }
}

async fn export(archive: &mut Archive, request: v1::ExportRequest) -> (Vec<u8>, v1::ExportReport) {
    let mut answers = archive.admin.export(request).await.unwrap().into_inner();
    let mut file = Vec::new();
    loop {
        match answers.message().await.unwrap().unwrap().kind.unwrap() {
            v1::export_response::Kind::Chunk(chunk) => file.extend(chunk),
            v1::export_response::Kind::Report(report) => {
                assert!(answers.message().await.unwrap().is_none());
                return (file, report);
            }
        }
    }
}

/// The place that a file ends at, and the request for the rest of it.
fn rest_of(file: &[u8]) -> (usize, v1::ExportRequest) {
    let mut decoder = Decoder::new();
    decoder.push(file);
    while decoder.next_piece().unwrap().is_some() {}
    let Place { last, totals, unchecked_records, unchecked_bytes } = decoder.place();
    let header = decoder.header().unwrap();
    let resume = v1::ExportResume {
        store_id: Bytes::copy_from_slice(&header.store_id.0),
        after: last
            .map(|last| v1::Position { time_ns: last.time_ns, id: Bytes::copy_from_slice(&last.id.0) }),
        records: totals.records,
        record_bytes: totals.bytes,
        record_crc: totals.crc,
        unchecked_records,
        unchecked_bytes,
    };
    let Header { space, from_ns, to_ns, .. } = header.clone();
    let request = v1::ExportRequest { space, from_ns, to_ns, resume: Some(resume) };
    (usize::try_from(decoder.sound_bytes()).unwrap(), request)
}

/// Creation time of a file's last whole record.
fn request_after(file: &[u8]) -> Option<i64> {
    rest_of(file).1.resume?.after.map(|after| after.time_ns)
}

type Answers = Streaming<v1::ImportResponse>;

async fn begin_import(archive: &mut Archive, file: &[u8], chunk_bytes: usize) -> Answers {
    let chunks: Vec<_> = file
        .chunks(chunk_bytes)
        .map(|chunk| v1::ImportRequest { chunk: Bytes::copy_from_slice(chunk) })
        .collect();
    archive.admin.import(futures::stream::iter(chunks)).await.unwrap().into_inner()
}

async fn report(answers: &mut Answers) -> v1::ImportReport {
    loop {
        match answers.message().await.unwrap().unwrap().kind.unwrap() {
            v1::import_response::Kind::Progress(_) => {}
            v1::import_response::Kind::Report(report) => return report,
        }
    }
}

async fn import(archive: &mut Archive, file: &[u8], chunk_bytes: usize) -> v1::ImportReport {
    report(&mut begin_import(archive, file, chunk_bytes).await).await
}

/// What an archive holds, in order.
async fn history(archive: &mut Archive) -> Vec<Bytes> {
    let mut found = Vec::new();
    let mut request = everything();
    loop {
        let page = archive.query(request.clone()).await;
        found.extend(bodies(&page.records));
        request.cursor = page.next;
        if request.cursor.is_none() {
            return found;
        }
    }
}

/// 2,500 small envelopes and some large ones between them, of a few seconds: their order is not that of sending.
fn some_history() -> Vec<Envelope> {
    let small = (0..2500_u32).map(|n| envelope(1000 + n % 7, topic(n % 3), &n.to_be_bytes()));
    let large = (0..8_u32).map(|n| envelope(1000 + n % 7, topic(0), &vec![n as u8; 400_000]));
    small.chain(large).collect()
}

async fn fill(archive: &Archive, envelopes: &[Envelope]) {
    for some in envelopes.chunks(500) {
        archive.append(some).await;
    }
}

#[tokio::test]
async fn history_goes_from_one_archive_to_another() {
    let (mut archive, _) = Archive::in_memory().await;
    fill(&archive, &some_history()).await;
    let (file, exported) = export(&mut archive, whole()).await;
    assert_eq!((exported.records, exported.floor_ns, exported.quarantined), (2508, None, 0));

    let dir = tempfile::tempdir().unwrap();
    let mut other = Archive::in_directory(dir.path()).await;
    let report = import(&mut other, &file, 100_000).await;
    assert_eq!((report.stored, report.duplicates, report.complete), (2508, 0, true), "{report:?}");
    assert_eq!((report.sound_bytes, report.problem.as_str()), (file.len() as u64, ""));
    assert_eq!(history(&mut other).await, history(&mut archive).await);
    let again = import(&mut other, &file, 4 * 1024 * 1024).await;
    assert_eq!((again.stored, again.duplicates, again.complete), (0, 2508, true));

    let (of_other, _) = export(&mut other, whole()).await;
    assert_eq!(of_other[28..45], file[28..45], "the range");
    assert!(of_other[54..] == file[54..], "they differ only in the store that they come from");
}

#[tokio::test]
async fn an_export_that_was_cut_off_goes_on_as_if_nothing_had_been() {
    let (mut archive, _) = Archive::in_memory().await;
    fill(&archive, &some_history()).await;
    let bounds = v1::ExportRequest { from_ns: 1_001_000_000_000, to_ns: 1_003_000_000_000, ..whole() };
    let (file, exported) = export(&mut archive, bounds).await;
    assert!(exported.records > 1000 && exported.records < 1200, "{exported:?}");
    for cut in [54, 60, 1000, 50_000, file.len() / 2, file.len() - 30, file.len() - 1] {
        let (sound, request) = rest_of(&file[..cut]);
        let (rest, report) = export(&mut archive, request).await;
        assert!([&file[..sound], &rest].concat() == file, "cut at {cut}");
        let unclaimed_until_ns = request_after(&file[..cut]);
        assert_eq!(report, v1::ExportReport { unclaimed_until_ns, ..exported }, "cut at {cut}");
    }
    let (_, mut request) = rest_of(&file[..1000]);
    let resume = request.resume.as_mut().unwrap();
    resume.store_id = Bytes::from_static(&[1; 16]);
    assert_eq!(archive.admin.export(request.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
    let resume = request.resume.as_mut().unwrap();
    resume.store_id = Bytes::copy_from_slice(&STORE_ID.0);
    resume.record_bytes = u64::MAX;
    assert_eq!(archive.admin.export(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_export_says_what_is_missing_in_it() {
    let (mut archive, store) = Archive::in_memory().await;
    fill(&archive, &envelopes(0..30)).await;
    store.retire(Space::Waku1, 1_005_000_000_000).await.unwrap();
    let away = "away".parse().unwrap();
    let connection = store.writer_connected(&away, 1_020_000_000_000, Duration::ZERO).await.unwrap();
    store.writer_left(&away, connection, false).await.unwrap();
    let (_, report) = export(&mut archive, whole()).await;
    assert_eq!(report.records, 25);
    assert_eq!(
        (report.floor_ns, report.complete_until_ns),
        (Some(1_005_000_000_000), Some(1_020_000_000_000))
    );
}

#[tokio::test]
async fn an_export_that_is_gone_on_with_claims_nothing_of_what_was_exported_before() {
    let (mut archive, store) = Archive::in_memory().await;
    fill(&archive, &envelopes(0..30)).await;
    let away = "away".parse().unwrap();
    let connection = store.writer_connected(&away, 1_005_000_000_000, Duration::ZERO).await.unwrap();
    store.writer_left(&away, connection, false).await.unwrap();
    let (file, whole) = export(&mut archive, whole()).await;
    assert_eq!((whole.complete_until_ns, whole.unclaimed_until_ns), (Some(1_005_000_000_000), None));
    // Cut off behind what may lack something, and gone on with when nobody holds anything back any more.
    let cut = &file[..file.len() - 40];
    assert!(store.forget_writer(&away).await.unwrap());
    let (_, report) = export(&mut archive, rest_of(cut).1).await;
    assert_ne!(report.complete_until_ns, whole.complete_until_ns, "it speaks of what it saw itself");
    assert_eq!(report.unclaimed_until_ns, request_after(cut));
    assert!(report.unclaimed_until_ns > Some(1_020_000_000_000));
}

#[tokio::test]
async fn an_import_stops_at_damage_and_keeps_what_came_before() {
    let (mut archive, _) = Archive::in_memory().await;
    fill(&archive, &some_history()).await;
    let (file, _) = export(&mut archive, whole()).await;
    let mut damaged = file.clone();
    damaged[file.len() / 2] ^= 1;
    for (broken, words) in [(&damaged[..], "checksum"), (&file[..file.len() / 2], "unfinished")] {
        let (mut other, _) = Archive::in_memory().await;
        let report = import(&mut other, broken, 100_000).await;
        assert!(!report.complete && report.problem.contains(words), "{report:?}");
        assert!(report.problem.contains(&format!("at byte {}", report.sound_bytes)), "{report:?}");
        let (sound, _) = rest_of(&file[..file.len() / 2]);
        assert_eq!(report.sound_bytes, sound as u64);
        let all = history(&mut archive).await;
        let found = history(&mut other).await;
        assert_eq!(found.len() as u64, report.stored);
        assert!(found.len() > 100 && all.starts_with(&found));
    }
    for (broken, words) in [(&b"PK\x03\x04"[..], "not an export"), (&b""[..], "unfinished")] {
        let report = import(&mut archive, broken, 100).await;
        assert!(!report.complete && report.problem.contains(words), "{report:?}");
    }
}

/// A file that says what it likes of its records.
fn file_of(space: &str, records: &BTreeMap<Position, Bytes>) -> Vec<u8> {
    let header = Header { store_id: STORE_ID, space: space.to_owned(), from_ns: i64::MIN, to_ns: i64::MAX };
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(&header, &mut out).unwrap();
    for (position, body) in records {
        encoder.record(*position, body, &mut out).unwrap();
    }
    encoder.end(&mut out);
    out
}

#[tokio::test]
async fn an_import_believes_the_bodies_and_counts_refusals_by_reason() {
    let (mut archive, _) = Archive::in_memory().await;
    let place = |n: u8| Position { time_ns: i64::from(n), id: Hash([n; 32]) };
    let good = envelope(1000, topic(1), b"misfiled");
    let wraps = Envelope::new(10, 11, topic(1), b"", 0);
    let records = BTreeMap::from([
        (place(1), good.rlp().clone()),
        (place(2), Bytes::from_static(b"no envelope")),
        (place(3), wraps.rlp().clone()),
        (place(4), wraps.rlp().clone()),
    ]);
    let report = import(&mut archive, &file_of("waku1", &records), 1000).await;
    assert_eq!((report.stored, report.duplicates, report.complete), (1, 0, true), "{report:?}");
    let mut refused: Vec<u64> = report.refused.iter().map(|refused| refused.records).collect();
    refused.sort_unstable();
    assert_eq!(refused, [1, 2], "{report:?}");
    let page = archive.query(everything()).await;
    let derived = Derived::of(Space::Waku1, good.rlp()).unwrap().position;
    assert_eq!(page.records[0].position.as_ref().unwrap().time_ns, derived.time_ns);

    let mut answers = begin_import(&mut archive, &file_of("waku9", &records), 1000).await;
    assert_eq!(answers.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_import_waits_for_a_store_that_takes_nothing() {
    let (mut archive, _) = Archive::in_memory().await;
    fill(&archive, &some_history()).await;
    let (file, _) = export(&mut archive, whole()).await;
    let (mut other, store) = Archive::in_memory().await;
    store.set_writable(false);
    let mut answers = begin_import(&mut other, &file, 100_000).await;
    loop {
        match answers.message().await.unwrap().unwrap().kind.unwrap() {
            v1::import_response::Kind::Progress(progress) if !progress.waiting.is_empty() => {
                assert_eq!(progress.records, 0);
                break;
            }
            v1::import_response::Kind::Progress(_) => {}
            v1::import_response::Kind::Report(report) => panic!("{report:?}"),
        }
    }
    store.set_writable(true);
    let report = report(&mut answers).await;
    assert_eq!((report.stored, report.duplicates, report.complete), (2508, 0, true), "{report:?}");
    assert_eq!(history(&mut other).await, history(&mut archive).await);

    // A caller that does not wait so long says so.
    store.set_writable(false);
    let requests =
        futures::stream::iter([v1::ImportRequest { chunk: Bytes::copy_from_slice(&file[..20_000]) }]);
    let mut request = tonic::Request::new(requests);
    request.set_timeout(Duration::from_secs(1));
    let mut answers = other.admin.import(request).await.unwrap().into_inner();
    let status = loop {
        if let Err(status) = answers.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn transfers_are_bounded_and_end_with_their_callers() {
    let (mut archive, _) = Archive::in_memory().await;
    // Imports whose callers send nothing more.
    let (_idle, requests) = mpsc::unbounded::<v1::ImportRequest>();
    let mut first = archive.admin.import(requests).await.unwrap().into_inner();
    let (idle, requests) = mpsc::unbounded::<v1::ImportRequest>();
    let second = archive.admin.import(requests).await.unwrap().into_inner();
    let refused = archive.admin.export(whole()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop((second, idle));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while let Err(status) = archive.admin.export(whole()).await {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(std::time::Instant::now() < deadline, "the place was not given back");
    }

    // What is open when the archive stops is told so.
    archive.context.stop.cancel();
    let status = loop {
        if let Err(status) = first.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}
