use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::mail::{DirectRequest, MailRequest};
use crate::{Cursor, Topic};

fn encoded(write: impl FnOnce(&mut Encoder)) -> Bytes {
    one(write)
}

fn decode(dialect: Dialect, code: u8, payload: &Bytes) -> Result<Option<Packet>, PacketError> {
    Packet::decode(dialect, code, payload.clone())
}

fn options(dialect: Dialect, write: impl FnOnce(&mut Encoder)) -> Result<Options, PacketError> {
    match decode(dialect, code::STATUS_UPDATE, &encoded(write))? {
        Some(Packet::StatusUpdate(options)) => Ok(options),
        other => panic!("expected a status update, got {other:?}"),
    }
}

#[test]
fn capabilities_are_named_as_in_hello() {
    assert_eq!(Dialect::ALL.map(|dialect| dialect.to_string()), ["waku/1", "waku/0", "shh/6"]);
}

#[test]
fn unknown_codes_are_to_be_ignored() {
    for dialect in Dialect::ALL {
        for code in [4, 10, 13, 19, 21, 23, 99, 122, 128, 255] {
            assert_eq!(decode(dialect, code, &Bytes::from_static(b"\xff\xffgarbage")), Ok(None));
        }
    }
    for code in [2, 3, 20, 123, 124] {
        assert_eq!(decode(Dialect::Waku1, code, &Bytes::new()), Ok(None));
        assert!(decode(Dialect::Shh6, code, &Bytes::new()).is_err());
    }
    assert_eq!(decode(Dialect::Shh6, code::STATUS_UPDATE, &Bytes::new()), Ok(None));
}

#[test]
fn a_packet_of_another_dialect_is_not_written() {
    let update = Packet::StatusUpdate(Options::default());
    assert_eq!(update.encode(Dialect::Shh6), Err(PacketError::NotInDialect(Dialect::Shh6)));
    let pow = Packet::PowRequirement(0.1);
    assert_eq!(pow.encode(Dialect::Waku0), Err(PacketError::NotInDialect(Dialect::Waku0)));
}

#[test]
fn options_come_in_any_order_around_unknown_ones() {
    let read = options(Dialect::Waku1, |e| {
        e.list(5).list(2).uint(200).list(2).uint(1).uint(2);
        e.list(2).uint(3).bool(true).list(2).bytes(b"a longer key").bytes(b"");
        e.list(2).uint(2).bool(false).list(2).uint(3).bool(false);
    });
    let expected = Options { light: Some(false), confirmations: Some(false), ..Options::default() };
    assert_eq!(read, Ok(expected));
}

#[test]
fn the_keys_of_one_version_are_unknown_to_the_other() {
    let text_key = |e: &mut Encoder| _ = e.list(1).list(2).bytes(b"2").bool(true);
    let number_key = |e: &mut Encoder| _ = e.list(1).list(2).uint(2).bool(true);
    assert_eq!(options(Dialect::Waku1, text_key), Ok(Options::default()));
    assert_eq!(options(Dialect::Waku0, number_key), Ok(Options::default()));
    assert_eq!(options(Dialect::Waku0, text_key).unwrap().light, Some(true));
    assert_eq!(options(Dialect::Waku1, number_key).unwrap().light, Some(true));
}

#[test]
fn waku0_has_no_byte_limits() {
    let limits = Some(RateLimits { ip: 1, peer: 2, topic: 3 });
    let packet = Packet::StatusUpdate(Options { byte_limits: limits, ..Options::default() });
    assert_eq!(&packet.encode(Dialect::Waku0).unwrap().1[..], [0xc0]);
}

