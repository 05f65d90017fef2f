use poste_codec::SecretKey;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::status::{ApplicationMessage, MessageType};

const BOUNDS: ReassemblyBounds =
    ReassemblyBounds { messages: 3, bytes: 10_000, segments: 8, message_bytes: 4_000, age_seconds: 60 };

fn message(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn segments(message: &[u8], length: usize) -> Vec<Segment> {
    let segments = split(message.to_vec(), length);
    assert!(segments.len() > 1);
    segments.iter().map(|segment| Segment::read(segment).expect("it is a segment")).collect()
}

/// The claims of a data segment altered.
fn lying(segment: &Segment, lie: impl FnOnce(&mut [u8; 32], &mut u32, &mut u32, &mut Bytes)) -> Segment {
    let Segment::Data { mut whole, mut index, mut count, mut piece } = segment.clone() else { panic!() };
    lie(&mut whole, &mut index, &mut count, &mut piece);
    Segment::Data { whole, index, count, piece }
}

#[test]
fn a_message_that_fits_is_not_cut() {
    assert_eq!(split(vec![7; 100], 100), [vec![7; 100]]);
    assert_eq!(split(Vec::new(), 100), [Bytes::new()]);
    assert_eq!(split(vec![7; 101], 100).len(), 2);
    assert_eq!(split(vec![7; 3], 0).len(), 3);
    assert_eq!(SEGMENT_LENGTH, 115_200);
}

/// All its fields but one have the wire types of a segment's.
#[test]
fn an_application_message_is_no_segment() {
    let key = SecretKey::from_bytes(&[1; 32]).unwrap();
    for payload in [vec![], vec![7; 100]] {
        let raw = ApplicationMessage::write(MessageType::PushNotificationRegistration, payload, &key);
        assert_eq!(Segment::read(&raw.into()), None);
    }
}

#[test]
fn what_is_a_segment_is_told_by_hash_piece_and_number() {
    let good = SegmentMessage {
        entire_message_hash: vec![7; 32].into(),
        segments_count: 2,
        payload: vec![1].into(),
        ..Default::default()
    };
    let read = |message: SegmentMessage| Segment::read(&message.encode_to_vec().into());
    assert!(matches!(read(good.clone()), Some(Segment::Data { index: 0, count: 2, .. })));
    let parity = SegmentMessage { segments_count: 0, parity_segments_count: 1, ..good.clone() };
    assert_eq!(read(parity), Some(Segment::Parity));
    assert_eq!(read(SegmentMessage { entire_message_hash: vec![7; 31].into(), ..good.clone() }), None);
    assert_eq!(read(SegmentMessage { entire_message_hash: vec![7; 65].into(), ..good.clone() }), None);
    assert_eq!(read(SegmentMessage { payload: Bytes::new(), ..good.clone() }), None);
    assert_eq!(read(SegmentMessage { segments_count: 1, ..good.clone() }), None);
    assert_eq!(read(SegmentMessage { segments_count: 0, ..good }), None);
}

#[test]
fn duplicates_parity_and_wrong_indexes_do_no_harm() {
    let whole = message(1000, 1);
    let segments = segments(&whole, 400);
    let mut reassembly = Reassembly::new(BOUNDS);
    assert_eq!(reassembly.accept(segments[2].clone(), 0, 10), Accepted::Kept);
    assert_eq!(reassembly.accept(segments[2].clone(), 0, 11), Accepted::Duplicate);
    assert_eq!(reassembly.accept(Segment::Parity, 0, 12), Accepted::Ignored);
    let beyond = lying(&segments[0], |_, index, _, _| *index = 3);
    assert_eq!(
        reassembly.accept(beyond, 0, 13),
        Accepted::Refused(RefusedSegment::Index { index: 3, count: 3 })
    );
    assert_eq!(reassembly.accept(segments[0].clone(), 0, 14), Accepted::Kept);
    assert_eq!((reassembly.len(), reassembly.lowest_position()), (1, Some(10)));
    assert_eq!(reassembly.accept(segments[1].clone(), 0, 15), Accepted::Complete(whole.into()));
    assert_eq!((reassembly.len(), reassembly.bytes(), reassembly.lowest_position()), (0, 0, None));
}

#[test]
fn lies_about_the_number_do_not_spoil_the_honest_segments() {
    let whole = message(1000, 1);
    let segments = segments(&whole, 400);
    let mut reassembly = Reassembly::new(BOUNDS);
    for count in [2, 4, 8] {
        let lie = lying(&segments[0], |_, _, claimed, _| *claimed = count);
        assert_eq!(reassembly.accept(lie, 0, 0), Accepted::Kept);
    }
    let lie = lying(&segments[0], |_, _, claimed, _| *claimed = u32::MAX);
    assert_eq!(reassembly.accept(lie, 0, 0), Accepted::Refused(RefusedSegment::TooManySegments(u32::MAX)));
    let lie = lying(&segments[1], |_, _, claimed, _| *claimed = 2);
    assert_eq!(reassembly.accept(lie, 0, 0), Accepted::Refused(RefusedSegment::Hash));
    assert_eq!(reassembly.accept(segments[0].clone(), 0, 0), Accepted::Kept);
    assert_eq!(reassembly.accept(segments[1].clone(), 0, 0), Accepted::Kept);
    assert_eq!(reassembly.accept(segments[2].clone(), 0, 0), Accepted::Complete(whole.into()));
}

#[test]
fn a_forged_piece_costs_the_message_once() {
    let whole = message(800, 1);
    let segments = segments(&whole, 400);
    let mut reassembly = Reassembly::new(BOUNDS);
    let forged = lying(&segments[0], |_, _, _, piece| *piece = Bytes::from_static(b"forged"));
    assert_eq!(reassembly.accept(forged, 0, 0), Accepted::Kept);
    assert_eq!(reassembly.accept(segments[0].clone(), 0, 0), Accepted::Duplicate);
    assert_eq!(reassembly.accept(segments[1].clone(), 0, 0), Accepted::Refused(RefusedSegment::Hash));
    assert_eq!(reassembly.accept(segments[0].clone(), 0, 0), Accepted::Kept);
    assert_eq!(reassembly.accept(segments[1].clone(), 0, 0), Accepted::Complete(whole.into()));
}

#[test]
fn what_stays_incomplete_is_given_up() {
    let segments = segments(&message(800, 1), 400);
    let mut reassembly = Reassembly::new(BOUNDS);
    reassembly.accept(segments[0].clone(), 100, 0);
    assert_eq!(reassembly.expire(160), 0);
    assert_eq!(reassembly.expire(50), 0, "a clock that was set back gives nothing up");
    assert_eq!(reassembly.expire(161), 1);
    assert_eq!((reassembly.is_empty(), reassembly.bytes(), reassembly.given_up()), (true, 0, 1));
    assert_eq!(reassembly.accept(segments[1].clone(), 161, 0), Accepted::Kept);
}

#[test]
fn the_oldest_message_makes_room() {
    let mut reassembly = Reassembly::new(BOUNDS);
    let messages: Vec<_> = (0..4).map(|seed| message(800, seed)).collect();
    for (at, message) in (0..).zip(&messages) {
        assert_eq!(reassembly.accept(segments(message, 400)[0].clone(), at, at), Accepted::Kept);
    }
    assert_eq!((reassembly.len(), reassembly.given_up()), (3, 1));
    assert_eq!(reassembly.lowest_position(), Some(1));
    let last = segments(&messages[3], 400)[1].clone();
    assert!(matches!(reassembly.accept(last, 4, 4), Accepted::Complete(_)));
    let first = segments(&messages[0], 400)[1].clone();
    assert_eq!(reassembly.accept(first, 4, 4), Accepted::Kept, "its other half was given up");
}

#[test]
fn a_message_has_a_bound_of_bytes() {
    let mut reassembly = Reassembly::new(BOUNDS);
    let segments = segments(&message(4_500, 1), 1_500);
    assert_eq!(reassembly.accept(segments[0].clone(), 0, 0), Accepted::Kept);
    assert_eq!(reassembly.accept(segments[1].clone(), 0, 0), Accepted::Kept);
    assert_eq!(reassembly.accept(segments[2].clone(), 0, 0), Accepted::Refused(RefusedSegment::TooLong));
    assert_eq!(reassembly.bytes(), 0);
    // A message that may be longer than all together never completes, and never holds more than the bound.
    let mut reassembly = Reassembly::new(ReassemblyBounds { bytes: 2_000, ..BOUNDS });
    for segment in segments {
        reassembly.accept(segment, 0, 0);
        assert!(reassembly.bytes() <= 2_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn segments_are_joined_in_any_order(length in 2..4_000_usize, pieces in 2..=8_usize, order: [Index; 8]) {
        let whole = message(length, 1);
        let mut segments = segments(&whole, length.div_ceil(pieces).min(length - 1));
        let mut reassembly = Reassembly::new(BOUNDS);
        for order in order {
            let next = segments.swap_remove(order.index(segments.len()));
            let accepted = reassembly.accept(next, 0, 0);
            if segments.is_empty() {
                prop_assert_eq!(accepted, Accepted::Complete(whole.into()));
                break;
            }
            prop_assert_eq!(accepted, Accepted::Kept);
        }
    }

    /// Few hashes, so that claims meet.
    #[test]
    fn whatever_comes_the_bounds_hold(
        claims in proptest::collection::vec((0..6_u8, 0..5_u32, 1..10_u32, 1..3_000_usize, 0..30_u64), 1..60),
    ) {
        let mut reassembly = Reassembly::new(BOUNDS);
        let mut now = 0;
        for (hash, index, count, length, later) in claims {
            now += later;
            let piece = vec![7; length].into();
            reassembly.accept(Segment::Data { whole: [hash; 32], index, count, piece }, now, now);
            prop_assert!(reassembly.len() <= BOUNDS.messages && reassembly.bytes() <= BOUNDS.bytes);
            prop_assert_eq!(reassembly.is_empty(), reassembly.bytes() == 0);
            prop_assert!(reassembly.lowest_position().is_none_or(|lowest| lowest + BOUNDS.age_seconds >= now));
        }
        reassembly.expire(now + 61);
        prop_assert_eq!((reassembly.len(), reassembly.bytes()), (0, 0));
    }

    #[test]
    fn reading_never_panics(content: Vec<u8>) {
        let _ = Segment::read(&content.into());
    }
}
