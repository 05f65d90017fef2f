//! `Query` and `Lookup`.

use super::*;

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