#[test]
fn a_bloom_filter_has_64_bytes() {
    for length in [0, 1, 63, 64, 65] {
        let bloom = vec![0xff; length];
        let read = options(Dialect::Waku1, |e| _ = e.list(1).list(2).uint(1).bytes(&bloom));
        let bare = decode(Dialect::Shh6, code::BLOOM_FILTER, &encoded(|e| _ = e.bytes(&bloom)));
        let status =
            decode(Dialect::Shh6, code::STATUS, &encoded(|e| _ = e.list(3).uint(6).uint(0).bytes(&bloom)));
        if length == 64 {
            assert_eq!(read.unwrap().bloom, Some(Bloom::FULL));
            assert!(bare.is_ok() && status.is_ok());
        } else {
            let error = PacketError::Bloom(BloomLengthError(length));
            assert_eq!((read, bare), (Err(error), Err(error)));
            assert_eq!(status.err(), (length != 0).then_some(error));
        }
    }
}

#[test]
fn a_minimum_pow_is_a_finite_number_from_zero_up() {
    for pow in [-0.001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let bits = pow.to_bits();
        let read = options(Dialect::Waku1, |e| _ = e.list(1).list(2).uint(0).uint(bits));
        assert_eq!(read, Err(PacketError::Pow), "{pow}");
        let bare = decode(Dialect::Shh6, code::POW_REQUIREMENT, &encoded(|e| _ = e.uint(bits)));
        assert_eq!(bare, Err(PacketError::Pow));
        let status = decode(Dialect::Shh6, code::STATUS, &encoded(|e| _ = e.list(2).uint(6).uint(bits)));
        assert_eq!(status, Err(PacketError::Pow));
    }
}

#[test]
fn bools_are_strict() {
    let read = options(Dialect::Waku1, |e| _ = e.list(1).list(2).uint(3).uint(2));
    assert_eq!(read, Err(RlpError::Bool.into()));
}

#[test]
fn a_pair_has_two_items() {
    for items in [0, 1, 3] {
        let read = options(Dialect::Waku1, |e| {
            e.list(1).list(items);
            (0..items).for_each(|_| _ = e.uint(2));
        });
        assert_eq!(read, Err(RlpError::Length.into()), "{items}");
    }
}

#[test]
fn a_topic_interest_is_bounded() {
    let with = |count: usize| {
        options(Dialect::Waku1, |e| {
            e.list(1).list(2).uint(5).list(count);
            (0..count).for_each(|_| _ = e.bytes(&[7; 4]));
        })
    };
    assert_eq!(with(MAX_TOPIC_INTEREST).unwrap().topic_interest.unwrap().len(), 10_000);
    assert_eq!(with(MAX_TOPIC_INTEREST + 1), Err(PacketError::TooManyTopics(10_001)));
    assert_eq!(with(0).unwrap().topic_interest, Some(vec![]));
}

#[test]
fn a_status_of_another_version_is_refused() {
    let waku = encoded(|e| _ = e.list(2).uint(1).list(0));
    assert_eq!(decode(Dialect::Waku0, code::STATUS, &waku), Err(PacketError::Version(1)));
    let shh = encoded(|e| _ = e.list(1).uint(5));
    assert_eq!(decode(Dialect::Shh6, code::STATUS, &shh), Err(PacketError::Version(5)));
    let empty = encoded(|e| _ = e.list(0));
    assert_eq!(decode(Dialect::Shh6, code::STATUS, &empty), Err(PacketError::Version(0)));
}

#[test]
fn a_short_shh_status_has_defaults_and_tells_its_length() {
    for items in 1..=7 {
        let payload = encoded(|e| {
            e.list(items).uint(6);
            (1..items).for_each(|_| _ = e.list(0));
        });
        let Some(Packet::Status(status)) = decode(Dialect::Shh6, code::STATUS, &payload).unwrap() else {
            panic!("expected a status");
        };
        assert_eq!(status, Status { options: Options::default(), items });
        assert_eq!(status.is_plain_go_ethereum(), items == 4);
        let settings = Settings::of_status(Dialect::Shh6, &status);
        assert_eq!((settings.pow_requirement, settings.interest), (0.0, Interest::Bloom(Bloom::FULL)));
    }
}

