//! `Tail`: everything, or by topics.

use super::*;

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
    archive.append(&envelopes(0..1000)).await;

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
async fn a_token_beyond_the_newest_record_is_refused() {
    // A store that was put back to an earlier copy gives the same numbers to other records.
    let (archive, _) = Archive::in_memory().await;
    archive.append(&envelopes(0..10)).await;
    let token = |seq| v1::TailToken { store_id: Bytes::copy_from_slice(&STORE_ID.0), seq };
    let open = |seq| Reader::open(archive.client.clone(), whole_space(Some(token(seq))));
    let refused = open(11).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let mut reader = open(10).await.unwrap();
    archive.append(&envelopes(10..11)).await;
    assert_eq!(reader.records(1).await[0].seq, 11);

    let mut reader = Reader::open(archive.client.clone(), by_topic()).await.unwrap();
    reader.add(1, Some(token(11)));
    assert_eq!(reader.live().await.0, []);
    reader.add(2, Some(token(12)));
    let refused = loop {
        if let Err(status) = reader.next().await {
            break status;
        }
    };
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}
