use bytes::Bytes;
use poste_codec::SecretKey;
use poste_codec::rlp::{Encoder, RlpError};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::packet::Dialect;
use crate::{Cursor, Envelope, Hash, SymKey, payload};

const NOW: u32 = 1_600_086_400;

fn request() -> MailRequest {
    MailRequest::between(NOW - 100, NOW)
}

fn valid(request: MailRequest) -> Result<ValidRequest, Refusal> {
    request.validate(RequestForm::Deployed, NOW)
}

fn list(items: usize, write: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    write(encoder.list(items).uint(1).uint(2).bytes(&[0xff; 64]));
    encoder.finish()
}

#[test]
fn every_layout_is_read() {
    let cursor = [0xcc; 36];
    let topics = |e: &mut Encoder| _ = e.list(1).bytes(&[1, 2, 3, 4]);
    let cases = [
        (RequestForm::Specified, 0, 0, false, list(4, |e| _ = e.uint(3))),
        (RequestForm::Specified, 36, 0, false, list(5, |e| _ = e.uint(3).bytes(&cursor))),
        (RequestForm::Specified, 0, 0, false, list(5, |e| _ = e.uint(3).list(0))),
        (RequestForm::Batch2019, 36, 0, true, list(6, |e| _ = e.uint(3).bytes(&cursor).bool(true))),
        (RequestForm::Batch2019, 0, 0, false, list(6, |e| _ = e.uint(3).bytes(b"").bool(false))),
        (RequestForm::Specified, 36, 1, false, list(6, |e| topics(e.uint(3).bytes(&cursor)))),
        (RequestForm::Specified, 0, 1, false, list(6, |e| topics(e.uint(3).bytes(b"")))),
        (RequestForm::Specified, 0, 1, false, list(6, |e| topics(e.uint(3).list(0)))),
        (RequestForm::Deployed, 36, 0, true, list(7, |e| _ = e.list(0).uint(3).bytes(&cursor).bool(true))),
    ];
    for (form, cursor, topics, batch, payload) in cases {
        let (request, read_as) = MailRequest::decode(&payload).unwrap();
        assert_eq!(read_as, form);
        assert_eq!((request.lower, request.upper, request.limit), (1, 2, 3));
        assert_eq!((request.cursor.len(), request.topics.len(), request.batch), (cursor, topics, batch));
    }
}

#[test]
fn lists_of_other_lengths_are_refused() {
    for items in [3, 8, 9, 500] {
        let payload = list(items, |e| (3..items).for_each(|_| _ = e.uint(3)));
        assert_eq!(MailRequest::decode(&payload), Err(RequestFormError::Items(items)), "{items}");
    }
}

#[test]
fn the_fixed_layout_has_four_lengths() {
    for length in 0..=200 {
        let mut payload = vec![0xab; length];
        payload.iter_mut().zip(NOW.to_be_bytes()).for_each(|(byte, now)| *byte = now);
        match (length, MailRequest::decode(&payload)) {
            (8 | 72 | 76 | 116, Ok((request, RequestForm::Binary))) => {
                assert_eq!((request.lower, request.upper), (NOW, 0xabab_abab));
                assert_eq!(request.bloom[..], if length == 8 { [0xff; 64] } else { [0xab; 64] });
                assert_eq!(request.limit, if length > 72 { 0xabab_abab } else { 0 });
                assert_eq!(request.cursor.len(), if length == 116 { 36 } else { 0 });
                assert!(!request.batch);
            }
            (_, result) => assert_eq!(result, Err(RequestFormError::Length(length))),
        }
    }
}

#[test]
fn a_broken_list_is_not_taken_for_the_fixed_layout() {
    let mut payload = vec![0; 72];
    payload[0] = 0xf8;
    assert_eq!(MailRequest::decode(&payload), Err(RequestFormError::Rlp(RlpError::NonCanonical)));
}

#[test]
fn the_fixed_layout_says_no_more_than_it_must() {
    assert_eq!(request().encode_binary().len(), 8);
    assert_eq!(request().with_topics(vec![Topic([1; 4])]).encode_binary().len(), 72);
    assert_eq!(request().with_limit(5).encode_binary().len(), 76);
    let cursor = Cursor { sent: 1, hash: Hash([2; 32]) };
    let payload = request().with_cursor(Some(cursor)).encode_binary();
    let (read, _) = MailRequest::decode(&payload).unwrap();
    assert_eq!(read, MailRequest { batch: false, ..request().with_cursor(Some(cursor)) });
}

#[test]
fn a_limit_is_at_most_a_thousand() {
    for (limit, expected) in [(0, Ok(1000)), (1, Ok(1)), (1000, Ok(1000))] {
        assert_eq!(valid(request().with_limit(limit)).map(|valid| valid.limit), expected);
    }
    for limit in [1001, u32::MAX] {
        let refusal = valid(request().with_limit(limit)).unwrap_err();
        assert_eq!(refusal.to_string(), "request is invalid: limit exceeds the maximum allowed value");
    }
}