#[test]
fn interest_and_bloom_replace_each_other() {
    let topic = Topic([1, 2, 3, 4]);
    let mut settings = Settings::of_status(Dialect::Waku1, &Status::default());
    assert_eq!(settings.pow_requirement, 0.001);
    assert!(settings.interest.wants(topic));
    settings.update(&Options {
        topic_interest: Some(vec![]),
        bloom: Some(Bloom::FULL),
        ..Options::default()
    });
    assert!(!settings.interest.wants(topic));
    settings.update(&Options { pow_requirement: Some(0.5), ..Options::default() });
    assert!(!settings.interest.wants(topic));
    settings.update(&Options { bloom: Some(Bloom::of_topics([topic])), ..Options::default() });
    assert!(settings.interest.wants(topic) && !settings.interest.wants(Topic([9; 4])));
    settings.update(&Options { topic_interest: Some(vec![topic, topic]), ..Options::default() });
    assert!(settings.interest.wants(topic) && !settings.interest.wants(Topic([9; 4])));
    assert_eq!(settings.pow_requirement, 0.5);
}

#[test]
fn mail_is_a_list_in_waku_and_may_be_bare_in_shh() {
    let envelope = Envelope::new(1_600_000_050, 50, Topic([1; 4]), b"data", 1);
    let mail = |count: usize| Packet::MailMessages(vec![envelope.clone(); count]);
    assert_eq!(mail(1).encode(Dialect::Shh6).unwrap().1, envelope.rlp());
    let list = mail(1).encode(Dialect::Waku1).unwrap().1;
    assert_eq!(list.len(), envelope.rlp().len() + 1);
    assert_eq!(decode(Dialect::Shh6, code::MAIL_MESSAGES, &list), Ok(Some(mail(1))));
    assert_eq!(decode(Dialect::Shh6, code::MAIL_MESSAGES, envelope.rlp()), Ok(Some(mail(1))));
    assert_eq!(
        decode(Dialect::Waku1, code::MAIL_MESSAGES, envelope.rlp()),
        Err(EnvelopeError(RlpError::ExpectedList).into())
    );
    for dialect in Dialect::ALL {
        let none = decode(dialect, code::MAIL_MESSAGES, &Bytes::from_static(&[0xc0]));
        assert_eq!(none, Ok(Some(mail(0))));
    }
}

#[test]
fn responses_of_other_versions_are_ignored() {
    let payload = encoded(|e| _ = e.list(2).uint(2).bytes(b"whatever"));
    assert_eq!(decode(Dialect::Waku1, code::MESSAGE_RESPONSE, &payload), Ok(None));
}

#[test]
fn a_batch_is_named_by_the_bytes_on_the_wire() {
    let batch = Messages::new(vec![Envelope::new(1_600_000_050, 50, Topic([1; 4]), b"data", 1)]);
    let (_, payload) = Packet::Messages(batch.clone()).encode(Dialect::Waku1).unwrap();
    assert_eq!(batch.batch_hash, batch_hash(&payload));
}

#[test]
fn rlp_nested_ten_thousand_deep_is_refused_in_every_packet() {
    let mut deep = vec![0xc0];
    for _ in 0..10_000 {
        deep = encoded(|e| _ = e.list(1).raw(&deep)).to_vec();
    }
    let deep = Bytes::from(deep);
    for dialect in Dialect::ALL {
        for code in 0..128 {
            let read = decode(dialect, code, &deep);
            assert!(matches!(read, Ok(None) | Err(PacketError::Rlp(RlpError::TooDeep))), "{dialect} {code}");
        }
    }
}

