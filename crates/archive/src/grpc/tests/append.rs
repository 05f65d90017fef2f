//! `Append`: what becomes of batches, and of the writers behind them.

use poste_service::Clock;

use super::*;

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
    let archive = Archive::in_directory(dir.path()).await;
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
    let long = v1::append_request::Kind::Open(v1::AppendOpen {
        writer_id: "x".repeat(129),
        ..v1::AppendOpen::default()
    });
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
async fn a_writer_over_its_quota_is_told_so_record_by_record() {
    use AppendOutcome::{Duplicate, OverQuota, Refused, Stored};
    let dir = tempfile::tempdir().unwrap();
    let config = ArchiveConfig {
        store: StoreUrl::Local(dir.path().to_owned()),
        writer_quota_medium: poste_service::config::ByteSize(64 * 1024),
        ..config()
    };
    let context = Context::new(Duration::from_secs(10));
    let archive = Archive::of(start(config, context.clone()).await.unwrap(), context);
    let medium = |n: u32| envelope(1000 + n, topic(1), &[n as u8; 20 * 1024]);
    let broken = Bytes::from(vec![0; 20 * 1024]);
    let small = envelope(1000, topic(1), b"small");
    let mut writer = Writer::open(archive.client.clone()).await;
    let records = vec![
        record("waku1", medium(0).rlp()),
        record("waku1", &broken),
        record("waku9", medium(8).rlp()),
        record("waku1", medium(1).rlp()),
        // Neither the broken one nor the one of another space counts.
        record("waku1", small.rlp()),
    ];
    writer.send_records(1, records);
    assert_eq!(outcomes(&writer.ack().await), [Stored, Refused, Refused, Stored, Stored]);
    writer.send_records(2, vec![record("waku1", medium(0).rlp()); 1]);
    assert_eq!(outcomes(&writer.ack().await), [Duplicate], "and so does not count again");
    let records = [medium(2), medium(3), small].map(|envelope| record("waku1", envelope.rlp())).to_vec();
    writer.send_records(3, records);
    let ack = writer.ack().await;
    assert_eq!(outcomes(&ack), [Stored, OverQuota, Duplicate]);
    assert!(ack.results[1].reason.contains("medium records"), "{:?}", ack.results[1]);
    // What it has confirmed already has waited elsewhere, and what is as old must not wait for ever.
    let records = [medium(4), medium(3)].map(|envelope| record("waku1", envelope.rlp())).to_vec();
    writer.send_batch(v1::AppendBatch { batch_id: 4, records, confirmed: true });
    assert_eq!(outcomes(&writer.ack().await), [Stored, Stored]);
    writer.send_records(5, vec![record("waku1", medium(5).rlp())]);
    assert_eq!(outcomes(&writer.ack().await), [OverQuota], "they count");
    let metrics = archive.context.metrics.encode().unwrap();
    let line = "poste_archive_append_records_total{outcome=\"over_quota\"} 2";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

#[tokio::test]
async fn a_quota_counts_only_for_what_would_be_stored() {
    use AppendOutcome::{Duplicate, NotKept, OverQuota, Refused, Stored};
    let dir = tempfile::tempdir().unwrap();
    let config = ArchiveConfig {
        store: StoreUrl::Local(dir.path().to_owned()),
        topics: vec!["01010101".to_owned()],
        writer_quota_medium: poste_service::config::ByteSize(64 * 1024),
        ..config()
    };
    let context = Context::new(Duration::from_secs(10));
    let mut archive = Archive::of(start(config, context.clone()).await.unwrap(), context);
    let medium = |n: u32| envelope(1000 + n, Topic([1; 4]), &[n as u8; 20 * 1024]);
    let mut writer = Writer::open(archive.client.clone()).await;
    let twice = [medium(0), medium(1), medium(2), medium(2)].map(|medium| record("waku1", medium.rlp()));
    writer.send_records(1, twice.to_vec());
    assert_eq!(
        outcomes(&writer.ack().await),
        [Stored, Stored, Stored, Duplicate],
        "the last one is above it"
    );
    let prune = v1::PruneRequest { space: "waku1".to_owned(), before_ns: 1_001_000_000_000, dry_run: false };
    archive.admin.prune(prune).await.unwrap();
    // The acknowledgement may have been lost: what is stored is a duplicate for as long as it is there.
    let other = envelope(1000, Topic([2; 4]), &[0; 20 * 1024]);
    let broken = Bytes::from(vec![0; 20 * 1024]);
    let records = vec![
        record("waku1", medium(1).rlp()),
        record("waku1", medium(3).rlp()),
        record("waku1", medium(0).rlp()),
        record("waku1", other.rlp()),
        record("waku1", &broken),
        record("waku9", medium(4).rlp()),
    ];
    writer.send_records(2, records);
    let ack = writer.ack().await;
    assert_eq!(outcomes(&ack), [Duplicate, OverQuota, Refused, NotKept, Refused, Refused]);
    assert!(ack.results[2].reason.contains("older than"), "{:?}", ack.results[2]);
    let below_floor: Vec<bool> = ack.results.iter().map(|result| result.below_floor).collect();
    assert_eq!(below_floor, [false, false, true, false, false, false]);

    // None of these comes to the store's writer, and all are counted.
    let small = envelope(1000, Topic([2; 4]), b"not kept");
    writer.send_records(3, vec![record("waku1", small.rlp()), record("waku1", &Bytes::new())]);
    assert_eq!(outcomes(&writer.ack().await), [NotKept, Refused]);
    let metrics = archive.context.metrics.encode().unwrap();
    for (outcome, count) in
        [("stored", 3), ("duplicate", 2), ("refused", 4), ("not_kept", 2), ("over_quota", 1)]
    {
        let line = format!("poste_archive_append_records_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

/// It takes them once nobody hears it any more.
#[tokio::test]
async fn a_writer_that_vanished_may_hold_records_as_old_as_it_said_or_a_day_and_ten_minutes() {
    const SECOND: i64 = 1_000_000_000;
    let (mut archive, _) = Archive::in_memory().await;
    for (max_intake_age_ns, age_s) in [(None, 87_000), (Some(5_000_000_000), 5)] {
        let before_ns = Clock::system().unix_nanos();
        let open = v1::AppendOpen { writer_id: age_s.to_string(), max_intake_age_ns };
        let open = v1::append_request::Kind::Open(open);
        let (requests, mut responses) = append_stream(archive.client.clone(), open).await.unwrap();
        let nothing = v1::append_request::Kind::HeldBack(v1::AppendHeldBack { oldest_ns: None });
        requests.unbounded_send(v1::AppendRequest { kind: Some(nothing) }).unwrap();
        drop(requests);
        while responses.message().await.unwrap().is_some() {}
        let until_ns = archive.query(everything()).await.complete_until_ns.unwrap();
        let reported_ns = before_ns..=Clock::system().unix_nanos();
        assert!(reported_ns.contains(&(until_ns + (60 + age_s) * SECOND)), "{age_s}: {until_ns}");
        let request = v1::ForgetWriterRequest { writer_id: age_s.to_string() };
        archive.admin.forget_writer(request).await.unwrap();
    }
}

/// Were it left open, its writer would go on believing that it is heard.
#[tokio::test]
async fn a_stream_whose_writer_is_heard_on_another_one_ends() {
    let (archive, _) = Archive::in_memory().await;
    let held_back = |oldest_ns| v1::append_request::Kind::HeldBack(v1::AppendHeldBack { oldest_ns });
    let goodbye = v1::append_request::Kind::Goodbye(v1::AppendGoodbye {});
    for last_words in [held_back(None), goodbye] {
        let mut old = Writer::open(archive.client.clone()).await;
        let mut new = Writer::open(archive.client.clone()).await;
        let one = envelopes(0..1);
        old.send(1, &one);
        assert_eq!(old.ack().await.batch_id, 1, "what it sends is stored");
        let Writer { requests, mut responses, .. } = old;
        requests.unbounded_send(v1::AppendRequest { kind: Some(last_words) }).unwrap();
        drop(requests);
        let status = responses.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status}");
        new.requests.unbounded_send(v1::AppendRequest { kind: Some(held_back(Some(5))) }).unwrap();
        new.send(2, &one);
        assert_eq!(new.ack().await.batch_id, 2);
    }
}