#[test]
fn a_range_may_not_be_inverted() {
    let inverted = MailRequest::between(2, 1);
    let refusal = inverted.clone().validate(RequestForm::Deployed, NOW).unwrap_err();
    assert_eq!(refusal.to_string(), "query range is invalid: lower > upper");
    let refusal = inverted.validate(RequestForm::Direct, NOW).unwrap_err();
    assert_eq!(refusal.to_string(), "request is invalid: query range is invalid: lower > upper");
    let beyond = MailRequest::between(NOW + 61, 0);
    assert_eq!(valid(beyond), Err(Refusal::RangeInverted));
    assert!(valid(MailRequest::between(7, 7)).is_ok());
}

#[test]
fn an_open_end_is_a_minute_from_now() {
    assert_eq!(valid(MailRequest::between(0, 0)).unwrap().upper, NOW + 60);
    let late = MailRequest::between(0, 0).validate(RequestForm::Deployed, u32::MAX).unwrap();
    assert_eq!(late.upper, u32::MAX);
}

#[test]
fn only_the_fixed_layout_is_bounded_to_a_day() {
    let day = MailRequest::between(NOW - BINARY_MAX_RANGE_SECONDS, NOW);
    assert!(day.validate(RequestForm::Binary, NOW).is_ok());
    let longer = MailRequest::between(NOW - BINARY_MAX_RANGE_SECONDS - 1, NOW);
    assert_eq!(longer.clone().validate(RequestForm::Binary, NOW), Err(Refusal::RangeTooLong));
    assert!(valid(longer).is_ok());
}

#[test]
fn a_bloom_filter_has_64_bytes_or_none() {
    for length in [0, 1, 63, 64, 65] {
        let filter = Bytes::from(vec![0x80; length]);
        let bare = valid(MailRequest { bloom: filter.clone(), ..request() });
        let with_topics = valid(MailRequest { bloom: filter, topics: vec![Topic([1; 4])], ..request() });
        let topics = Filter::Topics(vec![Topic([1; 4])]);
        match length {
            0 => {
                let text = bare.unwrap_err().to_string();
                assert_eq!(text, "request is invalid: bloom filter and topics is empty");
                assert_eq!(with_topics.unwrap().filter, topics);
            }
            64 => {
                assert_eq!(bare.unwrap().filter, Filter::Bloom(Bloom([0x80; 64])));
                assert_eq!(with_topics.unwrap().filter, topics);
            }
            _ => {
                assert_eq!(bare, Err(Refusal::BloomLength(length)));
                assert_eq!(with_topics, Err(Refusal::BloomLength(length)));
            }
        }
    }
}

#[test]
fn a_full_bloom_filter_is_no_filter() {
    assert_eq!(valid(request()).unwrap().filter, Filter::All);
    assert_eq!(valid(request().with_topics(vec![])).unwrap().filter, Filter::All);
}

#[test]
fn zero_and_repeated_topics_are_borne() {
    let (a, zero) = (Topic([1, 2, 3, 4]), Topic::default());
    let direct = MailRequest { bloom: Bytes::new(), topics: vec![zero, zero, a, a, zero], ..request() };
    let valid = direct.validate(RequestForm::Direct, NOW).unwrap();
    assert_eq!(valid.filter, Filter::Topics(vec![zero, a]));
    assert!(valid.filter.matches(a) && !valid.filter.matches(Topic([9; 4])));
}

#[test]
fn topics_are_bounded() {
    let many = MailRequest { topics: vec![Topic([1; 4]); MAX_TOPICS + 1], ..request() };
    assert_eq!(valid(many), Err(Refusal::TooManyTopics(10_001)));
}

#[test]
fn a_cursor_has_36_bytes_or_none() {
    for length in 0..=100 {
        let result = valid(MailRequest { cursor: vec![7; length].into(), ..request() });
        match length {
            0 => assert_eq!(result.unwrap().cursor, None),
            36 => assert_eq!(result.unwrap().cursor, Some(Cursor::from([7; 36]))),
            _ => assert_eq!(result, Err(Refusal::CursorLength(length))),
        }
    }
}

#[test]
fn the_id_of_a_direct_request_is_aligned_to_the_right() {
    for (id, expected) in [
        (&b"abc"[..], [&[0; 29][..], b"abc"].concat()),
        (&[], vec![0; 32]),
        (&[7; 32], vec![7; 32]),
        (b"0123456789012345678901234567890123456789", b"89012345678901234567890123456789".to_vec()),
    ] {
        let mut encoder = Encoder::new();
        encoder.list(6).bytes(id).uint(1).uint(2).uint(3).bytes(b"").bytes(&[0xff; 64]);
        let read = MailRequestPacket::decode(Dialect::Shh6, encoder.finish().into()).unwrap();
        assert_eq!(read.request_id().0[..], expected);
        assert!(matches!(read, MailRequestPacket::Direct(direct) if direct.request.batch));
    }
}