#[test]
fn non_canonical_rlp_is_refused_in_every_packet() {
    let padded: [&'static [u8]; 4] = [b"\x81\x05", b"\xb8\x01\xff", b"\xf8\x01\x01", b"\xc2\x81\x05"];
    for dialect in Dialect::ALL {
        for payload in padded {
            for code in 0..128 {
                let read = decode(dialect, code, &Bytes::from_static(payload));
                assert!(matches!(read, Ok(None) | Err(PacketError::Rlp(RlpError::NonCanonical))), "{code}");
            }
        }
    }
}

#[test]
fn completions_of_every_length() {
    for length in 0..=140 {
        let read = Completion::decode(&vec![7; length]);
        match length {
            0..=31 | 101.. => assert_eq!(read, Err(CompletionError(length))),
            _ => {
                let Ok(Completion::Done { request_id, last_hash, cursor }) = read else {
                    panic!("expected a success, got {read:?}");
                };
                assert_eq!(request_id, Hash([7; 32]));
                assert_eq!(last_hash, if length < 64 { Hash::default() } else { Hash([7; 32]) });
                assert_eq!(cursor.is_some(), length == 100);
            }
        }
        let failed = Completion::decode(&[b"ERROR=".to_vec(), vec![7; length]].concat());
        match length {
            0..=25 => assert_eq!(failed, Err(CompletionError(length + 6))),
            26..=31 => assert!(matches!(failed, Ok(Completion::Done { .. }))),
            _ => assert!(matches!(failed, Ok(Completion::Failed { .. }))),
        }
    }
}

fn envelopes() -> impl Strategy<Value = Vec<Envelope>> {
    let fields = (any::<u32>(), any::<u32>(), any::<[u8; 4]>(), vec(any::<u8>(), 0..80), any::<u64>());
    let envelope = fields
        .prop_map(|(expiry, ttl, topic, data, nonce)| Envelope::new(expiry, ttl, Topic(topic), &data, nonce));
    vec(envelope, 0..5)
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn bloom() -> impl Strategy<Value = Bloom> {
    any::<[u8; 64]>().prop_map(Bloom)
}

fn cursor() -> impl Strategy<Value = Option<Cursor>> {
    option::of((any::<u32>(), hash()).prop_map(|(sent, hash)| Cursor { sent, hash }))
}

fn topics() -> impl Strategy<Value = Vec<Topic>> {
    vec(any::<[u8; 4]>().prop_map(Topic), 0..6)
}

fn limits() -> impl Strategy<Value = RateLimits> {
    any::<(u64, u64, u64)>().prop_map(|(ip, peer, topic)| RateLimits { ip, peer, topic })
}

fn pow() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), 0.0..1e9, Just(f64::MAX), Just(f64::MIN_POSITIVE)]
}

fn any_options() -> impl Strategy<Value = Options> {
    let flags = (option::of(any::<bool>()), option::of(any::<bool>()));
    let wants = (option::of(pow()), option::of(bloom()), option::of(topics()));
    (wants, flags, option::of(limits()), option::of(limits())).prop_map(
        |((pow_requirement, bloom, topic_interest), (light, confirmations), packet_limits, byte_limits)| {
            Options {
                pow_requirement,
                bloom,
                light,
                confirmations,
                packet_limits,
                topic_interest,
                byte_limits,
            }
        },
    )
}

fn mail_request() -> impl Strategy<Value = MailRequest> {
    let bytes = vec(any::<u8>(), 0..70).prop_map(Bytes::from);
    (any::<(u32, u32, u32)>(), bytes.clone(), bytes, topics()).prop_map(
        |((lower, upper, limit), bloom, cursor, topics)| MailRequest {
            lower,
            upper,
            bloom,
            topics,
            limit,
            cursor,
            batch: true,
        },
    )
}