#[test]
fn a_direct_request_has_topics_in_waku_only() {
    let direct = DirectRequest { id: Hash([1; 32]), request: request().with_topics(vec![Topic([1; 4])]) };
    let packet = MailRequestPacket::Direct(direct);
    for (writer, reader) in [(Dialect::Waku1, Dialect::Shh6), (Dialect::Shh6, Dialect::Waku1)] {
        let payload = packet.encode(writer);
        assert!(MailRequestPacket::decode(writer, payload.clone()).is_ok());
        assert_eq!(MailRequestPacket::decode(reader, payload), Err(RlpError::Length.into()));
    }
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn sealed(payload: &[u8], key: &SymKey, signer: &SecretKey) -> Envelope {
    let seal = RequestSeal {
        payload,
        signer,
        key,
        now: NOW,
        pow_target: 0.002,
        nonce: [5; 12],
        padding: &[6; payload::MAX_PADDING],
    };
    seal_request(&seal, || false).unwrap()
}

fn password(byte: u8) -> SymKey {
    SymKey::from_bytes([byte; 32]).unwrap()
}

#[test]
fn a_sealed_request_is_opened_with_the_password_only() {
    let envelope = sealed(&request().encode(), &password(1), &key(2));
    assert_eq!((envelope.topic(), envelope.ttl(), envelope.sent()), (Topic::default(), 50, NOW));
    assert_eq!(envelope.data().len(), 256 + payload::SYMMETRIC_OVERHEAD);
    let right = RequestKeys { password: Some(&password(1)), node: Some(&key(3)) };
    let opened = open_request(&envelope, right, 0.002).unwrap();
    assert_eq!(opened.signer, key(2).public());
    assert_eq!(MailRequest::decode(&opened.payload), Ok((request(), RequestForm::Deployed)));

    let wrong = RequestKeys { password: Some(&password(9)), node: None };
    for keys in [wrong, RequestKeys::default()] {
        let refusal = open_request(&envelope, keys, 0.002).unwrap_err();
        assert_eq!(refusal.to_string(), "failed to decrypt p2p request");
    }
    let refusal = open_request(&envelope, wrong, 1000.0).unwrap_err();
    assert_eq!(refusal.to_string(), "PoW too low");
}

#[test]
fn a_request_to_the_node_key_is_opened_where_there_is_one() {
    let plaintext = payload::build(b"request", &[0; 100], Some(&key(2))).unwrap();
    let data = payload::seal_asymmetric(&key(3).public(), &key(4), [0; 16], &plaintext);
    let envelope = Envelope::new(NOW + 50, 50, Topic::default(), &data, 0);
    let keys = RequestKeys { password: Some(&password(1)), node: Some(&key(3)) };
    assert_eq!(&open_request(&envelope, keys, 0.0).unwrap().payload[..], b"request");
    let keys = RequestKeys { node: None, ..keys };
    assert_eq!(open_request(&envelope, keys, 0.0).unwrap_err(), Refusal::Undecryptable);
}

#[test]
fn an_unsigned_request_is_refused() {
    let plaintext = payload::build(b"request", &[0; 100], None).unwrap();
    let data = payload::seal_symmetric(&password(1), [0; 12], &plaintext);
    let envelope = Envelope::new(NOW + 50, 50, Topic::default(), &data, 0);
    let keys = RequestKeys { password: Some(&password(1)), node: None };
    let text = open_request(&envelope, keys, 0.0).unwrap_err().to_string();
    assert_eq!(text, "check message signature failed: wrong signature of p2p request");
}

proptest! {
    #[test]
    fn requests_are_read_as_they_were_written(
        (lower, upper, limit) in any::<(u32, u32, u32)>(),
        bloom in vec(any::<u8>(), 0..70),
        cursor in vec(any::<u8>(), 0..50),
        topics in vec(any::<[u8; 4]>(), 0..5),
        batch: bool,
    ) {
        let topics = topics.into_iter().map(Topic).collect();
        let request = MailRequest { lower, upper, bloom: bloom.into(), topics, limit, cursor: cursor.into(), batch };
        prop_assert_eq!(MailRequest::decode(&request.encode()), Ok((request, RequestForm::Deployed)));
    }

    #[test]
    fn reading_and_checking_never_panic(payload in vec(any::<u8>(), 0..130), now: u32, alter: (u8, u8)) {
        let mut altered = request().encode();
        altered[usize::from(alter.0) % 80] = alter.1;
        for payload in [payload, altered] {
            if let Ok((request, form)) = MailRequest::decode(&payload) {
                let _ = request.encode_binary();
                if let Ok(valid) = request.validate(form, now) {
                    prop_assert!(valid.lower <= valid.upper && (1..=MAX_LIMIT).contains(&valid.limit));
                }
            }
        }
    }
}