/// Packets that the dialect can say, in the form that they have after reading.
fn packet(dialect: Dialect) -> impl Strategy<Value = Packet> {
    let faults = vec((hash(), any::<u64>(), ".{0,20}"), 0..4).prop_map(|faults| {
        let fault = |(hash, code, description)| EnvelopeFault { hash, code, description };
        faults.into_iter().map(fault).collect::<Vec<_>>()
    });
    let shh_status = (pow(), bloom(), any::<(bool, bool)>(), limits()).prop_map(
        |(pow, bloom, (light, confirmations), limits)| Status {
            options: Options {
                pow_requirement: Some(pow),
                bloom: Some(bloom),
                light: Some(light),
                confirmations: Some(confirmations),
                packet_limits: Some(limits),
                ..Options::default()
            },
            items: 6,
        },
    );
    let said = move |mut options: Options| {
        options.byte_limits = options.byte_limits.filter(|_| dialect == Dialect::Waku1);
        options
    };
    let direct = (hash(), mail_request()).prop_map(move |(id, mut request)| {
        if dialect == Dialect::Shh6 {
            request.topics.clear();
        }
        Packet::MailRequest(MailRequestPacket::Direct(DirectRequest { id, request }))
    });
    let common = prop_oneof![
        envelopes().prop_map(|envelopes| Packet::Messages(Messages::new(envelopes))),
        hash().prop_map(Packet::BatchAcknowledged),
        (hash(), faults).prop_map(|(batch_hash, faults)| {
            Packet::MessageResponse(MessageResponse { batch_hash, faults })
        }),
        (hash(), hash(), cursor()).prop_map(|(request_id, last_hash, cursor)| {
            Packet::MailComplete(Completion::Done { request_id, last_hash, cursor })
        }),
        (hash(), ".{0,200}")
            .prop_map(|(request_id, error)| Packet::MailComplete(Completion::Failed { request_id, error })),
        direct,
        envelopes().prop_filter_map("one is needed", |envelopes| {
            Some(Packet::MailRequest(MailRequestPacket::Sealed(envelopes.into_iter().next()?)))
        }),
        envelopes().prop_map(Packet::MailMessages),
    ];
    let own = if dialect == Dialect::Shh6 {
        prop_oneof![
            shh_status.prop_map(Packet::Status),
            pow().prop_map(Packet::PowRequirement),
            bloom().prop_map(Packet::BloomFilter),
            limits().prop_map(Packet::RateLimits),
            (any::<(u32, u32, u32)>(), bloom(), cursor()).prop_map(
                |((lower, upper, limit), bloom, cursor)| Packet::SyncRequest(SyncRequest {
                    lower,
                    upper,
                    bloom,
                    limit,
                    cursor
                })
            ),
            (envelopes(), cursor(), any::<bool>(), ".{0,20}").prop_map(
                |(envelopes, cursor, is_final, error)| Packet::SyncResponse(SyncResponse {
                    envelopes,
                    cursor,
                    is_final,
                    error
                })
            ),
        ]
        .boxed()
    } else {
        prop_oneof![
            any_options().prop_map(move |options| Packet::Status(Status::new(said(options)))),
            any_options().prop_map(move |options| Packet::StatusUpdate(said(options))),
        ]
        .boxed()
    };
    prop_oneof![common, own]
}

fn any_packet() -> impl Strategy<Value = (Dialect, Packet)> {
    prop::sample::select(&Dialect::ALL[..])
        .prop_flat_map(|dialect| packet(dialect).prop_map(move |packet| (dialect, packet)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn packets_are_read_as_they_were_written((dialect, packet) in any_packet()) {
        let (code, payload) = packet.encode(dialect).unwrap();
        prop_assert_eq!(code, packet.code());
        prop_assert_eq!(decode(dialect, code, &payload), Ok(Some(packet)));
    }

    #[test]
    fn decoding_never_panics_on_anything(code: u8, payload in vec(any::<u8>(), 0..200)) {
        for dialect in Dialect::ALL {
            let _ = decode(dialect, code, &payload.clone().into());
        }
    }

    #[test]
    fn decoding_never_panics_on_altered_packets(
        (dialect, packet) in any_packet(),
        alterations in vec(any::<(u16, u8)>(), 1..4),
        cut: u16,
    ) {
        let (code, payload) = packet.encode(dialect).unwrap();
        let mut altered = payload.to_vec();
        for (position, value) in alterations {
            let length = altered.len().max(1);
            if let Some(byte) = altered.get_mut(usize::from(position) % length) {
                *byte = value;
            }
        }
        let _ = decode(dialect, code, &altered.clone().into());
        altered.truncate(usize::from(cut) % (altered.len() + 1));
        let _ = decode(dialect, code, &altered.into());
    }
}
